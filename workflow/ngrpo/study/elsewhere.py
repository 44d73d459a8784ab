"""What was trained or drawn elsewhere, as rows of a table name it: a policy on the hub or in a folder, or predictions.

A spec holds what they are and not where they lie: a hub's commit, or the SHA-256 of what is in the user's files. So a
file that changed is another policy, and one that moved is the same.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from ngrpo.errors import UserError
from ngrpo.study.base import Config, Id, PathText
from ngrpo.study.contents import Contents
from ngrpo.study.sources import Repo
from ngrpo.study.specs import ModelSpec, PolicySpec, PredictionsSpec

ADAPTER = "adapter_config.json"
"""What makes a folder an adapter of PEFT's: changes of a base model's weights, and no model of their own."""
DIGITS = 8
"""Of a spec's digest in the name of what came from elsewhere."""

Predictions = PathText | dict[Id, PathText]


class Policy(Config):
    """A policy that was trained elsewhere: a model on the Hugging Face hub, or in a folder."""

    hub: Repo | None = None
    """owner/name on the hub."""
    revision: Annotated[str, Field(pattern="^[0-9a-f]{40}$")] | None = None
    """The hub's commit, 40 hexadecimal digits."""
    folder: PathText | None = None
    """A Hugging Face folder that is already there."""
    base: Id | None = None
    """The base model of the scale that it was trained from; an adapter is merged with it. None: the row's model, where
    it has one alone."""
    tokenizer: Literal["base", "own"] = "base"
    """Whose tokenizer and chat template ask it; with the base model's its own must have the same tokens."""

    @model_validator(mode="after")
    def _lies_at_one_place(self) -> "Policy":
        if (self.hub is None) == (self.folder is None):
            raise PydanticCustomError("policy", "name either `hub`, with its `revision`, or `folder`")
        if (self.hub is None) != (self.revision is None):
            raise PydanticCustomError("policy", "`hub` and `revision` (a commit) go together")
        return self


def model_of(policy: Policy, models: tuple[str, ...], where: object) -> str:
    """The base model in whose part of a table a policy stands. Raises UserError where none is named, or several are."""
    if policy.base is not None:
        return policy.base
    if len(models) == 1:
        return models[0]
    raise UserError(
        f"a policy from elsewhere was trained from one model, and this row stands for {len(models)}",
        where=where,
        do=f"name it, as `base: {models[0]}` beside the folder or repository",
    )


def policy_spec(policy: Policy, model: ModelSpec, contents: Contents, where: object) -> PolicySpec:
    """What such a policy is. Raises UserError for a folder that isn't there, and an adapter without its base."""
    if policy.folder is not None:
        folder = Path(policy.folder).expanduser()
        if (folder / ADAPTER).is_file() and policy.base is None:
            raise adapter_alone(folder)
    wanted = PolicySpec(
        id="policy",
        model=model,
        hub=policy.hub,
        revision=policy.revision,
        content=contents.of(policy.folder, where) if policy.folder is not None else None,
        merge=policy.base is not None or None,
        own_tokenizer=policy.tokenizer == "own" or None,
    )
    return wanted.model_copy(update={"id": _name(policy.hub or str(policy.folder), wanted.digest)})


def adapter_alone(where: object) -> UserError:
    """An adapter whose base nobody named."""
    return UserError(
        f"this is an adapter ({ADAPTER}): changes of another model's weights, and no model",
        where=where,
        do="name the base model that it was trained from, as `base: MODEL` beside it, and it is merged",
    )


def predictions_spec(path: str, contents: Contents, where: object) -> PredictionsSpec:
    """What samples of a file are. Raises UserError for a file that isn't there."""
    content = contents.of(path, where)
    return PredictionsSpec(id=_name(Path(path).stem, content), sha256=content)


def file_of(predictions: Predictions, benchmark: str, benchmarks: tuple[str, ...], where: object) -> str:
    """The file of predictions on a benchmark. Raises UserError where one file is named for several benchmarks."""
    named = predictions if isinstance(predictions, dict) else dict.fromkeys(benchmarks, predictions)
    if benchmark not in named or (isinstance(predictions, str) and len(benchmarks) > 1):
        listed = ", ".join(f"{name}: FILE" for name in benchmarks)
        raise UserError(
            f"the table's {len(benchmarks)} benchmarks take a file of predictions each",
            where=where,
            do=f"write `predictions: {{{listed}}}`",
        )
    return named[benchmark]


def name_of_place(place: str) -> str:
    """What lies in a folder or on the hub is called there, as an id."""
    parts = [part for part in Path(place).parts if part not in ("/", "..", ".")]
    # a folder `…/runs/my-run/model` says more by its parent
    words = re.sub(r"[^a-z0-9.]+", "-", "-".join(parts[-2:]).lower())
    return words.strip(".-")[:60].strip(".-") or "policy"


def _name(source: str, content: str) -> str:
    """An id: what it is called where it lies, and digits of what it is."""
    return f"{name_of_place(source)}-{content[:DIGITS]}"
