"""What a response answers: the last \\boxed{} for mathematics, the line `Answer: X` for multiple choice, the first line
for a number.

Paper §4.1; docs/method.md. Every function is linear in the response's length and runs in the caller's process:
a hostile response can't slow it down, and nothing of a response is ever evaluated here.
Two ways to read a choice: `strict` (the paper: the line `Answer: X`, else nothing) and `lenient` (the release: a box,
then "answer:", then a letter alone on a line, then any letter among the last 500 characters).
"""

import functools
import re

CHOICES = "ABCD"
LENIENT_TAIL = 500

_BRACES = re.compile(r"(?P<box>\\boxed\s{0,8}\{)|\\\\(?!boxed)|\\[{}]|(?P<open>\{)|(?P<close>\})")
_MATH_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3}){1,20}|\d{1,60})(?:\.\d{1,60})?", re.ASCII)
_BETWEEN_BOXES = re.compile(r"(?:[\s,;$&.]|\\[()\[\]]|\\(?:quad|qquad|,|;)|and|or|\\text\{\s{0,4}(?:and|or)\s{0,4}\})*")
_FORM_OF_LETTER = re.compile(
    r"(?:\\(?:text|mathrm|mathbf|textbf)\{)?[\s(*]{0,8}([A-Ja-j])(?:[\s.:)}*]{0,8}|[).:]\s.{1,2000})", re.DOTALL
)


class _ChoicePatterns:
    """How a choice among these letters is written; every pattern looks at a bounded stretch from each place."""

    def __init__(self, letters: str):
        end = "[ \\t]{0,200}(?=[\\r\\n\\v\\f\\x1c-\\x1e\\x85\\u2028\\u2029]|\\Z)"
        start = "(?:^|(?<=[\\r\\v\\f\\x1c-\\x1e\\x85\\u2028\\u2029]))[ \\t]{0,200}"
        one = f"([{letters}])"
        self.strict = re.compile(rf"{start}Answer:[ \t]{{0,200}}{one}{end}", re.MULTILINE)
        self.answer_colon = re.compile(rf"answer:[\s*(<$]{{0,8}}{one}\b", re.IGNORECASE)
        self.lone = re.compile(rf"{start}\(?{one}\)?[ \t]{{0,200}}\.?{end}", re.MULTILINE)
        self.any = re.compile(rf"\b{one}\b")
        self.in_box = re.compile(
            rf"^(?:\\(?:text|mathrm|mathbf|textbf)\{{)?\s{{0,8}}\(?{one}\)?[.:)]?\s{{0,8}}\}}?(?![A-Za-z])"
        )


@functools.cache
def _patterns(letters: str) -> _ChoicePatterns:
    return _ChoicePatterns(letters)


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


def final_boxes(text: str) -> str | None:
    """The boxes of the final statement in one line: the last one, and those before it with only a comma, "and", "or"
    or math delimiters between. None without a box that holds something."""
    last = last_boxed(text)
    if last is None:
        return None
    contents, end = [last], text.rfind(r"\boxed")
    while len(contents) < 20 and (before := text.rfind(r"\boxed", 0, end)) >= 0:
        start, stop = _last_box(text[before:end], 0)
        between = text[before + stop + 1 : end] if start >= 0 else "?"
        if len(between) > 40 or not _BETWEEN_BOXES.fullmatch(between):
            break
        contents.insert(0, text[before + start : before + stop].strip())
        end = before
    return ", ".join(contents)


def strict_choice(text: str, letters: str = CHOICES) -> str | None:
    """The letter of the last line that reads exactly `Answer: X`; None where there is none."""
    read = _patterns(letters).strict.findall(text)
    return read[-1] if read else None


def lenient_choice(text: str, letters: str = CHOICES) -> str | None:
    """The letter as the release reads it: boxed, "answer:", alone on a line, or any in the last 500 characters."""
    patterns = _patterns(letters)
    boxed = last_boxed(text)
    if boxed is not None and (letter := patterns.in_box.match(boxed)):
        return letter.group(1)
    for pattern in (patterns.answer_colon, patterns.lone):
        if read := pattern.findall(text):
            return str(read[-1]).upper()
    read = patterns.any.findall(text[-LENIENT_TAIL:])
    return read[-1] if read else None


def line_number(text: str) -> str | None:
    """The number that is all of the first line ("19", "-3", "2.50", "1,024"), without commas; None for another line."""
    match = _NUMBER.fullmatch(text.lstrip(" \t").partition("\n")[0].rstrip())
    return match.group(0).replace(",", "") if match else None


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


def gold_choice(answer: object, letters: str = CHOICES) -> str | None:
    """The letter of a multiple-choice reference ("B", "(b)", "**B**", "\\text{B}", "B) spiro"); None without one."""
    form = _FORM_OF_LETTER.fullmatch(clean_gold(str(answer).strip().strip("*")))
    letter = form.group(1).upper() if form else None
    return letter if letter is not None and letter in letters else None
