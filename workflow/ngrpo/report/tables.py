"""A table of the study as one tidy parquet file: a row a number, with both intervals and what it was computed from.

A row whose `against` is null is a system's own value; else it is the paired difference, `label` minus `against`, on the
same problems, over all training seeds (`ngrpo.report.differences`). Every cell of the table has all its rows whatever
its evaluation's state: `status` says what is wrong with one that can't be used, `note` why and which command makes it,
and its numbers are null. Nothing is filled in or dropped.
"""

from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ngrpo.audit.status import Grades, Status
from ngrpo.claims.evidence import Reader
from ngrpo.claims.quantities import value_of
from ngrpo.errors import UserError
from ngrpo.files import whole_file
from ngrpo.foreign import read_parquet
from ngrpo.formatting import percent
from ngrpo.grades import GRADES
from ngrpo.report.differences import difference_rows
from ngrpo.report.excerpts import write_excerpts
from ngrpo.report.exploration import write_exploration
from ngrpo.statistics.metrics import summarize
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.study.paper_values import AVERAGE
from ngrpo.study.products import Cell
from ngrpo.study.scale_note import scale_note
from ngrpo.terminal import echo, quoted, text_table

INTERVALS = ("sampling", "problems")

SCHEMA = pa.schema(
    [
        ("table", pa.string()),
        ("label", pa.string()),
        ("against", pa.string()),  # null: the system's own value; else the value is label minus this system
        ("model", pa.string()),
        ("benchmark", pa.string()),  # an id, or Avg (AVERAGE): the mean of all benchmarks with equal weights
        ("evaluation", pa.string()),  # null for Avg
        ("spec", pa.string()),  # the wanted evaluation spec's digest; null for Avg
        ("status", pa.string()),  # ok | missing | other spec | incomplete | unreadable
        ("note", pa.string()),
        ("metric", pa.string()),  # Mean@n | Pass@k
        ("k", pa.int32()),  # 1 for Mean@n
        ("headline", pa.bool_()),  # a number the study asks for; else a point of the Pass@k curve
        ("estimator", pa.string()),  # mean | unbiased | bootstrap
        ("value", pa.float64()),  # share, 0 … 1; a difference of bootstraps is of their expectations
        ("sampling_low", pa.float64()),  # 95 %: other samples (of a difference also training seeds), the same problems
        ("sampling_high", pa.float64()),
        ("problems_low", pa.float64()),  # 95 %: other problems, too
        ("problems_high", pa.float64()),
        ("p", pa.float64()),  # of a difference, two-sided: the one that agrees with the interval `sampling`
        ("problems_p", pa.float64()),  # the same of the interval `problems`
        ("detectable", pa.float64()),  # smallest difference that so much data shows (5 % test, 80 % power)
        ("problems_detectable", pa.float64()),  # of a difference: the same on other problems
        ("n", pa.int32()),
        ("problems", pa.int32()),
        ("seeds", pa.int32()),  # training seeds of a difference; a system's own value is of the first
        ("quantity", pa.string()),  # what it is a number of (ngrpo.claims.quantities)
        *((grade, pa.int32()) for grade in GRADES),
        ("scale", pa.string()),
        ("verdicts", pa.bool_()),  # whether this scale's numbers count as evidence about the paper
    ]
)
NEVER_NULL = (
    *("table", "label", "model", "benchmark", "status", "note", "metric", "k", "headline", "estimator"),
    *("scale", "verdicts"),
)
READ_SCHEMA = pa.schema([field.with_nullable(field.name not in NEVER_NULL) for field in SCHEMA])
NUMBERS = ("value", "sampling_low", "sampling_high", "problems_low", "problems_high", "detectable")
COMPUTED = (*NUMBERS, "problems", *GRADES)
"""Columns of `ngrpo.statistics.metrics.summarize`."""


def curve_ks(n: int, wanted: Iterable[int]) -> list[int]:
    """The k at which Pass@k is computed: powers of two up to n, n, and those wanted."""
    return sorted({2**i for i in range(n.bit_length()) if 2**i <= n} | {n} | set(wanted))


def analyze(
    table_id: str,
    study: Study,
    results: Path | Results,
    out: Path,
    exploration: Path | None = None,
    excerpts: Path | None = None,
) -> None:
    """Compute one table, write it to `out` (SCHEMA) and print it.

    results: results/{scale}. exploration: where to write how diverse its systems answer, too
    (`ngrpo.report.exploration`); excerpts: where some of their responses go (`ngrpo.report.excerpts`).

    Raises UserError for a table that the study doesn't have.
    """
    study.table(table_id)
    frame = table_frame(table_id, study, Results.of(results))
    with whole_file(out) as part:
        pq.write_table(pa.Table.from_pandas(frame, SCHEMA, preserve_index=False), part)
    if exploration is not None:
        write_exploration(table_id, study, Results.of(results), exploration)
    if excerpts is not None:
        write_excerpts(table_id, study, Results.of(results), excerpts)
    echo(terminal_table(frame))


def table_frame(table_id: str, study: Study, results: Results) -> pd.DataFrame:
    """One table's rows: for each model all systems' values on each benchmark and on average, then their differences."""
    cells = study.cells[table_id]
    reader = Reader(study, results)
    rows: list[dict] = []
    for model in dict.fromkeys(c.model for c in cells):
        systems: dict[str, list[Cell]] = {}
        for cell in cells:
            if cell.model == model:
                systems.setdefault(cell.label, []).append(cell)
        for own in systems.values():
            rows += _with_average([_cell_rows(study, cell, reader.grades(cell.evaluation)) for cell in own])
        wanted = study.size.evaluation.pass_at
        for first, second in combinations(systems.values(), 2):
            n = study.evaluations[second[0].evaluation].samples
            rows += difference_rows(reader, first, second, _metric_keys(n, [k for k in wanted if k > 1], wanted))
    shared = {"table": table_id, "scale": study.scale, "verdicts": study.size.verdicts}
    return pd.DataFrame([{**row, **shared} for row in rows], columns=SCHEMA.names)


def _metric_keys(n: int, ks: Iterable[int], wanted: Iterable[int]) -> list[dict]:
    keys = [{"metric": f"Mean@{n}", "k": 1, "headline": True, "estimator": "mean"}]
    keys += [
        {"metric": f"Pass@{k}", "k": k, "headline": k in wanted, "estimator": e}
        for k in ks
        for e in ("unbiased", "bootstrap")
    ]
    return keys


def _rows(same: dict, keys: list[dict], computed: pd.DataFrame | None) -> list[dict]:
    """A row a metric key; its numbers from `computed`, or null."""
    if computed is None:
        return [{**same, **key} for key in keys]
    known = {(row["metric"], row["estimator"]): row for row in computed.to_dict("records")}
    return [
        {**same, **key, **{column: known[key["metric"], key["estimator"]][column] for column in COMPUTED}}
        for key in keys
    ]


def _cell_rows(study: Study, cell: Cell, grades: Grades) -> list[dict]:
    spec, wanted = study.evaluations[cell.evaluation], study.size.evaluation.pass_at
    ks = [k for k in curve_ks(spec.samples, wanted) if k > 1]
    same = {
        "label": cell.label,
        "model": cell.model,
        "benchmark": cell.benchmark,
        "evaluation": cell.evaluation,
        "spec": spec.digest,
        "status": grades.status,
        "note": grades.note,
        "n": spec.samples,
        "seeds": 1,
    }
    computed = None if grades.frame is None else summarize(grades.frame, ks, where=cell.evaluation)
    rows = _rows(same, _metric_keys(spec.samples, ks, wanted), computed)
    return [row | {"quantity": value_of([cell.evaluation], row["metric"], row["estimator"])} for row in rows]


def _with_average(parts: list[list[dict]]) -> list[dict]:
    """The rows of each benchmark and, where there are several, of their mean with equal weights.

    Benchmarks are independent, so interval arms add in squares (the method of variance estimates recovery, Zou and
    Donner 2008): it keeps each interval's asymmetry near 0 and 1.
    """
    rows = [row for part in parts for row in part]
    if len(parts) == 1:
        return rows
    lost = [part[0] for part in parts if part[0]["status"] != "ok"]
    status = lost[0]["status"] if lost else "ok"
    note = f"no average: {', '.join(r['benchmark'] for r in lost)} can't be used" if lost else ""
    for same in zip(*parts, strict=True):
        row = {k: same[0][k] for k in ("label", "model", "metric", "k", "headline", "estimator", "n", "seeds")}
        row |= {"benchmark": AVERAGE, "status": status, "note": note}
        row["quantity"] = value_of([r["evaluation"] for r in same], row["metric"], row["estimator"])
        if not lost:
            values = np.array([r["value"] for r in same])
            row["value"] = float(values.mean())
            for interval in INTERVALS:
                low, high = (np.array([r[f"{interval}_{end}"] for r in same]) for end in ("low", "high"))
                row[f"{interval}_low"] = row["value"] - float(np.sqrt(((values - low) ** 2).sum())) / len(same)
                row[f"{interval}_high"] = row["value"] + float(np.sqrt(((high - values) ** 2).sum())) / len(same)
            row |= {key: sum(r[key] for r in same) for key in ("problems", *GRADES) if key in same[0]}
        rows.append(row)
    return rows


def read_table(path: Path) -> pd.DataFrame:
    """A table's file, as `analyze` wrote it. Raises UserError where it isn't one."""
    make = "delete it and make it again: `ngrpo analyze`"
    frame: pd.DataFrame = read_parquet(path, READ_SCHEMA, exact=True, make=make).to_pandas()
    if fault := _inconsistency(frame):
        raise UserError(fault, where=path, do=make)
    return frame


def _inconsistency(frame: pd.DataFrame) -> str:
    """What no table that `analyze` wrote has; empty where there is nothing."""
    own = frame[frame["against"].isna() & frame["headline"]]
    if own.empty:
        return "a table without a system's values"
    for column in ("table", "scale"):
        if frame[column].nunique() > 1:
            return f"rows of several values of '{column}'"
    for column, known in (("status", get_args(Status)), ("estimator", ("mean", *ESTIMATOR_TITLES))):
        strange = sorted(set(frame[column]) - set(known))
        if strange:
            return f"'{quoted(strange[0])}' is no {column}"
    used = frame.loc[frame["status"] == "ok", [*(c for c in NUMBERS if c != "detectable"), "n", "problems"]]
    if used.isna().any(axis=None):
        return "a system's value without its numbers"
    number = ["label", "against", "model", "benchmark", "metric", "estimator"]
    if frame.duplicated(number).any():
        return "the same number twice"
    by_metric = own.groupby(["label", "model", "benchmark", "metric"])["estimator"]
    if not by_metric.agg(lambda kinds: bool({"mean", "bootstrap"} & set(kinds))).all():
        return "a metric with one estimator alone"
    return ""


# --- in a terminal ---

ESTIMATOR_TITLES = {"unbiased": "unbiased (Eq. 15)", "bootstrap": "bootstrap with replacement (the release's)"}
INTERVAL_TITLES = {"sampling": "other samples of the same problems", "problems": "other samples of other such problems"}


def value_text(row: pd.Series, interval: str) -> str:
    """A row's value with one of its intervals, in percent; its status where it can't be used."""
    if row["status"] != "ok":
        return str(row["status"])
    return f"{percent(row['value'])} [{percent(row[f'{interval}_low'])}, {percent(row[f'{interval}_high'])}]"


def terminal_table(frame: pd.DataFrame, *, estimator: str = "unbiased", interval: str = "problems") -> str:
    """A table as `make demo` prints it: a block a model and benchmark, rows systems, columns the headline metrics."""
    shown = frame[frame["headline"] & frame["against"].isna() & frame["estimator"].isin(["mean", estimator])]
    blocks = []
    for (model, benchmark), part in shown.groupby(["model", "benchmark"], sort=False):
        metrics = list(dict.fromkeys(part["metric"]))
        rows = []
        for label, row in part.groupby("label", sort=False):
            by_metric = row.drop_duplicates("metric").set_index("metric")
            rows.append([label, *(value_text(by_metric.loc[metric], interval) for metric in metrics)])
        lines = [_heading(model, benchmark, part), text_table(["", *metrics], rows, gap=3), *_notes(part)]
        blocks.append("\n".join(lines))
    foot = [
        f"Percent; in brackets 95 % intervals for {INTERVAL_TITLES[interval]}.",
        f"Pass@k: {ESTIMATOR_TITLES[estimator]}. Other estimator and interval: in the report.",
    ]
    warning = scale_note(frame["scale"].iloc[0], bool(frame["verdicts"].iloc[0]))
    return "\n\n".join([*blocks, "\n".join([*foot, *([warning] if warning else [])])])


def _heading(model: str, benchmark: str, part: pd.DataFrame) -> str:
    sizes = part.loc[part["status"] == "ok", ["problems", "n"]].drop_duplicates()
    size = ", ".join(f"{int(r['problems'])} problems × {int(r['n'])} samples" for _, r in sizes.iterrows())
    return f"{model} on {benchmark}{f': {size}' if size else ''}"


def _notes(part: pd.DataFrame) -> list[str]:
    noted = part[part["note"].fillna("") != ""].drop_duplicates("label")
    return [f"  {r['label']}: {r['note']}" for _, r in noted.iterrows()]
