"""How many training seeds a trained policy comes with: those that tables and claims ask for, and those that are there.

Seeds are the study's own number and those after it. Which evaluations they are added to: ngrpo.study.expand.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ngrpo.errors import unknown_name
from ngrpo.study.base import Id
from ngrpo.study.config import ScaleFile, StudyFile, check_seeds
from ngrpo.study.layout import Results
from ngrpo.study.predicates import (
    FILE,
    PAPER,
    Claim,
    Compared,
    Diagnosed,
    systems_of,
)


@dataclass(frozen=True)
class Measured:
    """What an evaluation of a trained policy measures."""

    method: Id
    decoding: Id
    model: Id
    benchmark: Id


def seeds_of_table(table: str, study: StudyFile, size: ScaleFile) -> int:
    """The training seeds of a table's policies: the scale's word on it, else the table's own, else every table's."""
    return size.table_seeds.get(table) or study.tables[table].seeds or size.seeds


def counted(first: int, number: int) -> range:
    """The further seeds of so many."""
    return range(first + 1, first + number)


def judged(claim: Claim, scale: str, size: ScaleFile) -> bool:
    """Whether a claim gets a verdict at a scale: the paper's where its numbers count as evidence about the paper, a
    scale's own at that scale."""
    return size.verdicts if claim.scale == PAPER else claim.scale == scale


def scales_of(folder: Path | None) -> set[str]:
    """The scales that a claim may be of: those of the configuration and the paper's. Empty where the folder is a copy
    (a job's, a crate's), which holds its own scale alone and can say nothing of others."""
    names = {path.stem for path in folder.glob("scales/*.yaml")} if folder else set()
    return {*names, PAPER} if len(names) > 1 else set()


def check_scales(claims: Iterable[tuple[str, Claim]], folder: Path) -> None:
    """Raises UserError, with the nearest one, for a claim of a scale that there isn't."""
    scales = scales_of(folder)
    for name, claim in claims:
        if scales and claim.scale not in scales:
            raise unknown_name("scale", claim.scale, scales, where=f"{folder / FILE}: claims.{name}.scale")


def wanted_by_claims(
    claims: Iterable[tuple[str, Claim]], scale: str, size: ScaleFile, where: Path
) -> Iterator[tuple[Claim, int]]:
    """The claims that ask for training seeds of their own, and how many.

    Raises UserError where one asks for more than the scale allows. where: the configuration folder.
    """
    for name, claim in claims:
        if claim.seeds is not None and judged(claim, scale, size):
            check_seeds(claim.seeds, size, f"{where / FILE}: claims.{name}.seeds")
            yield claim, claim.seeds


def measured_by(claim: Claim) -> Iterator[Measured]:
    """The evaluations of trained policies that a claim compares."""
    test = claim.test
    if isinstance(test, Compared):
        for system in systems_of(test):
            for benchmark in test.benchmarks if system.method else ():
                yield Measured(system.method or "", system.decoding, test.model, benchmark)


def logged_by(claim: Claim) -> list[str]:
    """The methods whose training logs a claim reads."""
    if isinstance(claim.test, Compared | Diagnosed):
        return []
    return [system.method for system in systems_of(claim.test) if system.method]


def seeds_there(results: Results) -> list[int]:
    """The seeds for which some evaluation was begun, by its policy's name."""
    names = (path.name for path in results.root.glob("evaluations/*-seed*"))
    return sorted({int(match[1]) for name in names if (match := re.search(r"-seed(\d+)$", name))})
