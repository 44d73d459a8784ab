"""The page's results: each table as groups of rows, beside the paper's values, with its figures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from ngrpo.audit.fidelity import mixed_fidelity
from ngrpo.audit.status import command
from ngrpo.formatting import percent, percent_range
from ngrpo.grades import GRADES
from ngrpo.report import figures
from ngrpo.report.compared_with import reference
from ngrpo.report.drawing import styles
from ngrpo.report.figures import TableRow
from ngrpo.report.figures_ablation import over_rho
from ngrpo.report.gallery import Gallery
from ngrpo.report.names import marked, place_title, slug
from ngrpo.report.paper_tables import FORMATS
from ngrpo.report.tables import read_table
from ngrpo.study.expand import Study
from ngrpo.study.layout import ReportFiles, Results
from ngrpo.study.paper_values import AVERAGE
from ngrpo.study.specs import RunSpec
from ngrpo.study.titles import title_of

Columns = list[tuple[str, str]]
"""(metric, estimator) of each column."""


def results_table(
    study: Study,
    results: Results,
    report: ReportFiles,
    name: str,
    sheet: pd.DataFrame | None,
    gallery: Gallery,
    untaught: Mapping[str, str],
) -> dict[str, Any]:
    """One table as the page shows it: a group a model and benchmark. sheet: its values beside the paper's.

    untaught: runs that learned nothing, and how one sees it.
    """
    path = results.table(name)
    table: dict[str, Any] = {"id": name, "title": study.study.tables[name].title, "file": results.relative(path)}
    table |= {"path": path, "groups": [], "note": "", "files": [], "mixed": ""}
    if sheet is None:
        return {**table, "note": f"This table isn't computed yet; made by: {command(study, results, path)}"}
    frame = read_table(path)
    if not _of_this_study(study, name, frame):
        make = command(study, results, path).replace(" --config", " --force --config", 1)
        make = make if "--force" in make else f"{make} --force"
        table["note"] = f"This table was computed for another version of the study; remade by: {make}"
    table["mixed"] = _mixed(study, name)
    table["files"] = [report.table(name, kind).relative_to(report.folder).as_posix() for kind in FORMATS]
    keys = ["model", "benchmark", "metric", "label"]
    printed = {tuple(row[key] for key in keys): row for row in sheet.to_dict("records")}
    for (model, benchmark), part in frame.groupby(["model", "benchmark"], sort=False):
        if model in study.size.models and (benchmark == AVERAGE or benchmark in study.size.datasets):
            table["groups"].append(_group(study, name, model, benchmark, part, printed, gallery, untaught))
    return table


def _untaught_systems(study: Study, table: str, model: str, untaught: Mapping[str, str]) -> dict[str, str]:
    """The labels of a table's systems on a model whose run learned nothing, and how one sees it."""
    policies = {c.label: study.evaluations[c.evaluation].policy.id for c in study.cells[table] if c.model == model}
    return {label: untaught[policy] for label, policy in policies.items() if policy in untaught}


def _of_this_study(study: Study, table: str, frame: pd.DataFrame) -> bool:
    wanted = {(c.label, c.model, c.benchmark, study.evaluations[c.evaluation].digest) for c in study.cells[table]}
    own = frame[frame["against"].isna() & (frame["benchmark"] != AVERAGE)]
    return wanted == set(own[["label", "model", "benchmark", "spec"]].itertuples(index=False, name=None))


def _mixed(study: Study, table: str) -> str:
    """What the runs of a table hold differently of paper and released code; empty where all follow the same."""
    differences: list[str] = []
    for model in dict.fromkeys(c.model for c in study.cells[table]):
        policies = {c.label: study.evaluations[c.evaluation].policy for c in study.cells[table] if c.model == model}
        differences += mixed_fidelity({label: p for label, p in policies.items() if isinstance(p, RunSpec)})
    return "; ".join(dict.fromkeys(differences))


def _group(
    study: Study,
    table: str,
    model: str,
    benchmark: str,
    frame: pd.DataFrame,
    printed: dict,
    gallery: Gallery,
    untaught: Mapping[str, str],
) -> dict[str, Any]:
    """One model on one benchmark: columns metrics × estimators, rows systems, then paired differences and figures.

    printed: rows of the table's sheet, with the paper's values, by model, benchmark, metric and label.
    """
    rows = frame.to_dict("records")
    own, pairs = ([row for row in rows if pd.isna(row["against"]) is paired] for paired in (True, False))
    headline = [row for row in own if row["headline"]]
    columns = list(dict.fromkeys((row["metric"], row["estimator"]) for row in headline))
    labels = list(dict.fromkeys(row["label"] for row in own))
    against = reference(study, table, labels)
    shown = [row for row in pairs if row["against"] == against] + [row for row in pairs if row["label"] == against]
    name, where = slug(table, model, benchmark), place_title(study, model, benchmark)
    done = [row for row in headline if row["status"] == "ok"]
    looks, nothing = styles(labels), _untaught_systems(study, table, model, untaught)
    names = {label: marked(label, nothing.get(label, "")) for label in labels}
    drawn = [{**row, "label": names[row["label"]]} for row in own]
    return {
        "id": name,
        "model": title_of(study, "model", model),
        "benchmark": title_of(study, "benchmark", benchmark),
        "average": benchmark == AVERAGE,
        "size": sorted({(int(row["problems"]), int(row["n"])) for row in done}),
        "columns": [(metric, "" if estimator == "mean" else estimator) for metric, estimator in columns],
        "metrics": list(dict.fromkeys(metric for metric, _ in columns)),
        "rows": [
            _beside(_row(part, columns), columns, printed, (model, benchmark), nothing.get(label, ""))
            | {"style": looks[label], "name": names[label]}
            for label, part in _by(headline, "label").items()
        ],
        "differences": [
            _row(part, columns) | {"against": part[0]["against"]} for part in _by(shown, "label", "against").values()
        ],
        "seeds": sorted({int(row["seeds"]) for row in shown if row["status"] == "ok"}),
        "keys": [(names[label], looks[label]) for label in labels],
        "forests": list(_forests(drawn, columns, name, where, gallery)),
        "curves": list(_pass_curves(drawn, name, where, gallery)),
        "over_rho": list(_over_rho(drawn, name, where, gallery)),
    }


def _by(rows: Sequence[TableRow], *keys: str) -> dict[Any, list[TableRow]]:
    """Rows by one key's value or several keys' values, in the order in which those first come."""
    groups: dict[Any, list[TableRow]] = {}
    for row in rows:
        groups.setdefault(row[keys[0]] if len(keys) == 1 else tuple(row[key] for key in keys), []).append(row)
    return groups


def _row(part: Sequence[TableRow], columns: Columns) -> dict[str, Any]:
    first, ok = part[0], part[0]["status"] == "ok"
    cells = {(row["metric"], row["estimator"]): row for row in part}
    return {
        "label": first["label"],
        "evaluation": None if pd.isna(first["evaluation"]) else first["evaluation"],  # an average has none
        "status": first["status"],
        "note": first["note"] or "",
        "cells": [dict(cells[key]) for key in columns if key in cells] if ok else [],
        "counts": {g: int(first[g]) for g in GRADES} if ok and pd.notna(first["correct"]) else None,
    }


def _beside(
    row: dict[str, Any], columns: Columns, printed: dict, where: tuple[str, str], nothing: str
) -> dict[str, Any]:
    """A row whose cells hold the paper's value and their rank, too; the unbiased estimator's have neither.

    nothing: how one sees that the row's run learned nothing; empty where it did.
    """
    for (metric, estimator), cell in zip(columns, row["cells"], strict=False):
        own = printed[(*where, metric, row["label"])]
        compared = estimator != "unbiased"
        cell["rank"] = own["rank"] if compared and pd.notna(own["rank"]) else 0
        cell["paper"] = own["paper"] if compared and pd.notna(own["paper"]) else None
        cell["seeds"] = own if compared and pd.notna(own["over_seeds"]) else None
        cell["to_paper"] = own["difference"] if cell["paper"] is not None else None
    untaught = f"its run learned nothing ({nothing}), so these are no trained policy's values" if nothing else ""
    notes = (untaught, row["note"], printed[(*where, columns[0][0], row["label"])]["note"])
    row["note"] = "; ".join(dict.fromkeys(note for note in notes if note))
    return row


def result_sentences(table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a table's systems scored, a sentence each: on the average of the benchmarks, where there are several; and by
    how much its last system, which is the paper's in its tables, differs from the reference.

    {place, values: [{label, quantity, value}], last: {label, against, cell} or None}.
    """
    averaged = any(g["average"] for g in table["groups"])
    for group in table["groups"]:
        rows = [r for r in group["rows"] if r["cells"]]
        if not rows or group["average"] != averaged:
            continue
        values = [
            {"label": r["label"], "quantity": r["cells"][0]["quantity"], "value": r["cells"][0]["value"]} for r in rows
        ]
        last = next((d for d in group["differences"] if d["cells"] and d["label"] == rows[-1]["label"]), None)
        place = f"{group['columns'][0][0]}, {group['benchmark']} ({group['model']})"
        yield {"place": place, "values": values, "last": last and {**last, "cell": last["cells"][0]}}


# --- a group's figures ---


def _in_words(rows: Sequence[TableRow]) -> str:
    """Values with their intervals, for a figure's description."""
    return "; ".join(
        f"{r['label']} {percent(r['value'])} % ({percent_range(r['problems_low'], r['problems_high'])})"
        for r in rows
        if pd.notna(r["value"])
    )


def _forests(own: Sequence[TableRow], columns: Columns, name: str, where: str, gallery: Gallery) -> Iterator[Markup]:
    by_column = _by([row for row in own if row["headline"]], "metric", "estimator")
    for metric, estimator in columns:
        rows = by_column[metric, estimator]
        if estimator != "bootstrap" and (figure := figures.forest(rows)):
            title = figures.metric_title(rows[0])
            yield gallery.draw(figure, slug(name, metric), f"{title}: {where}", _in_words(rows))


def _pass_curves(own: Sequence[TableRow], name: str, where: str, gallery: Gallery) -> Iterator[Markup]:
    largest = max(row["k"] for row in own)
    for estimator in ("unbiased", "bootstrap"):
        if figure := figures.pass_at_k(own, estimator=estimator):
            rows = [row for row in own if (row["k"], row["estimator"]) == (largest, estimator)]
            description = f"Pass@k rises with k; at k = {largest}: {_in_words(rows)}."
            yield gallery.draw(figure, f"{name}-curve-{estimator}", f"Pass@k, {estimator}: {where}", description)


def _over_rho(own: Sequence[TableRow], name: str, where: str, gallery: Gallery) -> Iterator[Markup]:
    """The paper's Figure 3, of a table whose rows say ρ."""
    if figure := over_rho(own):
        headline = [row for row in own if row["headline"] and row["estimator"] == "mean"]
        yield gallery.draw(figure, f"{name}-over-rho", f"Values over ρ: {where}", f"{_in_words(headline)}.")
