"""Writing a crate: the files that may go in, the report made for it, and their provenance."""

import os
import shutil
import tempfile
from contextlib import chdir
from pathlib import Path

from ngrpo.audit.provenance import PROJECT as CHECKOUT
from ngrpo.audit.provenance import versions
from ngrpo.crate.actions import write_metadata
from ngrpo.crate.packed import MADE_WITH, Cleaner, gathered
from ngrpo.errors import UserError
from ngrpo.files import whole_file, whole_folder, write_json
from ngrpo.report.page import write_report
from ngrpo.study.expand import Study, load_study
from ngrpo.study.layout import Results
from ngrpo.terminal import echo


def export(study: Study, project: Path | None, results: Path | Results, out: Path) -> list[str]:
    """Write the crate: a folder, or a .zip; returns what the study lacks yet, a line each.

    project: the folder of Snakefile and rules; None: the current one, or the one that this package is of. results:
    results/{scale}. The report is written anew from what goes in: it links to nothing else, and whoever checks the
    crate can make it again. Whole or not at all. Raises UserError where there is nothing to export, and for links.
    """
    results, project = Results.of(results), project or _project()
    files = gathered(study, project, results)
    if Path("Snakefile") not in files:
        raise UserError("there is no Snakefile to export", where=project, do="run it in the project's folder")
    if not any(path.parts[0] == "results" for path in files):
        raise UserError("there are no results to export", where=results.root, do="snakemake --cores 2")
    cleaner = Cleaner(project, results, study.scale, study.folder)
    out = out.absolute()
    with tempfile.TemporaryDirectory(prefix="ngrpo-crate-") as temporary:
        staged = Path(temporary) / "staged"
        for inside, source in files.items():
            (staged / inside).parent.mkdir(parents=True, exist_ok=True)
            (staged / inside).write_bytes(cleaner.content(source))
            shutil.copystat(source, staged / inside)
        if results.report.page.exists():
            make_report(staged, study.scale)
            write_json(staged / MADE_WITH, versions())
            _as_old_as(results, Results(staged / "results" / study.scale))
        _pack(study, staged, results, out, Path(temporary))
    for name in cleaner.named_in(files):
        echo(f"[crate] {name} names a folder of this machine, as the configuration does")
    return _lacking(study, results)


def make_report(folder: Path, scale: str) -> None:
    """Write the report of the study in a crate's folder, as it is made nowhere else: by relative paths alone."""
    with chdir(folder):
        inside = Results(Path("results") / scale)
        write_report(load_study(Path("config"), scale, inside.root), inside, inside.report.page, links_to_code=False)
        inside.looks_lock.unlink(missing_ok=True)  # nobody else looks in here


def _project() -> Path:
    return Path.cwd() if Path("Snakefile").exists() else CHECKOUT


def _as_old_as(results: Results, staged: Results) -> None:
    """Give the report's files the time of the page that they stand for."""
    made = results.report.page.stat()
    for path in staged.report.folder.rglob("*"):
        os.utime(path, (made.st_atime, made.st_mtime))


def _pack(study: Study, staged: Path, results: Results, out: Path, temporary: Path) -> None:
    if out.suffix == ".zip":
        with whole_file(out) as part:
            write_metadata(study, staged, temporary / "crate")
            made = shutil.make_archive(str(temporary / "made"), "zip", temporary / "crate")
            shutil.copyfile(made, part)
    else:
        with whole_folder(out) as part:
            write_metadata(study, staged, part)


def _lacking(study: Study, results: Results) -> list[str]:
    lines = [f"run {run}" for run in study.runs if not results.run(run).model_card.exists()]
    lines += [f"evaluation {name}" for name in study.evaluations if not results.evaluation(name).grades.exists()]
    return lines + [f"table {name}" for name in study.cells if not results.table(name).exists()]
