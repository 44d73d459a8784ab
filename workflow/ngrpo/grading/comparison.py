"""Math-Verify's verdict on one pair (on its own extraction, too), and the two verdicts that need no computer algebra.

`math_verify_verdict` and its kin run in worker processes only (it may hang, swell or crash: worker.py, pool.py).
`integer_verdict` and `string_verdict` run in the caller's process.

Where this departs from calling Math-Verify directly:
1. Its own time limits are off: they rest on SIGALRM, which a long integer power ignores (docs/method.md §6). Ours kill.
2. An exception during the comparison is a grader error with its reason; Math-Verify says "wrong" for it.
3. Two plain integers are compared as integers. Math-Verify gives the same verdict (tested): both sides parse to sympy
   Integers or Floats, which it compares by value at six decimals.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from functools import cache, lru_cache

# At most 9 digits, so that a Float of the same text is exact and rounding at six decimals changes nothing.
_INTEGER = re.compile(r"(0|-?[1-9][0-9]{0,8})(?:\.0{1,4})?", re.ASCII)


def integer_verdict(gold: str, answer: str) -> bool | None:
    """Whether two plain integers ("27", "-3", "27.0") are equal; None where either is something else."""
    left, right = _INTEGER.fullmatch(gold), _INTEGER.fullmatch(answer)
    if left is None or right is None:
        return None
    return int(left.group(1)) == int(right.group(1))


def number_verdict(gold: str, answer: str) -> bool:
    """Whether two numbers, as `line_number` reads them, are equal: 7, 7.0 and +7 are."""
    return Decimal(gold) == Decimal(answer)


@cache
def _parser() -> Callable[..., list]:
    """Math-Verify's parse, whose own cache of LaTeX trees, keyed by the normalized text, is widened from 20 entries."""
    from math_verify import parse, parser

    parser.parse_latex_cached = lru_cache(maxsize=4096)(parser.parse_latex_cached.__wrapped__)
    return parse


@lru_cache(maxsize=4096)
def _parse(answer: str) -> list:
    """Math-Verify's candidates for an answer; kept, because one reference meets many answers and itself."""
    return _parser()(rf"\boxed{{{answer}}}", parsing_timeout=None, raise_on_error=True)


def math_verify_verdict(
    gold: str, answer: str, tolerance: float = 0.0, sets_equal_relations: bool = False
) -> tuple[bool, str | None]:
    """(equal, reason): Math-Verify's verdict, and the error where a comparison failed and none succeeded.

    gold, answer: LaTeX without \\boxed. tolerance, sets_equal_relations: as in GradingSettings. Raises what
    Math-Verify's parser raises (among them MemoryError).
    """
    return _verdict(_parse(gold), _parse(answer), tolerance, sets_equal_relations)


def math_verify_all_boxes_verdict(
    gold: str, response: str, tolerance: float = 0.0, sets_equal_relations: bool = False
) -> tuple[bool, str | None]:
    """As `math_verify_verdict`, for a whole response, from which Math-Verify itself extracts: neighboring boxes are
    one answer. gold: bare LaTeX, or a text with boxes or math delimiters, from which it extracts, too."""
    marked = any(mark in gold for mark in ("$", r"\boxed", r"\(", r"\["))
    golds = _extracted(gold) if marked else _parse(gold)
    return _verdict(golds, _extracted(response), tolerance, sets_equal_relations)


@lru_cache(maxsize=256)
def _extracted(text: str) -> list:
    """Math-Verify's candidates in a text, boxes first."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig

    targets = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())
    return _parser()(text, targets, parsing_timeout=None, raise_on_error=True)


def _verdict(golds: list, answers: list, tolerance: float, sets_equal_relations: bool) -> tuple[bool, str | None]:
    from math_verify import verify

    reason = None
    for reference in golds:
        for prediction in answers:
            try:
                if verify(
                    reference,
                    prediction,
                    allow_set_relation_comp=sets_equal_relations,
                    timeout_seconds=None,
                    raise_on_error=True,
                ) or (tolerance and _near(reference, prediction, tolerance)):
                    return True, None
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001  sympy raises anything; it is reported, never taken for "wrong"
                reason = f"{type(error).__name__}: {error}"[:300]
    return False, reason


def _near(reference: object, prediction: object, tolerance: float) -> bool:
    """Whether two numbers differ by at most that share of the reference."""
    import sympy

    if not all(isinstance(side, sympy.Expr) and not side.free_symbols for side in (reference, prediction)):
        return False
    a, b = sympy.N(reference), sympy.N(prediction)
    return bool(a.is_number and b.is_number and abs(a - b) <= tolerance * abs(a))


# --- the release's grading of MATH500: equality of normalized strings (in the manner of Hendrycks et al. 2021) ---

_REPLACED = (
    ("\\!", ""),
    ("\\,", ""),
    ("\\;", ""),
    ("\\left", ""),
    ("\\right", ""),
    ("\\dfrac", "\\frac"),
    ("\\tfrac", "\\frac"),
    ("\\cfrac", "\\frac"),
    ("^{\\circ}", ""),
    ("^\\circ", ""),
    ("\\$", ""),
    ("$", ""),
    ("\\%", ""),
    ("%", ""),
    ("\n", ""),
)
_UNIT = re.compile(r"\\(?:text|mbox|mathrm)\{\s[^{}]{0,40}\}(?:\^(?:\d|\{\d\}))?$")
_WRAPPED_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textbf|mathbf)\{([^{}]{0,200})\}")
_BARE_FRACTION = re.compile(r"\\frac(?:\{([^{}]{1,200})\}|([0-9a-zA-Z]))(?:\{([^{}]{1,200})\}|([0-9a-zA-Z]))")
_BARE_ROOT = re.compile(r"\\sqrt([0-9a-zA-Z])")
_SLASH = re.compile(r"(-?\d{1,30})/(\d{1,30})", re.ASCII)
_ASSIGNED = re.compile(r"^[a-zA-Z]{1,2}=")
_LEADING_POINT = re.compile(r"(^|[{(,\[])\.(?=\d)")
_WHOLE_DECIMAL = re.compile(r"(-?\d{1,400})\.0{1,400}", re.ASCII)


def normalized(answer: str) -> str:
    """A LaTeX answer in one spelling: no spaces, units, sizes, currency or percent; braces around each argument."""
    text = answer.strip().rstrip(".")
    for old, new in _REPLACED:
        text = text.replace(old, new)
    text = _UNIT.sub("", text)
    text = _WRAPPED_TEXT.sub(r"\1", text)
    text = re.sub(r"\s+", "", text)
    text = _ASSIGNED.sub("", text)
    text = _LEADING_POINT.sub(r"\g<1>0.", text)
    text = _BARE_ROOT.sub(r"\\sqrt{\1}", text)
    text = _BARE_FRACTION.sub(lambda m: rf"\frac{{{m[1] or m[2]}}}{{{m[3] or m[4]}}}", text)
    if whole := _WHOLE_DECIMAL.fullmatch(text):
        text = whole.group(1)
    if slash := _SLASH.fullmatch(text):
        text = rf"\frac{{{slash.group(1)}}}{{{slash.group(2)}}}"
    return r"\frac{1}{2}" if text == "0.5" else text


def string_verdict(gold: str, answer: str) -> bool:
    """Whether two answers are the same string after normalization."""
    return normalized(gold) == normalized(answer)
