"""A second grader, independent of the first: its own reading, its own parser of LaTeX, its own comparison.

Nothing of Math-Verify, of its parser or of the first grader's comparison is used here, so that where both agree an
error of one library can't be the reason. An answer goes through four steps:

1. `stated`: what a response answers, and what a reference says.
2. `spelling` and `units`: one spelling for each sign; units, money and percent apart from the number.
3. `answers`, with `formulas` and `regions`: its structure: words, formula, equation, list, tuple, set of reals, matrix.
4. `equality`, with `evaluation`: exact rational numbers, then numbers to forty digits (at several points where there
   are variables), then sympy where a number says nothing.

Conventions where mathematics leaves a choice, each tested:
1. A percent sign may be missing on one side; a unit may be missing; units of one kind are converted (100 cm is 1 m).
2. A decimal equals an exact value only if it is exact, or rounded to at least six significant digits.
3. The order counts in tuples, not in lists, sets and solutions joined by "or".
4. "(a, b)" is an open interval where the other side is a set of reals, and a pair where it isn't.
5. "100,200" is one number; with a space after the comma it is a list.
"""

from ngrpo.grading.second.equality import quick_verdict, second_verdict
from ngrpo.grading.second.stated import answer_in, choice_in, reference_choice, reference_text

__all__ = ["answer_in", "choice_in", "quick_verdict", "reference_choice", "reference_text", "second_verdict"]
