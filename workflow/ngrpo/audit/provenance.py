"""Where a study's numbers come from: data cards, settings of each run, versions, and every artifact with its spec."""

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from pydantic import BaseModel

import ngrpo
from ngrpo.files import file_sha256, read_json
from ngrpo.study.expand import Study
from ngrpo.study.specs import RunSpec
from ngrpo.study.versions import VERSIONS, fingerprint

HASH = re.compile(r"[0-9a-f]{40,}")
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

CARD_KEYS = ("rows_in", "left", "rows_out", "without_answer", "max_prompt_tokens", "kept_out_of", "origin", "sha256")
"""What the page shows of a data card, in this order; the card itself names every row that left."""


def data_cards(study: Study, results: Path) -> list[dict]:
    """Every data set's card, then the filtered training data's: {id, role, file, card}, card as (name, value) pairs
    or None where absent."""
    size = study.size
    cards = []
    for name in study.datasets:
        roles = [role for key, role in ROLES.items() if getattr(size, key) == name]
        roles += ["benchmark"] if any(e.benchmark.id == name for e in study.evaluations.values()) else []
        cards.append((name, ", ".join(roles) or "not used", f"data/{name}.card.json"))
    for model, spec in study.training_data.items():
        stem = f"{spec.dataset.id}.{model}"
        cards.append((stem, f"training, filtered for {model}", f"data/{stem}.card.json"))
    return [
        {
            "id": name,
            "role": role,
            "file": file,
            "card": _card(results / file),
        }
        for name, role, file in cards
    ]


def _card(path: Path) -> list[tuple[str, str]] | None:
    if not path.exists():
        return None
    told = read_json(path)
    rows = flat({key: told[key] for key in CARD_KEYS if key in told})
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


def plain(value: Any) -> str:
    """A setting's value as a reader writes it: 1e-06 as 1e-6, true as yes."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        mantissa, _, exponent = f"{value:.6g}".partition("e")
        return f"{mantissa}e{int(exponent)}" if exponent else mantissa
    return str(value)


# --- settings ---


def _described(model: BaseModel, prefix: str) -> dict[str, str]:
    return {
        f"{prefix}.{name}": (field.description or "").replace("`", "")
        for name, field in type(model).model_fields.items()
    }


def run_settings(runs: dict[str, RunSpec]) -> list[dict]:
    """Every setting of every run: {key, about, values (one a run, "–" where unset), differs}, from their specs."""
    told: dict[str, str] = {}
    columns: dict[str, dict[str, str]] = {}
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
            "seed": spec.seed,
            **{key: value[key] for key in parts},
        }
        columns[name] = dict(flat(chosen))
        for key, part in parts.items():
            told |= _described(part, key)
    keys = dict.fromkeys(key for column in columns.values() for key in column)
    groups = list(dict.fromkeys(key.split(".")[0] for key in keys))
    order = sorted(keys, key=lambda key: groups.index(key.split(".")[0]))
    rows = []
    for key in order:
        values = [column.get(key, "–") for column in columns.values()]
        rows.append({"key": key, "about": told.get(key, ""), "values": values, "differs": len(set(values)) > 1})
    return rows


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
    lines = (line.split("#")[0].strip() for line in lock.read_text(encoding="utf-8").splitlines())
    return dict(line.split("==", 1) for line in lines if "==" in line)


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


def artifacts(study: Study, results: Path) -> list[dict]:
    """Every spec of the study with the artifact that it identifies: {kind, spec, spec_there, digest, file, there}."""
    rows = []
    for name, spec in study.specs().items():
        kind, stem = spec.type, name.removesuffix(".spec.json").removesuffix("/spec.json")
        made = {
            "dataset": f"{stem}.parquet",
            "training-data": f"{stem}.parquet",
            "model": stem,
            "neighbors": f"{stem}.safetensors",
            "run": f"{stem}/model",
            "evaluation": f"{stem}.grades.parquet",
        }[kind]
        rows.append(
            {
                "kind": kind,
                "spec": name,
                "spec_there": (results / name).exists(),
                "digest": spec.digest,
                "file": made,
                "there": (results / made).exists(),
            }
        )
    return rows
