"""The report: one self-contained HTML page, readable without JavaScript: what a study found and how to check it.

It shows what `analysis/{table}.parquet`, the runs' logs, cards and specs, and `ngrpo.report` say; it computes nothing
but layout. Every number stands beside a relative link to its file. What is missing is said where it would stand, with
the command that makes it. Beside the page lie claims.json, compliance.csv and tables/: its claims, checks and tables.
A section is a function here that gathers plain values and a block of templates/report.html.j2 that lays them out.
"""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ngrpo.audit.compliance import STATES, Check, compliance
from ngrpo.audit.fidelity import fidelity_rows, mixed_fidelity, switch_effects
from ngrpo.audit.hours import job_times, totals
from ngrpo.audit.provenance import artifacts, data_cards, evaluation_settings, plain, run_settings, versions
from ngrpo.audit.status import RunState, command, read_grades, run_state
from ngrpo.claims.evidence import Finding, findings
from ngrpo.files import whole_file, write_json
from ngrpo.grading.grader import GRADES, displayed
from ngrpo.report import figures
from ngrpo.report.diagnostics import LOW_COSINE, examples, measured
from ngrpo.report.diagnostics import totals as diagnostics_totals
from ngrpo.report.figures_ablation import by_problem, over_rho
from ngrpo.report.figures_diagnostics import cosines_to_anchor, inputs_on_two_axes
from ngrpo.report.gallery import Gallery
from ngrpo.report.paper_tables import FORMATS, beside, write_tables
from ngrpo.report.summary import alerts, checks_by_run, claim_counts, facts, unfinished
from ngrpo.report.tables import AVERAGE, read_table, scale_note
from ngrpo.report.words import duration, effect, p_value, percent, points, short, title_of
from ngrpo.study.expand import Study
from ngrpo.study.paper_values import PaperValues, read_paper_values

ESTIMATOR_TITLES = {"mean": "", "unbiased": "unbiased", "bootstrap": "bootstrap"}
FIGURE_1 = (
    "The paper’s Figure 1: tokens’ embeddings, what mixing fed there, and Gaussian noise, on the two main axes of these"
    " embeddings. Two axes hide most of the noise, which points in all directions."
)
COSINES = "Whole vectors: how close to their anchor’s embedding mixtures and Gaussian noise lie."
ALL_PAIRS = 3
"""Up to so many systems all paired differences are shown; above, those against the table's first system."""


def report(study: Study, results: Path, out: Path) -> None:
    """Write the page, and what it links to beside it. results: results/{scale}; out: the HTML file."""
    found = gather(study, results)
    write_json(out.parent / "claims.json", [asdict(claim) for claim in found.claims])
    with whole_file(out.parent / "compliance.csv") as part:
        columns = [field.name for field in fields(Check)]
        pd.DataFrame([asdict(c) for c in found.checks], columns=columns).to_csv(part, index=False)
    for sheet in found.sheets.values():
        write_tables(sheet, study, out.parent / "tables")
    gallery = Gallery()
    html = page(study, results, out.parent, found, gallery)
    gallery.write(out.parent)
    with whole_file(out) as part:
        part.write_text(html, encoding="utf-8")
    print(f"report: {out}")


@dataclass(frozen=True)
class Gathered:
    """What the page shows beside its tables' files."""

    runs: list[RunState]
    claims: list[Finding]
    checks: list[Check]
    sheets: dict[str, pd.DataFrame]
    """Each finished table beside the paper's values."""
    paper: PaperValues | None


def gather(study: Study, results: Path) -> Gathered:
    """Claims, checks and tables of a study. Raises UserError for configuration that can't be read."""
    paper = read_paper_values(study.folder) if study.folder else None
    runs = [run_state(study, results, run) for run in study.runs]
    files = {name: results / "analysis" / f"{name}.parquet" for name in study.size.tables}
    sheets = {name: beside(read_table(file), study, results, paper) for name, file in files.items() if file.exists()}
    checks = compliance(study, results, runs, paper)
    return Gathered(runs, findings(study, results), checks, sheets, paper)


def page(
    study: Study, results: Path, folder: Path, found: Gathered | None = None, gallery: Gallery | None = None
) -> str:
    """The page's HTML. folder: where it will lie; gallery: keeps the figures, whose files the page links to."""
    found, gallery = found or gather(study, results), gallery or Gallery()
    environment = Environment(
        loader=PackageLoader("ngrpo.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"],
    )  # fmt: skip
    environment.filters |= {
        "percent": percent,
        "points": points,
        "plain": plain,
        "short": short,
        "duration": duration,
        "p_value": p_value,
        "effect": effect,
    }

    def link(file: str) -> str:
        return Path(os.path.relpath(results / file, folder)).as_posix()

    runs = found.runs
    tables = [_table(study, results, name, found.sheets.get(name), gallery) for name in study.size.tables]
    values = {
        "study": study,
        "scale": study.scale,
        "title": study.size.title,
        "warning": scale_note(study.scale, study.size.verdicts),
        "theme": figures.THEME,
        "link": link,
        "exists": lambda file: (results / file).exists(),
        "command": lambda target: command(study, results, target),
        "tables": tables,
        "findings": [f for t in tables for f in _findings(t)],
        "claims": found.claims,
        "claim_counts": claim_counts(found.claims),
        "fidelity": fidelity_rows(study, found.paper),
        "switch_effects": switch_effects(study, results),
        "checks": checks_by_run(found.checks),
        "check_counts": {state: sum(c.state == state for c in found.checks) for state in STATES},
        "states": STATES,
        "facts": facts(study, runs, tables, found.claims),
        "alerts": alerts(found.checks),
        "unfinished": list(unfinished(study, results, runs, tables)),
        "runs": runs,
        "curves": list(_curves(study, runs, gallery)),
        "smoothing": figures.SMOOTHING,
        "by_problem": list(_by_problem(study, results, gallery)),
        "diagnostics": list(_diagnostics(study, results, gallery)),
        "low_cosine": LOW_COSINE,
        "paper": found.paper,
        "grades": [(g, displayed(g)) for g in GRADES],
        "cards": data_cards(study, results),
        "settings": run_settings(study.runs),
        "evaluation_settings": evaluation_settings(study),
        "versions": versions(),
        "artifacts": artifacts(study, results),
        "job_times": (jobs := job_times(study, results)),
        "totals": totals(jobs),
    }
    return environment.get_template("report.html.j2").render(values)


# --- tables ---


def _table(study: Study, results: Path, name: str, sheet: pd.DataFrame | None, gallery: Gallery) -> dict:
    """One table as the page shows it: a group a model and benchmark."""
    file = f"analysis/{name}.parquet"
    base = {"id": name, "title": study.study.tables[name].title, "file": file, "groups": [], "note": ""}
    base |= {"files": [], "mixed": ""}
    if not (results / file).exists():
        return {**base, "note": f"This table isn't computed yet; made by: {command(study, results, file)}"}
    frame = read_table(results / file)
    wanted = {(c.label, c.model, c.benchmark, study.evaluations[c.evaluation].digest) for c in study.cells[name]}
    own = frame[frame["against"].isna() & (frame["benchmark"] != AVERAGE)]
    if wanted != set(own[["label", "model", "benchmark", "spec"]].itertuples(index=False, name=None)):
        make = command(study, results, file).replace(" --config", " --force --config", 1)
        make = make if "--force" in make else f"{make} --force"
        base["note"] = f"This table was computed for another version of the study; remade by: {make}"
    groups = frame.groupby(["model", "benchmark"], sort=False)
    base["mixed"] = _mixed(study, name)
    base["files"] = [f"tables/{name}.{suffix}" for suffix in FORMATS]
    keys = ["model", "benchmark", "metric", "label"]
    printed = {tuple(row[key] for key in keys): row for row in sheet.to_dict("records")}
    known = [(m, b, part) for (m, b), part in groups if _known(study, m, b)]
    return {**base, "groups": [_group(study, name, m, b, part, printed, gallery) for m, b, part in known]}


def _mixed(study: Study, table: str) -> str:
    """What the runs of a table hold differently of paper and released code; empty where all follow the same."""
    told = []
    for model in dict.fromkeys(c.model for c in study.cells[table]):
        policies = {c.label: study.evaluations[c.evaluation].policy for c in study.cells[table] if c.model == model}
        told += mixed_fidelity({label: p for label, p in policies.items() if p.type == "run"})
    return "; ".join(dict.fromkeys(told))


def _known(study: Study, model: str, benchmark: str) -> bool:
    return model in study.size.models and (benchmark == AVERAGE or benchmark in study.size.datasets)


def _group(
    study: Study, table: str, model: str, benchmark: str, frame: pd.DataFrame, printed: dict, gallery: Gallery
) -> dict:
    """One model on one benchmark: columns metrics × estimators, rows systems, then paired differences and figures.

    printed: rows of the table's sheet, with the paper's values, by model, benchmark, metric and label.
    """
    own, pairs = frame[frame["against"].isna()], frame[frame["against"].notna()]
    headline = own[own["headline"]]
    columns = list(headline[["metric", "estimator"]].drop_duplicates().itertuples(index=False, name=None))
    labels = list(dict.fromkeys(own["label"]))
    shown = pairs if len(labels) <= ALL_PAIRS else pairs[pairs["against"] == labels[0]]
    slug = f"{table}-{model}-{benchmark}".lower().replace(".", "-")
    where = f"{title_of(study, 'model', model)}, {title_of(study, 'benchmark', benchmark)}"
    done = headline[headline["status"] == "ok"]
    looks = figures.styles(labels)
    return {
        "id": slug,
        "model": title_of(study, "model", model),
        "benchmark": title_of(study, "benchmark", benchmark),
        "average": benchmark == AVERAGE,
        "size": sorted({(int(p), int(n)) for p, n in done[["problems", "n"]].itertuples(index=False)}),
        "columns": [(metric, ESTIMATOR_TITLES[estimator]) for metric, estimator in columns],
        "rows": [
            _beside(_row(part, columns), columns, printed, (model, benchmark)) | {"style": looks[label]}
            for label, part in headline.groupby("label", sort=False)
        ],
        "differences": [
            _row(part, columns) | {"against": against}
            for (label, against), part in shown.groupby(["label", "against"], sort=False)
        ],
        "keys": [(label, looks[label]) for label in labels],
        "forests": list(_forests(headline, columns, slug, where, gallery)),
        "curves": list(_pass_curves(own, slug, where, gallery)),
        "over_rho": list(_over_rho(own, slug, where, gallery)),
    }


def _row(part: pd.DataFrame, columns: list[tuple[str, str]]) -> dict:
    first = part.iloc[0]
    cells = part.set_index(["metric", "estimator"])
    ok = first["status"] == "ok"
    return {
        "label": first["label"],
        "evaluation": first["evaluation"],
        "status": first["status"],
        "note": first["note"] or "",
        "cells": [cells.loc[key].to_dict() for key in columns if key in cells.index] if ok else [],
        "counts": {g: int(first[g]) for g in GRADES} if ok and pd.notna(first["correct"]) else None,
    }


def _beside(row: dict, columns: list[tuple[str, str]], printed: dict, where: tuple[str, str]) -> dict:
    """A row whose cells hold the paper's value and their rank, too; the unbiased estimator's have neither."""
    for (metric, estimator), cell in zip(columns, row["cells"], strict=False):
        own = printed[(*where, metric, row["label"])]
        compared = estimator != "unbiased"
        cell["rank"] = own["rank"] if compared and pd.notna(own["rank"]) else 0
        cell["paper"] = own["paper"] if compared and pd.notna(own["paper"]) else None
        cell["seeds"] = own if compared and pd.notna(own["over_seeds"]) else None
        cell["to_paper"] = own["difference"] if cell["paper"] is not None else None
    row["note"] = "; ".join(
        dict.fromkeys(n for n in (row["note"], printed[(*where, columns[0][0], row["label"])]["note"]) if n)
    )
    return row


def _told(rows: pd.DataFrame) -> str:
    """Values in words, for a figure's description."""
    return "; ".join(
        f"{r['label']} {percent(r['value'])} % ({percent(r['problems_low'])} to {percent(r['problems_high'])})"
        for _, r in rows.dropna(subset="value").iterrows()
    )


def _forests(
    headline: pd.DataFrame, columns: list[tuple[str, str]], slug: str, where: str, gallery: Gallery
) -> Iterator[Markup]:
    for metric, estimator in columns:
        if estimator == "bootstrap":
            continue
        rows = headline[(headline["metric"] == metric) & (headline["estimator"] == estimator)]
        figure = figures.forest(rows)
        if figure:
            title = figures.metric_title(rows.iloc[0])
            name = f"{slug}-{metric}".lower().replace("@", "-")
            yield gallery.draw(figure, name, f"{title}: {where}", _told(rows))


def _pass_curves(own: pd.DataFrame, slug: str, where: str, gallery: Gallery) -> Iterator[Markup]:
    largest = own["k"].max()
    for estimator in ("unbiased", "bootstrap"):
        figure = figures.pass_at_k(own, estimator=estimator)
        if figure:
            rows = own[(own["k"] == largest) & (own["estimator"] == estimator)]
            told = f"Pass@k rises with k; at k = {largest}: {_told(rows)}."
            title = f"Pass@k, {estimator}"
            name = f"{slug}-curve-{estimator}"
            yield gallery.draw(figure, name, f"{title}: {where}", told)


def _over_rho(own: pd.DataFrame, slug: str, where: str, gallery: Gallery) -> Iterator[Markup]:
    """The paper's Figure 3, of a table whose rows say ρ."""
    if figure := over_rho(own):
        headline = own[own["headline"] & (own["estimator"] == "mean")]
        yield gallery.draw(figure, f"{slug}-over-rho", f"Values over ρ: {where}", f"{_told(headline)}.")


def _by_problem(study: Study, results: Path, gallery: Gallery) -> Iterator[dict]:
    """For each model and benchmark the first two trained systems, problem by problem."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for cell in (cell for cells in study.cells.values() for cell in cells):
        spec = study.evaluations[cell.evaluation]
        if spec.policy.type == "run" and spec.decoding_id == "standard":
            found.setdefault((cell.model, cell.benchmark), {}).setdefault(cell.evaluation, cell.label)
    for (model, benchmark), systems in found.items():
        pair = list(systems.items())[:2]
        grades = [read_grades(study, results, evaluation).frame for evaluation, _ in pair]
        if len(pair) < 2 or any(frame is None for frame in grades):
            continue
        names = (pair[0][1], pair[1][1])
        if figure := by_problem(*grades, names):
            where = f"{title_of(study, 'model', model)}, {title_of(study, 'benchmark', benchmark)}"
            name = f"problems-{model}-{benchmark}".lower().replace(".", "-")
            wins = (grades[1]["grade"] == "correct").mean() - (grades[0]["grade"] == "correct").mean()
            told = f"{names[1]} solves {points(wins)} points more of all samples than {names[0]}."
            svg = gallery.draw(figure, name, f"Problem by problem: {where}", told)
            yield {"where": where, "svg": svg, "files": [f"evaluations/{e}.grades.parquet" for e, _ in pair]}


def _diagnostics(study: Study, results: Path, gallery: Gallery) -> Iterator[dict]:
    """What mixing feeds on each base model: totals, the paper's Figure 1, cosines and one response in words."""
    for found in measured(study, results):
        base = {"run": found.run, "file": found.file, "told": found.told, "note": found.note}
        if not found.told:
            yield base
            continue
        model = study.runs[found.run].model.id
        title, slug = title_of(study, "model", model), f"diagnostics-{model}".replace(".", "-")
        sums = diagnostics_totals(found.told)
        figure_1, cosines = inputs_on_two_axes(found.told), cosines_to_anchor(found.told)
        told = f"Mixtures: mean cosine {short(sums.mean, 4)}, least {short(sums.least, 4)}."
        panels = [
            {"svg": gallery.draw(figure_1, slug, f"What is fed: {title}", told), "about": FIGURE_1},
            {"svg": gallery.draw(cosines, f"{slug}-cosines", f"Cosine to the anchor: {title}", told), "about": COSINES},
        ]
        yield base | {"title": title, "totals": sums, "panels": panels, "example": "".join(examples(found.told, 1))}


def _findings(table: dict) -> Iterator[str]:
    """What a table's systems scored, in sentences: on the average of the benchmarks, where there are several."""
    averaged = any(g["average"] for g in table["groups"])
    for group in table["groups"]:
        rows = [r for r in group["rows"] if r["cells"]]
        if not rows or group["average"] != averaged:
            continue
        values = ", ".join(f"{r['label']} {percent(r['cells'][0]['value'])} %" for r in rows)
        text = f"{group['columns'][0][0]}, {group['benchmark']} ({group['model']}): {values}."
        if group["differences"] and (last := group["differences"][-1])["cells"]:
            cell = last["cells"][0]
            text += (
                f" {last['label']} − {last['against']}: {points(cell['value'])} points (95 % interval over problems"
                f" {points(cell['problems_low'])} to {points(cell['problems_high'])})."
            )
        yield text


# --- training ---


def _run_label(study: Study, run: RunState) -> str:
    """The label under which tables show this run's policy, so that a system has one color in all figures."""
    for cells in study.cells.values():
        for cell in cells:
            policy = study.evaluations[cell.evaluation].policy
            if policy.type == "run" and policy.id == run.id:
                return cell.label
    return run.id


def _curves(study: Study, runs: list[RunState], gallery: Gallery) -> Iterator[dict]:
    """For each model its training curves, of the first seed; a system keeps the color that it has in the tables."""
    runs = [run for run in runs if run.spec.seed == study.study.seed]
    labels = list(dict.fromkeys(c.label for cells in study.cells.values() for c in cells))
    looks = figures.styles(labels)
    for model in dict.fromkeys(r.spec.model.id for r in runs):
        mine = {_run_label(study, r): r for r in runs if r.spec.model.id == model and len(r.log)}
        logs = {label: r.log for label, r in mine.items()}
        chosen = {label: r.chosen_step for label, r in mine.items() if r.chosen_step}
        panels = []
        for curve in figures.CURVES:
            limits = [r.spec.training.parity_limit for r in mine.values()] if curve.column == "parity_max" else []
            figure = figures.training_curve(curve, logs, looks=looks, limits=limits, chosen=chosen)
            if figure:
                last = [f"{label} ends at {short(_last(log, curve.column))}" for label, log in logs.items()]
                name = f"training-{model}-{curve.column}".replace(".", "-").replace("_", "-")
                title = f"{curve.what}: {title_of(study, 'model', model)}"
                panels.append({"about": curve.about, "svg": gallery.draw(figure, name, title, f"{'; '.join(last)}.")})
        if panels:
            keys = [(label, looks[label]) for label in mine]
            files = [r.id for r in mine.values()]
            yield {"model": title_of(study, "model", model), "panels": panels, "keys": keys, "runs": files}


def _last(log: pd.DataFrame, column: str) -> float | None:
    values = log[column].dropna() if column in log else []
    return float(values.iloc[-1]) if len(values) else None
