"""What counts as an answer and as equal: the paper's convention, the released code's, and single settings.

Unset, every setting is the paper's, and no grade differs from one that was given before the setting existed.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from ngrpo.errors import UserError, unknown_name

LETTERS = "ABCDEFGHIJ"
DEFAULT_LETTERS = "ABCD"
Comparison = Literal["math_verify", "string", "second"]
Boxes = Literal["last", "all"]
ChoiceReading = Literal["strict", "lenient", "second"]


@dataclass(frozen=True)
class GradingLimits:
    """What one answer may cost.

    seconds: of processor time (and four times as many on the clock). memory_mb: on top of what its worker has (MB).
    chars: the answer's length.
    """

    seconds: float = 5.0
    memory_mb: int = 512
    chars: int = 10_000

    def __post_init__(self) -> None:
        if not (0 < self.seconds < math.inf and self.memory_mb > 0 and self.chars > 0):
            raise UserError(f"grading limits must be positive: {self}", where="grading limits")


@dataclass(frozen=True)
class GradingSettings:
    """How answers are read and compared.

    math: Math-Verify, equal normalized strings, or the second grader.
    boxes: the last box of a response (the paper), or all boxes of its final statement as one answer, as Math-Verify
        itself extracts them (with Math-Verify's comparison only).
    tolerance: numbers within this share of the reference are equal, too (0.01: 1 %); 0: none beyond Math-Verify's six
        decimals.
    sets_equal_relations: a reference that is a set equals an answer that is a relation ((0, 1) and 0 < x < 1); without
        it Math-Verify takes only the other direction.
    choice: the line `Answer: X` and nothing else (the paper), the release's lenient reading, or the second grader's.
    letters: those that a choice may have, A to D unless said; at most A to J.
    """

    math: Comparison = "math_verify"
    boxes: Boxes = "last"
    tolerance: float = 0.0
    sets_equal_relations: bool = False
    choice: ChoiceReading = "strict"
    letters: str = DEFAULT_LETTERS

    def __post_init__(self) -> None:
        for what, value, known in (
            ("way to compare mathematics", self.math, get_args(Comparison)),
            ("way to read boxes", self.boxes, get_args(Boxes)),
            ("way to read a choice", self.choice, get_args(ChoiceReading)),
        ):
            if value not in known:
                raise unknown_name(what, value, known)
        if not 0 <= self.tolerance < 1:
            raise UserError(f"the tolerance is a share from 0 to below 1, not {self.tolerance}", where="tolerance")
        if len(self.letters) < 2 or not LETTERS.startswith(self.letters):
            raise UserError(
                f"the letters of choices are the first ones of {LETTERS}, not '{self.letters}'",
                where="letters",
                do=f"write them in order, as {LETTERS[:5]}",
            )
        if self.math != "math_verify" and (self.boxes == "all" or self.tolerance or self.sets_equal_relations):
            raise UserError(
                f"all boxes, a tolerance, and sets against relations need math_verify, not {self.math}",
                where="grading settings",
            )


PAPER = GradingSettings()
SECOND = GradingSettings(math="second", choice="second", letters=LETTERS)
"""The second grader (ngrpo.grading.second), which runs beside the first."""
SETTINGS = {
    "paper": PAPER,
    "math-verify": GradingSettings(boxes="all"),
    "release-math500": GradingSettings(math="string"),
    "release-gpqa": GradingSettings(choice="lenient"),
    "second": SECOND,
}
"""Names of conventions."""
