"""What a study's results hold that nothing needs, and its removal.

Two kinds, which are never mixed:
- **needed by nothing**: checkpoints of finished runs, temporary files that a killed job left a day ago or more, shards
  of evaluations that are whole. `ngrpo clean --yes` removes them.
- **asked for by nobody**: runs, evaluations, models, data, neighbor tables, diagnostics and tables that the
  configuration doesn't name, specs and copies of other configurations, and runs that were moved aside. They may be all
  that is left of another configuration, so each goes only by its name.

What a finished table, the report or a resumed job needs is neither: the checkpoints of a run that isn't finished,
shards of an evaluation that isn't whole, and all that the configuration names. Links are not followed, and a folder
that a trainer holds is left alone.
"""

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ngrpo.errors import UserError, unknown_name
from ngrpo.files import read_json
from ngrpo.formatting import size_text
from ngrpo.study.expand import Study
from ngrpo.study.layout import DatasetFiles, EvaluationFiles, Results, RunFiles
from ngrpo.study.naming import files_of
from ngrpo.terminal import text_table
from ngrpo.training.checkpoints import Checkpoints
from ngrpo.training.lease import LEASE_SECONDS

DAY = 24 * 3600
TEMPORARY = re.compile(r"\.(?P<target>.+)\.(?P<kind>part|old)-[0-9a-f-]+")
SHARDS = re.compile(r"\.(?P<benchmark>.+)\.samples\.parquet\.shards-(?P<spec>[0-9a-f]+)")


@dataclass(frozen=True)
class Needless:
    """Something that could go. name: its path below the results. bytes: what would be free. paths: all of it."""

    name: str
    path: Path
    bytes: int
    why: str
    paths: tuple[Path, ...] = ()


def needed_by_nothing(study: Study, results: Results) -> list[Needless]:
    """What can go without a word: no table, report or resumed job reads it."""
    checkpoints = [] if study.size.keep_checkpoints else _checkpoints(results)
    return [*checkpoints, *_leftovers(study, results)]


def asked_for_by_nobody(study: Study, results: Results) -> list[Needless]:
    """Results that the configuration doesn't name at this scale."""
    unnamed = "no table of this configuration asks for it"
    folders = {
        "runs": (study.runs, "*"),
        "models": (study.models, "*"),
        "policies": (study.policies, "*"),
        "neighbors": (study.neighbors, "*.safetensors"),
        "diagnostics": (study.mixing_runs, "*.json"),
        "analysis": (study.cells, "*.parquet"),
        "exploration": (study.cells, "*.parquet"),
        "excerpts": (study.cells, "*.parquet"),
    }
    listed = []
    for folder, (names, pattern) in folders.items():
        for path in _entries(results.root / folder, pattern):
            name = path.name.removesuffix(pattern[1:])
            of_a_model = folder in ("models", "policies") and not path.is_dir()
            if name not in names and not of_a_model and not (folder == "runs" and _is_held(RunFiles(path))):
                listed.append(_needless(results, path, unnamed))
    for path in _entries(results.root / "evaluations", "*/*/*.samples.parquet"):
        files = EvaluationFiles(path.parent, path.name.removesuffix(".samples.parquet"))
        name = files.spec.relative_to(results.root / "evaluations").as_posix().removesuffix(".spec.json")
        if name not in study.evaluations:
            listed.append(_together(f"evaluations/{name}", files_of(files), unnamed))
    listed += [*_data(study, results, unnamed), *_records(study, results)]
    for path in _entries(results.root / "runs", "*/superseded/*"):
        listed.append(_needless(results, path, "a run of other settings that was moved aside"))
    return sorted(listed, key=lambda each: each.name)


def _together(name: str, paths: Iterable[Path], why: str) -> Needless:
    there = tuple(path for path in dict.fromkeys(paths) if path.exists() and not path.is_symlink())
    return Needless(name, there[0], sum(map(_size, there)), why, there)


def _data(study: Study, results: Results, why: str) -> Iterator[Needless]:
    """Data sets and filtered training problems that the configuration doesn't name."""
    named = [results.dataset(name) for name in study.datasets]
    named += [results.training_data(data.dataset.id, model) for model, data in study.training_data.items()]
    wanted = {files.problems for files in named}
    for path in _entries(results.data, "*.parquet"):
        if path not in wanted:
            files = DatasetFiles(path.parent, path.name.removesuffix(".parquet"))
            yield _together(f"data/{files.name}", files_of(files), why)


def _records(study: Study, results: Results) -> Iterator[Needless]:
    """Specs and copies of configurations of other settings, each kind as one: small, and queued jobs read them."""
    asked = {spec.digest for spec in study.specs().values()}
    specs = [path for path in _entries(results.root / "specs", "*.json") if path.stem not in asked]
    copies = [path for path in _entries(results.root / "studies", "*") if time.time() - _newest(path) > DAY]
    for name, paths in (("specs", specs), ("studies", copies)):
        if paths:
            yield _together(name, paths, f"{len(paths)} of other settings or starts; jobs in the queue read them")


def _checkpoints(results: Results) -> Iterator[Needless]:
    for folder in _entries(results.root / "runs", "*"):
        run = RunFiles(folder)
        if finished(run) and not _is_held(run):
            steps = sum(_size(path) for path in run.checkpoints.glob("global_step_*"))
            copies = sum(_size(path) for path in run.checkpoints.glob("best_*"))
            if steps + copies:
                why = "the run is finished, its policy is exported"
                yield Needless(f"runs/{folder.name}/checkpoints", run.checkpoints, steps + copies, why)


def finished(run: RunFiles) -> bool:
    """Whether a run's exported policy is the best one of its last step's checkpoint, file by file."""
    card = run.checkpoints / "checkpoint.json"
    if not (card.exists() and run.model_card.exists()):
        return False
    made, saved = read_json(run.model_card), read_json(card)
    if made.get("spec") != saved["spec"] or made.get("steps") != saved["step"] or not saved["best"]:
        return False
    best = Checkpoints(run, saved["spec"]).best_model(saved["best"]["step"])
    sizes = {path.name: path.stat().st_size for path in best.glob("*")}
    return bool(sizes) and all(
        (run.model / name).is_file() and (run.model / name).stat().st_size == size for name, size in sizes.items()
    )


def _is_held(run: RunFiles) -> bool:
    """Whether a trainer may be at work in a run's folder."""
    if not run.lease.exists():
        return False
    return time.time() - float(read_json(run.lease).get("heartbeat", 0)) < LEASE_SECONDS


def _leftovers(study: Study, results: Results) -> Iterator[Needless]:
    """Temporary files that nobody writes any more, and shards that no job would go on with."""
    drawn = {spec.digest: results.evaluation(name) for name, spec in study.evaluations.items()}
    for path in _hidden(results.root):
        temporary, shards = TEMPORARY.fullmatch(path.name), SHARDS.fullmatch(path.name)
        if temporary and time.time() - _newest(path) > DAY:
            if temporary["kind"] == "part" or (path.parent / temporary["target"]).exists():
                yield _needless(results, path, "a killed job left it")
        elif shards and time.time() - _newest(path) > DAY:
            files = drawn.get(shards["spec"])
            card = read_json(files.samples_card) if files and files.samples_card.exists() else {}
            if files is None or (files.samples.exists() and card.get("spec") == shards["spec"]):
                yield _needless(results, path, "no evaluation goes on with these shards")


def _hidden(folder: Path) -> Iterator[Path]:
    """Files and folders whose name starts with a dot, below a folder; nothing below them, and no links."""
    for entry in sorted(os.scandir(folder), key=lambda e: e.name) if folder.is_dir() else ():
        if entry.is_symlink():
            continue
        if entry.name.startswith("."):
            yield Path(entry.path)
        elif entry.is_dir():
            yield from _hidden(Path(entry.path))


def _entries(folder: Path, pattern: str) -> list[Path]:
    """What matches a pattern below a folder, without links and hidden names."""
    return [path for path in sorted(folder.glob(pattern)) if not path.is_symlink() and not path.name.startswith(".")]


def _needless(results: Results, path: Path, why: str) -> Needless:
    return Needless(results.relative(path), path, _size(path), why)


def _files(path: Path) -> Iterator[os.stat_result]:
    if path.is_symlink() or not path.is_dir():
        yield path.lstat()
        return
    for folder, _, names in os.walk(path):
        yield from (os.lstat(os.path.join(folder, name)) for name in names)


def _size(path: Path) -> int:
    """Bytes that would be free; a file with another name besides stays."""
    return sum(each.st_size for each in _files(path) if each.st_nlink == 1)


def _newest(path: Path) -> float:
    return max([path.lstat().st_mtime, *(each.st_mtime for each in _files(path))])


def clean(study: Study, results: Results, names: Sequence[str], *, remove: bool) -> str:
    """Say what could go, and, with remove, remove what nothing needs and what is named of the rest.

    Raises UserError for a name that isn't among what nobody asks for.
    """
    nothing, nobody = needed_by_nothing(study, results), asked_for_by_nobody(study, results)
    known = {each.name: each for each in nobody}
    for name in names:
        if name.rstrip("/") not in known:
            raise unknown_name("result that nobody asks for", name, known, where=results.root)
    named = [known[name.rstrip("/")] for name in names]
    others = [each for each in nobody if each not in named]
    lines = []
    for title, listed in (
        ("Needed by nothing:", nothing),
        ("Asked for by nobody, and named:", named),
        ("Asked for by nobody; remove by name (ngrpo clean NAME … --yes):", others),
    ):
        if listed:
            rows = [[each.name, size_text(each.bytes), each.why] for each in listed]
            lines += [title, text_table(["what", "size", "why"], rows), ""]
    going = [*nothing, *named]
    total = size_text(sum(each.bytes for each in going))
    if remove:
        for each in going:
            _remove(each, results)
        lines.append(f"removed {len(going)}, {total}")
    else:
        lines.append(f"--yes would remove {len(going)}, {total}" if going else "there is nothing to remove")
    return "\n".join(lines)


def _remove(what: Needless, results: Results) -> None:
    if what.name.endswith("/checkpoints"):
        run = RunFiles(what.path.parent)
        Checkpoints(run, read_json(what.path / "checkpoint.json")["spec"]).finish(run.model)
        return
    paths = list(what.paths or (what.path,))
    if what.name.startswith(("neighbors/", "models/")):
        spec = what.path.with_name(f"{what.path.name.removesuffix('.safetensors')}.spec.json")
        paths += [spec] if spec.exists() else []
    for path in paths:
        if results.root.resolve() not in path.resolve().parents:
            raise UserError("this lies outside of the results, and stays", where=path)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
