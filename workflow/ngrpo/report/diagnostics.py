"""What mixing feeds, as `ngrpo diagnostics` measured it: what is there, what it adds up to, one response in words."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ngrpo.audit.status import command
from ngrpo.files import read_json
from ngrpo.statistics.crossed import share_interval
from ngrpo.study.cards import Diagnostics
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results

LOW_COSINE = 0.95
"""Appendix E counts mixtures whose cosine to their anchor lies below."""
NEARLY = 0.999
"""A mixture whose cosine lies above is nearly its anchor: mixing changed next to nothing there."""


@dataclass(frozen=True)
class RunDiagnostics:
    """A run's measurements, or why there are none."""

    run: str
    file: str
    """Relative to results/{scale}."""
    data: dict[str, Any] | None
    """What `ngrpo diagnostics` wrote (`ngrpo.stages.mixing_diagnostics`)."""
    note: str
    """Empty, or one sentence with the command that makes them."""


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval over tokens."""

    value: float
    low: float
    high: float


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
    nearly: float
    """Share of mixtures whose cosine lies above NEARLY."""
    flips: dict[str, Share]
    """Of "noise" and "mixture": how many vectors lie nearest to another token; without what wasn't measured."""


def read_diagnostics(study: Study, results: Results) -> list[RunDiagnostics]:
    """The diagnostics of every base model's first run that mixes neighbors."""
    runs = []
    for run in study.mixing_runs:
        path = results.diagnostics(run)
        data, note = read_json(path, Diagnostics) if path.exists() else None, ""
        if data is None:
            note = f"not measured yet; made by: {command(study, results, path)}"
        elif data["spec"] != study.runs[run].digest:
            data, note = None, f"measured for another version of this run; remade by: {command(study, results, path)}"
        runs.append(RunDiagnostics(run, results.relative(path), data, note))
    return runs


def totals(data: dict[str, Any]) -> Totals:
    """Counts and cosines of what `ngrpo diagnostics` wrote."""
    examples = data["examples"]
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
        nearly=float((cosines > NEARLY).mean()) if some else float("nan"),
        flips={kind: flips for kind in ("noise", "mixture") if (flips := _flips(data["tokens"], f"{kind}_flips"))},
    )


def _flips(tokens: list[dict[str, Any]], key: str) -> Share | None:
    """The mean over tokens of the shares of vectors that flip, as the claims on Figure 1 count it."""
    if len(tokens) < 2 or any(key not in token for token in tokens):
        return None
    shares = np.array([token[key] for token in tokens], dtype=float)
    return Share(float(shares.mean()), *share_interval(shares))


def examples(data: dict[str, Any], count: int) -> list[str]:
    """Responses with mixed steps, as text; those that mixing changed come first."""
    mixed = sorted((e for e in data["examples"] if e["steps"]), key=lambda e: e["apart"] is None)
    return [trajectory(e) for e in mixed[:count]]


def shown(token: str) -> str:
    """A token with its blanks visible."""
    return token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥") or "∅"


def trajectory(example: dict[str, Any]) -> str:
    """One problem's response without and with mixing, as text: ⟦mixed steps⟧ in brackets, then each one's mixture.

    example: one of `examples` in what `ngrpo diagnostics` wrote.
    """
    mixed = {step["index"] for step in example["steps"]}
    marked = "".join(f"⟦{token}⟧" if i in mixed else token for i, token in enumerate(example["mixed"]))
    apart = "never" if example["apart"] is None else f"from token {example['apart']} on"
    lines = [
        f"problem {example['problem_id']}: {example['problem']}",
        f"  without  {''.join(example['without'])}",
        f"  mixing   {marked}",
        f"  apart    {apart}",
    ]
    for step in example["steps"]:
        parts = " + ".join(f"{weight:.4f} · {shown(token)}" for token, weight in step["candidates"])
        lines.append(f"  token {step['index']}: {parts}   (cosine {step['cosine']:.4f})")
    return "\n".join(lines)
