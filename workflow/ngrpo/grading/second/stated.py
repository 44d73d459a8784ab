r"""What a response answers, for the second grader: the last box that holds something; of choices, the letter it states.

Unlike the first grader's reading (extract.py): `\fbox` counts as a box; an empty box doesn't hide the one before it;
all boxes of a reference belong to it; a choice's line may be bold, in parentheses, boxed or end with a full stop, but
two letters are no answer. Every function is linear in the text's length.
"""

import re

LETTERS = "ABCDEFGHIJ"
"""Of choices: an answer may name one that isn't offered, which is wrong."""

_PIECE = re.compile(
    r"(?P<box>\\(?:boxed|fbox))|(?P<escape>\\\\(?!boxed|fbox)|\\[{}])|(?P<open>\{)|(?P<close>\})", re.DOTALL
)
_HASHES = re.compile(r"####[ \t]*([^\n]{1,2000})")
_BREAKS = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_DECORATION = str.maketrans(
    {
        **dict.fromkeys("*_`$#>\u200b\u2060\ufeff", ""),
        **{chr(0xFF21 + place): letter for place, letter in enumerate(LETTERS)},  # full-width letters
        "\u00a0": " ",
        "\uff1a": ":",
    }
)
_WRAPPER = re.compile(r"\\(?:boxed|fbox|text|textbf|mathrm|mathbf|mbox)[ ]?\{([^{}\n]{0,40})\}")
_STATED = re.compile(
    r"\b(?i:(?:answer|correct[ ](?:option|choice))(?:[ ](?:is|must[ ]be|should[ ]be|would[ ]be))?"
    r"[ \t]{0,4}[:=]?\s{0,4}(?:option|choice)?)[ ]?[\"'{<]?"
    r"(?:[(\[]([A-Ja-j])[)\]]|([A-J])(?![A-Za-z0-9]|'[a-z])|([a-j])(?=[ \t]*[.)]?[ \t]*$))",
    re.MULTILINE,
)
_LAST_LINE = re.compile(r"\s*[(\[]?([A-J])[)\]]?[.]?\s*")
_ANOTHER = re.compile(r"[).\]]?[ \t]{0,4}(?:,|/|&|or\b|and\b)[ \t]{0,4}(?:or[ ]|and[ ])?[(\[]?[A-J](?![A-Za-z])")
_LETTER = re.compile(r"[(\[]?([A-Ja-j])(?:[)\]]?[.:]?|[).:][ ].{1,300})", re.DOTALL)


def boxes(text: str) -> list[str]:
    """The contents of all balanced boxes that hold something and no further box, in order."""
    contents: list[tuple[int, str]] = []
    opened: list[int] = []  # where a box's content begins; -1: a plain brace
    after_box = -1
    for piece in _PIECE.finditer(text):
        if piece.lastgroup == "box":
            after_box = piece.end()
        elif piece.lastgroup == "open":
            is_box = after_box >= 0 and not text[after_box : piece.start()].strip()
            opened.append(piece.end() if is_box else -1)
            after_box = -1
        elif piece.lastgroup == "close" and opened:
            begin = opened.pop()
            inside = begin >= 0 and (not contents or contents[-1][0] < begin)
            if inside and (content := text[begin : piece.start()].strip()):
                contents.append((begin, content))
    return [content for _, content in contents]


def answer_in(response: str) -> str | None:
    """The last box's content; None where no box holds anything."""
    held = boxes(response)
    return held[-1] if held else None


def reference_text(answer: object) -> str:
    """A reference without what holds it: all its boxes as one list, or what follows GSM8K's `####`."""
    text = str(answer).strip()
    if marked := _HASHES.findall(text):
        return str(marked[-1]).strip()
    return ", ".join(boxes(text)) or text


def _plain(text: str) -> str:
    """Text with one kind of line break and without Markdown, dollars and boxes around letters."""
    plain = _BREAKS.sub("\n", text).translate(_DECORATION)
    for _ in range(3):
        plain = _WRAPPER.sub(r"\1", plain)
    return plain


def choice_in(response: str) -> str | None:
    """The letter that the last statement "Answer: X" or "the answer is X" names, else the last box's, else the one that
    stands alone on the last line; None without."""
    plain = _plain(response)
    stated = list(_STATED.finditer(plain))
    if stated:
        last = stated[-1]
        if _ANOTHER.match(plain, last.end()):
            return None
        return next(letter for letter in last.groups() if letter).upper()
    boxed = answer_in(response)
    if boxed is not None:
        return _letter(boxed)
    alone = _LAST_LINE.fullmatch(plain.rstrip().rpartition("\n")[2])
    return alone.group(1) if alone else None


def reference_choice(answer: object) -> str | None:
    """The letter of a multiple-choice reference: "B", "(b)", "B) spiro", "**B**"; None where there is none."""
    return _letter(reference_text(answer))


def _letter(text: str) -> str | None:
    whole = _LETTER.fullmatch(_plain(text).strip())
    return whole.group(1).upper() if whole else None
