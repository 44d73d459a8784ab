"""What a claim's verdict needs: which files of a study, with every training seed, and none besides."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ngrpo.claims.at_scale import at_scale, check_names, shown_here
from ngrpo.claims.predicates import FILE, Claim, Compared, Diagnosed, Predicate, System, read_claims, systems_of
from ngrpo.errors import UserError, unknown_name
from ngrpo.study.expand import BELOW, Study
from ngrpo.study.naming import CLAIM
from ngrpo.study.paper_values import PaperValues, read_paper_values

TARGET = CLAIM
"""What Snakemake calls a claim's target: this and the claim's id."""


def training_seeds(study: Study) -> tuple[int | None, ...]:
    """The seeds that every trained policy comes with; None: the study's own."""
    return (None, *study.size.extra_seeds)


def claim_names(study: Study) -> list[str]:
    """The ids of the claims that a study's scale shows, in their order. Raises UserError for a file that can't be
    read."""
    claims = read_claims(study.folder) if study.folder else {}
    return [name for name, claim in claims.items() if shown_here(claim, study)]


def claim_files(name: str, study: Study) -> list[Path]:
    """What the verdict on a claim of the study's configuration is computed from: see `evidence_files`.

    Raises UserError, with the nearest one, where there is no such claim.
    """
    assert study.folder, "a study without a configuration folder has no claims"
    claims = read_claims(study.folder)
    if name not in claims:
        raise unknown_name("claim", name, claims, where=FILE)
    return evidence_files(name, claims[name], study, read_paper_values(study.folder))


def evidence_files(name: str, claim: Claim, study: Study, paper: PaperValues | None) -> list[Path]:
    """What the verdict on a claim is computed from, relative to the study's results: grades, runs' models (their logs
    come with them), diagnostics.

    Raises UserError, saying what is wrong, for a claim that names what doesn't exist or can't be asked at this scale.
    """
    check_names(name, claim, study, paper)
    return list(dict.fromkeys(_files(name, at_scale(claim, study), study)))


def _files(name: str, test: Predicate, study: Study) -> Iterator[Path]:
    if isinstance(test, Compared):
        for system in systems_of(test):
            yield from _grades(system, test.model, test.benchmarks, name, study)
        return
    seeds = (None,) if isinstance(test, Diagnosed) else training_seeds(study)
    for system in systems_of(test):
        for seed in seeds:
            run = study.run_id(str(system.method), test.model, seed)
            if run is None:
                raise _unmeasured(f"trains {system.method} on {test.model}", name, study)
            yield BELOW.diagnostics(run) if isinstance(test, Diagnosed) else BELOW.run(run).model


def _grades(system: System, model: str, benchmarks: Sequence[str], name: str, study: Study) -> Iterator[Path]:
    for benchmark in benchmarks:
        for seed in training_seeds(study) if system.method else (None,):
            evaluation = study.evaluation_id(system.method, system.decoding, model, benchmark, seed)
            if evaluation is None:
                who = system.method or "the base model"
                raise _unmeasured(f"measures {who} with {system.decoding} decoding on {benchmark}", name, study)
            yield BELOW.evaluation(evaluation).grades


def _unmeasured(what: str, name: str, study: Study) -> UserError:
    return UserError(
        f"no table of scale {study.scale} {what}",
        where=f"{FILE}: claims.{name}",
        do="add a row to a table of study.yaml that this scale makes",
    )
