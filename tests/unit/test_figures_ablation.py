"""Figures of ablations draw what they are given, and nothing where there is nothing."""

import pandas as pd

from ngrpo.report.figures_ablation import by_problem, over_rho


def rows(labels: list[str]) -> list[dict]:
    shared = {"against": None, "headline": True, "metric": "Pass@32", "estimator": "unbiased", "k": 32}
    values = [
        {"label": x, "value": 0.5 + 0.1 * i, "problems_low": 0.4, "problems_high": 0.9} for i, x in enumerate(labels)
    ]
    return [{**shared, **value} for value in values]


def test_values_lie_at_their_rho() -> None:
    [line] = over_rho(rows(["ρ = 0.2", "ρ = 0.1", "ρ = 0.15"])).lines()
    assert list(line.x) == [0.1, 0.15, 0.2]
    assert [round(y, 6) for y in line.y] == [60, 70, 50]
    assert over_rho(rows(["cosine", "L2"])) is None


def test_problems_are_paired_and_sorted_by_the_first() -> None:
    def grades(counts: dict[str, int]) -> pd.DataFrame:
        return pd.DataFrame(
            [{"problem_id": p, "grade": "correct" if i < c else "wrong"} for p, c in counts.items() for i in range(4)]
        )

    panel = by_problem(grades({"a": 4, "b": 1, "c": 2}), grades({"c": 3, "a": 0, "b": 1}), ("one", "two"))
    line, points = panel.marks
    assert list(line.y) == [25, 50, 100]
    assert list(points.y) == [25, 75, 0]
    assert by_problem(grades({"a": 1}), grades({"b": 1}), ("one", "two")) is None
