"""Names: no two things of a study have one, and what is made keeps its own.

A run is called method-model (and -seedN), an evaluation policy/decoding/benchmark. What was made for an equal spec
under another name (its method or decoding was renamed, or another table comes first now) is found by the spec that lies
beside it, and keeps the name that it was made under.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from ngrpo.errors import UserError, nearest_name, unknown_name
from ngrpo.files import digest, read_json
from ngrpo.study.base import ID
from ngrpo.study.layout import DatasetFiles, EvaluationFiles, ModelFiles, NeighborTableFiles, Results, RunFiles

ANY = Results(Path())  # paths relative to the scale's results
AnyFiles = DatasetFiles | ModelFiles | NeighborTableFiles | RunFiles | EvaluationFiles

STAGES = (
    *("dataset", "model", "policy", "training_data", "neighbors", "diagnostics", "train", "sample", "predictions"),
    "grade",
    *("analyze", "notebook", "report", "crate", "decide"),
)
TARGETS = ("all", "demo", "fetch", "notebooks")
CLAIM = "claim-"  # before a claim's id: the target that makes what its verdict needs
DECIDE = "decide-"  # before a claim's id: the target that adds training seeds until it is decided
NOTEBOOKS = ("results", "ablations", "diagnostics", "reproducibility")


def asked(spec: Mapping[str, Any]) -> str:
    """The digest of a run's or evaluation's spec without the name that it was asked for under: equals are one job."""
    return _digest_of(json.dumps({**spec, "id" if spec["type"] == "run" else "decoding_id": ""}))


@lru_cache(maxsize=8192)
def _digest_of(compact: str) -> str:
    """Of JSON on one line: the same is asked for many times, and canonical JSON takes ten times as long to write."""
    return digest(json.loads(compact))


def but_for_ids(spec: Any) -> str:
    """The digest of a spec without any id in it: of what was made before a model or data set was renamed, too."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(inner) for key, inner in value.items() if key not in ("id", "decoding_id")}
        return [without(inner) for inner in value] if isinstance(value, list) else value

    return digest(without(spec))


def made_names(results: Path | None, key: Callable[[Any], str] = asked) -> dict[str, list[str]]:
    """Of every run and evaluation below the results: the digest (by key) of what it was made for, and its names."""
    names: dict[str, list[str]] = {}
    for pattern in (ANY.run("*").spec, ANY.evaluation("*/*/*").spec) if results else ():
        for path in sorted(cast(Path, results).glob(str(pattern))):
            parts = path.relative_to(cast(Path, results)).parts
            ids = parts[1:2] if len(parts) == 3 else (*parts[1:3], parts[3].removesuffix(".spec.json"))
            try:
                made = key(read_json(path))
            except (UserError, KeyError, TypeError):
                continue  # not a spec that this version knows: it answers to no name
            if all(re.fullmatch(ID, part) for part in ids):
                names.setdefault(made, []).append("/".join(ids))
    return names


def name_of(wanted: str, made: Iterable[str]) -> str:
    """The name of what is asked for under one name and was made under others: its own, where that is among them."""
    there = list(made)
    return wanted if wanted in there or not there else there[0]


def unknown_word(kind: str, name: str, known: Iterable[str], scale: str, claims: Mapping[str, str]) -> UserError:
    """The error for a word of Snakemake's command line that names none of its rules. kind: "target", or "rule"; claims:
    the scale of every claim."""
    names, claim = list(known), name.removeprefix(CLAIM).removeprefix(DECIDE)
    if claim != name and claim in claims:
        where, do = f"the command line, at scale {scale}", f"ask for it there: --config scale={claims[claim]}"
        return UserError(f"claim '{claim}' is one of scale {claims[claim]}", where=where, do=do)
    if not nearest_name(name, names):  # two of every claim would be the nearest to anything
        names = [each for each in names if not each.startswith((CLAIM, DECIDE))]
    listed_by = f"snakemake --list-{'target-' * (kind == 'target')}rules --config scale={scale}"
    return unknown_name(kind, name, names, where=f"the command line, at scale {scale}", listed_by=listed_by)


LONGEST_PART = 180
"""Characters of a file's name: file systems take 255, of which a temporary name needs some."""


@dataclass
class Names:
    """Who has which name, so that a second one is refused."""

    where: object
    owners: dict[str, tuple[object, str]]

    def take(self, name: str, owner: object, what: str) -> None:
        """Give a name to an owner; what: the owner in words. Raises UserError where another owner has it."""
        other, words = self.owners.setdefault(name, (owner, what))
        if other != owner:
            raise UserError(
                f"'{name}' would be the name of {words} and of {what}",
                where=self.where,
                do="rename one of them; what is made already keeps the name that it was made under",
            )


def check_targets(kinds: Mapping[str, Iterable[str]], datasets: Iterable[str], where: object) -> None:
    """Raises UserError where two things that can be asked for by name share it, or where one is a rule's name."""
    names = Names(where, {})
    for kind, rules in (("a stage of the workflow", STAGES), ("a target of the workflow", TARGETS)):
        for rule in rules:
            names.take(rule, rule, kind)
    for dataset in datasets:
        names.take(f"sample-{dataset}", f"sample-{dataset}", "the stage that draws that benchmark's samples")
    for kind, own in kinds.items():
        for name in own:
            if taken := next((start for start in (CLAIM, DECIDE) if name.startswith(start)), ""):
                raise UserError(
                    f"a {kind} is called '{name}', and '{taken}…' are the targets of claims",
                    where=where,
                    do="rename it",
                )
            names.take(name, (kind, name), f"a {kind}")


def check_files(owners: Mapping[str, Iterable[Path]], where: object) -> None:
    """Raises UserError where files of two owners would be one, where one's file would be another's folder, and where a
    name is longer than file systems take.

    owners: files and folders, relative to the results, of each thing in words.
    """
    taken: dict[Path, str] = {}
    for what, paths in owners.items():
        for path in paths:
            if long := next((part for part in path.parts if len(part) > LONGEST_PART), None):
                raise UserError(
                    f"{what} would be at a name of {len(long)} characters, and file systems take few more than"
                    f" {LONGEST_PART}: {long}",
                    where=where,
                    do="choose shorter ids",
                )
            if (other := taken.setdefault(path, what)) != what:
                raise _same_place(path, other, what, where)
    for path, what in taken.items():
        for folder in path.parents:
            if (other := taken.get(folder, what)) != what:
                raise _same_place(folder, other, what, where)


def _same_place(path: Path, one: str, other: str, where: object) -> UserError:
    return UserError(f"{one} and {other} would both be at {path}", where=where, do="rename one of them")


def files_of(files: AnyFiles) -> list[Path]:
    """Every path of one thing of the layout, its whole folder where it has one for itself."""
    named = (getattr(files, name) for name, kind in vars(type(files)).items() if isinstance(kind, property))
    return [*([files.folder] if isinstance(files, ModelFiles | RunFiles) else ()), *named]
