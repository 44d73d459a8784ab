"""`ngrpo power`: what a claim takes to be decided, before anything is spent."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from synthetic_study import ROOT

from ngrpo.audit.paper_noise import declared_noise
from ngrpo.cli import main
from ngrpo.errors import UserError
from ngrpo.planning.budget import buy
from ngrpo.planning.costs import Costs
from ngrpo.planning.planned_claims import NOISY, PlannedClaim
from ngrpo.planning.power import Planner
from ngrpo.planning.power_text import decidable_line, power_figure, power_text
from ngrpo.statistics.effects import QUESTIONS
from ngrpo.statistics.joint import least_likely, most_likely
from ngrpo.statistics.pass_rates import DECLARED
from ngrpo.study.expand import Study, load_study
from ngrpo.study.layout import Results

HEADLINE = "ngrpo-over-grpo-1.5b"
SMALL = [
    HEADLINE,
    "ngrpo-over-grpo-qwen3",
    "neighbors-over-gumbel",
    "ngspo-aime25",
    "ngrpo-mean-1.5b",
    "cosine-mean",
    "cosine-best",
    "ngrpo-most-7b",
    "base-mixing-loses-none",
    "noise-flips",
    "slowdown-1.5b",
]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    """The paper's scale with two seeds, and a few of its claims."""
    config = tmp_path_factory.mktemp("power") / "config"
    shutil.copytree(ROOT / "config", config)
    claims = yaml.safe_load((config / "claims.yaml").read_text())["claims"]
    (config / "claims.yaml").write_text(yaml.safe_dump({"claims": {name: claims[name] for name in SMALL}}))
    scale = yaml.safe_load((config / "scales" / "paper.yaml").read_text()) | {"seeds": 2}
    (config / "scales" / "paper.yaml").write_text(yaml.safe_dump(scale))
    return load_study(config, "paper"), config


def planner(study: Study, folder: Path) -> Planner:
    return Planner(study, Costs(study, Results(folder.parent / "results")))


@pytest.fixture(scope="module")
def planned(study) -> dict[str, PlannedClaim]:
    return {c.name: c for c in planner(*study).claims() if isinstance(c, PlannedClaim)}


def test_the_headline_takes_about_ten_seeds_on_these_benchmarks_and_more_on_others(planned) -> None:
    here, others = (planned[HEADLINE].decision(q) for q in QUESTIONS)
    assert planned[HEADLINE].first.size == pytest.approx(0.0176)
    assert 7 <= here.seeds <= 13
    assert others.seeds is None or others.seeds > 2 * here.seeds
    assert here.detectable > 0.0176  # two seeds don't show it
    assert planned[HEADLINE].power(here.seeds, here.question) >= 0.8 > planned[HEADLINE].power(2, here.question)


def test_shapes_that_fit_equally_well_make_a_range_of_seeds_and_of_power(planned) -> None:
    claim = planned[HEADLINE]
    decision = claim.decision(QUESTIONS[0])
    assert 2 <= decision.hopeful < decision.seeds < decision.cautious
    least, most = claim.between(10, QUESTIONS[0])
    assert least < 0.71 < 0.81 < most  # what independent simulators with other shapes found
    assert claim.power(decision.cautious, QUESTIONS[0], NOISY) >= 0.8
    assert claim.power(decision.cautious - 1, QUESTIONS[0], NOISY) < 0.8
    assert claim.power(10, QUESTIONS[0], most=True) == claim.power(10, QUESTIONS[0])  # one comparison: no bounds


def test_the_noise_that_is_declared_is_that_of_simulations_and_of_the_papers_audit(study) -> None:
    assert planner(*study).noise("r1-qwen-1.5b") == DECLARED == declared_noise(study[1])


# --- several comparisons


@pytest.mark.parametrize(
    ("chances", "at_least", "least", "most"),
    [([0.9, 0.8], 2, 0.7, 0.8), ([0.9, 0.8], 1, 0.9, 1.0), ([0.5] * 4, 3, 0.0, 2 / 3), ([1.0, 1.0, 0.3], 2, 1.0, 1.0)],
)
def test_bounds_of_so_many_events_are_sharp(chances: list[float], at_least: int, least: float, most: float) -> None:
    assert least_likely(chances, at_least) == pytest.approx(least)
    assert most_likely(chances, at_least) == pytest.approx(most)


def test_the_bounds_hold_events_that_hang_together_in_any_way() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        size = int(rng.integers(1, 6))
        common, own = rng.normal(size=(400, 1)), rng.normal(size=(400, size))
        weight, cuts = rng.uniform(-1, 1, size), rng.normal(size=size)
        events = weight * common + np.sqrt(1 - weight**2) * own > cuts
        chances = list(events.mean(0))
        for at_least in range(1, size + 1):
            seen = float((events.sum(1) >= at_least).mean())
            assert least_likely(chances, at_least) - 1e-9 <= seen <= most_likely(chances, at_least) + 1e-9


def test_a_claim_of_several_comparisons_is_sure_of_no_more_than_their_failures_together_allow(planned) -> None:
    claim = planned["cosine-best"]
    each = [shown.power(0, 8, QUESTIONS[0], claim.tail) for shown in claim.cells[0]]
    assert len(each) == 2
    assert claim.power(8, QUESTIONS[0]) == pytest.approx(max(0.0, 1 - sum(1 - p for p in each)))
    assert claim.power(8, QUESTIONS[0], most=True) == pytest.approx(min(each))


def test_most_of_the_cells_is_planned_at_the_level_at_which_a_cell_is_tested(planned) -> None:
    claim = planned["ngrpo-most-7b"]
    assert (len(claim.cells), claim.at_least, len(claim.cells[0])) == (6, 4, 5)
    assert claim.tail == pytest.approx(0.025 / 3)
    easy = claim.cells[0][2]
    assert easy.power(0, 20, QUESTIONS[0], claim.tail) < easy.power(0, 20, QUESTIONS[0], 0.025)


def test_that_none_is_lost_is_decided_by_how_many_problems_there_are(planned, study) -> None:
    claim = planned["base-mixing-loses-none"]
    decision = claim.decision(QUESTIONS[0])
    assert decision.detectable == pytest.approx(1 - 0.025 ** (1 / 30))  # Clopper and Pearson's upper limit of none
    assert decision.seeds is None  # above the claim's 10 %
    (lost,) = claim.cells[0]
    assert replace(lost, problems=40).power(0, 1, QUESTIONS[0], claim.tail) == 1.0
    text = power_text(planner(*study), only="base-mixing-loses-none")
    assert "≤10.00" in text


@pytest.mark.parametrize(
    ("claim", "why"),
    [("cosine-mean", "logged value"), ("noise-flips", "no seed adds to"), ("slowdown-1.5b", "how much speed varies")],
)
def test_what_isnt_computed_says_why(study, claim: str, why: str) -> None:
    text = power_text(planner(*study), only=claim)
    assert f"{claim}: not computed: " in text
    assert why in text


def test_a_price_is_that_of_its_seeds_runs(study, planned) -> None:
    claim = planned[HEADLINE]
    assert claim.runs == {"ngrpo-r1-qwen-1.5b", "grpo-r1-qwen-1.5b"}
    decision = claim.decision(QUESTIONS[0])
    assert decision.hours.low == pytest.approx(decision.seeds * claim.hours.of(1).low)
    costs = Costs(study[0], Results(Path("none")))
    spec = study[0].runs["grpo-r1-qwen-1.5b"]
    trained = 2 * 8 * costs.train(spec, costs.total_steps(spec)).low
    assert trained < claim.hours.of(1).low < 1.2 * trained  # evaluations cost a little


def test_an_effect_that_no_seeds_show_is_said_not_to_be_decidable(study, planned) -> None:
    assert planned["ngrpo-over-grpo-qwen3"].decision(QUESTIONS[1]).seeds is None
    assert "not decidable by any number of seeds" in power_text(planner(*study), only="ngrpo-over-grpo-qwen3")


def test_a_budget_buys_the_cheapest_first_and_shared_runs_once(planned) -> None:
    all_of_it = buy(list(planned.values()), 1e9)
    assert {b.name for b in all_of_it} == {n for n, c in planned.items() if c.decision(QUESTIONS[0]).seeds}
    assert all_of_it[-1].spent == pytest.approx(sum(b.extra for b in all_of_it))
    assert buy(list(planned.values()), 1.0) == []
    some = buy(list(planned.values()), all_of_it[0].spent)
    assert [b.name for b in some] == [all_of_it[0].name]
    alone = planned["ngrpo-mean-1.5b"].decision(QUESTIONS[0])
    after = next(b for b in all_of_it if b.name == "ngrpo-mean-1.5b")
    assert after.extra < alone.hours.high  # GRPO's and N-GRPO's first seeds were bought for the headline


def test_the_text_names_its_assumptions_and_what_it_cant_tell(study) -> None:
    text = power_text(planner(*study), budget=6000.0, rate=1.0)
    assert "noise (log-odds) of all models: run 0.1" in text
    assert "for 6,000 GPU-hours" in text
    assert "has: the training seeds that this study gives the claim" in text
    assert decidable_line(study[0], planner(*study).costs).startswith("decides     ")


def test_a_curve_is_a_figure(planned) -> None:
    root = ElementTree.fromstring(power_figure(planned[HEADLINE]))
    assert HEADLINE in root[0].text
    assert len(root.findall("{http://www.w3.org/2000/svg}polyline")) == 6 + 2
    assert len(root.findall("{http://www.w3.org/2000/svg}polygon")) == 2


def test_power_and_audit_load_nothing_that_they_dont_need() -> None:
    """Both answer in seconds: what takes seconds to load stays out. The report does load it, so that this can fail."""
    heavy = "print(sorted({'torch', 'pandas', 'pyarrow', 'scipy.stats'} & set(sys.modules)))"

    def loaded(modules: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", f"import sys, {modules}; {heavy}"], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert loaded("ngrpo.planning.power_text, ngrpo.claims.printed, ngrpo.audit.paper_text") == "[]"
    assert "pandas" in loaded("ngrpo.claims.verdicts")


def test_bad_input_is_named(study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no claim 'ngrpo-over-grpo-1.5'.*\n.*\n.*did you mean '{HEADLINE}'"):
        list(planner(*study).claims("ngrpo-over-grpo-1.5"))
    run = CliRunner().invoke(main, ["power", "--svg", str(tmp_path / "x.svg")])
    assert isinstance(run.exception, SystemExit)
    loaded, folder = study
    made = planner(loaded, folder)
    made.costs.file = made.costs.file.model_copy(update={"noise": None})
    with pytest.raises(UserError, match="no noise between runs is declared"):
        made.noise("r1-qwen-1.5b")
