"""Other people's training curves: taken from a CSV or a TensorBoard folder once, kept beside the study's results, and
drawn beside its runs.

results/{scale}/imported/{name}/curves.csv has a column a curve, under the names that a run's log has here;
card.json says where they came from.
"""

import csv
import hashlib
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ngrpo.errors import UserError, unknown_name
from ngrpo.files import canonical_json, file_sha256, read_json, whole_folder, write_json
from ngrpo.foreign import read_text
from ngrpo.report.curves import CURVES
from ngrpo.study.base import ID
from ngrpo.study.cards import ImportedCard
from ngrpo.study.expand import Study
from ngrpo.study.layout import ImportedFiles, Results
from ngrpo.study.run_log import LARGEST, LOGGED, MOST_STEPS
from ngrpo.terminal import printable, quoted

STEP = "step"
STEPS = (STEP, "Step", "global_step", "training/global_step", "_step")
COLUMNS = tuple(curve.column for curve in CURVES)
KNOWN: Mapping[str, tuple[str, ...]] = {
    "reward": ("critic/rewards/mean", "critic/score/mean", "train/reward", "rewards/mean"),
    "response_length": ("response_length/mean", "train/completions/mean_length", "completions/mean_length"),
    "truncated": ("response_length/clip_ratio", "train/completions/clipped_ratio", "completions/clipped_ratio"),
    "entropy": ("actor/entropy", "actor/entropy_loss", "train/entropy"),
    "kl": ("actor/kl_loss", "train/kl"),
    "zero_std": ("train/frac_reward_zero_std", "frac_reward_zero_std"),
}
"""A curve's names in the logs of verl and of TRL, the likeliest first. Our own come before them."""
SHOWN_NAMES = 8
EVENTS = "*tfevents*"

Curves = dict[int, dict[str, float]]
"""Step → column of the source → value."""


@dataclass(frozen=True)
class Imported:
    """An import as the page shows it: its name, base model, where it came from, and a row a step."""

    name: str
    model: str
    card: ImportedCard
    log: pd.DataFrame

    @property
    def label(self) -> str:
        """How figures name it."""
        return f"imported: {self.name}"


def import_curves(
    study: Study,
    results: Results,
    name: str,
    source: Path,
    *,
    model: str | None = None,
    columns: Sequence[str] = (),
    replace: bool = False,
) -> str:
    """Take a run's curves from `source`: a CSV with a column of steps, or a TensorBoard folder. Returns what was taken.

    model: the base model beside whose runs it is drawn; None: the study's, where it has one. columns: "ours=theirs" for
    a curve that isn't known by its name. replace: whether an import of this name may be there.
    Raises UserError, naming file, line and column, for a source that can't be read, and where nothing in it is known.
    """
    files = results.imported(_checked(name))
    base = _model(study, model)
    if files.folder.exists() and not replace:
        raise UserError(f"'{name}' is imported already", where=files.folder, do="another name, or --replace")
    if source.is_dir():
        kind, there, sha256 = "tensorboard", *_read_events(source)
    else:
        kind, there, sha256 = "csv", _read_csv(source), file_sha256(source)
    taken = _taken(there, _asked(columns), source)
    frame = pd.DataFrame([{STEP: step, **_values(row, taken)} for step, row in sorted(there.items())])
    with whole_folder(files.folder) as part:
        inside = ImportedFiles(part)
        frame.to_csv(inside.curves, index=False)
        card = {"name": name, "model": base, "source": source.name, "kind": kind, "sha256": sha256, "columns": taken}
        write_json(inside.card, {**card, "steps": len(frame)})
    named = ", ".join(f"{ours} from {printable(theirs)}" for ours, theirs in taken.items())
    return f"{len(frame)} steps; {named}; the next report draws them (ngrpo report, or Snakemake)"


def read_imports(study: Study, results: Results) -> list[Imported]:
    """The imports of a study whose model it still has. Raises UserError for files that aren't what was imported."""
    imports = []
    for path in sorted(results.imported("*").card.parent.parent.glob("*")):
        files = results.imported(path.name)
        if not re.fullmatch(ID, path.name) or not files.card.exists():
            continue
        card = read_json(files.card, ImportedCard)
        rows = _read_csv(files.curves)
        log = pd.DataFrame([{STEP: step, **row} for step, row in sorted(rows.items())])
        if card["model"] in study.size.models:
            imports.append(Imported(path.name, card["model"], card, log))
    return imports


def _checked(name: str) -> str:
    if not re.fullmatch(ID, name):
        raise UserError(f"'{quoted(name)}' can't be an import's name", where="ngrpo import",
                        do="small letters, digits, dots and dashes")  # fmt: skip
    return name


def _model(study: Study, model: str | None) -> str:
    known = study.size.models
    if model is None and len(known) > 1:
        raise UserError(f"scale {study.scale} has several base models", where="ngrpo import",
                        do=f"--model {' or '.join(known)}")  # fmt: skip
    if model is not None and model not in known:
        raise unknown_name("base model", model, known, where="--model")
    return model or next(iter(known))


def _asked(columns: Sequence[str]) -> dict[str, str]:
    """Our name → theirs, as --column gives them."""
    asked = {}
    for text in columns:
        ours, equals, theirs = text.partition("=")
        if not equals or not theirs:
            raise UserError(f"'{quoted(text)}' is no pair of names", where="--column", do="--column OURS=THEIRS")
        if ours != STEP and ours not in COLUMNS:
            raise unknown_name("curve", ours, (STEP, *COLUMNS), where="--column")
        asked[ours] = theirs
    return asked


def _taken(there: Curves, asked: Mapping[str, str], source: Path) -> dict[str, str]:
    """Our name → the source's, of every curve that is in it."""
    names = list(dict.fromkeys(name for row in there.values() for name in row))
    taken = {}
    for ours in COLUMNS:
        if ours in asked and asked[ours] not in names:
            raise unknown_name("column", asked[ours], names, where=source)
        likely = (ours, *filter(None, [LOGGED.get(ours)]), *KNOWN.get(ours, ()))
        theirs = asked.get(ours) or next((name for name in likely if name in names), None)
        if theirs:
            taken[ours] = theirs
    if not taken:
        some = ", ".join(quoted(name) for name in names[:SHOWN_NAMES]) or "nothing but steps"
        raise UserError(f"no curve that is known here; it has {some}", where=source,
                        do=f"--column OURS=THEIRS, with OURS one of {', '.join(COLUMNS)}")  # fmt: skip
    return taken


def _values(row: Mapping[str, float], taken: Mapping[str, str]) -> dict[str, float]:
    return {ours: row.get(theirs, math.nan) for ours, theirs in taken.items()}


# --- CSV ---


def _read_csv(path: Path) -> Curves:
    lines = csv.reader(io.StringIO(read_text(path)), strict=True)
    curves: Curves = {}
    try:
        head = next(lines, [])
        at = _step_column(head, path)
        for cells in lines:
            where = f"{path}, line {lines.line_num}"
            if not cells:
                continue
            if len(cells) != len(head):
                raise UserError(f"{len(cells)} values, where the first line has {len(head)} names", where=where)
            step = _step(cells[at], f"{where}, column '{quoted(head[at])}'")
            if step in curves:
                raise UserError(f"step {step} is there twice", where=where, do="leave one line a step")
            curves[step] = dict(_numbers(head, cells, at, where))
    except csv.Error as e:
        raise UserError(f"not readable as CSV: {quoted(e)}", where=f"{path}, line {lines.line_num}") from None
    if not curves:
        raise UserError("no line with a step", where=path, do="a line of names, then a line a step")
    return curves


def _step_column(head: Sequence[str], path: Path) -> int:
    if twice := next((name for name in head if head.count(name) > 1), None):
        raise UserError(f"the column '{quoted(twice)}' is there twice", where=f"{path}, line 1")
    at = next((head.index(name) for name in STEPS if name in head), None)
    if at is None:
        some = ", ".join(quoted(name) for name in head[:SHOWN_NAMES]) or "nothing"
        raise UserError(f"no column of steps; it has {some}", where=f"{path}, line 1",
                        do=f"call it {' or '.join(STEPS)}")  # fmt: skip
    return at


def _step(text: str, where: str) -> int:
    number = _number(text, where)
    if number is None or not number.is_integer() or not 0 <= number < MOST_STEPS:
        raise UserError(f"no step's number: '{quoted(text)}'", where=where)
    return int(number)


def _numbers(head: Sequence[str], cells: Sequence[str], at: int, where: str) -> Iterator[tuple[str, float]]:
    """The line's values by their names; empty ones are left out."""
    for place, (name, text) in enumerate(zip(head, cells, strict=True)):
        if place != at and (value := _number(text, f"{where}, column '{quoted(name)}'")) is not None:
            yield name, value


def _number(text: str, where: str) -> float | None:
    """A number; None for an empty cell or nan, which say that there is none."""
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"not a number: '{quoted(text)}'", where=where) from None
    if math.isnan(value):
        return None
    if abs(value) > LARGEST:
        raise UserError(f"larger than any metric is: '{quoted(text)}'", where=where)
    return value


# --- TensorBoard ---


def _read_events(folder: Path) -> tuple[Curves, str]:
    """All scalars below a TensorBoard folder, what was logged last for a step; and a digest of its files."""
    paths = sorted(path for path in folder.rglob(EVENTS) if path.is_file())
    if not paths:
        raise UserError("no event files of TensorBoard", where=folder, do="the folder that `--logdir` would name")
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ModuleNotFoundError:
        raise UserError("reading TensorBoard's files needs the package tensorboard, which this environment lacks",
                        where=folder, do="run it in the training environment: .venv-train/bin/ngrpo import …, or"
                        " download a CSV in TensorBoard") from None  # fmt: skip
    curves: Curves = {}
    for run in dict.fromkeys(path.parent for path in paths):
        events = EventAccumulator(str(run), size_guidance={"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            for event in events.Scalars(tag):
                where = f"{run}, tag '{quoted(tag)}'"
                if not 0 <= event.step < MOST_STEPS:
                    raise UserError(f"no step's number: {event.step}", where=where)
                if (value := _number(str(event.value), f"{where}, step {event.step}")) is not None:
                    curves.setdefault(int(event.step), {})[tag] = value
    if not curves:
        raise UserError("its event files hold no scalars", where=folder, do="the folder that `--logdir` would name")
    content = canonical_json({path.relative_to(folder).as_posix(): file_sha256(path) for path in paths})
    return curves, hashlib.sha256(content.encode()).hexdigest()
