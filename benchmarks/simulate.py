"""How often the study's intervals cover, its verdicts err and its power is as predicted: `make simulate`.

Prints every figure and writes the tables into docs/statistics.md. `make test` repeats a small part
(tests/unit/test_statistics.py).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize
from scipy.special import expit

from ngrpo.statistics.crossed import PairedCounts, compare_systems
from ngrpo.statistics.effects import CONFIDENCE, QUESTIONS, Effect
from ngrpo.statistics.fitting import Scores, fitted
from ngrpo.statistics.multiplicity import holm, spent
from ngrpo.statistics.pass_rates import DECLARED, GRID, SHAPES, LogitNoise, Shape, estimators, expected
from ngrpo.statistics.prediction import Asked, Planned, draw_problems, power_curve
from ngrpo.statistics.simulation import Drawn, policies, simulate, simulate_average

PAGE = Path("docs/statistics.md")
SEEDS = (2, 3, 5, 10, 30)
PROBLEMS = {  # the paper's GRPO row on the 1.5B model: Mean@32, Pass@16, Pass@32 (Tables 1 and 2)
    30: ("AIME25", 0.2135, 0.4361, 0.4731),
    40: ("AMC23", 0.6391, 0.9342, 0.9460),
    198: ("GPQA-Diamond", 0.3224, 0.8625, 0.9195),
    500: ("MATH500", 0.7561, 0.8943, 0.9032),
}
MOST = 1000
CELLS = 6_000_000
"""Problems × seeds × studies that are held in memory."""
HEADLINE, HEADLINE_SIZE = "Pass@32 bootstrap", 0.0176
NOISES = {
    "declared": LogitNoise(),
    "heavy tails (t, 4)": LogitNoise(tails=4),
    "half the samples shared": LogitNoise(shared=0.5),
    "no noise between runs": LogitNoise(run=0.0, run_problem=0.0),
    "runs differ much": LogitNoise(run=0.4),
}


def paper_shape(problems: int, noise: LogitNoise = DECLARED) -> Shape:
    """The shape fitted to the paper's row of that benchmark."""
    _, mean, few, many = PROBLEMS[problems]
    return fitted(Scores(problems, mean, ((16, few), (32, many))), noise)


def covered(effect: Effect, question: str, truth: np.ndarray | float) -> float:
    """The share of intervals that hold the truth, in percent."""
    low, high = effect.interval(question=question)
    return 100 * float(((low <= truth) & (truth <= high)).mean())


def supported(effect: Effect, question: str) -> float:
    """The share of studies whose interval lies above 0, in percent."""
    return 100 * float((effect.interval(question=question)[0] > 0).mean())


def coverage_rows(
    shape: Shape, problems: int, seeds: int, effect: float
) -> tuple[list[list[float]], list[list[float]]]:
    """For each question, over the estimators: coverage, and how often the first system is called better than it is."""
    at_once = max(1, min(MOST, CELLS // (problems * seeds)))
    rng = np.random.default_rng([problems, seeds])
    cover, above = np.zeros((2, 2, len(estimators(32))))
    for part in (min(at_once, MOST - done) for done in range(0, MOST, at_once)):
        drawn = simulate(shape, problems, seeds, part, rng, effect=effect)
        for which, (name, g) in enumerate(estimators(32).items()):
            measured = compare_systems([PairedCounts(drawn.a, drawn.b, 32)], g)
            truths = zip(QUESTIONS, (drawn.these[name], drawn.all[name]), strict=True)
            for place, (question, truth) in enumerate(truths):
                cover[place, which] += covered(measured, question, truth) * part / MOST
                above[place, which] += supported(measured.moved(1, -truth), question) * part / MOST
    return cover.tolist(), above.tolist()


def coverage_lines() -> Iterator[str]:
    """The table of coverage and of false "supported"; cells outside of 93 to 97 % (2 seeds: below 93) in bold."""
    names = ", ".join(estimators(32))
    yield f"Coverage in percent of {names}; and the largest false “supported” of the five, without an effect."
    yield ""
    yield "| pass rates | problems | seeds | on these benchmarks | on problems like these | false “supported” |"
    yield "|---|---|---|---|---|---|"
    for title in ("fitted to the paper", *SHAPES):
        for problems in PROBLEMS:
            for seeds in SEEDS:
                shape = SHAPES[title] if title in SHAPES else paper_shape(problems)
                cover, _ = coverage_rows(shape, problems, seeds, 0.3)
                _, above = coverage_rows(shape, problems, seeds, 0.0)
                cells = [" ".join(_marked(value, seeds) for value in row) for row in cover]
                wrong = " / ".join(f"{max(row):.1f}" for row in above)
                yield f"| {title} | {problems} | {seeds} | {cells[0]} | {cells[1]} | {wrong} |"


def _marked(value: float, seeds: int) -> str:
    out = value < 93 or (seeds > 2 and value > 97)
    return f"**{value:.1f}**" if out else f"{value:.1f}"


def headline(noise: LogitNoise) -> list[tuple[Shape, int]]:
    """The three benchmarks of Table 1's average."""
    return [(paper_shape(n, noise), n) for n in (30, 40, 500)]


def effect_of(cells: list[tuple[Shape, int]], g: np.ndarray, size: float, noise: LogitNoise) -> float:
    """The log-odds by which a system must be better to be so much better on average."""
    table = expected(g, float(np.hypot(noise.run, noise.run_problem)))

    def short(odds: float) -> float:
        gains = [s.mean(table, odds, noise.method_problem) - s.mean(table, 0.0, noise.method_problem) for s, _ in cells]
        return float(np.mean(gains)) - size

    return float(optimize.brentq(short, 0.0, 5.0))


def power_lines() -> Iterator[str]:
    """Power for the headline's effect, simulated and predicted, under several noises."""
    yield "| noise | S | these benchmarks: simulated | predicted | problems like these: simulated | predicted | width |"
    yield "|---|---|---|---|---|---|---|"
    g = estimators(32)[HEADLINE]
    for title, noise in NOISES.items():
        cells = headline(noise)
        odds = effect_of(cells, g, HEADLINE_SIZE, noise)
        planned = Planned(tuple(draw_problems(s, n, tuple(g), noise) for s, n in cells))
        for seeds in (2, 3, 5, 10, 20):
            text, widths = [], []
            for question, truth in zip(
                QUESTIONS, ({"on_these": (HEADLINE, HEADLINE_SIZE)}, {"effect": odds}), strict=True
            ):
                rng = np.random.default_rng(seeds)
                drawn = studies_of(cells, seeds, rng, noise=noise, **truth)
                measured = compare_systems([PairedCounts(d.a, d.b, 32) for d in drawn], g)
                predicted = power_curve(planned, seeds, Asked(question))(HEADLINE_SIZE)
                text += [f"{supported(measured, question):.0f}", f"{100 * predicted:.0f}"]
                low, high = measured.interval(question=question)
                widths.append(f"{100 * float((high - low).mean()):.2f}")
            yield f"| {title} | {seeds} | {' | '.join(text)} | {' / '.join(widths)} |"


def studies_of(cells: list[tuple[Shape, int]], seeds: int, rng: np.random.Generator, **truth: Any) -> list[Drawn]:
    """MOST studies, drawn in parts that fit into memory."""
    parts = [simulate_average(cells, seeds, MOST // 4, rng, **truth) for _ in range(4)]
    return [
        Drawn(np.concatenate([d.a for d in each]), np.concatenate([d.b for d in each]), {}, each[0].all)
        for each in zip(*parts, strict=True)
    ]


def looks_lines(studies: int = 10_000, most: int = 40, at_once: int = 1000) -> Iterator[str]:
    """How often a study without an effect is called supported at any of its looks, one after each seed."""
    yield "| estimator | looks at | on these benchmarks | on problems like these |"
    yield "|---|---|---|---|"
    schedules = {"every seed from 2 to 40": range(2, most + 1), "3, 5, 10, 20, 40": (3, 5, 10, 20, 40)}
    for name in ("Mean@32", HEADLINE):
        for title, schedule in schedules.items():
            shares = [100 * share for share in looked(name, tuple(schedule), studies, at_once)]
            yield f"| {name} | {title} | {shares[0]:.1f} | {shares[1]:.1f} |"


def looked(name: str, schedule: tuple[int, ...], studies: int, at_once: int) -> list[float]:
    """The share of studies without an effect that are called supported at some look, for each question."""
    g, hits = estimators(32)[name], np.zeros(2)
    for part in range(studies // at_once):
        drawn = simulate(paper_shape(30), 30, max(schedule), at_once, np.random.default_rng([7, part]))
        called = np.zeros((2, at_once), dtype=bool)
        for seeds, share in zip(schedule, spent(schedule), strict=True):
            measured = compare_systems([PairedCounts(drawn.a[:, :seeds], drawn.b[:, :seeds], 32)], g)
            for place, (question, truth) in enumerate(
                zip(QUESTIONS, (drawn.these[name], drawn.all[name]), strict=True)
            ):
                called[place] |= measured.estimate - truth > measured.reach((1 - CONFIDENCE) * share, -1, question)
        hits += called.sum(1)
    return list(hits / studies)


def family_lines(studies: int = 1000, claims: int = 10, seeds: int = 5) -> Iterator[str]:
    """How often a family of claims against one baseline has a false "supported", with and without Holm's adjustment."""
    rng, noise, g = np.random.default_rng(11), LogitNoise(), estimators(32)[HEADLINE]
    base = paper_shape(30).draw(rng, (studies, 30))
    table = expected(g, float(np.hypot(noise.run, noise.run_problem)))
    counts, truths = [], []
    for _ in range(claims + 1):
        own, odds = policies(base, noise.draw(rng, noise.run, (studies, seeds)), rng, noise)
        counts.append(rng.binomial(32, expit(odds)))
        truths.append(np.interp(own, GRID, table).mean(-1))
    yield f"| {claims} claims, 30 problems, {seeds} seeds, no effect | any false “supported” alone | after Holm |"
    yield "|---|---|---|"
    for question in QUESTIONS:
        effects = []
        for own, truth in zip(counts[1:], truths[1:], strict=True):
            measured = compare_systems([PairedCounts(own, counts[0], 32)], g)
            effects.append(measured.moved(1, truths[0] - truth) if question == QUESTIONS[0] else measured)
        p = np.minimum(1.0, 2 * np.stack([e.one_sided_p(question) for e in effects]))
        alone = 100 * float((p <= 0.05).any(0).mean())
        adjusted = [min(holm({str(i): float(v) for i, v in enumerate(column)}).values()) for column in p.T]
        yield f"| {question} | {alone:.1f} | {100 * float(np.mean(np.array(adjusted) <= 0.05)):.1f} |"


PARTS = {"coverage": coverage_lines, "power": power_lines, "looks": looks_lines, "families": family_lines}


def main() -> None:
    """Run every part and write its table between its markers on the page."""
    text = PAGE.read_text()
    for name, lines in PARTS.items():
        made = []
        for line in lines():
            print(line, flush=True)
            made.append(line)
        start, end = f"<!-- simulated: {name} -->\n", f"<!-- end: {name} -->"
        before, _, rest = text.partition(start)
        text = before + start + "\n".join(made) + "\n" + end + rest.partition(end)[2]
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
