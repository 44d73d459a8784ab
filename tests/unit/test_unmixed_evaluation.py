"""Mixing is off in evaluation unless a decoding says so: validations and standard decoding, at every scale.

tests/workflow/test_training.py looks at the same promise in the requests of a real training.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ngrpo.errors import UserError
from ngrpo.study.expand import Study, load_study
from ngrpo.study.mixing import NeighborMixer, NoMixer
from ngrpo.study.specs import Decoding, RunSpec

CONFIG = Path(__file__).resolve().parents[2] / "config"


def mixed_unasked(study: Study) -> Iterator[str]:
    """Validations, and evaluations with standard decoding, that mix inputs."""
    for name, run in study.runs.items():
        if run.validation_decoding.mixer != NoMixer():
            yield name
    for name, evaluation in study.evaluations.items():
        if evaluation.decoding_id == "standard" and evaluation.decoding.mixer != NoMixer():
            yield name


@pytest.mark.parametrize("scale", [path.stem for path in sorted((CONFIG / "scales").glob("*.yaml"))])
def test_validation_and_standard_decoding_never_mix(scale: str) -> None:
    study = load_study(CONFIG, scale)
    assert any(run.exploration != NoMixer() for run in study.runs.values())
    assert list(mixed_unasked(study)) == []


def test_a_standard_decoding_that_mixes_would_be_seen() -> None:
    study = load_study(CONFIG, "toy")
    name = "ngrpo-toy/standard/toy-held-out"
    mixing = Decoding(mixer=NeighborMixer(kind="neighbors"))
    study.evaluations[name] = study.evaluations[name].model_copy(update={"decoding": mixing})
    assert list(mixed_unasked(study)) == [name]


def test_a_run_whose_validation_mixes_is_refused() -> None:
    run = load_study(CONFIG, "toy").runs["ngrpo-toy"]
    assert RunSpec(**dict(run)) == run
    with pytest.raises(UserError, match="validation would mix inputs"):
        RunSpec(**{**dict(run), "validation_decoding": Decoding(mixer=NeighborMixer(kind="neighbors"))})
