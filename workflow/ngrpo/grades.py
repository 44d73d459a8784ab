"""The five grades of a sampled answer; what each means is at the head of `ngrpo.grading.grader`."""

GRADES = ("correct", "wrong", "no_answer", "truncated", "grader_error")
"""Only `correct` scores."""


def displayed(grade: str) -> str:
    """A grade as tables print it: "no answer", "grader error"."""
    return grade.replace("_", " ")
