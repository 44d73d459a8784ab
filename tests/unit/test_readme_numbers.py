"""Every number of README's two blocks, from `ngrpo power` and `ngrpo audit-paper`, computed another way from raw ones:
config/paper_values.yaml, costs.yaml and scales/paper.yaml. That the blocks are what the commands print: tests/docs."""

import re
from math import ceil, comb
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats
from scipy.optimize import LinearConstraint, milp
from scipy.special import expit
from synthetic_study import ROOT

from ngrpo.planning.costs import Costs
from ngrpo.planning.jobs import planned_jobs
from ngrpo.statistics.crossed import PairedCounts, compare_systems
from ngrpo.statistics.effects import QUESTIONS
from ngrpo.statistics.fitting import Scores, fitted
from ngrpo.statistics.pass_rates import DECLARED, expected
from ngrpo.statistics.simulation import simulate_average
from ngrpo.study.expand import load_study
from ngrpo.study.layout import Results

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAPER = yaml.safe_load((ROOT / "config" / "paper_values.yaml").read_text(encoding="utf-8"))
COSTS = yaml.safe_load((ROOT / "config" / "costs.yaml").read_text(encoding="utf-8"))
SCALE = yaml.safe_load((ROOT / "config" / "scales" / "paper.yaml").read_text(encoding="utf-8"))
SIZES = {"aime25": 30, "amc23": 40, "math500": 500}
N = 32
STUDIES = 1200


def block(command: str) -> list[str]:
    """The lines of a README block that quotes a command."""
    return README.split(f"<!-- output of: {command} -->\n```text\n")[1].split("\n```")[0].splitlines()


def printed(table: str, model: str, label: str) -> dict[str, dict[str, float]]:
    """A row of the paper, as config/paper_values.yaml has it."""
    return PAPER["tables"][table]["values"][model][label]


CLAIMED = {  # the claim: table, model, the system's row and the other's
    "ngrpo-over-grpo-1.5b": ("table1", "r1-qwen-1.5b", "N-GRPO", "GRPO"),
    "ngrpo-over-grpo-7b": ("table1", "r1-qwen-7b", "N-GRPO", "GRPO"),
    "ngrpo-over-grpo-qwen3": ("table1", "qwen3-1.7b-base", "N-GRPO", "GRPO"),
    "ngspo-over-gspo": ("table8", "r1-qwen-1.5b", "N-GSPO", "GSPO"),
}


def power_lines() -> dict[str, list[list[str]]]:
    """README's claims: the cells of their line for each question, from `effect` and from `shows` on."""
    of_claims: dict[str, list[list[str]]] = {}
    name = ""
    for line in block("ngrpo power --scale paper")[2:]:
        if line.strip() != "…":
            cells = re.split(r"\s{2,}", line.strip())
            name, cells = (cells[0], cells[1:]) if not line.startswith(" ") else (name, cells)
            of_claims.setdefault(name, []).append(cells)
    return of_claims


@pytest.mark.parametrize("claim", CLAIMED)
def test_effects_are_the_papers_differences(claim: str) -> None:
    table, model, ours, theirs = CLAIMED[claim]
    rows = [printed(table, model, label)["Avg"]["pass@32"] for label in (ours, theirs)]
    effect, has = power_lines()[claim][0][:2]
    assert float(effect) == pytest.approx(rows[0] - rows[1], abs=1e-9)
    assert int(has) == SCALE.get("seeds", 1)


def hours(model: str, methods: int, evaluations: int, seeds: int) -> tuple[float, float]:
    """GPU-hours: 8 GPUs for as many steps as the data have batches, and 32 answers to each of 570 problems."""
    cost, training = COSTS["scales"]["paper"]["models"][model], SCALE["training"]
    problems = COSTS["scales"]["paper"]["training_problems"]
    steps = training.get("steps") or training["epochs"] * (problems // training["batch_prompts"])
    answers = sum(SIZES.values()) * N
    ends = []
    for end in (0, 1):
        trained = methods * cost["devices"] * steps * cost["step_seconds"][end]
        sampled = evaluations * answers * cost["response_tokens"][end] / cost["tokens_per_second"][1 - end]
        ends.append(seeds * (trained + sampled) / 3600)
    return ends[0], ends[1]


@pytest.mark.parametrize(
    ("claim", "methods", "evaluations"),
    [*((name, 2, 2) for name in CLAIMED), ("inference-mixing-hurts-1.5b", 1, 2)],
)
def test_hours_and_money_are_those_of_the_declared_costs(claim: str, methods: int, evaluations: int) -> None:
    model = CLAIMED.get(claim, ("", "r1-qwen-1.5b"))[1]
    for cells in power_lines()[claim]:
        if any(cell.startswith("never") for cell in cells):
            continue
        seeds, gpu_hours, money = cells[-3:]
        wanted = hours(model, methods, evaluations, int(seeds.split()[0]))
        for text, factor in ((gpu_hours, 1.0), (money, COSTS["gpu_hour"])):
            shown = [float(part.replace(",", "")) for part in text.split(" – ")]
            assert shown == pytest.approx([factor * end for end in wanted], abs=0.51), claim


@pytest.mark.parametrize("claim", [*CLAIMED, "inference-mixing-hurts-1.5b"])
def test_so_many_seeds_have_the_power_in_simulated_studies(claim: str) -> None:
    """And a third of them don't."""
    model = CLAIMED.get(claim, ("", "r1-qwen-1.5b"))[1]
    size = float(power_lines()[claim][0][0]) / 100
    grpo = printed("table1", model, "GRPO")
    rows = {
        name: Scores(SIZES[name], row["mean"] / 100, ((16, row["pass@16"] / 100), (32, row["pass@32"] / 100)))
        for name, row in grpo.items()
        if name in SIZES
    }
    cells = [(fitted(row), row.problems) for row in rows.values()]
    g = 1 - (1 - np.arange(N + 1) / N) ** N
    table = expected(g, float(np.hypot(0.1, 0.3)))
    odds = np.linspace(0, 2, 101)
    gains = [np.mean([s.mean(table, o, 0.3) - s.mean(table, 0.0, 0.3) for s, _ in cells]) for o in odds]
    needs = [cells[-3].split()[0] for cells in power_lines()[claim] if not cells[-2].startswith("never")]
    for question, number in zip(QUESTIONS, map(int, filter(str.isdecimal, needs)), strict=False):
        effect = float(np.interp(size, gains, odds))
        truth = {"on_these": ("Pass@32 bootstrap", size)} if question == QUESTIONS[0] else {"effect": effect}
        for seeds, low, high in ((number, 0.7, 0.92), (max(2, ceil(number / 3)), 0.0, 0.65)):
            studies = simulate_average(cells, seeds, 120, np.random.default_rng(seeds), noise=DECLARED, **truth)
            measured = compare_systems([PairedCounts(d.a, d.b, N) for d in studies], g)
            assert low <= float((measured.interval(question=question)[0] > 0).mean()) <= high, (question, seeds)


def test_what_the_default_study_costs_is_what_its_runs_and_samples_cost(tmp_path: Path) -> None:
    study = load_study(ROOT / "config", "paper")
    results = Results(tmp_path / "paper")
    jobs = planned_jobs(study, results, Costs(study, results), "all")
    low, high = (sum(getattr(j.device_hours, end) for j in jobs if j.why) for end in ("low", "high"))
    assert f"{low:,.0f} – {high:,.0f} GPU-hours" in README


def audit_rows(model: str) -> list[list[str]]:
    return [
        re.split(r"\s{2,}", line.strip()) for line in block("ngrpo audit-paper") if line.strip().startswith(f"{model} ")
    ]


@pytest.mark.parametrize("system", ["GRPO", "N-GRPO"])
def test_solved_problems_are_those_of_whole_numbers(system: str) -> None:
    """By an integer program, where the product relaxes it: least and most problems with a correct sample."""
    row = printed("table1", "r1-qwen-1.5b", system)["aime25"]
    shown = next(cells for cells in audit_rows("r1-qwen-1.5b") if cells[1:3] == ["aime25", system])
    assert float(shown[3]) == row["pass@32"]
    c, size = np.arange(N + 1), SIZES["aime25"]
    limits = [
        LinearConstraint(np.ones(N + 1), size, size),
        LinearConstraint(c, *[round(row["mean"] / 100 * size * N)] * 2),
    ]
    for k in (16, 32):
        g = 1 - (1 - c / N) ** k
        room = size * 0.005 / 100 + 3 * np.sqrt(size * (g * (1 - g)).max() / 1000)
        limits.append(LinearConstraint(g, size * row[f"pass@{k}"] / 100 - room, size * row[f"pass@{k}"] / 100 + room))
    ends = [sign * milp(sign * (c > 0), constraints=limits, integrality=np.ones(N + 1)).fun for sign in (1, -1)]
    least, most = map(int, shown[4].split(" to "))  # a relaxation: never too narrow
    assert least <= round(ends[0]) <= least + 1
    assert most - 1 <= round(ends[1]) <= most
    whole = row["pass@32"] / 100 * size
    assert shown[5] == ("none" if abs(whole - round(whole)) > 0.0051 * size / 100 else str(round(whole)))


@pytest.mark.parametrize("model", ["r1-qwen-1.5b", "llama3.2-1b"])
def test_chance_is_that_of_simulated_pairs_of_equal_runs(model: str) -> None:
    shown = next(cells for cells in audit_rows(model) if cells[1] == "Pass@32")
    deviation, low, high = (float(part) for part in re.findall(r"[\d.]+", shown[3]))
    ours, grpo = (printed("table1", model, label) for label in ("N-GRPO", "GRPO"))
    difference = ours["Avg"]["pass@32"] - grpo["Avg"]["pass@32"]
    assert float(shown[2]) == pytest.approx(difference, abs=1e-9)
    rng, values, g = np.random.default_rng(1), 0.0, 1 - (1 - np.arange(N + 1) / N) ** N
    runs = 0.1 * rng.normal(size=(2, STUDIES, 1))
    for name, size in SIZES.items():
        row = grpo[name]
        shape = fitted(Scores(size, row["mean"] / 100, ((16, row["pass@16"] / 100), (32, row["pass@32"] / 100))))
        odds = shape.draw(rng, (STUDIES, size)) + np.hypot(0.3, 0.3) * rng.normal(size=(2, STUDIES, size)) + runs
        values = values + g[rng.binomial(N, expit(odds))].mean(-1) / 3
    spread = 100 * float((values[0] - values[1]).std())
    assert deviation == pytest.approx(spread, rel=0.07)
    assert low < deviation < high
    assert float(shown[4]) == pytest.approx((stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * deviation, abs=0.06)
    chances = [float(part) for part in re.findall(r"[\d.]+", shown[5])]
    assert chances == pytest.approx([100 * stats.norm.sf(difference / s) for s in (deviation, low, high)], abs=0.6)


def test_table_9_is_counted_out() -> None:
    text = " ".join(block("ngrpo audit-paper"))
    gained, lost, both = (round(PAPER["paired"][k] / 100 * 30) for k in ("mixing_only", "standard_only", "both"))
    assert (gained, lost, both) == (3, 0, 19)
    p = 2 * sum(comb(gained + lost, k) for k in range(lost + 1)) / 2 ** (gained + lost)
    hidden = next(share for share in range(1, 100) if (1 - share / 100) ** both <= 0.025)
    assert f"{gained} are gained and {lost} lost: p = {p:.2f}" in text
    assert f"none of {both} solved ones leaves up to {hidden} %" in text
