"""The report: one self-contained HTML page, readable without JavaScript: what a study measured and how to check it.

It shows what a study's tables, logs, cards and specs say; it computes nothing but layout. Every number stands beside a
relative link to its file. What is missing is said where it would stand, with the command that makes it. Beside the
page lie claims.json, compliance.csv and tables/: its claims, checks and tables. A section is a function that gathers
plain values (section_results.py, section_figures.py, summary.py, ngrpo.claims, ngrpo.audit) and a template of its own
that lays them out.
"""

import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ngrpo import formatting
from ngrpo.audit.compliance import STATES, ComplianceCheck, compliance
from ngrpo.audit.fidelity import fidelity_rows
from ngrpo.audit.hours import job_times, totals
from ngrpo.audit.paper_findings import Finding, source_of
from ngrpo.audit.provenance import artifacts, data_cards, evaluation_settings, run_settings, versions
from ngrpo.audit.status import RunState, command
from ngrpo.claims.evidence import Reader
from ngrpo.claims.looks import Seen, one_at_a_time, record_looks
from ngrpo.claims.printed import paper_findings
from ngrpo.claims.verdicts import ClaimResult, look_at_claims
from ngrpo.files import whole_file, whole_folder, write_json
from ngrpo.grades import GRADES, displayed
from ngrpo.report.alike import alike
from ngrpo.report.answer import answer
from ngrpo.report.csv_text import csv_text
from ngrpo.report.diagnostics import LOW_COSINE, NEARLY, shown
from ngrpo.report.drawing import THEME
from ngrpo.report.exploration import PROBLEMS, RESPONSES
from ngrpo.report.figures import BANDED, SMOOTHING
from ngrpo.report.gallery import Gallery
from ngrpo.report.imports import read_imports
from ngrpo.report.paper_tables import beside, write_tables
from ngrpo.report.section_exploration import TRAINED, exploration_groups, training_change
from ngrpo.report.section_figures import diagnostics_panels, problem_panels, training_panels
from ngrpo.report.section_graders import second_opinion
from ngrpo.report.section_paired import OUTCOMES, paired_outcomes, slowdowns
from ngrpo.report.section_problems import mixing_pages, page_of, problem_pages
from ngrpo.report.section_results import result_sentences, results_table
from ngrpo.report.section_switches import switch_effects
from ngrpo.report.summary import alerts, claim_counts, facts, required_values, unfinished
from ngrpo.report.tables import read_table
from ngrpo.statistics.diversity import WORDS
from ngrpo.study.config import N_GRPO
from ngrpo.study.expand import Study
from ngrpo.study.layout import ReportFiles, Results
from ngrpo.study.paper_values import FILE as PAPER_VALUES
from ngrpo.study.paper_values import PaperValues, read_paper_values
from ngrpo.study.scale_note import scale_note
from ngrpo.study.switches import OF_VERL
from ngrpo.terminal import echo, escaped

FILTERS = ("percent", "points", "plain", "short", "duration", "p_value", "effect")
"""Functions of ngrpo.formatting that templates call."""


@dataclass(frozen=True)
class Gathered:
    """What the page shows beside its tables' files."""

    runs: list[RunState]
    claims: list[ClaimResult]
    checks: list[ComplianceCheck]
    sheets: dict[str, pd.DataFrame]
    """Each finished table beside the paper's values."""
    paper: PaperValues | None
    findings: list[Finding]
    """What the paper's own numbers can bear."""
    seen: Seen
    """What these verdicts saw, for the next ones."""
    reader: Reader
    """The grades and logs behind all of this, each read once."""


def report(study: Study, results: Path | Results, out: Path) -> None:
    """Write the page, and say where it is. results: results/{scale}; out: the HTML file."""
    write_report(study, results, out)
    echo(f"report: {out}")


def write_report(study: Study, results: Path | Results, out: Path, *, links_to_code: bool = True) -> None:
    """Write the page, and what it links to beside it. results: results/{scale}; out: the HTML file. links_to_code:
    whether it lies beside the code that it names."""
    results = Results.of(results)
    with one_at_a_time(results):
        gathered = gather(study, results)
        _write(study, results, out, gathered, links_to_code=links_to_code)
        record_looks(results, gathered.seen)


def _write(study: Study, results: Results, out: Path, gathered: Gathered, *, links_to_code: bool) -> None:
    files, gallery = ReportFiles(out.parent), Gallery()
    write_json(files.claims, [asdict(claim) for claim in gathered.claims])
    with whole_file(files.compliance) as part:
        columns = [field.name for field in fields(ComplianceCheck)]
        checks = pd.DataFrame([asdict(c) for c in gathered.checks], columns=columns)
        part.write_text(csv_text(checks), encoding="utf-8")
    for sheet in gathered.sheets.values():
        write_tables(sheet, study, files)
    html = page(study, results, out.parent, gathered, gallery, links_to_code=links_to_code)
    gallery.write(files)
    write_problems(study, gathered.reader, files)
    with whole_file(out) as part:
        part.write_text(html, encoding="utf-8")


def gather(study: Study, results: Results) -> Gathered:
    """Claims, checks and tables of a study. Raises UserError for configuration that can't be read."""
    paper = read_paper_values(study.folder) if study.folder else None
    reader = Reader(study, results)
    runs = [reader.run(run) for run in study.runs]
    paths = {name: results.table(name) for name in study.size.tables}
    tables = {name: read_table(path) for name, path in paths.items() if path.exists()}
    sheets = {name: beside(frame, study, results, paper, reader) for name, frame in tables.items()}
    checks = compliance(study, results, runs, paper)
    audited = paper_findings(study)
    findings = audited[0] if audited else []
    claims, seen = look_at_claims(study, results, reader)
    return Gathered(runs, claims, checks, sheets, paper, findings, seen, reader)


def page(
    study: Study,
    results: Path | Results,
    folder: Path,
    gathered: Gathered | None = None,
    gallery: Gallery | None = None,
    *,
    links_to_code: bool = True,
) -> str:
    """The page's HTML. folder: where it will lie; gallery: holds the figures, whose files the page links to."""
    results, gallery = Results.of(results), gallery or Gallery()
    gathered = gathered or gather(study, results)
    values = {
        **_helpers(study, results, folder),
        "links_to_code": links_to_code,
        **_sections(study, results, ReportFiles(folder), gathered, gallery),
    }
    return _templates().get_template("report.html.j2").render(values)


def write_problems(study: Study, reader: Reader, files: ReportFiles) -> None:
    """Write the pages that a table's systems and what mixing feeds lead to, in place of those that are there."""
    results = reader.results
    templates, same = _templates(), {"scale": study.scale, "theme": THEME, **_helpers(study, results, files.problems)}
    with whole_folder(files.problems) as part:
        for name, opened in problem_pages(study, reader):
            grades = results.evaluation(opened["evaluation"]).grades
            html = templates.get_template("opened_problems.html.j2").render(same, opened=opened, grades_file=grades)
            (part / name).write_text(html, encoding="utf-8")
        for name, opened in mixing_pages(study, results):
            html = templates.get_template("opened_mixing.html.j2").render(same, opened=opened)
            (part / name).write_text(html, encoding="utf-8")


def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("ngrpo.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], finalize=_shown,
    )  # fmt: skip
    environment.filters |= {name: getattr(formatting, name) for name in FILTERS} | {"visible": shown}
    return environment


def _shown(value: Any) -> Any:
    """What a template writes: foreign text without control characters and text-direction marks."""
    return escaped(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _helpers(study: Study, results: Results, folder: Path) -> dict[str, Any]:
    """What templates call to name files: by path, or relative to the results, as checks and tables name them."""

    def path(file: Path | str) -> Path:
        return file if isinstance(file, Path) else results.root / file

    def link(file: Path | str) -> str:
        return Path(os.path.relpath(path(file), folder)).as_posix()

    def exists(file: Path | str) -> bool:
        return path(file).exists()

    def make(target: Path | str) -> str:
        return command(study, results, target)

    def opened(name: str) -> str:
        return f"{ReportFiles(Path()).problems.as_posix()}/{page_of(name)}"

    return {"results": results, "link": link, "exists": exists, "command": make, "page_of": opened}


def _sections(
    study: Study, results: Results, report: ReportFiles, gathered: Gathered, gallery: Gallery
) -> dict[str, Any]:
    """What every section shows."""
    runs, claims, checks, reader = gathered.runs, gathered.claims, gathered.checks, gathered.reader
    untaught = {run.id: run.learned_nothing for run in runs if run.learned_nothing}
    tables = [
        results_table(study, results, report, name, gathered.sheets.get(name), gallery, untaught)
        for name in study.size.tables
    ]
    jobs = job_times(study, results)
    return {
        "study": study,
        "scale": study.scale,
        "title": study.size.title,
        "warning": scale_note(study.scale, study.size.verdicts),
        "theme": THEME,
        "tables": tables,
        "sentences": [sentence for table in tables for sentence in result_sentences(table)],
        "answer": answer(study, claims),
        "claims": claims,
        "claim_counts": claim_counts(claims),
        "fidelity": fidelity_rows(study, gathered.paper),
        "switch_effects": switch_effects(study, results, reader),
        "of_verl": OF_VERL,
        "departures": [check for check in checks if check.state != "ok"],
        "required_values": required_values(checks),
        "check_counts": {state: sum(c.state == state for c in checks) for state in STATES},
        "states": STATES,
        "facts": facts(study, runs, tables, claims),
        "alerts": [*alerts(checks), *alike(reader)],
        "unfinished": list(unfinished(study, reader, runs, tables)),
        "runs": runs,
        **_figures(study, reader, runs, tables, gallery),
        "low_cosine": LOW_COSINE,
        "nearly": NEARLY,
        "source": study.study.paper,
        "of_ngrpo": study.study.paper == N_GRPO,
        "paper": gathered.paper,
        "paper_findings": gathered.findings,
        "paper_file": study.folder / PAPER_VALUES if study.folder else "",
        "source_of": source_of,
        "exploration": list(exploration_groups(study, results)),
        "exploration_limits": {"problems": PROBLEMS, "responses": RESPONSES, "words": WORDS},
        "training_change": training_change(study, runs),
        "trained_measures": TRAINED,
        "paired": list(paired_outcomes(study, results, gathered.paper, reader)),
        "outcomes": OUTCOMES,
        "slowdowns": list(slowdowns(study, runs, claims, gathered.paper)),
        "grades": [(grade, displayed(grade)) for grade in GRADES],
        "opinion": second_opinion(study, results, reader),
        "cards": data_cards(study, results),
        "settings": run_settings(study.runs),
        "evaluation_settings": evaluation_settings(study),
        "versions": versions(),
        "artifacts": artifacts(study, results),
        "job_times": jobs,
        "totals": totals(jobs),
    }


def _figures(
    study: Study, reader: Reader, runs: list[RunState], tables: list[dict[str, Any]], gallery: Gallery
) -> dict[str, Any]:
    """The figures that no table has, and every style that a key of the page shows."""
    curves = list(training_panels(study, runs, read_imports(study, reader.results), gallery))
    keys = [key for group in [*(g for table in tables for g in table["groups"]), *curves] for key in group["keys"]]
    return {
        "curves": curves,
        "smoothing": SMOOTHING,
        "banded": BANDED,
        "by_problem": list(problem_panels(study, reader, gallery)),
        "diagnostics": list(diagnostics_panels(study, reader.results, gallery)),
        "looks": list(dict.fromkeys(look for _, look in keys)),
    }
