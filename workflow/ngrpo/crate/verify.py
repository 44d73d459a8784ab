"""The check of a crate that somebody unpacked: its files, then all that can be computed again from its grades and logs.

A crate is unsigned: the check shows that it agrees with itself, not who made it. Its metadata, pages and names are
others' text: nothing outside of the folder is read, links are refused, and its page is never opened, only compared.
"""

import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import pandas as pd

from ngrpo.audit.provenance import versions
from ngrpo.audit.status import read_grades
from ngrpo.crate.export import make_report
from ngrpo.crate.packed import MADE_WITH, METADATA, may_hold
from ngrpo.errors import UserError
from ngrpo.files import file_sha256, read_json
from ngrpo.foreign import read_text
from ngrpo.report.exploration import OF_SAMPLES, exploration_frame, read_exploration
from ngrpo.report.tables import read_table, table_frame
from ngrpo.study.cards import VersionGroup
from ngrpo.study.expand import Study, load_study
from ngrpo.study.layout import Results
from ngrpo.terminal import quoted

UNCHECKED = "not checked: "
"""How a line begins that says what wasn't checked."""
DECIMAL = re.compile(r"-?\d{1,30}\.\d{1,30}(?:e[-+]?\d{1,3})?")
CLOSE = 1e-6
"""Numbers of a report that are the same; the last digits differ among processors."""


def verify(crate: Path) -> tuple[list[str], list[str]]:
    """Check an unpacked crate: (what was checked and what not, a line each; every difference, a line each).

    Files: all that the crate lists are there with the listed sha256, none is there that it doesn't list, and no link.
    Grades: of all the problems and samples that the cards count. Tables: recomputed from the grades and compared,
    numbers up to 1e-9. Report, where all this agrees: claims, checks, tables, page and figures made again. A crate in
    which nothing is listed, or no table is, differs. Raises UserError where the folder is no crate of such a study.
    """
    if not (crate / METADATA).is_file():
        raise UserError("this is no crate", where=crate, do=f"unpack it, and name the folder with {METADATA}")
    there, strange = _on_disk(crate)
    if strange:
        return [f"{UNCHECKED}what is in the files, as long as these are there"], strange
    listed, differences = _listed(crate)
    differences += _against_disk(crate, listed, there)
    scales = sorted(p for p in (crate / "results").glob("*") if p.is_dir())
    if len(scales) != 1:
        raise UserError(f"{len(scales)} studies instead of one", where=crate / "results")
    study, results = load_study(crate / "config", scales[0].name, scales[0]), Results(scales[0])
    differences += [f"{name}: no crate of this study has such a file" for name in there if not may_hold(study, name)]
    differences += _specs(study, results)
    graded, lines = _evaluations(study, results)
    tables, more = _tables(study, results)
    differences += [*lines, *more]
    checked = [
        f"{len(listed)} files against their sha256",
        f"{graded} evaluations: problems and samples counted",
        f"{tables} tables recomputed from grades",
    ]
    if differences:  # what it would be made from isn't what was exported
        checked.append(f"{UNCHECKED}the report, as long as there are these differences")
    else:
        report, differences = _report(crate, study, results, there)
        checked += report
    if any(results.exploration(name).exists() for name in study.cells):
        checked.append(f"{UNCHECKED}how diverse responses are: their texts aren't in it")
    absent = [name for name in study.cells if not results.table(name).exists()]
    checked += [f"{UNCHECKED}tables that aren't in it: {', '.join(absent)}"] if absent else []
    return checked, differences


# --- files ---


def _on_disk(crate: Path) -> tuple[list[str], list[str]]:
    """The crate's files by their paths in it, and a line for everything that is neither file nor folder."""
    there, strange = [], []
    for folder, folders, files in os.walk(crate):
        for name in sorted((*folders, *files)):
            path = Path(folder) / name
            inside = path.relative_to(crate).as_posix()
            if path.is_symlink():
                strange.append(f"{inside}: a link, and not followed")
            elif name in files and not path.is_file():
                strange.append(f"{inside}: neither a file nor a folder")
            elif name in files:
                there.append(inside)
    return sorted(there), strange


def _listed(crate: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The files that the metadata lists, by their paths, and what is wrong with the list itself."""
    metadata = crate / METADATA
    graph = read_json(metadata, dict[str, Any]).get("@graph")
    if not isinstance(graph, list) or not all(isinstance(e, dict) and isinstance(e.get("@id"), str) for e in graph):
        raise UserError("the metadata lists nothing", where=f"{metadata}: @graph", do="restore it")
    files = [e for e in graph if "sha256" in e or "File" in _types(e)]
    differences = [] if files else ["nothing is listed, so no file was checked"]
    counts = Counter(unquote(e["@id"]) for e in files)
    differences += [f"{quoted(name)}: listed {n} times" for name, n in counts.items() if n > 1]
    inside = {unquote(e["@id"]): e for e in files}
    outside = [name for name in inside if not _is_inside(name)]
    differences += [f"{quoted(name)}: leads out of the crate, and was not read" for name in outside]
    return {name: entity for name, entity in inside.items() if name not in outside}, differences


def _types(entity: dict[str, Any]) -> list[Any]:
    kind = entity.get("@type")
    return kind if isinstance(kind, list) else [kind]


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not (path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name)


def _against_disk(crate: Path, listed: dict[str, dict[str, Any]], there: list[str]) -> list[str]:
    differences = []
    for name, entity in listed.items():
        if name not in there:
            differences.append(f"{name}: the file is missing")
        elif "sha256" not in entity:
            differences.append(f"{name}: listed without a sha256")
        elif file_sha256(crate / name) != entity["sha256"]:
            differences.append(f"{name}: the file isn't the one that was exported (sha256)")
    return differences + [f"{name}: nothing lists this file" for name in there if name not in {*listed, METADATA}]


# --- what can be computed again ---


def _specs(study: Study, results: Results) -> list[str]:
    """Specs that aren't those of the configuration."""
    return [
        f"{name}: isn't what the configuration asks for"
        for name, spec in study.specs().items()
        if (results.root / name).exists() and read_text(results.root / name) != spec.text()
    ]


def _evaluations(study: Study, results: Results) -> tuple[int, list[str]]:
    """How many evaluations have grades, and what is wrong with them."""
    graded, differences = 0, []
    for name, spec in study.evaluations.items():
        files = results.evaluation(name)
        if not files.grades.exists():
            continue
        graded += 1
        cards = (files.samples_card, results.dataset(spec.benchmark.id).card)
        differences += [f"evaluation {name}: {results.relative(card)} is missing, so its problems can't be counted"
                        for card in cards if not card.exists()]  # fmt: skip
        grades = read_grades(study, results, name)
        if grades.status != "ok":
            differences.append(f"evaluation {name}: {grades.status}, {grades.note.split('; remade by')[0]}")
    return graded, differences


def _tables(study: Study, results: Results) -> tuple[int, list[str]]:
    """How many tables were recomputed, and where they differ."""
    differences, tables = [], 0
    for table in study.cells:
        if results.table(table).exists():
            tables += 1
            try:
                stored = read_table(results.table(table))
            except UserError as e:
                differences.append(f"table {table}: {e.what}")
                continue
            fresh = table_frame(table, study, results)
            differences += [f"table {table}: {line}" for line in compared(stored, fresh)]
            if results.exploration(table).exists():
                differences += [f"exploration {table}: {line}" for line in _answers(table, study, results)]
    return tables, differences if tables else ["no table is in it, so nothing was recomputed"]


def _answers(table: str, study: Study, results: Results) -> Iterator[str]:
    """Where the crate's counts of final answers and the recomputed ones differ; no crate holds the responses."""
    both = (read_exploration(results.exploration(table)), exploration_frame(table, study, results))
    stored, fresh = (each[~each["measure"].isin(OF_SAMPLES)].drop(columns="note") for each in both)
    yield from compared(stored.rename(columns={"measure": "metric"}), fresh.rename(columns={"measure": "metric"}))


def compared(stored: pd.DataFrame, fresh: pd.DataFrame) -> Iterator[str]:
    """Where the crate's table and the recomputed one differ."""
    if list(stored.columns) != list(fresh.columns) or len(stored) != len(fresh):
        inside, recomputed = (f"{len(frame)} rows × {len(frame.columns)} columns" for frame in (stored, fresh))
        yield f"{inside} are in the crate, {recomputed} recomputed"
        return
    for column in stored.columns:
        a, b = stored[column].reset_index(drop=True), fresh[column].reset_index(drop=True)
        if all(pd.api.types.is_numeric_dtype(x) and not pd.api.types.is_bool_dtype(x) for x in (a, b)):
            same = ((a - b).abs() <= 1e-9) | (a.isna() & b.isna())
        else:
            same = (a == b) | (a.isna() & b.isna())
        for row in list(same[~same].index)[:3]:
            cell = ", ".join(str(stored[name].iloc[row]) for name in ("label", "model", "benchmark", "metric"))
            yield f"{quoted(cell)}: {column} is {quoted(a[row])} in the crate and {quoted(b[row])} recomputed"


def _report(crate: Path, study: Study, results: Results, there: list[str]) -> tuple[list[str], list[str]]:
    """Make the report again, in a folder of its own, and compare: lines of what was checked, and differences."""
    folder = f"results/{study.scale}/report/"
    stored = [name for name in there if name.startswith(folder)]
    notebooks = [name for name in stored if name.endswith(".ipynb")]
    lines = [f"{UNCHECKED}notebooks ({len(notebooks)})"] if notebooks else []
    if not results.report.page.exists():
        extra = [f"{name}: a report's file without its page" for name in stored if name not in notebooks]
        return [*lines, f"{UNCHECKED}a report, which isn't in it"], extra
    other = other_version(crate)
    with tempfile.TemporaryDirectory(prefix="ngrpo-verify-") as temporary:
        mirror = Path(temporary)
        for name in there:
            if name not in stored or name in notebooks:
                (mirror / name).parent.mkdir(parents=True, exist_ok=True)
                if name.endswith(".parquet"):
                    (mirror / name).symlink_to((crate / name).resolve())
                else:  # a report may write some of them anew
                    shutil.copyfile(crate / name, mirror / name)
        make_report(mirror, study.scale)
        fresh = sorted(p.relative_to(mirror).as_posix() for p in (mirror / folder).rglob("*") if p.is_file())
        fresh = [name for name in fresh if name not in notebooks]
        data = [name for name in fresh if not other or name.endswith((".csv", ".json"))]
        differences = [
            f"{name}: isn't what the grades and logs give{f' ({other})' if other else ''}"
            for name in data
            if name in stored and not same_file(crate / name, mirror / name)
        ]
    differences += [f"{name}: the report's file is missing" for name in data if name not in stored]
    differences += [f"{name}: the report has no such file" for name in stored if name not in {*fresh, *notebooks}]
    if other:
        lines.append(f"{UNCHECKED}page and figures, {other}: use these versions to have them made again")
    return [f"{len(data)} files of the report made again", *lines], differences


def other_version(crate: Path) -> str:
    """What the page was made with that isn't the same here; empty where all is."""
    path = crate / MADE_WITH
    if not path.exists():
        return "made with versions that aren't recorded"
    ours = {name: value for group in versions() for name, value in group["rows"]}
    theirs = {name: value for group in read_json(path, list[VersionGroup]) for name, value in group["rows"]}
    names: Iterable[str] = dict.fromkeys((*theirs, *ours))
    first = next((name for name in names if theirs.get(name) != ours.get(name)), None)
    if first is None:
        return ""
    return f"made with {quoted(first)} {quoted(theirs.get(first, 'unknown'))}, here it is {ours.get(first, 'unknown')}"


def same_file(one: Path, other: Path) -> bool:
    """Whether two files of a report are the same, numbers with decimals up to CLOSE."""
    if one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes():
        return True
    a, b = read_text(one), read_text(other)
    if DECIMAL.split(a) != DECIMAL.split(b):
        return False
    pairs = zip(DECIMAL.findall(a), DECIMAL.findall(b), strict=True)
    return all(abs(float(x) - float(y)) <= CLOSE * max(1.0, abs(float(y))) for x, y in pairs)
