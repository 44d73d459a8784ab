"""Trainings in bfloat16 on a CPU through verl: a healthy one runs through, each of seven faults stops it at its step.

What the engine's model read is compared input by input, and so those faults are found at the paper's ρ, with some
twenty mixed tokens in a step; the others are at ρ = 0.5.

`make test-faults`; of these, tests/workflow/test_training.py makes the healthy one and one fault.
"""

from concurrent.futures import ThreadPoolExecutor

import faults
import pytest
from tiny_runs import MIXING, STEPS, Run, make_files, make_run, tiny_spec

from ngrpo.statistics.mismatch import LIMITS
from ngrpo.study.mixing import NeighborMixer

pytestmark = [pytest.mark.train, pytest.mark.verl, pytest.mark.faults]

FAULTS = {
    "dropped": "is missing from the record (0 steps of",
    "shifted": "a mixing record can't be replayed",
    "foreign": "the record is another response's",
    "stale": "the engine missed an update",
    "wrong_table": "a mixed input isn't what the engine's model read",
    "unmixed": "a mixed input isn't what the engine's model read",
    "wrong_temperature": "as by another temperature",
}
"""Plugin of `faults`: what the run says."""
FEW = NeighborMixer(kind="neighbors", rho=0.1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Every run, made two at a time."""
    files, root = make_files(tmp_path_factory.mktemp("files")), tmp_path_factory.mktemp("runs")

    def make(name: str) -> Run:
        exploration = FEW if name in ("wrong_table", "unmixed") else MIXING
        return make_run(root / name, tiny_spec(exploration, limit=None), files, plugin=f"faults.{name}")

    names = ["healthy", *FAULTS]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(make, names), strict=True))


def test_a_healthy_training_in_bfloat16_runs_through(runs: dict[str, Run]) -> None:
    run = runs["healthy"]
    assert run.code == 0, run.said
    assert [row["step"] for row in run.metrics] == list(range(1, STEPS + 1))
    assert max(row["parity/max"] for row in run.metrics) > 1e-3  # the control: a float32 run's limit would stop it
    assert 0 < max(row["parity/input_deviation"] for row in run.metrics) < LIMITS["bfloat16"].inputs / 2


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_stops_the_training_at_its_step(runs: dict[str, Run], fault: str) -> None:
    run = runs[fault]
    assert run.code == 1
    assert FAULTS[fault] in run.said
    assert f"step {faults.STEP}" in run.said
    assert "Traceback" not in run.said
    assert [row["step"] for row in run.metrics] == list(range(1, faults.STEP))
    assert not (run.folder / "model").exists()
