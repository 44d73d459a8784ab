"""Reference answers that the grader can't match with themselves: no response could ever be right."""

from typing import Any

from ngrpo.grading import Grader, Item


def ungradable(rows: list[dict[str, Any]], workers: int = 2) -> set[str]:
    """Ids of problems (but for choices) with an answer that the grader doesn't match with itself."""
    asked = [r for r in rows if r["kind"] != "choice" and r["answer"]]
    written = {"math": "\\boxed{{{}}}", "number": "{}"}
    items = [Item(r["id"], written[r["kind"]].format(r["answer"]), r["answer"], r["kind"]) for r in asked]
    with Grader(workers=workers) as grader:
        grades = grader.grade(items)
    return {item.id for item, grade in zip(items, grades, strict=True) if grade.grade != "correct"}
