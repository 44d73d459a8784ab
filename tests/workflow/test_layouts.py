"""Training on one rank, on two, and with an engine shared by two (TP 2), each killed and resumed in the middle.

Every mixer × every layout: six steps through real verl and sglang on CPU. What a layout may change is rounding, so
tokens can part after the first update; what it may not change is parity and the gate's draws.
"""

import itertools
import pickle
from pathlib import Path

import pytest
from tiny_runs import MIXING, STEPS, Run, make_files, make_run, tiny_spec

from ngrpo.errors import UserError
from ngrpo.method.records import Record
from ngrpo.study.mixing import GaussianMixer, GumbelMixer, NoMixer
from ngrpo.training.verl.recipe import Ranks

pytestmark = [pytest.mark.train, pytest.mark.verl]

LAYOUTS = {
    "1 rank": {"devices": 1, "tensor_parallel": 1},
    "2 ranks": {"devices": 2, "tensor_parallel": 1},
    "TP 2": {"devices": 2, "tensor_parallel": 2},
}
MIXERS = {
    "neighbors": MIXING,
    "none": NoMixer(),
    "gaussian": GaussianMixer(kind="gaussian"),
    "gumbel": GumbelMixer(kind="gumbel"),
}
MATRIX = [
    pytest.param(mixer, layout, marks=() if mixer == "neighbors" and layout != "1 rank" else pytest.mark.layouts)
    for mixer in MIXERS
    for layout in LAYOUTS
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    """Make each run once: run(mixer, layout)."""
    files, made = make_files(tmp_path_factory.mktemp("files")), {}

    def get(mixer: str, layout: str, **options) -> Run:
        key = (mixer, layout, *options)
        if key not in made:
            folder = tmp_path_factory.mktemp("run")
            spec = tiny_spec(MIXERS[mixer])
            made[key] = make_run(folder, spec, files, plugin="keeping_draws", **LAYOUTS[layout], **options)
        return made[key]

    return get


def draws(run: Run, step: int) -> list[Record]:
    """The records of a step's rollout, in the order of the whole batch."""
    parts = sorted((run.folder / "draws").glob(f"{step}-*.pickle"), key=lambda p: int(p.stem.split("-")[1]))
    return [Record.unpack(packed) for part in parts for packed in pickle.loads(Path(part).read_bytes())]


def gate(a: Record, b: Record) -> tuple[list[int], list[int]]:
    """Both responses' mixed positions, as far as both responses go."""
    end = min(a.length, b.length) - 1
    return [i for i in a.index.tolist() if i < end], [i for i in b.index.tolist() if i < end]


@pytest.mark.parametrize(("mixer", "layout"), MATRIX)
def test_parity_holds_in_every_layout_through_a_resume(run, mixer: str, layout: str) -> None:
    made = run(mixer, layout, kill=True)
    assert made.code == 0, made.said
    assert "resuming after step" in made.said
    assert [row["step"] for row in made.metrics] == list(range(1, STEPS + 1))
    assert max(row["parity/max"] for row in made.metrics) <= 1e-4
    assert max(row["parity/mean"] for row in made.metrics) <= 5e-6


@pytest.mark.parametrize("layout", ["2 ranks", "TP 2"])
def test_the_gate_draws_the_same_in_every_layout(run, layout: str) -> None:
    alone, together = run("neighbors", "1 rank", kill=True), run("neighbors", layout, kill=True)
    for step in range(1, STEPS + 1):
        ours, theirs = draws(alone, step), draws(together, step)
        assert len(ours) == len(theirs) == 32
        for a, b in zip(ours, theirs, strict=True):
            first, second = gate(a, b)
            assert first == second
    first = zip(draws(alone, 1), draws(together, 1), strict=True)
    assert sum(a.digest == b.digest for a, b in first) >= 30  # the same weights: the same responses, but for rounding


def test_another_step_or_row_draws_otherwise(run) -> None:
    """The negative control of the comparison above."""
    made = run("neighbors", "1 rank", kill=True)
    pairs = [gate(a, b) for a, b in zip(draws(made, 1), draws(made, 2), strict=True)]
    rows = draws(made, 1)
    pairs += [gate(a, b) for a, b in itertools.pairwise(rows)]
    assert sum(a == b for a, b in pairs) < len(pairs) / 4


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        (Ranks(2, 3), "2 devices don't make engines of 3"),
        (Ranks(0, 1), "0 devices"),
        (Ranks(5, 1), "8 prompts × 4 responses don't divide among 5 devices"),
    ],
)
def test_a_layout_that_does_not_divide_is_refused(ranks: Ranks, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ranks.check(tiny_spec(MIXING))
