"""`ngrpo power`: what a claim takes to be decided, before anything is spent."""

import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from synthetic_study import ROOT

from ngrpo.audit.paper_noise import RunNoise
from ngrpo.cli import main
from ngrpo.errors import UserError
from ngrpo.planning.costs import Costs
from ngrpo.planning.power import PlannedClaim, Planner, buy
from ngrpo.planning.power_text import decidable_line, power_figure, power_text
from ngrpo.statistics.effects import QUESTIONS
from ngrpo.statistics.simulation import DECLARED
from ngrpo.study.expand import Study, load_study
from ngrpo.study.layout import Results

HEADLINE = "ngrpo-over-grpo-1.5b"
SMALL = [HEADLINE, "ngrpo-over-grpo-qwen3", "neighbors-over-gumbel", "ngspo-aime25", "ngrpo-mean-1.5b", "cosine-mean"]


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
    assert planned[HEADLINE].size == pytest.approx(0.0176)
    assert 7 <= here.seeds <= 13
    assert others.seeds is None or others.seeds > 2 * here.seeds
    assert here.detectable > 0.0176  # two seeds don't show it
    assert planned[HEADLINE].power(here.seeds, here.question) >= 0.8 > planned[HEADLINE].power(2, here.question)


def test_the_noise_that_is_declared_is_that_of_simulations_and_of_the_papers_audit(study) -> None:
    assert planner(*study).noise == DECLARED
    assert RunNoise() == RunNoise(DECLARED.run, float(np.hypot(DECLARED.method_problem, DECLARED.run_problem)))


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
    text = power_text(planner(*study), budget=3000.0, rate=1.0)
    assert "noise (log-odds): run 0.1" in text
    assert "cosine-mean: kind logged" in text
    assert "for 3,000 GPU-hours" in text
    assert "has: the training seeds that this study gives the claim" in text
    assert decidable_line(study[0], planner(*study).costs).startswith("decides     ")


def test_a_curve_is_a_figure(planned) -> None:
    root = ElementTree.fromstring(power_figure(planned[HEADLINE]))
    assert HEADLINE in root[0].text
    assert len(root.findall("{http://www.w3.org/2000/svg}polyline")) == 6 + 2


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
        _ = made.noise
