"""What a response answers: the last \\boxed{} for mathematics, the line `Answer: X` for multiple choice.

Paper §4.1; docs/method.md. Every function is linear in the response's length and runs in the caller's process:
a hostile response can't slow it down, and nothing of a response is ever evaluated here.
Two ways to read a choice: `strict` (the paper: the line `Answer: X`, else nothing) and `lenient` (the release: a box,
then "answer:", then a letter alone on a line, then any letter among the last 500 characters).
"""

import re

CHOICES = "ABCD"
LENIENT_TAIL = 500

_BRACES = re.compile(r"(?P<box>\\boxed\s{0,8}\{)|\\\\(?!boxed)|\\[{}]|(?P<open>\{)|(?P<close>\})")
_STRICT_CHOICE = re.compile(rf"^[ \t]*Answer:[ \t]*([{CHOICES}])[ \t]*\r?$", re.MULTILINE)
_ANSWER_COLON = re.compile(rf"answer:[\s*(<$]{{0,8}}([{CHOICES}])\b", re.IGNORECASE)
_LONE_LETTER = re.compile(rf"^[ \t]*\(?([{CHOICES}])\)?[ \t]*\.?[ \t]*\r?$", re.MULTILINE)
_ANY_LETTER = re.compile(rf"\b([{CHOICES}])\b")
_LETTER_IN_BOX = re.compile(rf"^(?:\\(?:text|mathrm|mathbf|textbf)\{{)?\s*\(?([{CHOICES}])\)?[.:)]?\s*\}}?(?![A-Za-z])")
_MATH_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))


def last_boxed(text: str) -> str | None:
    """The content of the last \\boxed{…} whose braces balance, stripped; None where there is none or it is empty.

    Escaped braces (`\\{`) don't count; an unbalanced \\boxed{ is passed over; the box that opens last counts, so of
    nested ones the inner.
    """
    from_last = _last_box(text, max(0, text.rfind(r"\boxed")))  # nearly always balanced, and all that is needed
    start, stop = from_last if from_last[0] >= 0 else _last_box(text, 0)
    return (text[start:stop].strip() or None) if start >= 0 else None


def _last_box(text: str, begin: int) -> tuple[int, int]:
    """Where the content of the last-opening balanced box after begin starts and stops; (-1, -1) without one."""
    opened: list[int] = []  # where a box's content starts, -1 for a plain brace
    start, stop = -1, -1
    for match in _BRACES.finditer(text, begin):
        if match.lastgroup == "box":
            opened.append(match.end())
        elif match.lastgroup == "open":
            opened.append(-1)
        elif match.lastgroup == "close" and opened:
            begun = opened.pop()
            if begun > start:
                start, stop = begun, match.start()
    return start, stop


def boxes(text: str) -> list[str]:
    """The contents of all \\boxed{…} whose braces balance, stripped, as they open; of nested ones the inner."""
    opened: list[tuple[int, bool]] = []  # where a box's content starts (-1: a plain brace), and whether it holds a box
    spans: list[tuple[int, int]] = []
    for match in _BRACES.finditer(text):
        if match.lastgroup in ("box", "open"):
            opened.append((match.end() if match.lastgroup == "box" else -1, False))
        elif match.lastgroup == "close" and opened:
            start, holds_a_box = opened.pop()
            if start >= 0 and not holds_a_box:
                spans.append((start, match.start()))
            if opened and (holds_a_box or start >= 0):
                opened[-1] = (opened[-1][0], True)
    return [text[start:stop].strip() for start, stop in sorted(spans)]


def strict_choice(text: str) -> str | None:
    """The letter of the last line that reads exactly `Answer: X`; None where there is none."""
    letters = _STRICT_CHOICE.findall(text)
    return letters[-1] if letters else None


def lenient_choice(text: str) -> str | None:
    """The letter as the release reads it: boxed, "answer:", alone on a line, or any in the last 500 characters."""
    boxed = last_boxed(text)
    if boxed is not None and (letter := _LETTER_IN_BOX.match(boxed)):
        return letter.group(1)
    for pattern in (_ANSWER_COLON, _LONE_LETTER):
        if letters := pattern.findall(text):
            return letters[-1].upper()
    letters = _ANY_LETTER.findall(text[-LENIENT_TAIL:])
    return letters[-1] if letters else None


def clean_gold(answer: object) -> str:
    """A reference answer as bare LaTeX: its box and the math delimiters around it are taken off."""
    text = str(answer).strip()
    text = last_boxed(text) or text
    for opening, closing in _MATH_DELIMITERS:
        inner = text[len(opening) : -len(closing)]
        enclosed = text.startswith(opening) and text.endswith(closing) and len(text) > len(opening) + len(closing)
        if enclosed and opening not in inner and closing not in inner:
            return inner.strip()
    return text


def gold_choice(answer: object) -> str | None:
    """The letter of a multiple-choice reference ("B", "(B)", "b"); None where it is not one of A to D."""
    letter = clean_gold(answer).strip("(). ").upper()
    return letter if len(letter) == 1 and letter in CHOICES else None
