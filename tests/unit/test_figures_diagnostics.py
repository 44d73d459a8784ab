"""Figures and examples of mixing draw what was measured; the notebook shows it, or says what makes it."""

import re
from pathlib import Path

import numpy as np
import pytest
from synthetic_study import DIAGNOSTICS, make_study
from test_gallery import unthemed
from test_report import drawn, run_notebook
from unwritten import page_html

from ngrpo.claims.verdicts import judge_claims
from ngrpo.files import write_json
from ngrpo.report.diagnostics import Share, examples, read_diagnostics, totals, trajectory
from ngrpo.report.drawing import THEME, svg
from ngrpo.report.figures_diagnostics import cosines_to_anchor, inputs_on_two_axes, nearest_after_noise
from ngrpo.study.layout import Results

EXAMPLE = DIAGNOSTICS["examples"][0]


def test_every_point_lies_where_it_was_measured() -> None:
    axes = inputs_on_two_axes(DIAGNOSTICS).axes[0]
    noise, mixtures, tokens = (c.get_offsets() for c in axes.collections)
    assert np.allclose(tokens, [[0, 0], [1, 0]])
    assert np.allclose(mixtures, [[0.1, 0.1], [1.1, 0.1]])
    assert len(noise) == 4
    assert {t.get_text() for t in axes.texts} == {r"\$a", "␣"}
    assert "50 %" in axes.get_xlabel()


def test_lines_lead_from_a_token_over_noise_to_the_nearest_token() -> None:
    axes = nearest_after_noise(DIAGNOSTICS).axes[0]
    ends = [[tuple(map(float, point)) for point in zip(*line.get_data(), strict=True)] for line in axes.lines]
    assert ends[:2] == [[(0.0, 0.0), (0.0, 0.5)], [(0.0, 0.5), (0.2, 0.3)]]
    assert [line.get_color() for line in axes.lines].count(THEME["alert"][0]) == 2
    older = [{k: v for k, v in token.items() if k != "noise_nearest"} for token in DIAGNOSTICS["tokens"]]
    assert nearest_after_noise({**DIAGNOSTICS, "tokens": older}) is None


def test_shares_that_flip_are_those_of_the_claims_with_their_interval(tmp_path: Path) -> None:
    sums = totals(DIAGNOSTICS)
    assert sums.flips["noise"].value == pytest.approx(0.375)
    assert sums.flips["mixture"] == Share(0.0, 0.0, sums.flips["mixture"].high)
    study, root = make_study(tmp_path, problems=2), Results(tmp_path / "toy")
    claim = next(claim for claim in judge_claims(study, root) if claim.id == "noise-flips")
    part, share = claim.parts[0], sums.flips["noise"]
    assert (part.estimate, part.low, part.high) == (share.value, share.low, share.high)


def test_shares_below_a_cosine_rise_to_all() -> None:
    noise, mixtures = cosines_to_anchor(DIAGNOSTICS).lines()
    assert list(noise.x) == [0.8, 0.8, 0.9, 0.9]
    assert list(noise.y) == [25, 50, 75, 100]
    assert list(mixtures.y) == [50, 100]


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


def test_text_in_them_follows_the_pages_theme() -> None:
    words = re.findall(r"<text[^>]*>", svg(inputs_on_two_axes(DIAGNOSTICS), "diagnostics", "", ""))
    assert words
    assert all("var(--" in word and "fill" in word for word in words)
    assert unthemed(cosines_to_anchor(DIAGNOSTICS).svg("cosines", "", "")) == []


def test_totals_count_steps_tokens_and_changed_responses() -> None:
    same = {**EXAMPLE, "steps": [{**EXAMPLE["steps"][0], "cosine": 0.91}], "apart": None}
    unmixed = {**EXAMPLE, "steps": [], "apart": None}
    sums = totals({**DIAGNOSTICS, "examples": [unmixed, same, EXAMPLE]})
    assert (sums.responses, sums.tokens, sums.mixed) == (3, 9, 2)
    assert sums.changed == pytest.approx(1 / 3)
    nearly = {**same, "steps": [{**EXAMPLE["steps"][0], "cosine": 0.9995}]}
    assert totals({**DIAGNOSTICS, "examples": [same, nearly, EXAMPLE, EXAMPLE]}).nearly == pytest.approx(0.25)
    assert (sums.mean, sums.least, sums.low) == pytest.approx((0.94, 0.91, 0.5))
    assert examples({"examples": [unmixed, same, EXAMPLE]}, 1) == [trajectory(EXAMPLE)]
    assert np.isnan(totals({**DIAGNOSTICS, "examples": [unmixed]}).mean)


def test_the_page_shows_what_was_measured_or_names_the_command(tmp_path: Path) -> None:
    study, root = make_study(tmp_path, problems=4), Results(tmp_path / "toy")
    [one] = read_diagnostics(study, root)
    html = page_html(study, root)
    assert f'href="../{one.file}"' in html
    assert "a⟦c0⟧d" in html
    assert "figures/diagnostics-toy.svg" in html
    assert "not measured yet" not in html
    assert "half lie between 0.25 and 0.75, nine in ten between 0.1 and 0.9" in html
    assert "<code>␣seven</code>" in html
    assert "<code>&lt;b&gt;</code>" in html  # a token's text is never markup
    older = {key: value for key, value in DIAGNOSTICS.items() if key != "neighbors"}
    write_json(root.diagnostics(one.run), {**older, "spec": study.runs[one.run].digest})
    assert "Neighbors in this vocabulary" not in page_html(study, root)
    write_json(root.diagnostics(one.run), {**DIAGNOSTICS, "spec": "0" * 12})
    stale = page_html(study, root)
    assert "measured for another version of this run; remade by: snakemake" in stale
    assert "a⟦c0⟧d" not in stale
    root.diagnostics(one.run).unlink()
    absent = page_html(study, root)
    assert f"What mixing feeds, {one.run}: not measured yet; made by: snakemake --cores 2" in absent
    assert "figures/diagnostics-toy" not in absent


def test_the_notebook_shows_what_was_measured_or_names_the_command(tmp_path: Path) -> None:
    study = make_study(tmp_path, problems=4)
    [run] = study.mixing_runs
    results = Results(tmp_path / "toy")
    path = results.diagnostics(run)

    def shown(name: str) -> tuple[int, str]:
        outputs = run_notebook("diagnostics", results, tmp_path / f"{name}.ipynb")
        return drawn(outputs), "".join("".join(o.get("text", "")) for o in outputs)

    path.unlink()
    count, text = shown("absent")
    assert count == 0
    assert f"{run}: not measured yet; made by: snakemake --cores 2 {path}" in text
    write_json(path, DIAGNOSTICS)
    count, text = shown("stale")
    assert count == 0
    assert "another version of this run" in text
    write_json(path, {**DIAGNOSTICS, "spec": study.runs[run].digest})
    count, text = shown("measured")
    assert count == 2
    assert "a⟦c0⟧d" in text
    assert "made by" not in text
