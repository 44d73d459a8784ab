"""What the paper's own numbers can bear: each statement with its calculation and the function that computes it.

Computed from config/paper_values.yaml and the claims of config/claims.yaml, for any scale, without a study's results.
It says what printed numbers allow, not what anybody meant. Counts: ngrpo.audit.paper_counts. Chance:
ngrpo.audit.paper_noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import ngrpo
from ngrpo.audit.paper_counts import (
    average_misses,
    paired_counts,
    printed_cells,
    solved_range,
    whole_count,
)
from ngrpo.audit.paper_noise import chance_of, detectable, deviation_range, difference_deviation, of_row
from ngrpo.errors import UserError
from ngrpo.formatting import short, signed
from ngrpo.statistics.fitting import Scores
from ngrpo.statistics.pass_rates import NONE, LogitNoise
from ngrpo.statistics.sign_tests import sign_test_p
from ngrpo.study.paper_values import AVERAGE, FILE, PaperValues

REFERENCE, OURS, BASE, ALWAYS = "GRPO", "N-GRPO", "Base", "N-GRPO w/o rate"
Row = Mapping[str, Mapping[str, float]]
"""A printed row: benchmark → metric → percent."""
METRICS = {"mean": "Mean@32", "pass@16": "Pass@16", "pass@32": "Pass@32"}


@dataclass(frozen=True)
class PrintedDifference:
    """A difference that a claim rests on, as the paper prints it.

    labels: the row of the system and of the one that it is compared with, where the paper prints them.
    """

    claim: str
    model: str
    benchmarks: tuple[str, ...]
    metric: str
    points: float
    labels: tuple[str, str] | None


@dataclass(frozen=True)
class Finding:
    """One statement. code: the function that computes it, as a dotted name; rows: below `head`, ready to be shown."""

    id: str
    title: str
    says: str
    calculation: str
    code: str
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def source_of(code: str) -> Path:
    """The file of a function of this package. code: its dotted name."""
    return Path(ngrpo.__file__).parent.joinpath(*code.split(".")[1:-1]).with_suffix(".py")


def findings(paper: PaperValues, differences: Sequence[PrintedDifference], noise: LogitNoise) -> list[Finding]:
    """Every statement that these values allow, in the order in which the page shows them.

    differences: those of the claims; noise: between runs, as declared. Raises UserError where a benchmark's size isn't
    known.
    """
    measured = {cell.benchmark for cell in printed_cells(paper)} | {paper.evaluation.validation}
    for benchmark in sorted(measured - set(paper.sizes)):
        raise UserError(f"the size of {benchmark} is missing", where=f"{FILE}: sizes", do="name its number of problems")
    compared = {model: rows for model, rows in _of(paper, "table1").items() if {REFERENCE, OURS} <= set(rows)}
    based = {model for model, rows in _of(paper, "table1").items() if BASE in rows}
    always = {m: rows[ALWAYS] for m, rows in _of(paper, "table11").items() if ALWAYS in rows and m in based}
    return [
        possible_counts(paper),
        solved_problems(paper),
        averages(paper),
        *(
            [one_run_each(paper, compared, noise), headline(paper, *next(iter(compared.items())), noise)]
            if compared
            else ()
        ),
        claimed_differences(paper, differences, noise),
        paired_test(paper),
        *(
            without_rate(paper, model, row)
            for model, row in always.items()
            if BASE in _of(paper, "table1").get(model, {})
        ),
        few_correct(paper),
        slowdowns(paper),
    ]


def _of(paper: PaperValues, table: str) -> Mapping[str, Mapping[str, Row]]:
    return cast(Mapping[str, Mapping[str, Row]], paper.tables[table].values) if table in paper.tables else {}


def possible_counts(paper: PaperValues) -> Finding:
    """Whether each Mean@32 is a number of correct samples."""
    n = paper.evaluation.samples
    cells = [c for c in printed_cells(paper) if "mean" in c.values]
    off = [c for c in cells if whole_count(c.values["mean"], paper.sizes[c.benchmark] * n) is None]
    named = "; ".join(f"{c.table}, {c.model}, {c.label}, {c.benchmark}: {c.values['mean']}" for c in off)
    return Finding(
        "counts",
        "Is each Mean@32 a possible count?",
        f"{len(cells) - len(off)} of {len(cells)} are" + (f"; not: {named}." if off else "."),
        f"Mean@{n} of N problems is 100 · C / ({n} · N) for a whole number C of correct samples, printed to 0.01.",
        "ngrpo.audit.paper_counts.whole_count",
    )


def solved_problems(paper: PaperValues) -> Finding:
    """How many solved problems fit each Pass@32, under both estimators."""
    n, cells = paper.evaluation.samples, printed_cells(paper)
    drawn = {id(c): solved_range(c, paper.sizes[c.benchmark], n) for c in cells}
    exact = {id(c): whole_count(c.values["pass@32"], paper.sizes[c.benchmark]) for c in cells}
    fits = [sum(v is not None for v in by.values()) for by in (exact, drawn)]
    rows = [
        (c.model, c.benchmark, c.label, f"{c.values['pass@32']:.2f}", _range(drawn[id(c)]), _count(exact[id(c)]))
        for c in cells
        if c.label in (REFERENCE, OURS) and c.table in ("table1", "table2")
    ]
    return Finding(
        "solved",
        "How many problems does each Pass@32 say were solved?",
        f"By Eq. 15 a Pass@{n} of {n} samples is a whole number of problems: {fits[0]} of {len(cells)} cells are."
        f" By the released code's bootstrap, {fits[1]} of {len(cells)} fit together with their Mean@32 and Pass@16. So"
        " Pass@32 here isn't the share of solved problems, and one number of them fits several values.",
        f"Bootstrap: a problem with c of {n} right counts 1 − (1 − c/{n})^{n}, drawn 1000 times. Least and largest"
        " number of solved problems over all distributions of c that have the cell's Mean@32 and Pass@16, three"
        " standard deviations of the draws allowed. Eq. 15: 100 · M/N, printed to 0.01.",
        "ngrpo.audit.paper_counts.solved_range",
        ("model", "benchmark", "system", "Pass@32", "solved, bootstrap", "solved, Eq. 15"),
        tuple(rows),
    )


def averages(paper: PaperValues) -> Finding:
    """Whether printed averages are those of the printed values."""
    misses = list(average_misses(paper))
    return Finding(
        "averages",
        "Are averages averages?",
        f"All {len(misses)} are the benchmarks' plain means, within {max(misses):.4f} points: as rounding allows.",
        "|printed average − mean of the printed values|; two roundings to 0.01 allow 0.01.",
        "ngrpo.audit.paper_counts.average_misses",
    )


def one_run_each(paper: PaperValues, compared: Mapping[str, Mapping[str, Row]], noise: LogitNoise) -> Finding:
    """What one run of each system could have shown, beside what it showed. compared: model → label → row."""
    rows = []
    for model, table in compared.items():
        scores = of_row(table[REFERENCE], paper.sizes, _benchmarks(table[REFERENCE]))
        for metric, title in METRICS.items():
            spread = difference_deviation(scores, metric, noise)
            ends = deviation_range(scores, metric, noise)
            printed = _difference(table[OURS][AVERAGE][metric], table[REFERENCE][AVERAGE][metric])
            varies = f"{100 * spread:.2f} ({100 * ends[0]:.2f} – {100 * ends[1]:.2f})"
            chances = [_percent(chance_of(printed / 100, each)) for each in (spread, *ends)]
            chance = f"{chances[0]} ({' – '.join(sorted(chances[1:], key=float))})"
            rows.append((model, title, signed(printed, 2), varies, f"{100 * detectable(spread):.1f}", chance))
    return Finding(
        "one-run",
        "What difference could one run of each system have shown?",
        "A difference of two averages of Table 1 varies by chance alone with the standard deviation below. One run"
        " each shows, with 80 % chance, a true difference of at least the next column; the last is how often, in %, a"
        f" difference like the paper's, {OURS} over {REFERENCE}, or a larger one comes up where there is none. In"
        " brackets: all that shapes of difficulty with the same printed scores allow.",
        "Standard deviation of the difference of two runs that don't differ: log-odds vary by"
        f" {noise.run:g} a run and by {noise.method_problem:g} and {noise.run_problem:g} a problem (declared: the paper"
        " reports no second seed), 32 samples, 1000 draws; problems' chances fitted"
        f" to {REFERENCE}'s row. Shown with 80 %: (1.96 + 0.84) standard deviations. Chance: the normal tail.",
        "ngrpo.audit.paper_noise.difference_deviation",
        ("model", "average of", "paper", "by chance (SD)", "one run shows", "chance of paper's"),
        tuple(rows),
    )


def headline(paper: PaperValues, model: str, table: Mapping[str, Row], noise: LogitNoise) -> Finding:
    """How often chance alone gives the headline difference. table: label → row of the model."""
    printed = _difference(table[OURS][AVERAGE]["pass@32"], table[REFERENCE][AVERAGE]["pass@32"])
    benchmarks = of_row(table[REFERENCE], paper.sizes, _benchmarks(table[REFERENCE]))
    chance = chance_of(printed / 100, difference_deviation(benchmarks, "pass@32", noise))
    ends = [chance_of(printed / 100, each) for each in deviation_range(benchmarks, "pass@32", noise)]
    alone = chance_of(printed / 100, difference_deviation(benchmarks, "pass@32", NONE))
    return Finding(
        "headline",
        "How often does chance alone give the headline difference?",
        f"{signed(printed, 2)} points of average Pass@32 on {model}, or more, come up in {_percent(chance)} %"
        f" ({_percent(ends[0])} to {_percent(ends[1])}, by the shape of difficulty) of"
        f" studies with one run each and no effect; in {_percent(alone)} % where even the weights are the same and only"
        " other samples are drawn.",
        "The normal tail of the standard deviation above; the second without noise between runs and problems.",
        "ngrpo.audit.paper_noise.chance_of",
    )


def claimed_differences(paper: PaperValues, differences: Sequence[PrintedDifference], noise: LogitNoise) -> Finding:
    """Which claims' differences are within chance, and which fit the same number of solved problems."""
    rows, ties, within = [], 0, 0
    for d in differences:
        benchmarks = _reference(paper, d.model, d.benchmarks)
        if benchmarks is None:
            continue
        spread = 100 * difference_deviation(benchmarks, d.metric, noise)
        tie = _same_count(paper, d)
        ties += tie is True
        within += d.points < spread
        said = {True: "yes", False: "no", None: "–"}[tie]
        rows.append((d.claim, f"{d.points:.2f}", f"{spread:.2f}", _percent(chance_of(d.points, spread)), said))
    return Finding(
        "claims",
        "Which claims rest on a tie?",
        f"Of {len(rows)} claims that a system is above others, {ties} rest on values of Pass@32 that one and the same"
        f" number of solved problems fits on every benchmark; in {within} the smallest difference is less than one"
        " standard deviation of chance, which two runs of one method exceed in every third study.",
        "The smallest difference that a claim needs; its standard deviation by chance and normal tail in % as above;"
        " whether the ranges of solved problems (bootstrap) of both systems overlap on each benchmark.",
        "ngrpo.audit.paper_findings.claimed_differences",
        ("claim", "paper", "by chance (SD)", "chance of paper's", "same number solved fits"),
        tuple(rows),
    )


def paired_test(paper: PaperValues) -> Finding:
    """The exact test of Table 9."""
    size = paper.sizes["aime24"]
    counts = paired_counts(paper, size)
    gained, lost = counts["mixing_only"] or 0, counts["standard_only"] or 0
    return Finding(
        "table9",
        "What does Table 9 show?",
        f"Of {size} problems {gained} are gained and {lost} lost: p = {sign_test_p(gained, lost):.2f}, two-sided."
        f" Losing none of {counts['both']} solved ones leaves up to"
        f" {100 * (1 - 0.025 ** (1 / ((counts['both'] or 0) + lost))):.0f} % that another draw could lose.",
        "Exact sign test, McNemar's: 2 · (1/2)^3 for 3 of 3; upper 95 % limit of 0 of 19 (Clopper and Pearson).",
        "ngrpo.statistics.sign_tests.sign_test_p",
    )


def without_rate(paper: PaperValues, model: str, always: Row) -> Finding:
    """What the equations themselves say of mixing at every step. always: the row of the model trained so."""
    base = _of(paper, "table1")[model][BASE]
    names = _benchmarks(base)
    rows = []
    for where in (*names, AVERAGE):
        benchmarks = of_row(base, paper.sizes, names if where == AVERAGE else (where,))
        for metric, title in METRICS.items():
            printed = _difference(always[where][metric], base[where][metric])
            chance = chance_of(abs(printed) / 100, difference_deviation(benchmarks, metric, NONE))
            values = (f"{base[where][metric]:.2f}", f"{always[where][metric]:.2f}", signed(printed, 2))
            rows.append((where, title, *values, _percent(2 * chance)))
    gain, chances = _difference(always[AVERAGE]["pass@32"], base[AVERAGE]["pass@32"]), [row[-1] for row in rows]
    return Finding(
        "without-rate",
        "What do the equations say of mixing at every step (w/o rate)?",
        "Eq. 6 to 11 draw nothing at a mixed step. With ρ = 1 all responses to a prompt are therefore the same, so are"
        " their rewards, every advantage of Eq. 12 is 0, and so are gradient and KL term: training leaves the base"
        f" model as it is. The paper's row of a trained model differs from {BASE} by {signed(gain, 2)} points of"
        " average Pass@32. Either the weights are the same and only the samples differ, or the row was made by"
        " something else than these equations (the released code writes the sampled token). The numbers don't tell: two"
        f" evaluations of the same weights lie as far apart in {min(chances, key=float)} to"
        f" {max(chances, key=float)} % of cases.",
        "A = (r − mean r)/(std r + ε) with equal r is 0. Last column: how often, in %, two evaluations of the same"
        " weights lie as far apart, either way (other samples and draws, nothing else).",
        "ngrpo.audit.paper_findings.without_rate",
        ("benchmark", "metric", BASE, "w/o rate", "difference", "same weights"),
        tuple(rows),
    )


def few_correct(paper: PaperValues) -> Finding:
    """Cells whose Mean@32 is a handful of samples."""
    n, few = paper.evaluation.samples, 5
    counted = [
        (c, whole_count(c.values["mean"], paper.sizes[c.benchmark] * n))
        for c in printed_cells(paper)
        if "mean" in c.values
    ]
    rows = [
        (c.model, c.benchmark, c.label, f"{c.values['mean']:.2f}", f"{count} of {paper.sizes[c.benchmark] * n}")
        for c, count in counted
        if count is not None and count <= few
    ]
    return Finding(
        "few",
        "Which cells rest on a handful of samples?",
        f"{len(rows)} values of Mean@{n} are {few} correct samples or fewer: "
        + ", ".join(row[-1].split()[0] for row in rows)
        + f" of {paper.sizes[counted[0][0].benchmark] * n}. One more or less moves them by"
        f" {100 / (paper.sizes[counted[0][0].benchmark] * n):.2f}.",
        "C as above.",
        "ngrpo.audit.paper_counts.whole_count",
        ("model", "benchmark", "system", f"Mean@{n}", "correct samples"),
        tuple(rows),
    )


def slowdowns(paper: PaperValues) -> Finding:
    """Whether Table 14's slowdowns are those of its rates."""
    rows = tuple(
        (model, f"{t.standard:.2f}", f"{t.mixing:.2f}", f"{t.slowdown:.1f}", f"{100 * (1 - t.mixing / t.standard):.2f}")
        for model, t in paper.throughput.items()
    )
    agree = all(abs(float(row[3]) - float(row[4])) <= 0.05 for row in rows)
    return Finding(
        "slowdown",
        "Are Table 14's slowdowns those of its rates?",
        "They are, to the digit that is printed." if agree else "Not all of them.",
        "100 · (1 − tokens a second with mixing / without).",
        "ngrpo.audit.paper_findings.slowdowns",
        ("model", "standard", "mixing", "slowdown, %", "computed"),
        rows,
    )


def _benchmarks(row: Row) -> tuple[str, ...]:
    return tuple(name for name in row if name != AVERAGE)


def _difference(one: float, other: float) -> float:
    return round(one - other, 2)


def _percent(chance: float) -> str:
    return short(100 * chance, 2)


def _range(ends: tuple[int, int] | None) -> str:
    return "none" if ends is None else str(ends[0]) if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _count(count: int | None) -> str:
    return "none" if count is None else str(count)


def _reference(paper: PaperValues, model: str, names: Sequence[str]) -> list[Scores] | None:
    """The benchmarks as GRPO's row of this model has them, or None where it isn't measured on one of them."""
    for table in paper.tables:
        row = _of(paper, table).get(model, {}).get(REFERENCE, {})
        if set(names) <= set(row):
            return of_row(row, paper.sizes, names)
    return None


def _same_count(paper: PaperValues, d: PrintedDifference) -> bool | None:
    """Whether one number of solved problems fits both systems on each benchmark; None for another metric than Pass@32
    and where a row isn't printed."""
    if d.metric != "pass@32" or d.labels is None:
        return None
    cells = {(c.label, c.benchmark): c for c in printed_cells(paper) if c.model == d.model}
    for benchmark in d.benchmarks:
        ranges = []
        for label in d.labels:
            cell = cells.get((label, benchmark))
            size = paper.sizes[benchmark]
            ranges.append(solved_range(cell, size, paper.evaluation.samples) if cell else None)
        if None in ranges:
            return None
        (low, high), (least, most) = (r for r in ranges if r is not None)
        if high < least or most < low:
            return False
    return True
