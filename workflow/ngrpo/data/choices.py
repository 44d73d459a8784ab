"""Multiple-choice questions: options in a fixed random order, and which of them is right.

Which option is right, as sources say it: it comes first (GPQA: `answer: null`), or a column names it by its letter, by
its number (0 is the first, as in MMLU), or by its text. What can be read in two ways is refused.
"""

import random
from typing import Any

from ngrpo.data.values import answer_text, field, has_field, is_null, is_number, kind_of, number_text, text_of
from ngrpo.errors import UserError
from ngrpo.study.sources import Fields

LETTERS = "ABCD"


def choice_row(
    fields: Fields, raw: dict[str, Any], problem: str, seed: str, where: str
) -> tuple[str, str | None, str | None]:
    """A question with its options in an order drawn from the seed: text, right letter, order (None: as they came).

    Raises UserError where options or the right one can't be had.
    """
    if fields.choices is None:
        name = fields.answer or "answer"
        answer = answer_text(field(raw, name, where), name, where=where)
        if answer not in (None, *LETTERS):
            raise UserError(
                f"the answer '{answer}' is none of {', '.join(LETTERS)}",
                where=where,
                do="name the letter's column, or the options' in `choices`",
            )
        return problem, answer, None
    options = _options(fields.choices, raw, where)
    right = _right(fields, raw, options, where)
    order = list(range(len(options)))
    random.Random(seed).shuffle(order)
    lines = [f"{letter}) {options[i]}" for letter, i in zip(LETTERS, order, strict=True)]
    letter = None if right is None else LETTERS[order.index(right)]
    return "\n".join([problem, "", *lines]), letter, "".join(map(str, order))


def _options(choices: str | tuple[str, ...], raw: dict[str, Any], where: str) -> list[str]:
    if isinstance(choices, tuple):
        given, names = [field(raw, name, where) for name in choices], list(choices)
    else:
        given = field(raw, choices, where)
        if isinstance(given, dict):
            inner = ", ".join(f"{choices}.{key}" for key in given)
            raise UserError(
                f"the options are {kind_of(given)}, not a list", where=where, do=f"name them: choices: [{inner}]"
            )
        names = [choices] * (len(given) if isinstance(given, list) else 1)
    if not isinstance(given, list) or any(is_null(option) for option in given):
        raise UserError(f"the options aren't a list of texts: {given!r:.200}", where=where)
    options = [
        number_text(option, where) if is_number(option) else text_of(option, name, "option", where)
        for option, name in zip(given, names, strict=True)
    ]
    if len(options) != len(LETTERS):
        raise UserError(f"{len(options)} options instead of {len(LETTERS)}", where=where)
    if "" in options:
        raise UserError(f"option {options.index('') + 1} is empty", where=where)
    return options


def _right(fields: Fields, raw: dict[str, Any], options: list[str], where: str) -> int | None:
    """Which option is right; None where its column is null."""
    name = fields.answer
    if name is None or (name not in raw and "answer" not in fields.model_fields_set and not has_field(raw, name)):
        return 0
    value = field(raw, name, where)
    here = f"{where}, field '{name}'"
    if is_null(value):
        return None
    if is_number(value):
        if value not in range(len(options)):
            raise UserError(
                f"the answer is {value}: no option has this number",
                where=here,
                do=f"give its number, from 0 to {len(options) - 1}, its letter or its text",
            )
        return int(value)
    text = text_of(value, name, "answer", where)
    if not text:
        return None
    bare = text.strip("(). ").upper()
    letter = LETTERS.find(bare) if len(bare) == 1 else -1
    readings = {i for i, option in enumerate(options) if option == text} | ({letter} if letter >= 0 else set())
    if len(readings) != 1:
        ways = "more than one option" if readings else "no option"
        raise UserError(
            f"the answer '{text:.80}' is {ways}",
            where=here,
            do="give the right option's number (0 is the first), or its letter; `answer: null` if it comes first",
        )
    return readings.pop()
