"""Grading: extraction, verification in workers that can be killed, and files of grades. Imports no torch."""

from ngrpo.grades import GRADES, displayed
from ngrpo.grading.conventions import PAPER, SECOND, SETTINGS, GradingLimits, GradingSettings
from ngrpo.grading.graded_files import grade_file, grade_samples
from ngrpo.grading.grader import KINDS, Grade, Grader, Item, grade_answers
from ngrpo.grading.response_files import ResponseFields

__all__ = [
    "GRADES",
    "KINDS",
    "PAPER",
    "SECOND",
    "SETTINGS",
    "Grade",
    "Grader",
    "GradingLimits",
    "GradingSettings",
    "Item",
    "ResponseFields",
    "displayed",
    "grade_answers",
    "grade_file",
    "grade_samples",
]
