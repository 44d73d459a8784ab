"""`ngrpo evaluate`: one or two policies on a benchmark, without a configuration of the user's.

It writes one: a scale with these policies and this benchmark, whose table Snakemake then makes as it makes every other.
So what is drawn, graded and computed is what a study would draw, grade and compute, and what is there isn't made again.
"""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from ngrpo.audit.provenance import PROJECT
from ngrpo.errors import UserError, unknown_name
from ngrpo.files import read_json, whole_file
from ngrpo.hub import fetch, is_commit
from ngrpo.report.tables import read_table, terminal_table, value_text
from ngrpo.study.config import ScaleFile
from ngrpo.study.elsewhere import ADAPTER, adapter_alone, name_of_place
from ngrpo.study.layout import Results
from ngrpo.study.reading import read_yaml
from ngrpo.terminal import echo, text_table

SCALE = TABLE = "evaluation"
NOTHING = {"source": {"kind": "toy", "count": 1, "held_out": False, "seed": 1}, "instruction": ""}
"""What every scale names to train on; no table of this one asks for it."""
HUB = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>\S+))?")


@dataclass(frozen=True)
class EvaluationRequest:
    """What `ngrpo evaluate` is asked for."""

    models: Sequence[str]
    """Folders, names on the hub (owner/name@revision) or files of predictions: one, or the one that is compared and the
    one that it is compared with."""
    benchmark: str
    """A data set of some scale of the configuration, or a scale with one."""
    samples: int
    base: str | None = None
    """A folder or a name on the hub: the base model of adapters."""
    problems: Path | None = None
    """A file with the benchmark's problems, in place of its source."""
    limit: int | None = None
    """Ask only the first so many problems."""
    template: str | None = None
    decoding: Mapping[str, float | int] | None = None
    """Temperature, top_p and max_new_tokens, where not the scale's."""
    seed: int = 1


def evaluate(asked: EvaluationRequest, *, config: Path, out: Path, cores: int) -> str:
    """Make what is missing below `out` and return the table, with paired differences where there are two.

    config: the folder whose scales know the benchmark. Raises UserError for a benchmark that no scale has, a model that
    is none, and where Snakemake fails.
    """
    if importlib.util.find_spec("snakemake") is None:
        do = "run .venv/bin/ngrpo (docs/environments.md)"
        raise UserError("the package 'snakemake' isn't in this environment", where=sys.prefix, do=do)
    if not (PROJECT / "Snakefile").is_file():
        raise UserError("there is no Snakefile of this package", where=PROJECT, do="install it from a checkout")
    folder, results = out.absolute() / "config", Results(out.absolute() / SCALE)
    write_configuration(asked, folder, config=config, cores=cores)
    table = results.table(TABLE)
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--nolock", "--quiet", "host", "rules"]
    command += ["--rerun-incomplete", str(table), "--config", f"config={folder}", f"results={out.absolute()}"]
    command += [f"scale={SCALE}", *([f"data_folder={asked.problems.absolute().parent}"] if asked.problems else [])]
    if subprocess.run(command, cwd=PROJECT, check=False).returncode:
        raise UserError("the evaluation didn't come to its end: see above", where=out, do="mend it and call it again")
    return _shown(read_table(table), table)


def write_configuration(asked: EvaluationRequest, folder: Path, *, config: Path, cores: int) -> None:
    """Write the configuration of what is asked. Raises UserError as `evaluate` does."""
    study, size = _study(asked, *_known(asked.benchmark, config), cores)
    for path, value in ((folder / "study.yaml", study), (folder / "scales" / f"{SCALE}.yaml", size)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            part.write_text(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _known(benchmark: str, config: Path) -> tuple[ScaleFile, str]:
    """The scale that knows a benchmark (the paper's first), and the benchmark's id."""
    paths = sorted((config / "scales").glob("*.yaml"), key=_paper_first)
    scales = {path.stem: read_yaml(ScaleFile, path) for path in paths}
    for size in scales.values():
        if benchmark in size.datasets:
            return size, benchmark
    if benchmark in scales and len(scales[benchmark].benchmarks) == 1:
        return scales[benchmark], scales[benchmark].benchmarks[0]
    names = [*scales, *(name for size in scales.values() for name in size.datasets)]
    raise unknown_name("benchmark", benchmark, names, where=f"--benchmark, in {config / 'scales'}")


def _paper_first(path: Path) -> tuple[bool, str]:
    return path.stem != "paper", path.name


def _study(
    asked: EvaluationRequest, known: ScaleFile, benchmark: str, cores: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration: study.yaml and the scale's file."""
    like = next(iter(known.models.values())).model_dump(mode="json", exclude_unset=True, exclude={"source", "title"})
    like |= {"template": asked.template} if asked.template else {}
    places = [_place(each) for each in asked.models]
    base = asked.base or next((m for m, place in zip(asked.models, places, strict=True) if "file" not in place), None)
    source, name = {"kind": "toy"}, "elsewhere"  # of predictions alone: no model is made
    if base is not None:
        place = _place(base)
        if "file" in place:
            raise UserError("this is a file, and no base model", where=f"--base {base}")
        name = name_of_place(base)
        source = {"kind": "hub", **place} if "repo" in place else {"kind": "folder", "path": place["folder"]}
    # not without nulls: `answer: null` says something
    dataset = known.datasets[benchmark].model_dump(mode="json", exclude_unset=True)
    if asked.problems is not None:
        dataset["source"] = {"kind": "folder", "file": asked.problems.name}
    dataset |= {"limit": asked.limit} if asked.limit else {}
    pass_at = [k for k in known.evaluation.pass_at if k <= asked.samples] or [asked.samples]
    evaluation = {**known.evaluation.model_dump(mode="json"), "samples": asked.samples, "pass_at": pass_at}
    limits = {**known.decoding.model_dump(mode="json"), **(asked.decoding or {})}
    if "max_new_tokens" not in (asked.decoding or {}):
        limits["max_new_tokens"] = _within_context(limits["max_new_tokens"], known.training.max_prompt_tokens, places)
    grading = {k: v.model_dump(mode="json", exclude_unset=True) for k, v in known.grading.items() if k == benchmark}
    size: dict[str, Any] = {"title": "an evaluation", "verdicts": False, "models": {name: {"source": source, **like}}}
    size |= {"datasets": {benchmark: dataset, "none": NOTHING}, "training_data": "none", "validation": benchmark}
    training = {"max_prompt_tokens": known.training.max_prompt_tokens}
    size |= {"benchmarks": [benchmark], "training": training, "decoding": limits, "evaluation": evaluation}
    size |= {"grading": grading, "tables": [TABLE], "threads": cores, "shard_samples": known.shard_samples}
    rows = [_row(each, place, base, asked.base) for each, place in zip(asked.models, places, strict=True)]
    if len({row["label"] for row in rows}) < len(rows):
        rows = [{**row, "label": each} for each, row in zip(asked.models, rows, strict=True)]
    # a table's differences are of a row from those before it
    tables = {TABLE: {"title": "An evaluation", "rows": rows[::-1]}}
    return {"seed": asked.seed, "methods": {}, "decodings": {"standard": {"title": "s"}}, "tables": tables}, size


def _within_context(new: int, prompt: int, places: Sequence[Mapping[str, str]]) -> int:
    """The scale's limit on new tokens, or what folders' models have room for beside a prompt's tokens, and says so."""
    for folder in (Path(place["folder"]) for place in places if "folder" in place):
        if not (folder / "config.json").exists():
            continue
        context = read_json(folder / "config.json", dict).get("max_position_embeddings")
        room = context - 1 - min(prompt, context // 2) if isinstance(context, int) and context > 1 else new
        if room < new:
            said = f"answers are cut at {room} tokens, not {new}: {folder.name} has room for {context}"
            echo(f"[evaluate] {said}", err=True)
            new = room
    return new


def _place(model: str) -> dict[str, str]:
    """Where a model lies, under the keys of a hub's source, `folder` or `file`; a branch of the hub's as its commit."""
    path = Path(model).expanduser()
    if path.is_dir():
        return {"folder": str(path.absolute())}
    if path.is_file():
        return {"file": str(path.absolute())}
    match = HUB.fullmatch(model)
    if match is None or model.endswith((".jsonl", ".json")):
        do = "name a model's folder, owner/name@revision on the hub, or a .jsonl file of predictions"
        raise UserError("there is no such folder or file, and it is no name on the hub", where=model, do=do)
    revision = match["revision"] or "main"
    commit = revision if is_commit(revision) else fetch("model", match["repo"], revision)[1]
    return {"repo": match["repo"], "revision": commit}


def _row(model: str, place: Mapping[str, str], base: str | None, named: str | None) -> dict[str, Any]:
    """The row of a table for a model; base: the one that is the scale's own, named: whether its user said so."""
    label = {"label": Path(model).name if "file" in place else name_of_place(model) if "folder" in place else model}
    if "file" in place:
        return {**label, "predictions": place["file"]}
    if named is None and "folder" in place and (Path(place["folder"]) / ADAPTER).exists():
        error = adapter_alone(model)
        raise UserError(error.what, where=error.where, do="name the model that it was trained from: --base MODEL")
    if model == base:
        return label
    policy = {"hub": place["repo"], "revision": place["revision"]} if "repo" in place else {"folder": place["folder"]}
    if named is not None:
        return {**label, "policy": {**policy, "base": name_of_place(named)}}
    return {**label, "policy": {**policy, "tokenizer": "own"}}


def _shown(table: pd.DataFrame, path: Path) -> str:
    """The table, then each headline difference with both intervals and p, and where the numbers lie."""
    shown = table[table["headline"] & table["against"].notna() & table["estimator"].isin(["mean", "unbiased"])]
    rows = [
        [
            f"{row['label']} − {row['against']}",
            row["metric"],
            value_text(row, "sampling"),
            value_text(row, "problems"),
            "" if pd.isna(row["problems_p"]) else f"{row['problems_p']:.3g}",
        ]
        for _, row in shown.iterrows()
    ]
    header = ["difference, paired", "metric", "95 %, these problems", "95 %, problems like these", "p"]
    parts = [terminal_table(table), *([text_table(header, rows, gap=3)] if rows else []), f"Numbers: {path}"]
    return "\n\n".join(parts)
