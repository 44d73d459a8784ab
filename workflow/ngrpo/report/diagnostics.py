"""What mixing feeds, as `ngrpo diagnostics` measured it: what is there, what it adds up to, one response in words."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ngrpo.audit.status import command
from ngrpo.files import read_json
from ngrpo.study.expand import Study

LOW_COSINE = 0.95
"""Appendix E counts mixtures whose cosine to their anchor lies below."""


@dataclass(frozen=True)
class Measured:
    """A run's measurements, or why there are none."""

    run: str
    file: str
    """Relative to results/{scale}."""
    told: dict | None
    note: str
    """Empty, or one sentence with the command that makes them."""


@dataclass(frozen=True)
class Totals:
    """Over all of a run's mixed trajectories."""

    responses: int
    changed: float
    """Share of responses that differ from the one of the same seed without mixing."""
    tokens: int
    mixed: int
    """Tokens that were fed as a mixture."""
    mean: float
    """Mean cosine of a mixture and its anchor's embedding; nan where nothing was mixed."""
    least: float
    low: float
    """Share of mixtures whose cosine lies below LOW_COSINE."""


def measured(study: Study, results: Path) -> list[Measured]:
    """The diagnostics of every base model's first run that mixes neighbors. results: results/{scale}."""
    found = []
    for run in study.mixing_runs:
        file = f"diagnostics/{run}.json"
        told = read_json(results / file) if (results / file).exists() else None
        note = ""
        if told is None:
            note = f"not measured yet; made by: {command(study, results, file)}"
        elif told["spec"] != study.runs[run].digest:
            note, told = f"measured for another version of this run; remade by: {command(study, results, file)}", None
        found.append(Measured(run, file, told, note))
    return found


def totals(told: dict) -> Totals:
    """Counts and cosines of what `ngrpo diagnostics` wrote."""
    examples = told["examples"]
    cosines = np.array([step["cosine"] for e in examples for step in e["steps"]])
    some = len(cosines) > 0
    return Totals(
        responses=len(examples),
        changed=sum(e["apart"] is not None for e in examples) / len(examples),
        tokens=sum(len(e["mixed"]) for e in examples),
        mixed=len(cosines),
        mean=float(cosines.mean()) if some else float("nan"),
        least=float(cosines.min()) if some else float("nan"),
        low=float((cosines < LOW_COSINE).mean()) if some else float("nan"),
    )


def examples(told: dict, count: int) -> list[str]:
    """Responses with mixed steps, as text; those that mixing changed come first."""
    mixed = sorted((e for e in told["examples"] if e["steps"]), key=lambda e: e["apart"] is None)
    return [trajectory(e) for e in mixed[:count]]


def shown(token: str) -> str:
    """A token with its blanks visible."""
    return token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥") or "∅"


def trajectory(example: dict) -> str:
    """One problem's response without and with mixing, as text: ⟦mixed steps⟧ in brackets, then each one's mixture.

    example: one of `examples` in what `ngrpo diagnostics` wrote.
    """
    mixed = {step["index"] for step in example["steps"]}
    told = "".join(f"⟦{token}⟧" if i in mixed else token for i, token in enumerate(example["mixed"]))
    apart = "never" if example["apart"] is None else f"from token {example['apart']} on"
    lines = [
        f"problem {example['problem_id']}: {example['problem']}",
        f"  without  {''.join(example['without'])}",
        f"  mixing   {told}",
        f"  apart    {apart}",
    ]
    for step in example["steps"]:
        parts = " + ".join(f"{weight:.4f} · {shown(token)}" for token, weight in step["candidates"])
        lines.append(f"  token {step['index']}: {parts}   (cosine {step['cosine']:.4f})")
    return "\n".join(lines)
