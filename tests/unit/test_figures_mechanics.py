"""Figures and examples of mixing draw what was measured; the notebook shows it, or says what makes it."""

from pathlib import Path

import numpy as np
from synthetic_study import make_study
from test_report import drawn, run_notebook

from ngrpo.analysis.figures_mechanics import cosines_to_anchor, inputs_on_two_axes, trajectory
from ngrpo.files import write_json

STEP = {"index": 1, "candidates": [["c0", 0.75], ["c1", 0.25]], "cosine": 0.97}
EXAMPLE = {
    "problem_id": "00007",
    "problem": "1+2",
    "without": ["a", "b"],
    "mixed": ["a", "c0", "d"],
    "apart": 1,
    "steps": [STEP],
}
TOLD = {
    "spec": "0" * 12,
    "model": "toy",
    "rho": 0.1,
    "k": 2,
    "metric": "cosine",
    "sigma": 0.02,
    "explained": [0.5, 0.25],
    "examples": [EXAMPLE],
    "tokens": [
        {
            "token": name,
            "at": [x, 0.0],
            "mixtures": [[x + 0.1, 0.1]],
            "mixture_cosines": [0.97],
            "noise": [[x, 0.5], [x, -0.5]],
            "noise_cosines": [0.9, 0.8],
        }
        for name, x in (("$a", 0.0), (" ", 1.0))
    ],
}


def test_every_point_lies_where_it_was_measured() -> None:
    axes = inputs_on_two_axes(TOLD).axes[0]
    noise, mixtures, tokens = (c.get_offsets() for c in axes.collections)
    assert np.allclose(tokens, [[0, 0], [1, 0]])
    assert np.allclose(mixtures, [[0.1, 0.1], [1.1, 0.1]])
    assert len(noise) == 4
    assert {t.get_text() for t in axes.texts} == {r"\$a", "␣"}
    assert "50 %" in axes.get_xlabel()


def test_shares_below_a_cosine_rise_to_all() -> None:
    noise, mixtures = cosines_to_anchor(TOLD).axes[0].lines
    assert list(noise.get_xdata()) == [0.8, 0.8, 0.9, 0.9]
    assert list(noise.get_ydata()) == [25, 50, 75, 100]
    assert list(mixtures.get_ydata()) == [50, 100]


def test_a_trajectory_marks_its_mixed_steps() -> None:
    text = trajectory(EXAMPLE)
    for said in (
        "00007: 1+2",
        "without  ab",
        "mixing   a⟦c0⟧d",
        "from token 1 on",
        "0.7500 · c0 + 0.2500 · c1",
        "0.9700",
    ):
        assert said in text
    unmixed = trajectory({**EXAMPLE, "steps": [], "apart": None})
    assert "⟦" not in unmixed
    assert "never" in unmixed


def test_the_notebook_shows_what_was_measured_or_names_the_command(tmp_path: Path) -> None:
    study = make_study(tmp_path, problems=4)
    [run] = study.mixing_runs
    path = tmp_path / "toy" / "mechanics" / f"{run}.json"

    def told(name: str) -> tuple[int, str]:
        outputs = run_notebook("mechanics", tmp_path / "toy", tmp_path / f"{name}.ipynb")
        return drawn(outputs), "".join("".join(o.get("text", "")) for o in outputs)

    count, text = told("absent")
    assert count == 0
    assert f"{run}: not measured yet; made by: snakemake --cores 2 {path}" in text
    write_json(path, TOLD)
    count, text = told("stale")
    assert count == 0
    assert "another version of this run" in text
    write_json(path, {**TOLD, "spec": study.runs[run].digest})
    count, text = told("measured")
    assert count == 2
    assert "a⟦c0⟧d" in text
    assert "made by" not in text
