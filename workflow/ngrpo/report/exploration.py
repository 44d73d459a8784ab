"""How much a table's systems explore: the diversity of what they answer, a row a number, as a parquet file of its own.

A row whose `against` is null is a system's own value, a mean over problems; else it is its difference to the reference
on the same problems, or a share of problems `gained` (the reference solves none of its n samples, the system some) or
`lost` (the other way). Low and high are 95 % intervals over problems. Numbers are of the first training seed.

Cost: final answers are counted in all samples, which takes no time. Texts are compared on at most PROBLEMS problems, at
equal distances in the benchmark, and their first RESPONSES samples: two seconds an evaluation at paper scale.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ngrpo.audit.status import GRADE_COLUMNS, read_grades
from ngrpo.errors import UserError
from ngrpo.files import whole_file
from ngrpo.foreign import read_parquet
from ngrpo.report.compared_with import reference
from ngrpo.statistics.crossed import share_interval
from ngrpo.statistics.diversity import answer_counts, distinct, mean_interval, self_bleu, words
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.study.products import Cell

PROBLEMS, RESPONSES = 50, 8


@dataclass(frozen=True)
class Measure:
    """One measure: its name in files, as a table's column, its decimals, and what it says."""

    name: str
    title: str
    decimals: int
    about: str
    least: float = 0.0
    most: float = float("inf")
    """What it can't go beyond, nor can the interval of its mean."""


MEASURES = (
    Measure("answers", "different answers", 2, "different final answers to a problem, of its n samples; those that are"
            " right count as one", least=1),
    Measure("entropy", "answer entropy", 3, "entropy of a problem’s final answers, in nats"),
    Measure("distinct_1", "distinct-1", 3, "different words by all words of a problem’s responses", most=1),
    Measure("distinct_2", "distinct-2", 3, "different pairs of words by all pairs", most=1),
    Measure("distinct_4", "distinct-4", 3, "different runs of four words by all runs", most=1),
    Measure("self_bleu", "self-BLEU", 3, "how much a response repeats the others; the higher, the more alike", most=1),
    Measure("tokens", "tokens", 1, "tokens of a response"),
)  # fmt: skip
SHARES = ("gained", "lost")
OF_TEXTS = ("distinct_1", "distinct_2", "distinct_4", "self_bleu")
OF_SAMPLES = (*OF_TEXTS, "tokens")
"""Measures that grades don't tell."""
ANSWERS = pa.schema([*GRADE_COLUMNS, ("extracted", pa.string())])
_TEXTS = pa.schema([*list(GRADE_COLUMNS)[:2], ("text", pa.string()), ("tokens", pa.int32()), ("spec", pa.string())])
SCHEMA = pa.schema(
    [
        ("table", pa.string()),
        ("label", pa.string()),
        ("against", pa.string()),  # null: the system's own value
        ("model", pa.string()),
        ("benchmark", pa.string()),
        ("spec", pa.string()),  # the wanted evaluation spec's digest
        ("note", pa.string()),  # why there is no number; empty where there is one
        ("measure", pa.string()),  # of MEASURES or SHARES
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("problems", pa.int32()),
        ("samples", pa.int32()),  # of each problem
    ]
)


def write_exploration(table: str, study: Study, results: Results, out: Path) -> None:
    """Measure one table's systems and write them to `out` (SCHEMA)."""
    frame = exploration_frame(table, study, results)
    with whole_file(out) as part:
        pq.write_table(pa.Table.from_pandas(frame, SCHEMA, preserve_index=False), part)


def read_exploration(path: Path) -> pd.DataFrame:
    """What `write_exploration` wrote. Raises UserError where it isn't that."""
    make = "delete it and make it again: `ngrpo analyze`"
    frame: pd.DataFrame = read_parquet(path, SCHEMA, exact=True, make=make).to_pandas()
    known = {*SHARES, *(measure.name for measure in MEASURES)}
    if strange := sorted(set(frame["measure"]) - known, key=str):
        raise UserError(f"'{strange[0]}' is no measure of exploration", where=path, do=make)
    return frame


def exploration_frame(table: str, study: Study, results: Results) -> pd.DataFrame:
    """One table's rows: for each model and benchmark every system's own values, then differences to the reference."""
    cells = study.cells[table]
    measured = {e: by_problem(study, results, e) for e in dict.fromkeys(cell.evaluation for cell in cells)}
    against = reference(study, table, list(dict.fromkeys(cell.label for cell in cells)))
    places: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        places.setdefault((cell.model, cell.benchmark), []).append(cell)
    rows: list[dict] = []
    for own in places.values():
        base = next((cell for cell in own if cell.label == against), None)
        for cell in own:
            values, note = measured[cell.evaluation]
            same = {"table": table, "label": cell.label, "model": cell.model, "benchmark": cell.benchmark}
            same |= {"spec": study.evaluations[cell.evaluation].digest, "note": note}
            rows += [same | row for row in _own(values)]
            if base is not None and cell is not base:
                rows += [
                    same | {"against": against} | row for row in _differences(values, measured[base.evaluation][0])
                ]
    return pd.DataFrame(rows, columns=SCHEMA.names)


# --- one evaluation ---


def by_problem(study: Study, results: Results, evaluation: str) -> tuple[pd.DataFrame, str]:
    """Every measure of every problem (index: its id), nan where it isn't measured, and `solved`; and why what is
    missing is. `solved`: how many of its samples are right; `samples`, `texts`: how many it has, and how many were
    compared as texts."""
    grades = read_grades(study, results, evaluation)
    if grades.frame is None:
        return pd.DataFrame(), f"{grades.status}: {grades.note}"
    files = results.evaluation(evaluation)
    frame = read_parquet(files.grades, ANSWERS).to_pandas()
    frame["problem_id"] = frame["problem_id"].astype(str)
    by_id = {problem: _answers(part) for problem, part in frame.groupby("problem_id", sort=True)}
    values = pd.DataFrame.from_dict(by_id, orient="index")
    if not files.samples.exists():
        return values, "the responses are gone, so only final answers are counted"
    return values.join(_texts(files.samples, study.evaluations[evaluation].digest)), ""


def _answers(part: pd.DataFrame) -> dict[str, float]:
    """Of one problem's grades: how its answers differ. All that are right are one answer, however they are written."""
    right = part["grade"] == "correct"
    given = part.loc[~right, "extracted"].dropna().astype(str).str.split().str.join(" ")
    number, entropy = answer_counts([*given, *["right: the reference"] * int(right.sum())])
    return {"answers": number, "entropy": entropy, "solved": int(right.sum()), "samples": len(part)}


def _texts(path: Path, digest: str) -> pd.DataFrame:
    """Of an evaluation's samples: tokens of every problem's responses, and of some problems how their texts differ."""
    frame = read_parquet(path, _TEXTS, exact=True).to_pandas()
    frame["problem_id"] = frame["problem_id"].astype(str)
    if set(frame["spec"]) != {digest}:
        return pd.DataFrame({"tokens": pd.Series(dtype=float)})
    chosen, rows = spread(frame["problem_id"], PROBLEMS), {}
    for problem, part in frame[frame["problem_id"].isin(chosen)].groupby("problem_id", sort=True):
        first = part.sort_values("sample").head(RESPONSES)
        said = [words(text) for text in first["text"].astype(str)]
        rows[problem] = {f"distinct_{n}": distinct(said, n) for n in (1, 2, 4)}
        rows[problem] |= {"self_bleu": self_bleu(said), "texts": len(said)}
    tokens = frame.groupby("problem_id")["tokens"].mean()
    return pd.DataFrame.from_dict(rows, orient="index").join(tokens, how="right")


def spread(names: pd.Series, most: int) -> set[str]:
    """At most so many of these names, at equal distances in their order."""
    known = sorted(names.unique())
    return {known[int(i)] for i in np.linspace(0, len(known) - 1, min(most, len(known)))}


# --- over problems ---


def _own(values: pd.DataFrame) -> list[dict]:
    rows = [_over_problems(measure.name, _column(values, measure.name), values) for measure in MEASURES]
    for row, measure in zip(rows, MEASURES, strict=True):
        if "value" in row:
            row["low"], row["high"] = np.clip([row["low"], row["high"]], measure.least, measure.most)
    return rows


def _differences(values: pd.DataFrame, base: pd.DataFrame) -> list[dict]:
    """A system minus the reference, on the problems that both have."""
    if values.empty or base.empty:
        return [_row(measure) for measure in (*(m.name for m in MEASURES), *SHARES)]
    both = values.index.intersection(base.index)
    values, base = values.loc[both], base.loc[both]
    rows = [_over_problems(m.name, _column(values, m.name) - _column(base, m.name), values) for m in MEASURES]
    some, before = values["solved"] > 0, base["solved"] > 0
    for name, flipped in zip(SHARES, (some & ~before, before & ~some), strict=True):
        share = flipped.to_numpy(dtype=float)
        rows.append(_row(name, share, share_interval(share), int(values["samples"].max())))
    return rows


def _column(values: pd.DataFrame, name: str) -> pd.Series:
    return values[name].astype(float) if name in values else pd.Series(dtype=float)


def _over_problems(name: str, column: pd.Series, values: pd.DataFrame) -> dict:
    known = column.dropna().to_numpy()
    if not len(known):
        return _row(name)
    return _row(name, known, mean_interval(known), int(values["texts" if name in OF_TEXTS else "samples"].max()))


def _row(name: str, values: np.ndarray | None = None, interval: tuple[float, float] = (0, 0), samples: int = 0) -> dict:
    if values is None:
        return {"measure": name}
    numbers: Mapping[str, float] = {"value": float(values.mean()), "low": interval[0], "high": interval[1]}
    return {"measure": name, **numbers, "problems": len(values), "samples": samples}
