"""Two rows that are one policy: the page says so, since each of them looks fine."""

import re
import shutil
from pathlib import Path

import pandas as pd
from synthetic_study import make_study

from ngrpo.claims.evidence import Reader
from ngrpo.report.alike import alike
from ngrpo.report.page import report
from ngrpo.study.layout import Results


def test_evaluations_with_the_same_grades_are_named_at_the_top_of_the_page(tmp_path: Path) -> None:
    study, results = make_study(tmp_path, "toy", problems=40), Results(tmp_path / "toy")
    assert alike(Reader(study, results)) == []  # the control
    names = [name for name in study.evaluations if name.startswith(("grpo-toy/", "ngrpo-toy/"))]
    one, other = (results.evaluation(name).grades for name in names[:2])
    frame = pd.read_parquet(one).assign(spec=study.evaluations[names[1]].digest)
    frame.to_parquet(other)
    (sentence,) = alike(Reader(study, results))
    assert all(name in sentence for name in names[:2])
    report(study, results, results.report.page)
    html = results.report.page.read_text()
    top = re.sub(r"\s+", " ", html[: html.index("<main>")])
    assert "one policy under several names" in top


def test_rows_in_which_nothing_varies_are_no_question(tmp_path: Path) -> None:
    """Two systems that solve everything have the same grades, and are two."""
    study, results = make_study(tmp_path, "toy", problems=40), Results(tmp_path / "toy")
    for name, spec in study.evaluations.items():
        path = results.evaluation(name).grades
        shutil.copy(path, path.with_suffix(".before"))
        pd.read_parquet(path).assign(grade="correct", spec=spec.digest).to_parquet(path)
    assert alike(Reader(study, results)) == []
