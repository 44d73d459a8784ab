"""Where the paper and its released code differ in training, as switches: two presets, and what a run has set.

A switch is a field of a run's exploration, objective or training; `fidelity: release` sets every switch that applies to
a method and that the method doesn't set itself. Each can also be set alone, in config/study.yaml.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ngrpo.study.base import Config
from ngrpo.study.reading import parse
from ngrpo.study.specs import RunSpec


@dataclass(frozen=True)
class Switch:
    """One difference. kinds: the exploration or objective kinds that it concerns; None: all."""

    name: str
    part: str  # exploration | objective | training
    field: str
    paper: Any
    release: Any
    in_paper: str
    in_release: str
    kinds: tuple[str, ...] | None = None
    silent: Any = None
    """The value in force where the field isn't set: the same as the paper's, said aloud."""


SWITCHES = (
    Switch("mixing weights", "exploration", "weights", None, "probabilities", "softmax of z̃ over C (Eq. 9)",
           "softmax over C of the probabilities", ("neighbors",)),
    Switch("text at a mixed step", "exploration", "text", None, "sampled", "the anchor", "the sampled token",
           ("neighbors",)),
    Switch("neighbor space", "exploration", "space", None, "lm_head", "input embedding E", "output layer's rows",
           ("neighbors",)),
    Switch("neighbors found", "exploration", "refresh", None, 1, "precomputed table",
           "search with the current weights", ("neighbors",)),
    Switch("where mixing stops", "exploration", "stop_after", None, "</think>", "never", "after the first </think>",
           ("neighbors",)),
    Switch("rollout temperature", "training", "temperature", 0.7, 1.0, "0.7", "1.0"),
    Switch("loss aggregation", "objective", "aggregation", "seq-mean-token-mean", "token-mean",
           "mean over sequences of their token means", "mean over all tokens"),
    Switch("STHT noise in training", "exploration", "replay", None, False, "part of the history", "not replayed",
           ("gaussian",)),
    Switch("STHT noise scale", "exploration", "scope", None, "row", "RMS of the embedding", "RMS of that one row",
           ("gaussian",)),
    Switch("Gumbel weights", "exploration", "weights", None, "clean", "noisy scores", "clean logits", ("gumbel",)),
    Switch("GSPO clip, below", "objective", "clip_low", None, 0.2, "not stated (GSPO's own 3e-4)", "GRPO's 0.2",
           ("gspo",), 3e-4),
    Switch("GSPO clip, above", "objective", "clip_high", None, 0.2, "not stated (GSPO's own 4e-4)", "GRPO's 0.2",
           ("gspo",), 4e-4),
)  # fmt: skip


def _applies(switch: Switch, part: Config) -> bool:
    return switch.kinds is None or getattr(part, "kind", None) in switch.kinds


def release(
    parts: Mapping[str, Config],
    given: Mapping[str, Config | Mapping[str, Any]],
    scripts: Mapping[Any, Mapping[str, Any]],
    where: str,
) -> dict[str, Config]:
    """A run's parts with the released code's values.

    parts: exploration, objective and training as they'd be for the paper. given: what the method sets itself, which
    stays. scripts: what the released scripts set for this model (k, ρ, learning rate, β). Raises UserError where a
    script names a field that a part doesn't have.
    """
    changed: dict[str, Config] = {}
    for name, part in parts.items():
        mine = given[name]
        own = set(mine.model_fields_set if isinstance(mine, Config) else mine)
        new = {s.field: s.release for s in SWITCHES if s.part == name and _applies(s, part)}
        if name != "exploration" or getattr(part, "kind", None) == "neighbors":
            new |= scripts.get(name, {})
        new = {field: value for field, value in new.items() if field not in own}
        changed[name] = parse(type(part), {**part.model_dump(), **new}, f"{where} (fidelity: release): {name}")
    return changed


def switch_rows(run: RunSpec) -> list[dict[str, str]]:
    """Every switch that applies to a run: name, paper, release, and which of them (or what else) the run has set."""
    rows = []
    for switch in SWITCHES:
        part = getattr(run, switch.part)
        if not _applies(switch, part):
            continue
        value = getattr(part, switch.field)
        known = {switch.silent: "paper", switch.paper: "paper", switch.release: "release"}
        held = known.get(value, f"other: {value}")
        rows.append({"switch": switch.name, "paper": switch.in_paper, "release": switch.in_release, "run": held})
    return rows
