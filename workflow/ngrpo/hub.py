"""The Hugging Face hub: what its cache holds, what is fetched from it, and what goes wrong there as a user's mistake.

`cached_snapshot` alone decides whether something is in the cache: stages take it from there without asking the hub, and
`ngrpo doctor` says so. It needs the standard library alone.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from ngrpo.errors import Unfinished, UserError

Kind = Literal["model", "dataset"]
SAID = {"model": "model", "dataset": "data set"}
MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
"""What is taken of a model folder: no pickled weights and no code."""
DATA_FILES = tuple(f"*.{end}{gz}" for end in ("parquet", "json", "jsonl", "csv", "tsv", "txt") for gz in ("", ".gz"))
"""What is taken of a data set's repository, beside its README, which says which file is which split."""
COMMIT = re.compile(r"[0-9a-f]{40}")
PART = re.compile(r"-(?P<number>\d{5})-of-(?P<all>\d{5})\.")


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit: whoever fetches it gets the same bytes."""
    return COMMIT.fullmatch(revision) is not None


def is_offline() -> bool:
    """Whether the hub is not to be asked, by its library's own variables."""
    asked = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return asked.upper() in ("1", "TRUE", "YES", "ON")


def cache_folder() -> Path:
    """The hub's cache, by its library's own rules."""
    known = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if known:
        return Path(known).expanduser()
    home = os.environ.get("HF_HOME")
    if not home:
        home = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(home).expanduser() / "hub"


def cached_snapshot(kind: Kind, repo: str, revision: str) -> Path | None:
    """The folder of a revision in the hub's cache, where all of it is there; None otherwise.

    A branch or tag is what it was when it was last fetched.
    """
    folder = cache_folder() / f"{kind}s--{repo.replace('/', '--')}"
    commit = revision
    if not is_commit(revision):
        try:
            commit = (folder / "refs" / revision).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
    snapshot = folder / "snapshots" / commit
    whole = _is_whole_model if kind == "model" else _is_whole_dataset
    return snapshot if snapshot.is_dir() and whole(snapshot) else None


def _is_whole_model(folder: Path) -> bool:
    """Whether configuration, tokenizer and every file of weights are there."""
    if not all((folder / name).exists() for name in ("config.json", "tokenizer_config.json")):
        return False
    indexes = list(folder.glob("*.safetensors.index.json"))
    if not indexes:
        return any(path.exists() for path in folder.glob("*.safetensors"))
    try:
        named = {name for path in indexes for name in json.loads(path.read_bytes())["weight_map"].values()}
    except (OSError, ValueError, KeyError, AttributeError):
        return False
    return all((folder / name).exists() for name in named)


def _is_whole_dataset(folder: Path) -> bool:
    """Whether files of rows are there: none a link to what isn't, none of numbered parts (00001-of-00004) missing."""
    files = [path for pattern in DATA_FILES for path in folder.rglob(pattern)]
    parts: dict[tuple[str, str], set[int]] = {}
    for path in files:
        if part := PART.search(path.name):
            parts.setdefault((path.name[: part.start()], part["all"]), set()).add(int(part["number"]))
    whole = all(len(numbers) == int(count) for (_, count), numbers in parts.items())
    return bool(files) and whole and all(path.exists() for path in files)


def fetch(kind: Kind, repo: str, revision: str, *, into: Path | None = None) -> tuple[Path, str]:
    """A revision's files and its commit, from the hub or from its cache.

    The cache is asked first for a model's commit, whose index says whether all is there; for a data set, whose other
    files nobody names, and for a branch only where the hub is offline or can't be reached. into: where files fetched
    from the hub go; None: its cache. Raises UserError where neither has it.
    """
    cached = cached_snapshot(kind, repo, revision)
    if cached and (is_offline() or (kind == "model" and is_commit(revision))):
        return cached, cached.name
    if is_offline():
        what = "as HF_HUB_OFFLINE says"
        raise _unreachable(kind, repo, revision, f"{what}; {cache_folder()} doesn't hold all of this revision")
    from huggingface_hub import HfApi, snapshot_download

    patterns = list(MODEL_FILES if kind == "model" else (*DATA_FILES, "README.md"))
    try:
        with reaching_hub(kind, repo, revision):
            commit = HfApi().repo_info(repo, repo_type=kind, revision=revision).sha
            folder = snapshot_download(repo, repo_type=kind, revision=commit, local_dir=into, allow_patterns=patterns)
    except Unfinished:
        if cached is None:
            raise
        return cached, cached.name
    return Path(folder), str(commit)


def _unreachable(kind: Kind, repo: str, revision: str, why: str) -> UserError:
    option = " --repo-type dataset" if kind == "dataset" else ""
    return UserError(
        f"the hub can't be reached: {why}",
        where=f"{repo} at {revision}",
        do="where there is network run `snakemake fetch`, or with HF_HOME on a disk that both see "
        f"`huggingface-cli download {repo} --revision {revision}{option}`; or name a folder of yours as its source",
    )


@contextmanager
def reaching_hub(kind: Kind, repo: str, revision: str) -> Iterator[None]:
    """Turn the hub's errors into UserErrors."""
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
            f"the hub has no such {SAID[kind]}, or it is gated and your token doesn't open it",
            where=repo,
            do="check the id; accept its terms and log in with `huggingface-cli login`",
        ) from None
    except RevisionNotFoundError:
        raise UserError(
            f"the {SAID[kind]} has no revision '{revision}'", where=repo, do="name one of its commits"
        ) from None
    except HFValidationError as e:
        raise UserError(f"not a hub id: {e}", where=repo, do="write it as owner/name") from None
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as e:
        error = _unreachable(kind, repo, revision, str(e))
        raise Unfinished(error.what, where=error.where, do=error.do) from None
