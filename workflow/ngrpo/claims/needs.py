"""What a claim's verdict needs: which files of a study, with which training seeds, and none besides."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ngrpo.claims.at_scale import at_scale, check_names, shown_here
from ngrpo.errors import UserError, unknown_name
from ngrpo.study.expand import Study
from ngrpo.study.naming import CLAIM
from ngrpo.study.paper_values import PaperValues, read_paper_values
from ngrpo.study.predicates import (
    FILE,
    Claim,
    Compared,
    Diagnosed,
    Predicate,
    System,
    compared_with,
    read_claims,
    said_of,
)
from ngrpo.study.products import BELOW
from ngrpo.study.seeds import counted

TARGET = CLAIM
"""What Snakemake calls a claim's target: this and the claim's id."""


def system_seeds(system: System, test: Predicate, study: Study) -> set[int]:
    """The training seeds that a trained system comes with on all that a predicate looks at; the study's own where
    nothing asks for it."""
    if isinstance(test, Diagnosed):
        return {study.first_seed}
    if not isinstance(test, Compared):
        run = study.run_id(str(system.method), test.model)
        return study.seeds_of_runs[run] if run else {study.first_seed}
    return study.common_seeds(system.method or "", system.decoding, test.model, test.benchmarks)


def needed_seeds(test: Predicate, study: Study, number: int | None = None) -> dict[System, set[int]]:
    """The training seeds of each trained system: those that it has in common with one that it is compared with.

    number: of training seeds that each has; None: as many as the study gives it.
    """
    needed: dict[System, set[int]] = {}
    for pair in compared_with(test):
        trained = [system for system in pair if system.method]
        if number is not None and not isinstance(test, Diagnosed):
            common = {study.first_seed, *counted(study.first_seed, number)}
        else:
            common = set.intersection(*(system_seeds(s, test, study) for s in trained)) if trained else set()
        for system in trained:
            needed.setdefault(system, set()).update(common)
    return needed


def least_seeds(test: Predicate, study: Study) -> int:
    """The training seeds of a claim's comparison that has the fewest; 1 where nothing is trained."""
    pairs = [[system for system in pair if system.method] for pair in compared_with(test)]
    return min(
        (len(set.intersection(*(system_seeds(s, test, study) for s in pair))) for pair in pairs if pair), default=1
    )


def claim_names(study: Study) -> list[str]:
    """The ids of the claims that a study's scale shows, in their order. Raises UserError for a file that can't be
    read."""
    claims = read_claims(study.folder) if study.folder else {}
    return [name for name, claim in claims.items() if shown_here(claim, study)]


def claim_scales(study: Study) -> dict[str, str]:
    """Every claim of the configuration with the scale whose it is."""
    return {name: claim.scale for name, claim in (read_claims(study.folder) if study.folder else {}).items()}


def check_claims(names: Iterable[str], study: Study) -> None:
    """Raises UserError, with the nearest one, for a name in `--config decide=` that is no claim's."""
    claims = claim_scales(study)
    for name in names:
        if name not in claims:
            raise unknown_name("claim", name, claims, where="--config decide=", listed_by="ngrpo claim")


def claim_files(name: str, study: Study, *, most: int | None = None, number: int | None = None) -> list[Path]:
    """What the verdict on a claim of the study's configuration is computed from: see `evidence_files`.

    Raises UserError, with the nearest one, where there is no such claim.
    """
    assert study.folder, "a study without a configuration folder has no claims"
    claims = read_claims(study.folder)
    if name not in claims:
        raise unknown_name("claim", name, claims, where=FILE, listed_by="ngrpo claim")
    return evidence_files(name, claims[name], study, read_paper_values(study.folder), most=most, number=number)


def evidence_files(
    name: str,
    claim: Claim,
    study: Study,
    paper: PaperValues | None,
    *,
    most: int | None = None,
    number: int | None = None,
) -> list[Path]:
    """What the verdict on a claim is computed from, relative to the study's results: grades, runs' models (their logs
    come with them), diagnostics.

    most: training seeds beyond which nothing is asked for; number: of training seeds of every system, instead of those
    that the study gives them. Raises UserError, saying what is wrong, for a claim that names what doesn't exist or
    can't be asked at this scale.
    """
    check_names(name, claim, study, paper)
    test = at_scale(claim, study)
    seeds = {system: sorted(each)[:most] for system, each in needed_seeds(test, study, number).items()}
    return list(dict.fromkeys(_files(name, test, seeds, study)))


def _files(name: str, test: Predicate, seeds: dict[System, list[int]], study: Study) -> Iterator[Path]:
    """The files of every system, with the seeds of its own."""
    for system in dict.fromkeys(system for pair in compared_with(test) for system in pair):
        for seed in seeds.get(system, [study.first_seed]):
            further = None if seed == study.first_seed else seed
            if isinstance(test, Compared):
                yield from _grades(system, test.model, test.benchmarks, further, name, study)
                continue
            run = study.run_id(str(system.method), test.model, further)
            if run is None:
                raise _unmeasured(f"trains {system.method} on {test.model}", name, study)
            yield BELOW.diagnostics(run) if isinstance(test, Diagnosed) else BELOW.run(run).model


def _grades(
    system: System, model: str, benchmarks: Sequence[str], seed: int | None, name: str, study: Study
) -> Iterator[Path]:
    for benchmark in benchmarks:
        evaluation = study.evaluation_of(system, model, benchmark, seed)
        if evaluation is None:
            raise _unmeasured(f"measures {said_of(system)} on {benchmark}", name, study)
        yield BELOW.evaluation(evaluation).grades


def _unmeasured(what: str, name: str, study: Study) -> UserError:
    return UserError(
        f"no table of scale {study.scale} {what}",
        where=f"{FILE}: claims.{name}",
        do="add a row to a table of study.yaml that this scale makes",
    )
