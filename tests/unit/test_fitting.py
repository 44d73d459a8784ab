"""How hard a benchmark's problems are: one model, fitted to every printed score of a row, and its ends."""

import numpy as np
import pytest
import yaml
from scipy import optimize, stats
from scipy.special import expit
from synthetic_study import ROOT

from ngrpo.audit.paper_noise import of_row
from ngrpo.statistics.fitting import Scores, extremes, fitted, misses, one_run
from ngrpo.statistics.pass_rates import DECLARED, LogitNoise, estimators

RAW = yaml.safe_load((ROOT / "config" / "paper_values.yaml").read_text())
ROWS = {
    (model, benchmark): of_row(values["GRPO"], RAW["sizes"], (benchmark,))[0]
    for table in ("table1", "table2")
    for model, values in RAW["tables"][table]["values"].items()
    for benchmark in values["GRPO"]
    if benchmark != "Avg"
}
G = estimators(32)["Pass@32 bootstrap"]
COARSE = np.linspace(-20, 20, 401)
FEW = ("llama3.2-1b", "aime25")
"""Two correct samples of 960: no distribution of chances has exactly its three values."""


@pytest.mark.parametrize("where", ROWS)
def test_a_fitted_shape_has_every_printed_score_to_the_digit_that_is_printed(where: tuple[str, str]) -> None:
    row = ROWS[where]
    assert np.abs(100 * misses(fitted(row), row)).max() <= (0.07 if where == FEW else 0.005)


def test_its_scores_are_those_of_problems_drawn_from_it() -> None:
    row, rng = ROWS["r1-qwen-1.5b", "amc23"], np.random.default_rng(1)
    odds = fitted(row).draw(rng, (200_000,)) + DECLARED.whole * rng.normal(size=200_000)
    correct = rng.binomial(32, expit(odds))
    drawn = [correct.mean() / 32, *((1 - (1 - correct / 32) ** k).mean() for k in (16, 32))]
    assert drawn == pytest.approx(row.values, abs=0.003)
    assert fitted(row, LogitNoise(0.5, 0.5, 0.5)) != fitted(row)  # the noise is taken out before


@pytest.mark.parametrize("where", [("r1-qwen-1.5b", "math500"), ("r1-qwen-7b", "aime25"), ("qwen3-1.7b-base", "amc23")])
def test_a_normal_alone_misses_what_is_printed(where: tuple[str, str]) -> None:
    """The control, and why shares of problems never and always solved are in the model."""
    row, z = ROWS[where], stats.norm.ppf((np.arange(400) + 0.5) / 400)
    binomial = stats.binom.pmf(np.arange(33)[:, None], 32, expit(np.linspace(-20, 20, 801)))
    tables = [estimators(32)[name] @ binomial for name in ("Mean@32", "Pass@16 bootstrap", "Pass@32 bootstrap")]

    def miss(at: np.ndarray) -> np.ndarray:
        spread = np.hypot(np.exp(at[1]), DECLARED.whole)
        values = [np.interp(at[0] + spread * z, np.linspace(-20, 20, 801), table).mean() for table in tables]
        return 100 * (np.array(values) - row.values)

    best = min((optimize.least_squares(miss, (m, s)) for m in (-2, 1, 3) for s in (0.5, 1.2)), key=lambda r: r.cost)
    assert np.abs(best.fun).max() > 0.15


@pytest.mark.parametrize("where", ROWS)
def test_the_extremes_have_the_printed_scores_and_lie_on_both_sides(where: tuple[str, str]) -> None:
    row, table = ROWS[where], one_run(G)
    ends = extremes(row, tuple(G))
    assert ends[0].mean(table) <= fitted(row).mean(table) <= ends[1].mean(table)
    for end in ends:
        assert np.abs(100 * misses(end, row)).max() < 0.4  # the bootstrap's own draws on 30 problems
        assert sum(share for share, _, _ in end.parts) == pytest.approx(1)


def test_a_shape_that_makes_a_row_lies_between_its_extremes() -> None:
    beta = np.random.default_rng(2).beta(0.3, 0.9, 4000)
    odds = np.log(beta / (1 - beta)).clip(-15, 15)
    tables = {k: np.interp(odds, COARSE, t).mean() for k, t in _values().items()}
    row = Scores(30, tables["Mean@32"], ((16, tables["Pass@16 bootstrap"]), (32, tables["Pass@32 bootstrap"])))
    least, most = (end.mean(one_run(G)) for end in extremes(row, tuple(G)))
    own = float(np.interp(odds, np.linspace(-20, 20, 1601), one_run(G)).mean())
    assert least < own < most
    assert fitted(row).mean(one_run(G)) == pytest.approx(own, rel=0.1)


def _values() -> dict[str, np.ndarray]:
    """Expected values at log-odds, the declared noise averaged over by hand."""
    noise = DECLARED.whole * stats.norm.ppf((np.arange(30) + 0.5) / 30)
    chances = expit(COARSE[:, None] + noise)
    return {
        "Mean@32": chances.mean(1),
        **{
            f"Pass@{k} bootstrap": sum(
                stats.binom.pmf(c, 32, chances).mean(1) * (1 - (1 - c / 32) ** k) for c in range(1, 33)
            )
            for k in (16, 32)
        },
    }
