"""What was looked at before: every verdict that a report gave, so that the next knows how many there were.

results/{scale}/looks.json holds, for each claim and question, the looks in their order. It is no rule's output: making
a report again must not forget what was seen. Without it, adding seeds spends as if nothing had been seen.
"""

from dataclasses import asdict
from typing import Any

from ngrpo.errors import UserError
from ngrpo.files import read_json, write_json
from ngrpo.statistics.multiplicity import Look
from ngrpo.study.layout import Results

Looks = dict[str, dict[str, dict[str, list[Look]]]]
"""Claim → question → "for" or "against" → looks."""


def read_looks(results: Results) -> Looks:
    """The looks so far; none where there is no file. Raises UserError for a file that isn't one."""
    path = results.looks
    if not path.exists():
        return {}
    try:
        return {
            claim: {
                question: {side: [_look(each) for each in looks] for side, looks in sides.items()}
                for question, sides in questions.items()
            }
            for claim, questions in read_json(path).items()
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(
            "isn't a record of looks", where=path, do="restore it; without it, looks so far aren't counted"
        ) from None


def _look(saved: dict[str, Any]) -> Look:
    return Look(tuple(map(str, saved["seeds"])), float(saved["p"]))


def record_looks(results: Results, looks: Looks) -> None:
    """Note these claims' looks beside those of others; nothing is written where there is nothing to record."""
    before = read_looks(results)
    after = {**before, **looks}
    if after == before:
        return
    saved = {
        claim: {
            question: {side: [asdict(look) for look in each] for side, each in sides.items()}
            for question, sides in questions.items()
        }
        for claim, questions in after.items()
    }
    write_json(results.looks, saved)
