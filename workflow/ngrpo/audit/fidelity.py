"""The paper-versus-release table with this study's own settings, and which of its runs differ in switches alone."""

from collections.abc import Mapping
from itertools import permutations
from typing import Any

from ngrpo.formatting import plain
from ngrpo.study.expand import Study
from ngrpo.study.paper_values import PaperValues
from ngrpo.study.specs import RunSpec
from ngrpo.study.switches import FIXED, SWITCHES, switch_rows, uses_scripts

PARTS = ("exploration", "objective", "training")
SCRIPTS = {  # what the released scripts set beside the switches: (part, field), name
    ("exploration", "k"): "k",
    ("exploration", "rho"): "ρ",
    ("training", "learning_rate"): "learning rate",
    ("objective", "kl_coefficient"): "β",
}


def fidelity_rows(study: Study, paper: PaperValues | None) -> list[dict]:
    """Every switch that applies to a run of the study: {switch, paper, release, here}.

    here: [(value, the runs that have it)], most common first.
    """
    rows: dict[str, dict] = {}
    for name, spec in study.runs.items():
        for row in switch_rows(spec):
            known = rows.setdefault(row["switch"], {**row, "runs_by_value": {}})
            known["runs_by_value"].setdefault(row["run"], []).append(name)
    table = [_row(r["switch"], r["paper"], r["release"], r["runs_by_value"]) for r in rows.values()]
    for (part, field), name in SCRIPTS.items():
        stated = getattr(paper.hyperparameters, field, None) if paper else None
        scripts = [
            f"{plain(script[field])} ({model}{'' if part == 'exploration' else ', N-GRPO alone'})"
            for model, script in ((model, _script(study, model, part)) for model in study.size.release)
            if field in script
        ]
        runs_by_value: dict[str, list[str]] = {}
        for run, spec in study.runs.items():
            if hasattr(getattr(spec, part), field) and (part != "exploration" or uses_scripts(spec.exploration)):
                runs_by_value.setdefault(plain(getattr(getattr(spec, part), field)), []).append(run)
        if name == "ρ" and paper and paper.mixing:
            stated = paper.mixing.rho
        if runs_by_value:
            printed = plain(stated) if stated is not None else "–"
            table.append(_row(name, printed, ", ".join(scripts) or "not set for these models", runs_by_value))
    return table + [{"switch": s, "paper": p, "release": r, "here": [(h, [])]} for s, p, r, h in FIXED]


def _row(switch: str, paper: str, release: str, runs_by_value: dict[str, list[str]]) -> dict:
    order = sorted(runs_by_value.items(), key=lambda item: -len(item[1]))
    return {"switch": switch, "paper": paper, "release": release, "here": order}


def mixed_fidelity(runs: dict[str, RunSpec]) -> list[str]:
    """What runs that are compared hold differently of one switch, a sentence each; none where all follow the same.

    runs: by the name under which a reader sees them.
    """
    switches: dict[str, dict[str, list[str]]] = {}
    for name, run in runs.items():
        for row in switch_rows(run):
            switches.setdefault(row["switch"], {}).setdefault(row["run"], []).append(name)
    return [
        f"{switch}: " + "; ".join(f"{value} in {', '.join(names)}" for value, names in values.items())
        for switch, values in switches.items()
        if len(values) > 1
    ]


def _fields(run: RunSpec) -> dict[tuple[str, str], Any]:
    return {(part, name): value for part in PARTS for name, value in getattr(run, part).model_dump().items()}


def switched_pairs(study: Study) -> list[tuple[str, str, list[str]]]:
    """(paper's side, other side, names of what differs) of every two runs that differ in switches and nothing else.

    The paper's side holds the paper's value of every switch that differs; beside the whole preset it may hold another
    (a scale's own). What the released scripts set (k, ρ, learning rate, β) may differ with the preset, too.
    """
    presets = [name for name, method in study.study.methods.items() if method.fidelity == "release"]
    release = {study.run_id(name, model) for name in presets for model in study.models}
    pairs = []
    for one, other in permutations(study.runs.values(), 2):
        if (one.model, one.seed, one.objective.kind) != (other.model, other.seed, other.objective.kind):
            continue
        a, b = _fields(one), _fields(other)
        if a.keys() != b.keys() or one.id in release:
            continue
        differ = {key for key in a if a[key] != b[key]}
        changed = [s for s in SWITCHES if (s.part, s.field) in differ and s.concerns(getattr(one, s.part))]
        switches = {s for s in changed if s.is_papers(getattr(one, s.part))}
        if other.id in release and switches:
            switches |= {s for s in changed if b[s.part, s.field] == s.released(getattr(other, s.part))}
        explained = {(s.part, s.field) for s in switches}
        if other.id in release:
            explained |= {key for key in SCRIPTS if key in differ and _scripted(study, one, other, key)}
        if switches and differ <= explained:
            names = [s.name for s in SWITCHES if s in switches]
            names += [name for key, name in SCRIPTS.items() if key in differ]
            pairs.append((one.id, other.id, names))
    return pairs


def _scripted(study: Study, one: RunSpec, other: RunSpec, key: tuple[str, str]) -> bool:
    """Whether a field differs because the released script of this model sets it and the first run leaves it alone."""
    part, field = key
    value, own = (getattr(getattr(run, part), field) for run in (other, one))
    usual = study.size.training if part == "training" else None
    left = getattr(usual, field) if usual else type(getattr(one, part)).model_fields[field].default
    return value == _script(study, one.model.id, part).get(field) and own == left


def _script(study: Study, model: str, part: str) -> Mapping[str, Any]:
    """What the released script of a model sets of a part of its run."""
    settings: Mapping[Any, Mapping[str, Any]] = study.size.release.get(model, {})
    return settings.get(part, {})
