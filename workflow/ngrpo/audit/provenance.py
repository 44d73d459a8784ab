"""Where a study's numbers come from: data cards, settings of each run, versions, and every artifact with its spec."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from pydantic import BaseModel

import ngrpo
from ngrpo.files import file_sha256, read_json
from ngrpo.formatting import plain
from ngrpo.study.cards import DataCard
from ngrpo.study.expand import Study
from ngrpo.study.layout import DatasetFiles, Results
from ngrpo.study.specs import AnySpec, RunSpec
from ngrpo.study.versions import VERSIONS, fingerprint

HASH = re.compile(r"[0-9a-f]{40,}")
PIN = re.compile(r"^([\w.-]{1,100})==([^\s;\\]{1,100})", re.MULTILINE)
PROJECT = Path(ngrpo.__file__).resolve().parents[2]
COMPUTED_WITH = ("numpy", "scipy", "pandas", "math-verify", "sympy", "seaborn", "matplotlib", "snakemake", "papermill")
TRAINED_WITH = ("torch", "verl", "sglang", "ray", "transformers", "tensordict")
PACKAGES = (
    "audit",
    "claims",
    "data",
    "engines",
    "grading",
    "method",
    "planning",
    "report",
    "stages",
    "statistics",
    "study",
    "training",
)
ROLES = {"training_data": "training", "validation": "checkpoint choice"}


# --- data cards ---

CARD_KEYS = (
    *("rows_in", "left", "rows_out", "without_answer", "ungradable", "max_prompt_tokens", "kept_out_of"),
    *("near_duplicates", "near_duplicate_similarity", "origin", "sha256"),
)
"""What the page shows of a data card, in this order; the card itself names every row that left."""


def data_cards(study: Study, results: Results) -> list[dict]:
    """Every data set's card, then the filtered training data's: {id, role, file, problems, card}, card as (name, value)
    pairs or None where absent. file: the card's path, relative to the results; problems: the data's own path."""
    size = study.size
    cards = []
    for name in study.datasets:
        roles = [role for key, role in ROLES.items() if getattr(size, key) == name]
        roles += ["benchmark"] if any(e.benchmark.id == name for e in study.evaluations.values()) else []
        cards.append(_data_card(results, results.dataset(name), ", ".join(roles) or "not used"))
    for model, spec in study.training_data.items():
        files = results.training_data(spec.dataset.id, model)
        cards.append(_data_card(results, files, f"training, filtered for {model}"))
    return cards


def _data_card(results: Results, files: DatasetFiles, role: str) -> dict:
    file = results.relative(files.card)
    return {"id": files.name, "role": role, "file": file, "problems": files.problems, "card": _card(files.card)}


def _card(path: Path) -> list[tuple[str, str]] | None:
    if not path.exists():
        return None
    card = read_json(path, DataCard)
    rows = flat({key: card[key] for key in CARD_KEYS if key in card})
    return [(_words(key), HASH.sub(lambda m: f"{m[0][:12]}…", value)) for key, value in rows]


def _words(key: str) -> str:
    return key.replace(".", ": ").replace("_", " ")


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested JSON value as (dotted key, text) pairs, in its order; long lists by their length and first items."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and len(value) > 6:
        yield prefix, f"{', '.join(map(str, value[:5]))}, … ({len(value)})"
    elif isinstance(value, list):
        yield prefix, ", ".join(map(str, value)) or "none"
    elif isinstance(value, dict):
        yield prefix, "none"
    else:
        yield prefix, "none" if value is None else plain(value)


# --- settings ---


def _described(model: BaseModel, prefix: str) -> dict[str, str]:
    return {
        f"{prefix}.{name}": (field.description or "").replace("`", "")
        for name, field in type(model).model_fields.items()
    }


@dataclass(frozen=True)
class RunSettings:
    """The settings of a study's runs, from their specs; "–" where one isn't set."""

    shared: list[tuple[str, str, str]]
    """(key, value, what it is) of those that all runs have."""
    runs: list[tuple[str, str]]
    """(run, its training seeds): runs that differ in nothing but their seed are one, under the first one's name."""
    differing: list[tuple[str, list[str], str]]
    """(key, a value for each of `runs`, what it is)."""


def run_settings(runs: dict[str, RunSpec]) -> RunSettings:
    """Every setting of every run, said once."""
    about: dict[str, str] = {}
    columns: dict[tuple[tuple[str, str], ...], tuple[str, list[str]]] = {}
    for name, spec in runs.items():
        parts: dict[str, BaseModel] = {
            "objective": spec.objective,
            "exploration": spec.exploration,
            "training": spec.training,
            "validation_decoding": spec.validation_decoding,
        }
        value = spec.json_value()
        chosen = {
            "model": spec.model.id,
            "model dtype": spec.model.model.dtype,
            "data": spec.data.dataset.id,
            "validation": spec.validation.id,
            **{key: value[key] for key in parts},
        }
        columns.setdefault(tuple(flat(chosen)), (name, []))[1].append(str(spec.seed))
        for key, part in parts.items():
            about |= _described(part, key)
    values = [dict(column) for column in columns]
    keys = dict.fromkeys(key for column in values for key in column)
    groups = list(dict.fromkeys(key.split(".")[0] for key in keys))
    rows = [
        (key, [column.get(key, "–") for column in values], about.get(key, ""))
        for key in sorted(keys, key=lambda key: groups.index(key.split(".")[0]))
    ]
    return RunSettings(
        shared=[(key, same[0], what) for key, same, what in rows if len(set(same)) == 1],
        runs=[(name, ", ".join(seeds)) for name, seeds in columns.values()],
        differing=[row for row in rows if len(set(row[1])) > 1],
    )


def evaluation_settings(study: Study) -> list[tuple[str, str]]:
    """What all evaluations share: (setting, value)."""
    size = study.size.evaluation
    limits = flat(study.size.decoding.model_dump(mode="json"))
    shown = [(key.replace("_", " "), value) for key, value in limits]
    return [
        ("samples a problem (n)", str(size.samples)),
        *shown,
        ("engine", size.engine),
        ("seed", str(study.study.seed)),
    ]


# --- versions and artifacts ---


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed here"


def _locked(lock: Path) -> dict[str, str]:
    return dict(PIN.findall(lock.read_text(encoding="utf-8")))


def versions() -> list[dict]:
    """Groups of versions: {title, rows: [(name, version)]}; the training environment's come from its lock file."""
    groups = [
        {
            "title": "Analysis, as it ran",
            "rows": [("python", python_version()), *((p, _installed(p)) for p in COMPUTED_WITH)],
        }
    ]
    lock = PROJECT / "envs" / "train-cpu.lock"
    if lock.exists():
        pins = _locked(lock)
        rows = [(p, pins[p]) for p in TRAINED_WITH if p in pins]
        groups.append({"title": "Training and sampling on CPU, as locked", "rows": rows})
    code = [("ngrpo", _installed("ngrpo")), ("sources", fingerprint(*PACKAGES))]
    code += [(f"{stage} (stage version)", str(number)) for stage, number in VERSIONS.items()]
    groups.append({"title": "Code", "rows": code})
    locks = [(p.name, file_sha256(p)[:12]) for p in sorted((PROJECT / "envs").glob("*.lock"))]
    if locks:
        groups.append({"title": "Environment locks (SHA-256, first 12)", "rows": locks})
    return groups


def artifacts(study: Study, results: Results) -> list[dict]:
    """Every spec of the study with the artifact that it identifies: {kind, spec, spec_there, digest, file, there}."""
    made: list[tuple[AnySpec, Path, Path]] = []
    for name, dataset in study.datasets.items():
        made.append((dataset, results.dataset(name).spec, results.dataset(name).problems))
    for name, data in study.training_data.items():
        files = results.training_data(data.dataset.id, name)
        made.append((data, files.spec, files.problems))
    for name, model in study.models.items():
        made.append((model, results.model(name).spec, results.model(name).folder))
    for name, neighbors in study.neighbors.items():
        made.append((neighbors, results.neighbors(name).spec, results.neighbors(name).table))
    for name, run in study.runs.items():
        made.append((run, results.run(name).spec, results.run(name).model))
    for name, evaluation in study.evaluations.items():
        made.append((evaluation, results.evaluation(name).spec, results.evaluation(name).grades))
    return [
        {
            "kind": spec.type,
            "spec": results.relative(file),
            "spec_there": file.exists(),
            "digest": spec.digest,
            "file": results.relative(artifact),
            "there": artifact.exists(),
        }
        for spec, file, artifact in made
    ]
