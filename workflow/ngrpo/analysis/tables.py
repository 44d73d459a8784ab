"""A table of the study as one tidy parquet file: a row a number, with both intervals and what it was computed from.

Every cell of the table has all its rows whatever its evaluation's state: `status` says what is wrong with one that
can't be used, `note` why and which command makes it, and its numbers are null. Nothing is filled in or dropped.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ngrpo.analysis.metrics import summarise
from ngrpo.analysis.state import Grades, read_grades
from ngrpo.files import whole_file
from ngrpo.grading.grader import GRADES
from ngrpo.study.expand import Cell, Study

AVERAGE = "Avg"
"""The `benchmark` of rows that average all benchmarks with equal weights; no id can be this (ids are lower case)."""
INTERVALS = ("sampling", "problems")

SCHEMA = pa.schema(
    [
        ("table", pa.string()),
        ("label", pa.string()),
        ("model", pa.string()),
        ("benchmark", pa.string()),  # an id, or Avg
        ("evaluation", pa.string()),  # null for Avg
        ("spec", pa.string()),  # the wanted evaluation spec's digest; null for Avg
        ("status", pa.string()),  # ok | missing | other spec | incomplete | unreadable
        ("note", pa.string()),
        ("metric", pa.string()),  # mean@n | pass@k
        ("k", pa.int32()),  # 1 for mean@n
        ("headline", pa.bool_()),  # a number the study asks for; else a point of the Pass@k curve
        ("estimator", pa.string()),  # unbiased | bootstrap
        ("value", pa.float64()),  # share, 0 … 1
        ("sampling_low", pa.float64()),  # 95 %: other samples, the same problems
        ("sampling_high", pa.float64()),
        ("problems_low", pa.float64()),  # 95 %: other samples and other problems
        ("problems_high", pa.float64()),
        ("n", pa.int32()),
        ("problems", pa.int32()),
        *((grade, pa.int32()) for grade in GRADES),
        ("scale", pa.string()),
        ("verdicts", pa.bool_()),  # whether this scale's numbers count as evidence about the paper
    ]
)
SCALE_NOTES = {
    "toy": "toy: proves the pipeline, not the paper",
    "smoke": "smoke: proves that real weights and real problems flow, not the paper",
}


def scale_note(scale: str, verdicts: bool) -> str:
    """What a reader must know about a scale's numbers; empty where they count as evidence."""
    return "" if verdicts else SCALE_NOTES.get(scale, f"{scale}: its numbers are no evidence about the paper")


def curve_ks(n: int, wanted: Iterable[int]) -> list[int]:
    """The k at which Pass@k is computed: powers of two up to n, n, and those wanted."""
    return sorted({2**i for i in range(n.bit_length()) if 2**i <= n} | {n} | set(wanted))


def analyse(table_id: str, study: Study, results: Path, out: Path) -> None:
    """Compute one table and write it to `out` (SCHEMA). results: results/{scale}.

    Raises UserError for a table that the study doesn't have.
    """
    study.table(table_id)
    frame = table_frame(table_id, study, results)
    with whole_file(out) as part:
        pq.write_table(pa.Table.from_pandas(frame, SCHEMA, preserve_index=False), part)
    print(terminal_table(frame))


def table_frame(table_id: str, study: Study, results: Path) -> pd.DataFrame:
    """One table's rows, in the order of its cells; after a system's benchmarks, where there are several, their average."""
    cells = study.cells[table_id]
    known = {e: read_grades(study, results, e) for e in dict.fromkeys(c.evaluation for c in cells)}
    rows: list[dict] = []
    for model, label in dict.fromkeys((c.model, c.label) for c in cells):
        mine = [c for c in cells if (c.model, c.label) == (model, label)]
        parts = [_cell_rows(study, cell, known[cell.evaluation]) for cell in mine]
        rows += [row for part in parts for row in part]
        if len(parts) > 1:
            rows += _averages(parts)
    shared = {"table": table_id, "scale": study.scale, "verdicts": study.size.verdicts}
    return pd.DataFrame([{**row, **shared} for row in rows], columns=SCHEMA.names)


def _cell_rows(study: Study, cell: Cell, grades: Grades) -> list[dict]:
    spec = study.evaluations[cell.evaluation]
    wanted = study.size.evaluation.pass_at
    same = {
        "label": cell.label,
        "model": cell.model,
        "benchmark": cell.benchmark,
        "evaluation": cell.evaluation,
        "spec": spec.digest,
        "status": grades.status,
        "note": grades.note,
        "n": spec.samples,
    }
    ks = [k for k in curve_ks(spec.samples, wanted) if k > 1]
    keys = [(f"mean@{spec.samples}", 1, True, "unbiased")]
    keys += [(f"pass@{k}", k, k in wanted, e) for k in ks for e in ("unbiased", "bootstrap")]
    if grades.frame is None:
        values: dict = {}
    else:
        values = _values(grades.frame, ks)
        counts = grades.frame["grade"].value_counts()
        same |= {"problems": grades.frame["problem_id"].nunique(), **{g: int(counts.get(g, 0)) for g in GRADES}}
    return [
        {**same, "metric": m, "k": k, "headline": h, "estimator": e, **values.get((k, e), {})} for m, k, h, e in keys
    ]


def _averages(parts: list[list[dict]]) -> list[dict]:
    """The mean over benchmarks of each number, with equal weights.

    Benchmarks are independent, so interval arms add in squares (the method of variance estimates recovery, Zou and
    Donner 2008): it keeps each interval's asymmetry near 0 and 1.
    """
    lost = [part[0] for part in parts if part[0]["status"] != "ok"]
    status = lost[0]["status"] if lost else "ok"
    note = f"no average: {', '.join(r['benchmark'] for r in lost)} can't be used" if lost else ""
    rows = []
    for same in zip(*parts, strict=True):
        row = {k: same[0][k] for k in ("label", "model", "metric", "k", "headline", "estimator", "n")}
        row |= {"benchmark": AVERAGE, "status": status, "note": note}
        if not lost:
            values = np.array([r["value"] for r in same])
            row["value"] = float(values.mean())
            for interval in INTERVALS:
                low, high = (np.array([r[f"{interval}_{end}"] for r in same]) for end in ("low", "high"))
                row[f"{interval}_low"] = row["value"] - float(np.sqrt(((values - low) ** 2).sum())) / len(same)
                row[f"{interval}_high"] = row["value"] + float(np.sqrt(((high - values) ** 2).sum())) / len(same)
            row |= {key: sum(r[key] for r in same) for key in ("problems", *GRADES)}
        rows.append(row)
    return rows


def read_table(path: Path) -> pd.DataFrame:
    """A table's file, as `analyse` wrote it."""
    return pq.read_table(path, schema=SCHEMA).to_pandas()


# --- in a terminal ---

TITLES = {"unbiased": "unbiased (Eq. 15)", "bootstrap": "bootstrap with replacement (the release's)"}


def metric_title(metric: str) -> str:
    """mean@32 → Mean@32."""
    return metric[:1].upper() + metric[1:]


def percent(share: float, decimals: int = 1) -> str:
    """A share in percent; an en dash where there is none."""
    return "–" if pd.isna(share) else f"{100 * share:.{decimals}f}"


def terminal_table(frame: pd.DataFrame, *, estimator: str = "unbiased", interval: str = "problems") -> str:
    """A table as `make demo` prints it: a block a model and benchmark, rows systems, columns the headline metrics."""
    shown = frame[frame["headline"] & ((frame["estimator"] == estimator) | (frame["k"] == 1))]
    blocks = []
    for (model, benchmark), part in shown.groupby(["model", "benchmark"], sort=False):
        metrics = list(dict.fromkeys(part["metric"]))
        lines = [["", *map(metric_title, metrics)]]
        for label, row in part.groupby("label", sort=False):
            cells = [label]
            for metric in metrics:
                one = row[row["metric"] == metric].iloc[0]
                low, high = percent(one[f"{interval}_low"]), percent(one[f"{interval}_high"])
                cells.append(f"{percent(one['value'])} [{low}, {high}]" if one["status"] == "ok" else one["status"])
            lines.append(cells)
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        text = ["   ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        text.insert(1, "   ".join("-" * w for w in widths))
        blocks.append("\n".join([_heading(model, benchmark, part), *text, *_notes(part)]))
    what = {"problems": "other samples of other such problems", "sampling": "other samples of the same problems"}
    foot = [
        f"Percent; in brackets 95 % intervals for {what[interval]}.",
        f"Pass@k: {TITLES[estimator]}. Other estimator and interval: in the report.",
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
