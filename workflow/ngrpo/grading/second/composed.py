"""Quantities that are composed: a determinant, a length in feet and inches, an angle in degrees and minutes."""

import re
from collections.abc import Sequence
from fractions import Fraction

from ngrpo.grading.second.formulas import Node, Unreadable, number
from ngrpo.grading.second.latex import parse_formula
from ngrpo.grading.second.units import ANGLE, Unit, unit_of

LARGEST = 4
"""Rows of a determinant that is expanded."""
_AMOUNT = r"([\d./\\{}a-z ]{1,60}?)\s*«\s*([A-Za-z]+)\s*»"
_TWO = re.compile(rf"{_AMOUNT}\s*(?:«?\s*and\s*»?)?\s*{_AMOUNT}")
_MINUTES = re.compile(r"(\d{1,6})\s*\^\s*\{?\s*\\circ\s*\}?\s*(\d{1,2})\s*'\s*(?:(\d{1,2})\s*(?:''|\"))?")


def determinant(rows: Sequence[Sequence[Node]]) -> Node | None:
    """The determinant of a small square matrix; None of others."""
    if not 1 <= len(rows) <= LARGEST or any(len(row) != len(rows) for row in rows):
        return None
    if len(rows) == 1:
        return rows[0][0]
    total = number(0)
    for column, first in enumerate(rows[0]):
        minor = determinant([[*row[:column], *row[column + 1 :]] for row in rows[1:]])
        assert minor is not None
        term = Node("multiply", (first, minor))
        total = Node("add", (total, Node("negate", (term,)) if column % 2 else term))
    return total


def in_two_units(text: str) -> tuple[Node, Unit] | None:
    """5 feet 6 inches as feet, 1 hour 30 minutes as hours, 60° 30' as degrees; None where there aren't two."""
    if angle := _MINUTES.fullmatch(text.strip()):
        degrees, minutes, seconds = (int(part or 0) for part in angle.groups())
        return number(degrees + Fraction(minutes, 60) + Fraction(seconds, 3600)), ANGLE
    if not (matched := _TWO.fullmatch(text.strip())):
        return None
    first_unit, second_unit = unit_of(matched[2]), unit_of(matched[4])
    if first_unit is None or second_unit is None or first_unit[0] != second_unit[0]:
        return None
    larger, smaller = first_unit[1], second_unit[1]
    if larger is None or smaller is None or larger == smaller:
        return None
    try:
        first, second = parse_formula(matched[1]), parse_formula(matched[3])
    except Unreadable:
        return None
    return Node("add", (first, Node("multiply", (second, number(smaller / larger))))), first_unit
