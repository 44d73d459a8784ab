"""Grading: extraction, verification in workers that can be killed, and files of grades. Imports no torch."""

from ngrpo.grades import GRADES, displayed
from ngrpo.grading.graded_files import grade_file, grade_samples
from ngrpo.grading.grader import (
    KINDS,
    PAPER,
    SETTINGS,
    Grade,
    Grader,
    GradingLimits,
    GradingSettings,
    Item,
    grade_answers,
)

__all__ = [
    "GRADES",
    "KINDS",
    "PAPER",
    "SETTINGS",
    "Grade",
    "Grader",
    "GradingLimits",
    "GradingSettings",
    "Item",
    "displayed",
    "grade_answers",
    "grade_file",
    "grade_samples",
]
