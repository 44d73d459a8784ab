"""The audit of the paper's own numbers: every number that it states, computed a second time from the raw values."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from synthetic_study import ROOT

from ngrpo.audit.paper_counts import PrintedCell, printed_cells, solved_range, whole_count
from ngrpo.audit.paper_findings import Finding, findings, source_of
from ngrpo.audit.paper_noise import declared_noise, deviation_range, difference_deviation, of_row
from ngrpo.claims.printed import paper_findings, printed_differences
from ngrpo.cli import main
from ngrpo.errors import UserError
from ngrpo.statistics.pass_rates import NONE
from ngrpo.study.expand import load_study
from ngrpo.study.paper_values import read_paper_values

CONFIG = ROOT / "config"
RAW = yaml.safe_load((CONFIG / "paper_values.yaml").read_text())
TABLES, SIZES = RAW["tables"], RAW["sizes"]
MATH = ("aime25", "amc23", "math500")
NOISE = declared_noise(CONFIG)


@pytest.fixture(scope="module")
def audit() -> dict[str, Finding]:
    return {finding.id: finding for finding in paper_findings(load_study(CONFIG, "toy"))[0]}


def raw_cells() -> list[tuple[str, str, dict]]:
    """(model, benchmark, values) of every cell, the same numbers once."""
    cells = []
    for table in TABLES.values():
        for model, rows in table["values"].items():
            for row in rows.values():
                cells += [(model, b, v) for b, v in row.items() if b != "Avg" and (model, b, v) not in cells]
    return cells


def tail(z: float) -> float:
    return 50 * math.erfc(z / math.sqrt(2))


def two_digits(percent: float) -> str:
    return f"{float(f'{percent:.2g}'):g}"


# --- counts


def test_every_mean_is_a_possible_count_and_an_impossible_one_would_be_named(audit) -> None:
    cells = [(b, v["mean"]) for _, b, v in raw_cells() if "mean" in v]
    possible = [
        any(abs(100 * c / (32 * SIZES[b]) - m) <= 0.005 + 1e-9 for c in range(32 * SIZES[b] + 1)) for b, m in cells
    ]
    assert audit["counts"].says == f"{sum(possible)} of {len(cells)} are."
    assert all(possible)
    assert (whole_count(20.83, 960), whole_count(20.85, 960), whole_count(0.1, 960)) == (200, None, 1)
    paper = read_paper_values(CONFIG).model_copy(deep=True)
    paper.tables["table1"].values["r1-qwen-1.5b"]["GRPO"]["aime25"]["mean"] = 21.37
    assert "table1, r1-qwen-1.5b, GRPO, aime25: 21.37" in findings(paper, [], NOISE)[0].says


def test_solved_problems_are_whole_under_eq_15_and_a_range_under_the_bootstrap(audit) -> None:
    cells = raw_cells()
    whole = sum(any(abs(100 * m / SIZES[b] - v["pass@32"]) <= 0.005 for m in range(SIZES[b] + 1)) for _, b, v in cells)
    assert f"{whole} of {len(cells)} cells are" in audit["solved"].says
    assert f"{len(cells)} of {len(cells)} fit" in audit["solved"].says
    assert len(audit["solved"].rows) == 2 * 3 * 4 + 2 * 2
    for model, benchmark, label, printed, solved, exact in audit["solved"].rows:
        table = "table2" if benchmark == "gpqa-diamond" else "table1"
        value = TABLES[table]["values"][model][label][benchmark]
        assert (printed, exact) == (f"{value['pass@32']:.2f}", "none")
        least, most = (int(n) for n in (solved.split(" to ") * 2)[:2])
        # a solved problem counts 1 − (31/32)^32 = 0.638 at least and 1 at most; the draws' noise is below 1.1 problems
        share, size = value["pass@32"] / 100, SIZES[benchmark]
        assert math.floor(size * share - 1.1) <= least <= most <= min(size, math.ceil((size * share + 1.1) / 0.638))


def test_a_range_of_solved_problems_holds_the_true_number_and_excludes_what_cant_be() -> None:
    rng, widths = np.random.default_rng(2), []
    for _ in range(60):
        size = int(rng.choice([30, 40, 198]))
        correct = rng.binomial(32, rng.beta(0.4, 0.6, size))
        drawn = {k: rng.binomial(1000, 1 - (1 - correct / 32) ** k).mean() / 10 for k in (16, 32)}
        values = {"mean": round(100 * correct.mean() / 32, 2), **{f"pass@{k}": round(v, 2) for k, v in drawn.items()}}
        least, most = solved_range(PrintedCell("t", "m", "l", "b", values), size, 32)
        assert least <= (correct > 0).sum() <= most
        widths.append((most - least) / size)
    assert np.mean(widths) < 0.2
    two = {"mean": 0.21, "pass@16": 2.72, "pass@32": 4.39}  # two correct samples: of two problems, 2 · 0.638/30
    assert solved_range(PrintedCell("t", "m", "l", "b", two), 30, 32) == (2, 2)
    for impossible in ({"pass@32": 9.0}, {"mean": 0.2}):  # more than two samples can solve; no count
        assert solved_range(PrintedCell("t", "m", "l", "b", {**two, **impossible}), 30, 32) is None


def test_averages_are_those_of_the_printed_values(audit) -> None:
    misses, seen = [], []
    for model, row in ((m, r) for t in TABLES.values() for m, rows in t["values"].items() for r in rows.values()):
        for metric, printed in row.get("Avg", {}).items() if (model, row) not in seen else ():
            misses.append(abs(np.mean([v[metric] for b, v in row.items() if b != "Avg"]) - printed))
        seen.append((model, row))
    assert f"All {len(misses)} are" in audit["averages"].says
    assert f"within {max(misses):.4f} points" in audit["averages"].says
    assert max(misses) < 0.0067 + 1e-9


# --- chance


def test_what_one_run_shows_is_computed_from_the_printed_rows(audit) -> None:
    metrics = {"Mean@32": "mean", "Pass@16": "pass@16", "Pass@32": "pass@32"}
    assert len(audit["one-run"].rows) == 12
    for model, metric, printed, deviation, shown, chance in audit["one-run"].rows:
        rows, name = TABLES["table1"]["values"][model], metrics[metric]
        difference = rows["N-GRPO"]["Avg"][name] - rows["GRPO"]["Avg"][name]
        spread = 100 * difference_deviation(of_row(rows["GRPO"], SIZES, MATH), name, NOISE)
        low, high = (100 * end for end in deviation_range(of_row(rows["GRPO"], SIZES, MATH), name, NOISE))
        assert low <= spread <= high
        assert printed.replace("−", "-") == f"{difference:+.2f}"
        assert (deviation, shown) == (
            f"{spread:.2f} ({low:.2f} – {high:.2f})",
            f"{(1.959964 + 0.841621) * spread:.1f}",
        )
        tails = [two_digits(tail(round(difference, 2) / each)) for each in (spread, low, high)]
        assert chance == f"{tails[0]} ({' – '.join(sorted(tails[1:], key=float))})"
    row = next(row for row in audit["one-run"].rows if row[:2] == ("r1-qwen-1.5b", "Pass@32"))
    chance, low, high = re.fullmatch(r"(\S+) \((\S+) – (\S+)\)", row[-1]).groups()
    said = f"come up in {chance} % ({low} to {high}, by the shape of difficulty) of studies"
    assert f"+1.76 points of average Pass@32 on r1-qwen-1.5b, or more, {said}" in audit["headline"].says
    grpo = of_row(TABLES["table1"]["values"]["r1-qwen-1.5b"]["GRPO"], SIZES, MATH)
    alone = two_digits(tail(1.76 / (100 * difference_deviation(grpo, "pass@32", NONE))))
    assert f"in {alone} % where even the weights" in audit["headline"].says


def test_the_noise_is_the_one_that_is_declared(tmp_path: Path) -> None:
    costs = yaml.safe_load((CONFIG / "costs.yaml").read_text())
    costs["noise"] |= {"run": 0.7, "method_problem": 0.15}
    (tmp_path / "costs.yaml").write_text(yaml.safe_dump(costs))
    louder = declared_noise(tmp_path)
    finding = next(f for f in findings(read_paper_values(CONFIG), [], louder) if f.id == "one-run")
    assert "vary by 0.7 a run and by 0.15 and 0.3 a problem" in finding.calculation
    grpo = of_row(TABLES["table1"]["values"]["r1-qwen-1.5b"]["GRPO"], SIZES, MATH)
    assert difference_deviation(grpo, "mean", louder) > 2 * difference_deviation(grpo, "mean", NOISE)


def test_claims_that_rest_on_a_tie_are_counted(audit) -> None:
    finding, study, paper = audit["claims"], load_study(CONFIG, "toy"), read_paper_values(CONFIG)
    asked = {d.claim: d for d in printed_differences(study, paper)}
    cells = {(c.model, c.label, c.benchmark): c for c in printed_cells(paper)}
    ties = within = 0
    for name, points, deviation, chance, same in finding.rows:
        d = asked[name]
        table = "table2" if d.benchmarks == ("gpqa-diamond",) else "table1"
        grpo = TABLES[table]["values"][d.model]["GRPO"]
        spread = 100 * difference_deviation(of_row(grpo, SIZES, d.benchmarks), d.metric, NOISE)
        assert (points, deviation, chance) == (f"{d.points:.2f}", f"{spread:.2f}", two_digits(tail(d.points / spread)))
        within += d.points < spread
        ties += same == "yes"
        if d.metric == "pass@32":
            both = [[solved_range(cells[d.model, label, b], SIZES[b], 32) for label in d.labels] for b in d.benchmarks]
            overlap = all(set(range(a[0], a[1] + 1)) & set(range(b[0], b[1] + 1)) for a, b in both)
            assert same == ("yes" if overlap else "no"), name
        else:
            assert same == "–"
    assert f"Of {len(finding.rows)} claims" in finding.says
    assert f", {ties} rest on" in finding.says
    assert f"in {within} the smallest" in finding.says
    assert set(asked) - {row[0] for row in finding.rows} == {"base-mixing-aime24"}  # Table 9 prints counts


def test_table_9_the_equations_and_the_few_samples(audit) -> None:
    assert "Of 30 problems 3 are gained and 0 lost: p = 0.25, two-sided" in audit["table9"].says
    assert 2 * 0.5**3 == 0.25
    assert f"up to {100 * (1 - 0.025 ** (1 / 19)):.0f} %" in audit["table9"].says
    assert "1, 2, 2, 3 of 960" in audit["few"].says
    assert [row[2] for row in audit["few"].rows] == ["Base", "GRPO", "STHT", "N-GRPO"]
    base, always = TABLES["table1"]["values"]["r1-qwen-1.5b"]["Base"], TABLES["table11"]["values"]["r1-qwen-1.5b"]
    metrics = {"Mean@32": "mean", "Pass@16": "pass@16", "Pass@32": "pass@32"}
    chances = []
    for where, metric, a, b, difference, chance in audit["without-rate"].rows:
        one, other = base[where][metrics[metric]], always["N-GRPO w/o rate"][where][metrics[metric]]
        assert (a, b, difference.replace("−", "-")) == (f"{one:.2f}", f"{other:.2f}", f"{other - one:+.2f}")
        on = MATH if where == "Avg" else (where,)
        spread = 100 * difference_deviation(of_row(base, SIZES, on), metrics[metric], NONE)
        assert chance == two_digits(2 * tail(abs(round(other - one, 2)) / spread))
        chances.append(float(chance))
    assert "differs from Base by +2.70 points" in audit["without-rate"].says
    assert f"in {min(chances):g} to {max(chances):g} % of cases" in audit["without-rate"].says
    for model, standard, mixing, printed, computed in audit["slowdown"].rows:
        assert computed == f"{100 * (1 - float(mixing) / float(standard)):.2f}"
        assert float(printed) == RAW["throughput"][model]["slowdown"] == round(float(computed), 1)


def test_equal_rewards_leave_no_advantage() -> None:
    rewards = np.ones(4)
    assert ((rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-6) == 0).all()


# --- the command


def test_every_statement_names_its_calculation_and_a_function_that_exists(audit) -> None:
    assert len(audit) == 10
    for finding in audit.values():
        module, _, function = finding.code.rpartition(".")
        assert f"def {function}(" in source_of(finding.code).read_text(), finding.code
        assert module.startswith("ngrpo.")
        assert finding.says
        assert finding.calculation
        assert all(len(row) == len(finding.head) for row in finding.rows)


def test_values_that_lack_a_table_or_a_size_are_audited_or_refused(tmp_path: Path) -> None:
    raw = yaml.safe_load((CONFIG / "paper_values.yaml").read_text())
    del raw["tables"]["table11"], raw["averages"]["table3"]
    (tmp_path / "paper_values.yaml").write_text(yaml.safe_dump(raw))
    assert "without-rate" not in {finding.id for finding in findings(read_paper_values(tmp_path), [], NOISE)}
    del raw["sizes"]["amc23"]
    (tmp_path / "paper_values.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(UserError, match="the size of amc23 is missing"):
        findings(read_paper_values(tmp_path), [], NOISE)


def test_the_command_needs_seconds_and_no_torch(tmp_path: Path) -> None:
    blocked = tmp_path / "torch.py"
    blocked.write_text("raise RuntimeError('torch was imported')\n")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT / 'workflow'}"}
    done = subprocess.run(
        [sys.executable, "-m", "ngrpo", "audit-paper"], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    numbered = re.findall(r"(?m)^(\d+)\. ", done.stdout)
    assert numbered == [str(n) for n in range(1, 11)]
    assert max(len(line) for line in done.stdout.splitlines()) <= 120


def test_a_configuration_without_the_papers_values_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("study.yaml", "claims.yaml", "scales/toy.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((CONFIG / name).read_bytes())
    with pytest.raises(SystemExit) as ended:
        main(["audit-paper", "--config", str(tmp_path)])
    assert ended.value.code == 1
    assert "none of the paper's values" in capsys.readouterr().err
