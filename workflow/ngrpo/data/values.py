"""A row's values as text: what a column may hold, and how each other thing is refused by name.

| the source holds | problem, solution, option | reference answer, id |
|---|---|---|
| text | as it is, stripped | the same ("27.0" is 27) |
| a number | refused (an option: as for answers) | its value: 27.0 is 27, 0.10 is 0.10, 1e3 is 1000 |
| a list of messages with one user turn, nothing else | that turn's text | refused |
| another list, a struct, binary data, true or false, … | refused | refused |
"""

import math
import unicodedata
from decimal import Decimal
from typing import Any

from ngrpo.errors import UserError, listed, nearest_name

INVISIBLE = ("Cc", "Cf", "Zs", "Zl", "Zp", "Mn", "Me")
"""Unicode's categories of controls, formats, spaces and marks on another character."""
MOST_DIGITS = 10_000  # of a number as text; the grader reads no longer answers


def is_null(value: Any) -> bool:
    """Whether a value is none: null, or what pandas writes in its place."""
    return value is None or (isinstance(value, float | Decimal) and math.isnan(value))


def is_number(value: Any) -> bool:
    """Whether a value is a number (true and false aren't)."""
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def field(row: dict[str, Any], name: str, where: str) -> Any:
    """A row's value by its column, or by names joined by dots into structs and lists (`reward_model.ground_truth`,
    `prompt.0.content`). Raises UserError, with the nearest name, where there is none."""
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            known = [*row, *(f"{a}.{b}" for a, inner in row.items() if isinstance(inner, dict) for b in inner)]
            near = nearest_name(name, known)
            raise UserError(
                f"the field '{name}' is missing; there are {listed(row)}",
                where=where,
                do=f"name it in the data set's `fields`{f', e.g. {near}' if near else ''}",
            )
    return value


def has_field(row: dict[str, Any], name: str) -> bool:
    """Whether a row has a field of this name."""
    try:
        field(row, name, "")
    except UserError:
        return False
    return True


def number_text(value: float | Decimal, where: str) -> str:
    """A number's value in digits, without an exponent; whole ones without a point. Raises UserError for infinity and
    for more than MOST_DIGITS digits."""
    number = value if isinstance(value, Decimal) else Decimal(repr(value))
    if not number.is_finite():
        raise UserError(f"the number is {value}", where=where, do="correct the row")
    if max(len(number.as_tuple().digits), abs(number.adjusted())) > MOST_DIGITS:
        raise UserError(f"a number of more than {MOST_DIGITS} digits", where=where, do="leave the row out")
    text = f"{number:f}"
    whole, _, fraction = text.partition(".")
    return text if fraction.strip("0") else whole


def kind_of(value: Any) -> str:
    """What a value is, in a message's words."""
    if is_null(value):
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if is_number(value):
        return "a number"
    if isinstance(value, bytes):
        return "binary data"
    if isinstance(value, dict):
        return f"a struct with the fields {', '.join(map(str, list(value)[:6]))}"
    if _messages(value):
        return f"a list of messages ({', '.join(str(m['role']) for m in value[:6])})"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return f"a {type(value).__name__}"


def _messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, dict) and {"role", "content"} <= each.keys() for each in value)
    )


def not_text(value: Any, name: str, what: str, where: str) -> UserError:
    """The error for a value that can't be taken as text, with what to name instead."""
    do = "export this column as text"
    if _messages(value):
        turns = [i for i, each in enumerate(value) if each["role"] == "user"] or [len(value) - 1]
        do = f"name the text in the data set's `fields`, e.g. {name}.{turns[-1]}.content"
    elif isinstance(value, dict) and value:
        near = nearest_name(what, map(str, value)) or next(iter(value))
        do = f"name the text in the data set's `fields`, e.g. {name}.{near}"
    elif isinstance(value, list) and value:
        do = f"name the one to take in the data set's `fields`, e.g. {name}.0"
    return UserError(f"the {what} is {kind_of(value)}, not text", where=f"{where}, field '{name}'", do=do)


def text_of(value: Any, name: str, what: str, where: str) -> str:
    """A text, stripped (nothing but invisible characters is no text); of a list of messages with one user turn and
    nothing else that turn's. Raises UserError."""
    if _messages(value) and [each["role"] for each in value] == ["user"] and isinstance(value[0]["content"], str):
        value = value[0]["content"]
    if not isinstance(value, str):
        raise not_text(value, name, what, where)
    return _visible(value)


def _visible(text: str) -> str:
    """A text, stripped; empty where every character is a space, a control or a mark without a glyph of its own."""
    return text.strip() if any(unicodedata.category(each) not in INVISIBLE for each in text) else ""


def answer_text(value: Any, name: str = "answer", what: str = "answer", where: str = "") -> str | None:
    """An answer as text: 27.0 and "27.0" become "27"; blank and null become None. Raises UserError for what is neither
    text nor a number."""
    if is_null(value):
        return None
    if is_number(value):
        return number_text(value, f"{where}, field '{name}'")
    if not isinstance(value, str):
        raise not_text(value, name, what, where)
    text = _visible(value)
    whole = text[:-2] if text.endswith(".0") else None
    if whole is not None and whole.lstrip("-").isdigit():
        text = whole
    return text or None
