"""Another paper is a folder of configuration: Multiplex Thinking's study loads, and its claims name what is there."""

from pathlib import Path

import pytest

from ngrpo.study.expand import Study, load_study
from ngrpo.study.predicates import System, read_claims, systems_of

FOLDER = Path("papers/multiplex")


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study(FOLDER, "toy")


def asked(study: Study) -> set[System]:
    """Every system of its tables."""
    rows = [row for table in study.study.tables.values() for row in table.rows]
    return {System(method=row.method, decoding=row.decoding or "standard") for row in rows}


def test_every_policy_is_decoded_as_it_was_trained(study: Study) -> None:
    """But for the base model, which the paper decodes both ways; the control: the two ways differ."""
    for spec in study.evaluations.values():
        if (run := getattr(spec.policy, "exploration", None)) is not None:
            assert spec.decoding.mixer == run, spec.id
    assert len({spec.decoding.mixer for spec in study.evaluations.values()}) == 6


def test_claims_name_systems_of_its_tables(study: Study) -> None:
    claims = read_claims(FOLDER)
    assert len(claims) == 8
    assert all(claim.scale == "toy" for claim in claims.values())
    assert {system for claim in claims.values() for system in systems_of(claim.test)} <= asked(study)
    assert System(method="grpo") not in asked(study)


def test_it_takes_fewer_than_three_hundred_lines() -> None:
    assert sum(len(file.read_text().splitlines()) for file in FOLDER.rglob("*.yaml")) < 300
