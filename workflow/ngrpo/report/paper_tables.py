"""A table's values beside the paper's, as HTML, LaTeX and CSV from one source: `beside`.

A row is a system on a model, benchmark and metric. The paper's Pass@k is compared with our bootstrap estimate, which is
how its numbers were made; the unbiased one (its Eq. 15) stands beside it. Values are shares; a cell without data holds
its status and the command that makes it, and no number.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from great_tables import GT, loc, style

from ngrpo.claims.evidence import Reader
from ngrpo.files import whole_file
from ngrpo.formatting import count, percent, percent_range, points
from ngrpo.report.csv_text import csv_text
from ngrpo.study.expand import Study
from ngrpo.study.layout import ReportFiles, Results
from ngrpo.study.paper_values import AVERAGE, PaperValues, metric_id
from ngrpo.study.scale_note import scale_note
from ngrpo.terminal import printable

FORMATS = ("html", "tex", "csv")
BEST, SECOND = ("⟪", "⟫"), ("⟨", "⟩")
"""Marks that pass great_tables' escaping, which LaTeX commands replace: it has no styles for LaTeX."""
COMMANDS = {BEST[0]: r"\textbf{", BEST[1]: "}", SECOND[0]: r"\underline{", SECOND[1]: "}"}
RANKED_DECIMALS = 3
"""Of a share: what the page shows as equal has one rank."""
LABELS = {
    "system": "System",
    "paper": "Paper",
    "ours": "Ours",
    "interval": "95 % interval",
    "difference": "Ours − paper",
    "unbiased": "Unbiased (95 % interval)",
    "size": "Problems × n",
    "over_seeds": "Seeds: mean (range)",
}


def beside(
    frame: pd.DataFrame, study: Study, results: Results, paper: PaperValues | None, reader: Reader | None = None
) -> pd.DataFrame:
    """One table's headline values beside the paper's. frame: as `ngrpo analyze` wrote it; reader: of this study.

    Columns: table, model, benchmark, metric, label, paper, paper_table (which table prints it), ours, low, high (other
    problems, 95 %), difference (ours − paper), unbiased, unbiased_low, unbiased_high (Pass@k only), n, problems, seeds
    (training seeds whose grades are there), over_seeds, least, most (mean and range over them, where there are several;
    all other numbers are the first seed's), rank, paper_rank (1 the best of its block; values that the page shows alike
    have one rank; null below two values), status, note, spec. Raises UserError for a table that the study doesn't have.
    """
    study.table(frame["table"].iloc[0])
    own = frame[frame["against"].isna() & frame["headline"]]
    grouped: dict[tuple[str, str, str], dict[str, dict[str, dict]]] = {}
    for record in own.to_dict("records"):
        block = grouped.setdefault((record["model"], record["benchmark"], record["metric"]), {})
        block.setdefault(record["label"], {})[record["estimator"]] = record
    rows = []
    for (model, benchmark, metric), block in grouped.items():
        for label, by in block.items():
            main = by.get("bootstrap") or by["mean"]
            printed = _printed(paper, main, model, benchmark, metric)
            row = {"table": main["table"], "model": model, "benchmark": benchmark, "metric": metric, "label": label}
            row |= {"paper": printed[0], "paper_table": printed[1]}
            row |= {"ours": main["value"], "low": main["problems_low"], "high": main["problems_high"]}
            row["difference"] = main["value"] - printed[0] if printed[0] is not None else None
            if other := by.get("unbiased"):
                row |= {"unbiased": other["value"]}
                row |= {"unbiased_low": other["problems_low"], "unbiased_high": other["problems_high"]}
            row |= {key: main[key] for key in ("n", "problems", "status", "spec")}
            notes = [main["note"] or "", _other_size(paper, main) if printed[0] is not None else ""]
            rows.append({**row, "note": "; ".join(filter(None, notes))})
    columns = ["table", "model", "benchmark", "metric", "label", "paper", "paper_table", "ours", "low", "high"]
    columns += ["difference", "unbiased", "unbiased_low", "unbiased_high", "n", "problems", "seeds", "over_seeds"]
    columns += ["least", "most", "rank", "paper_rank", "status", "note", "spec"]
    sheet = pd.DataFrame(rows).reindex(columns=columns)
    _add_seeds(sheet, reader or Reader(study, results))
    sheet["seeds"] = sheet["seeds"].astype("Int64")
    keys = ["model", "benchmark", "metric"]
    blocks = sheet.groupby(keys, sort=False)
    for values, rank in (("ours", "rank"), ("paper", "paper_rank")):
        sheet[values] = sheet[values].astype(float)
        enough = blocks[values].transform("count") >= 2
        shown = sheet[values].round(RANKED_DECIMALS).groupby([sheet[key] for key in keys], sort=False)
        sheet[rank] = shown.rank(method="min", ascending=False).where(enough).astype("Int64")
    return sheet


def _add_seeds(sheet: pd.DataFrame, reader: Reader) -> None:
    """Fill in seeds, over_seeds, least and most; a benchmark's average needs all its benchmarks of a seed."""
    study = reader.study
    cells = {(c.model, c.label, c.benchmark): c.evaluation for c in study.cells[sheet["table"].iloc[0]]}
    spreads: dict[str, list[float | None]] = {name: [] for name in ("seeds", "over_seeds", "least", "most")}
    for row in sheet[["model", "label", "benchmark", "metric", "ours", "status"]].to_dict("records"):
        wanted, on = (row["model"], row["label"]), row["benchmark"]
        own = [e for (model, label, b), e in cells.items() if (model, label) == wanted and on in (b, AVERAGE)]
        values = [row["ours"]] if row["status"] == "ok" else []
        by_seed = [{study.evaluations[a].seed: a for a in study.extra_seeds.get(e, ())} for e in own]
        common = sorted(set.intersection(*map(set, by_seed))) if values and by_seed else []
        for again in ([names[seed] for names in by_seed] for seed in common):
            if all(reader.grades(e).frame is not None for e in again):
                metric = metric_id(row["metric"])
                values.append(float(np.mean([reader.values(e, metric, "bootstrap").mean() for e in again])))
        spread = (float(np.mean(values)), min(values), max(values)) if len(values) > 1 else (None, None, None)
        for name, value in zip(spreads, (len(values), *spread), strict=True):
            spreads[name].append(value)
    for name, column in spreads.items():
        sheet[name] = np.array(column, dtype=float)


def _printed(
    paper: PaperValues | None, row: Mapping[str, Any], model: str, benchmark: str, metric: str
) -> tuple[float | None, str | None]:
    value = paper.value(row["table"], model, row["label"], benchmark, metric_id(metric)) if paper else None
    return value or (None, None)


def _other_size(paper: PaperValues, row: Mapping[str, Any]) -> str:
    """A note where a benchmark's problems, or n, aren't as many as the paper's."""
    sizes = [("problems", row["problems"], paper.sizes.get(row["benchmark"]))]
    sizes.append(("samples a problem", row["n"], paper.evaluation.samples))
    notes = [
        f"{int(ours)} {what}, the paper has {theirs}"
        for what, ours, theirs in sizes
        if theirs is not None and pd.notna(ours) and int(ours) != theirs
    ]
    return "; ".join(notes)


def write_tables(sheet: pd.DataFrame, study: Study, report: ReportFiles) -> None:
    """Write one table's sheet as {table}.html, .tex and .csv beside the page."""
    name = sheet["table"].iloc[0]
    words = [column for column in sheet if not pd.api.types.is_numeric_dtype(sheet[column])]
    sheet = sheet.assign(**{c: [printable(v) if isinstance(v, str) else v for v in sheet[c]] for c in words})
    texts = {"html": as_html(sheet, study), "tex": as_latex(sheet, study), "csv": csv_text(sheet)}
    for kind, text in texts.items():
        with whole_file(report.table(name, kind)) as part:
            part.write_text(text, encoding="utf-8")


def as_html(sheet: pd.DataFrame, study: Study) -> str:
    """The sheet as a page of its own: best bold, second underlined."""
    table = _table(sheet, study, marked=False)
    for column, rank in (("ours", "rank"), ("paper", "paper_rank")):
        for place, look in ((1, style.text(weight="bold")), (2, style.text(decorate="underline"))):
            rows = [i for i, r in enumerate(sheet[rank]) if pd.notna(r) and r == place]
            if rows:
                table = table.tab_style(look, loc.body(columns=column, rows=rows))
    identified = table.with_id(f"table-{sheet['table'].iloc[0]}")
    return identified.as_raw_html(make_page=True)


def as_latex(sheet: pd.DataFrame, study: Study) -> str:
    """The sheet as a LaTeX table (packages booktabs, caption): best bold, second underlined."""
    table = _table(sheet, study, marked=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Styles are not yet supported", category=UserWarning)
        text = table.as_latex()
    for mark, command in COMMANDS.items():
        text = text.replace(mark, command)
    return text


def _table(sheet: pd.DataFrame, study: Study, *, marked: bool) -> GT:
    """The sheet as a great_tables object."""
    on = sheet["benchmark"].where(sheet["benchmark"] != AVERAGE, "average of the benchmarks")
    shown = pd.DataFrame(
        {
            "block": sheet["model"] + ", " + on + ", " + sheet["metric"],
            "system": sheet["label"],
            "paper": [
                _marked(percent(v, 2), r, marked) for v, r in zip(sheet["paper"], sheet["paper_rank"], strict=True)
            ],
            "ours": [
                _marked(percent(v, 2) if status == "ok" else status, r, marked)
                for v, status, r in zip(sheet["ours"], sheet["status"], sheet["rank"], strict=True)
            ],
            "interval": [percent_range(*v) for v in zip(sheet["low"], sheet["high"], strict=True)],
            "difference": [points(v, 2) for v in sheet["difference"]],
            "unbiased": [_with_range(*v) for v in sheet[["unbiased", "unbiased_low", "unbiased_high"]].to_numpy(float)],
            "size": [f"{count(problems)} × {count(n)}" for problems, n in sheet[["problems", "n"]].to_numpy(float)],
            "over_seeds": [_over(*v) for v in sheet[["seeds", "over_seeds", "least", "most"]].to_numpy(float)],
        }
    )
    name = sheet["table"].iloc[0]
    with pd.option_context("mode.string_storage", "python"):  # Arrow's texts copy a column at each cell that GT sets
        table = GT(shown.astype(object), rowname_col="system", groupname_col="block")
    table = table.tab_header(printable(study.study.tables[name].title), "percent; best bold, second underlined")
    table = table.tab_stubhead(LABELS["system"])
    table = table.cols_label({key: text for key, text in LABELS.items() if key != "system"})
    table = table.cols_align("right", [key for key in LABELS if key != "system"])
    table = table.tab_source_note(
        "Ours: mean of n samples, or Pass@k by the bootstrap, as the paper’s numbers were made. Unbiased: Eq. 15."
        " Intervals: other samples of other such problems. All but the last column: the first seed."
    )
    noted = sheet[sheet["note"].fillna("") != ""].drop_duplicates(["label", "model", "benchmark"])
    for _, row in noted.iterrows():
        table = table.tab_source_note(f"{row['label']}, {row['benchmark']}: {row['note']}")
    warning = scale_note(study.scale, study.size.verdicts)
    return table.tab_source_note(warning) if warning else table


def _marked(text: str, rank: object, marked: bool) -> str:
    if not marked or pd.isna(rank) or rank not in (1, 2):
        return text
    before, after = BEST if rank == 1 else SECOND
    return f"{before}{text}{after}"


def _with_range(value: float, low: float, high: float) -> str:
    return percent(value, 2) if pd.isna(value) else f"{percent(value, 2)} ({percent_range(low, high)})"


def _over(seeds: float, mean: float, least: float, most: float) -> str:
    return count(seeds) if pd.isna(mean) else f"{count(seeds)}: {_with_range(mean, least, most)}"
