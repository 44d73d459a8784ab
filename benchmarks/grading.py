"""Grading: ours against Math-Verify one at a time in one process, and the same with hostile answers among them.

32 responses to each of 400 problems. A problem's samples are drawn, with replacement and seeded, from its correct
answer in up to five spellings and from nine wrong ones, as 32 samples of a language model repeat themselves; each is
put at the end of a worked solution. The chances to be right average 0.75, what the paper reports for MATH500. Real
problems come from the folder that NGRPO_REAL_DATA names (math500_first400.jsonl: problem, solution, answer), else from
LaTeX answers made here.

The peer is what a user writes first, verify(parse(reference), parse(response)), one at a time, in one process. It is
timed on a random share of the responses (stated in the row's note), and its verdict on each of those must be ours. Our
time is for all responses, worker start included. A solution's own box is opened, so that each response has one box:
Math-Verify joins neighboring boxes into one answer, where we take the last, as the paper does.
"""

import json
import logging
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.rows import row
from ngrpo.grading import Grade, Grader, GradingLimits, Item
from ngrpo.grading.extract import clean_gold

ENV = "workflow"
NAMES = ("grading", "grading-hostile")
GOAL = 10.0
PROBLEMS, SAMPLES, WORKERS = 400, 32, 2
PEER_SAMPLES = 1500
HOSTILE_SHARE = 0.01
LIMITS = GradingLimits(seconds=1.0)
HOSTILE = [
    r"9^{9^{9^{9}}}+%d",
    r"10^{10^{10+%d}}",
    r"(10^{9}+%d)!",
    r"2^{2^{40}}+%d",
    r"\sum_{i=1}^{1000000000} \frac{1}{i^{3+%d}}",
    "(" * 3000 + "%d" + ")" * 3000,
    "1%d" * 200_000,
    "\x00\ud800%d",
    "__import__('os').abort()%d",
]


def rows(names: tuple[str, ...] = NAMES) -> Iterator[dict[str, Any]]:
    """Two rows: the speed-up over Math-Verify alone, and the time with 1 % hostile answers against their limits."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    problems, source = _problems()
    items = _items(problems, random.Random(1))
    if "grading" in names:
        yield _against_peer(items, source)
    if "grading-hostile" in names:
        yield _with_hostile(items, source)


def _against_peer(items: list[Item], source: str) -> dict[str, Any]:
    grades, ours = _ours(items)
    chosen = random.Random(2).sample(range(len(items)), min(PEER_SAMPLES, len(items)))
    verdicts, peer = _peer([items[i] for i in chosen])
    differ = sum((grades[i].grade == "correct") != verdict for i, verdict in zip(chosen, verdicts, strict=True))
    errors = sum(grade.grade == "grader_error" for grade in grades)
    ours_rate, peer_rate = len(items) / ours, len(chosen) / peer
    note = (
        f"{SAMPLES} responses to {len(items) // SAMPLES} {source} problems; peer: one at a time, one process, "
        f"{len(chosen)} random ones: {differ} verdicts differ; {errors} grader errors"
    )
    return row(
        "grading", ours=ours_rate, peer=peer_rate, unit="answers/s", ratio=ours_rate / peer_rate, at_least=GOAL,
        holds=differ == 0, note=note,
    )  # fmt: skip


def _with_hostile(items: list[Item], source: str) -> dict[str, Any]:
    """ours: seconds with hostile answers; peer: seconds without, plus each hostile answer's limit, over the workers."""
    places = set(random.Random(3).sample(range(len(items)), int(HOSTILE_SHARE * len(items))))
    mixed = list(items)
    for number, place in enumerate(sorted(places)):
        answer = HOSTILE[number % len(HOSTILE)].replace("%d", str(number))
        mixed[place] = Item(items[place].id, rf"\boxed{{{answer}}}", items[place].answer)
    expected, plain = _ours(items)
    grades, ours = _ours(mixed)
    lost = sum(grades[i] != expected[i] for i in range(len(items)) if i not in places)
    unlimited = sum(grades[i].grade == "correct" for i in places)
    budget = plain + len(places) * LIMITS.seconds / WORKERS
    note = (
        f"the same, {len(places)} of them hostile; peer: time without those plus {LIMITS.seconds:g} s for each, over "
        f"{WORKERS} workers; {lost} others lost"
    )
    return row(
        "grading-hostile", ours=ours, peer=budget, unit="s", ratio=ours / budget, at_most=1.0,
        holds=lost == 0 and unlimited == 0, note=note,
    )  # fmt: skip


def _ours(items: list[Item]) -> tuple[list[Grade], float]:
    start = time.perf_counter()
    with Grader(WORKERS, LIMITS) as grader:
        grades = grader.grade(items)
    return grades, time.perf_counter() - start


def _peer(items: list[Item]) -> tuple[list[bool], float]:
    from math_verify import parse, verify

    parse(r"\boxed{1}")  # its tables are loaded before the clock starts
    start = time.perf_counter()
    verdicts = []
    for item in items:
        gold = parse(rf"\boxed{{{clean_gold(item.answer)}}}")
        verdicts.append(verify(gold, parse(item.response)))
    return verdicts, time.perf_counter() - start


def _problems() -> tuple[list[tuple[str, str]], str]:
    """(solution, answer) of each problem, and where they are from."""
    folder = os.environ.get("NGRPO_REAL_DATA")
    if folder is None:
        return [(f"Step {i}. " * 60, answer) for i, answer in enumerate(_made_answers(random.Random(0)))], "generated"
    lines = (Path(folder) / "math500_first400.jsonl").read_text(encoding="utf-8").splitlines()
    read = [json.loads(line) for line in lines[:PROBLEMS]]
    return [(row["solution"], row["answer"]) for row in read], "real"


def _made_answers(rng: random.Random) -> list[str]:
    """400 LaTeX answers in the proportions of competition problems: half integers, the rest expressions."""
    shapes = [
        lambda a, b, c: str(a),
        lambda a, b, c: str(10 * a + b),
        lambda a, b, c: str(-b),
        lambda a, b, c: str(1000 + c),
        lambda a, b, c: rf"\frac{{{a}}}{{{b + c}}}",
        lambda a, b, c: rf"{a}\sqrt{{{b}}}",
        lambda a, b, c: rf"\left( {a}, \frac{{\pi}}{{{b}}} \right)",
        lambda a, b, c: rf"x^{{{b}}} + {a}x - {c}",
        lambda a, b, c: rf"[{-a},{b})",
        lambda a, b, c: rf"{a}, {b}, {-c}",
        lambda a, b, c: rf"\begin{{pmatrix}} {a} \\ {b} \end{{pmatrix}}",
        lambda a, b, c: rf"{a}\%",
    ]
    return [rng.choice(shapes)(*(rng.randint(2, 40) for _ in range(3))) for _ in range(PROBLEMS)]


def _items(problems: list[tuple[str, str]], rng: random.Random) -> list[Item]:
    items = []
    for number, (solution, answer) in enumerate(problems):
        opened = solution.replace(r"\boxed", "")
        right = [
            answer,
            rf" {answer} ",
            answer.replace(r"\frac", r"\dfrac"),
            rf"\displaystyle {answer}",
            rf"{answer}\,",
        ]
        wrong = [
            rf"{answer}+1",
            rf"2({answer})",
            rf"-{answer}",
            str(rng.randint(0, 999)),
            str(rng.randint(0, 9)),
            rf"\frac{{{rng.randint(1, 20)}}}{{{rng.randint(2, 20)}}}",
            rf"\sqrt{{{rng.randint(2, 50)}}}",
            f"x={answer}",
            answer[: max(1, len(answer) - 1)],
        ]
        chance = rng.betavariate(1.5, 0.5)
        for sample in range(SAMPLES):
            # answers repeat: the first few of each list are drawn far more often than the last
            pool = right if rng.random() < chance else wrong
            drawn = pool[min(int(rng.expovariate(0.7)), len(pool) - 1)]
            items.append(Item(f"{number}-{sample}", rf"{opened} So \boxed{{{drawn}}}.", answer))
    return items
