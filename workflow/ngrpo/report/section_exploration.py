"""The page's section on exploration: how diverse each system's answers are, and what becomes of it in training."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ngrpo.audit.status import RunState
from ngrpo.claims.quantities import explored, explored_beside
from ngrpo.formatting import ABSENT, fixed, percent, percent_range, signed
from ngrpo.report.exploration import MEASURES, SHARES, read_exploration
from ngrpo.report.names import place_title
from ngrpo.report.section_figures import run_label
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.study.titles import title_of

WIDEST = 4
"""Systems of a table; more take several tables."""
PART = 0.1
"""Of a training, at its start and at its end, whose means are compared."""
TRAINED = (("entropy", "token entropy (nats)", 3), ("response_length", "response tokens", 1))
"""(column of a log, title, decimals)."""
GAINED = {
    "gained": ("gained", "problems that it solves in some sample and the reference in none"),
    "lost": ("lost", "problems that the reference solves in some sample and it in none"),
}


def exploration_groups(study: Study, results: Results) -> Iterator[dict[str, Any]]:
    """A table, model and benchmark each: columns are systems, rows measures, each with its cells; the first is open."""
    for table in study.size.tables:
        path = results.exploration(table)
        frame = read_exploration(path) if path.exists() else pd.DataFrame({"model": [], "benchmark": []})
        for (model, benchmark), part in frame.groupby(["model", "benchmark"], sort=False):
            if model in study.size.models and benchmark in study.size.datasets and part["value"].notna().any():
                title = f"{study.study.tables[table].title}: {place_title(study, model, benchmark)}"
                names = {
                    c.label: c.evaluation for c in study.cells[table] if (c.model, c.benchmark) == (model, benchmark)
                }
                parts = list(_parted(_group(part, names)))
                for each in parts:
                    who = f" ({', '.join(each['labels'])})" if len(parts) > 1 else ""
                    yield {"title": title + who, "file": results.relative(path), **each}


def _parted(group: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A group as tables of at most WIDEST systems, which no screen cuts."""
    for start in range(0, len(group["labels"]), WIDEST):
        chosen = slice(start, start + WIDEST)
        rows = [{**row, "cells": row["cells"][chosen]} for row in group["rows"]]
        yield {**group, "labels": group["labels"][chosen], "rows": rows}


def _group(part: pd.DataFrame, evaluations: Mapping[str, str]) -> dict[str, Any]:
    """One model on one benchmark. evaluations: of each label."""
    labels = list(dict.fromkeys(part["label"]))
    known = {(row["measure"], row["label"], pd.isna(row["against"])): row for row in part.to_dict("records")}
    against = next(iter(part["against"].dropna()), "")

    def keys(measure: str, label: str) -> dict[str, str]:
        """What a cell's numbers are of."""
        own, other = evaluations.get(label, label), evaluations.get(against, against)
        return {"quantity": explored(measure, own), "beside": explored_beside(measure, own, other)}

    named = [(m.name, m.title, m.about, m.decimals) for m in MEASURES]
    rows = [
        {
            "title": title,
            "about": about,
            "cells": [
                _cell(known.get((n, label, True)), known.get((n, label, False)), places) | keys(n, label)
                for label in labels
            ],
        }
        for n, title, about, places in named
    ]
    shares = [
        {
            "title": GAINED[n][0],
            "about": GAINED[n][1],
            "cells": [
                _share(known.get((n, label, False))) | {"quantity": keys(n, label)["beside"]} for label in labels
            ],
        }
        for n in SHARES
    ]
    done = part.dropna(subset="value")
    sizes = {name: _sizes(done[done["measure"] == name]) for name in ("answers", "self_bleu")}
    notes = [
        f"{row['label']}: {row['note']}" for row in part.drop_duplicates("label").to_dict("records") if row["note"]
    ]
    return {"labels": labels, "rows": [*rows, *shares], "against": against, "sizes": sizes, "notes": notes}


def _sizes(rows: pd.DataFrame) -> str:
    pairs = rows[rows["against"].isna()][["problems", "samples"]].drop_duplicates()
    return "; ".join(f"{int(p)} problems × {int(n)}" for p, n in pairs.itertuples(index=False))


def _cell(own: dict[Any, Any] | None, difference: dict[Any, Any] | None, places: int) -> dict[str, str]:
    """A value with its interval, and its difference to the reference with its own."""
    if own is None or pd.isna(own["value"]):
        return {"value": ABSENT, "range": "", "difference": ""}
    shown = {"value": fixed(own["value"], places), "range": _range(own, lambda value: fixed(value, places))}
    shown |= {"difference": "", "difference_range": ""}
    if difference is not None and pd.notna(difference["value"]):
        ends = _range(difference, lambda value: signed(value, places))
        shown |= {"difference": signed(difference["value"], places), "difference_range": ends}
    return shown


def _range(row: dict[Any, Any], text: Any) -> str:
    return "" if pd.isna(row["low"]) else f"{text(row['low'])} to {text(row['high'])}"


def _share(row: dict[Any, Any] | None) -> dict[str, str]:
    """A share of problems; the reference has none."""
    if row is None or pd.isna(row["value"]):
        return {"value": ABSENT, "range": "", "difference": ""}
    return {"value": f"{percent(row['value'])} %", "range": percent_range(row["low"], row["high"]), "difference": ""}


def training_change(study: Study, runs: list[RunState]) -> list[dict[str, Any]]:
    """Token entropy and length of every run of the first seed: means over its first and its last steps."""
    rows = []
    for run in (run for run in runs if run.spec.seed == study.study.seed and len(run.log)):
        cells = [_change(run.log, column, places) for column, _, places in TRAINED]
        label, model = run_label(study, run), title_of(study, "model", run.spec.model.id)
        rows.append({"label": label, "model": model, "run": run.id, "cells": cells})
    return rows


def _change(log: pd.DataFrame, column: str, places: int) -> str:
    values = log[column].dropna().to_numpy() if column in log else np.array([])
    part = max(1, round(PART * len(values)))
    return f"{values[:part].mean():.{places}f} → {values[-part:].mean():.{places}f}" if len(values) else ABSENT
