"""What goes wrong at the Hugging Face hub, said as a user's mistake."""

from collections.abc import Iterator
from contextlib import contextmanager

from ngrpo.errors import Unfinished, UserError


@contextmanager
def reaching_hub(what: str, repo: str, revision: str) -> Iterator[None]:
    """Turn the hub's errors into UserErrors; what: "model" or "data set"."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except RepositoryNotFoundError:
        raise UserError(
            f"the hub has no such {what}, or it is gated and your token doesn't open it",
            where=repo,
            do="check the id; accept its terms and log in with `huggingface-cli login`",
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"the {what} has no revision '{revision}'", where=repo, do="name one of its commits") from None
    except HFValidationError as e:
        raise UserError(f"not a hub id: {e}", where=repo, do="write it as owner/name") from None
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as e:
        raise Unfinished(
            f"the hub can't be reached: {e}",
            where=repo,
            do=f"fetch it on a node with network first, or use a {what} of kind `folder`",
        ) from None
