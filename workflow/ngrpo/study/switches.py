"""Where the paper and its released code differ in training, as switches: two presets, and what a run has set.

A switch is a field of a run's exploration, objective or training; `fidelity: release` sets every switch that applies to
a method and that the method doesn't set itself. Each can also be set alone, in config/study.yaml. A difference that is
no run's setting is in `FIXED`, and what both take from verl without saying so in `OF_VERL`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ngrpo.study.base import Config
from ngrpo.study.objective import CLIP_RANGES
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
    """The release's value, or a function from the part to it."""
    in_paper: str
    in_release: str
    kinds: tuple[str, ...] | None = None
    silent: Any = None
    """The value in force where the field isn't set: the same as the paper's, said aloud."""
    readings: Callable[[Any], dict[Any, str]] | None = None
    """Where the paper can be read in more than one way: from the part to each known value and what it is."""

    def concerns(self, part: Config) -> bool:
        """Whether a run's part has this switch."""
        return self.kinds is None or getattr(part, "kind", None) in self.kinds

    def released(self, part: Config) -> Any:
        """The release's value for this part."""
        return self.release(part) if callable(self.release) else self.release

    def held(self, part: Config) -> str:
        """What a part holds, in a reader's words: paper, release, or which reading or other value."""
        value = getattr(part, self.field)
        if self.readings is not None:
            return self.readings(part).get(value, f"other: {value}")
        known = {self.silent: "paper", self.paper: "paper", self.released(part): "release"}
        return known.get(value, f"other: {value}")

    def is_papers(self, part: Config) -> bool:
        """Whether a part holds the paper's value, or a reading of it."""
        return self.held(part).startswith("paper")


def _four_updates(training: Any) -> int:
    """Prompts of a mini-batch that make four updates of a rollout: 16 of the paper's 64."""
    return max(1, training.batch_prompts // 4)


def _updates(training: Any) -> dict[Any, str]:
    updates = training.batch_prompts / training.mini_batch_prompts
    return {
        training.mini_batch_prompts: f"other: {updates:g} updates a rollout",
        training.batch_prompts: "paper, read as one update a rollout",
        _four_updates(training): "paper, read as four updates a rollout; also the release",
    }


def _tables(exploration: Any) -> dict[Any, str]:
    return {
        None: "paper, read as one table of the base model",
        1: "paper, read as one table an iteration (Appendix G); also the release",
    }


def _often(training: Any) -> dict[Any, str]:
    return {training.validate_every: "paper (it doesn't say)", 1: "release"}


MIXED = ("neighbors", "gaussian", "gumbel")

SWITCHES = (
    Switch("mixing weights", "exploration", "weights", None, "probabilities", "softmax of z̃ over C (Eq. 9)",
           "softmax over C of the probabilities", ("neighbors",)),
    Switch("text at a mixed step", "exploration", "text", None, "sampled", "the anchor", "the sampled token",
           ("neighbors",)),
    Switch("neighbor space", "exploration", "space", None, "lm_head", "input embedding E", "output layer's rows",
           ("neighbors",)),
    Switch("neighbors found", "exploration", "refresh", None, 1,
           "precomputed table: once, or once per iteration as Appendix G reads", "search with the current weights",
           ("neighbors",), readings=_tables),
    Switch("where mixing stops", "exploration", "stop_after", None, "</think>", "never",
           "from the step that writes the first </think> on", MIXED),
    Switch("rollout temperature", "training", "temperature", 0.7, 1.0, "0.7", "1.0"),
    Switch("updates a rollout", "training", "mini_batch_prompts", None, _four_updates,
           "“gradient accumulation 4” (Table 6): one or four", "four", readings=_updates),
    Switch("loss aggregation", "objective", "aggregation", "seq-mean-token-mean", "token-mean",
           "mean over sequences of their token means", "mean over all tokens"),
    Switch("validation, steps between", "training", "validate_every", None, 1, "not stated", "every step",
           readings=_often),
    Switch("validation, of equal scores", "training", "validation_ties", None, "later",
           "not stated (ours: the earlier)", "the later checkpoint"),
    Switch("STHT noise in training", "exploration", "replay", None, False, "part of the history",
           "drawn anew, neither recorded nor replayed", ("gaussian",)),
    Switch("STHT noise scale", "exploration", "scope", None, "row", "RMS of the embedding's entries",
           "RMS of the one vector that gets it", ("gaussian",)),
    Switch("STHT noise is added to", "exploration", "k", None, 3, "the token's embedding",
           "a mixture of the k likeliest (no script sets k for it; Table 6's 3)", ("gaussian",)),
    Switch("STHT mixture's temperature", "exploration", "temperature", None, 0.7, "no mixture", "0.7", ("gaussian",),
           1.0),
    Switch("STHT mixing rate", "exploration", "rho", None, 0.1, "every step",
           "gated by the mixing rate (no script sets it for STHT; Table 6's 0.1)", ("gaussian",), 1.0),
    Switch("Gumbel weights", "exploration", "weights", None, "clean", "noisy scores", "clean logits", ("gumbel",)),
    Switch("Gumbel text", "exploration", "text", None, "sampled", "the first candidate, drawn by the noise",
           "the sampled token: noise only selects what is mixed", ("gumbel",)),
    Switch("GSPO clip, below", "objective", "clip_low", None, 0.2, "not stated (GSPO's own range)", "GRPO's 0.2",
           ("gspo",), CLIP_RANGES["gspo"][0]),
    Switch("GSPO clip, above", "objective", "clip_high", None, 0.2, "not stated (GSPO's own range)", "GRPO's 0.2",
           ("gspo",), CLIP_RANGES["gspo"][1]),
    Switch("GSPO policy term", "objective", "policy_aggregation", None, "seq-mean-token-mean",
           "aggregated as the rest of the loss", "always a mean over sequences", ("gspo",)),
    Switch("GSPO dual clip", "objective", "dual_clip", None, 3.0, "none", "3, as verl's GRPO", ("gspo",)),
)  # fmt: skip

FIXED = (
    ("Pass@k", "unbiased (Eq. 15)", "bootstrap with replacement", "both, side by side"),
    ("grading of MATH500 and GPQA", "Math-Verify; strict “Answer: X”", "string match; lenient", "paper"),
    ("text of the prompts", "a picture (Appendix A)", "other words, another GPQA format",
     "an instruction of each data set, in the scale's file"),
    ("training data", "prompts over 4096 tokens leave", "the same",
     "duplicates, unparsable answers and benchmark problems leave, too"),
    ("validation mixes", "not stated", "never", "never"),
    ("mixing at inference", "with ρ, as in training", "at every step until </think>; top-p before the weights",
     "paper"),
    ("models", "Qwen2, Llama, Qwen3", "Qwen2, one GPU an engine", "paper"),
)  # fmt: skip
"""(what, paper, release, here) of differences that are no run's setting."""

OF_VERL = (
    ("dual clip", "where A < 0 GRPO's loss is at most 3·|A| (Eq. 12 has no such bound)", "objective.dual_clip"),
    ("importance weights between rollout and trainer", "none (paper and release have none): the rollout's"
     " log-probs are taken to be the trainer's", "objective.rollout_is_threshold"),
    ("clamp of the log-ratio", "to ±20 before the exponential; GSPO's at 10", ""),
    ("clamps of the k3 KL estimator", "log-ratio to ±20, value to ±10", ""),
    ("advantages", "divided by std + 1e-6, the std with n − 1", ""),
    ("weight decay", "0.01 (the paper states none)", "training.weight_decay"),
    ("gradient clip", "norm 1.0 (the paper states none)", ""),
    ("balance_batch", "sequences are sorted by length over ranks, so a group's responses may fall into different"
     " mini-batches", ""),
    ("token-mean", "is taken in each micro-batch, and these are averaged", "objective.aggregation"),
    ("KL and policy term", "of GRPO are aggregated alike", ""),
)  # fmt: skip
"""(what, how, the setting that changes it) of what verl 0.5.0 does beyond or beside the paper's equations."""


def release(
    parts: Mapping[str, Config],
    given: Mapping[str, Config | Mapping[str, Any]],
    scripts: Mapping[Any, Mapping[str, Any]],
    where: str,
) -> dict[str, Config]:
    """A run's parts with the released code's values.

    parts: exploration, objective and training as they'd be for the paper. given: what the method sets itself, which
    stays. scripts: what the released N-GRPO scripts set for this model (k, ρ, learning rate, β), for methods that look
    neighbors up: the released GRPO scripts keep the paper's values, and there are none of other methods. Raises
    UserError where a script names a field that a part doesn't have.
    """
    changed: dict[str, Config] = {}
    scripted = uses_scripts(parts["exploration"])
    for name, part in parts.items():
        mine = given[name]
        own = set(mine.model_fields_set if isinstance(mine, Config) else mine)
        new = {s.field: s.released(part) for s in SWITCHES if s.part == name and s.concerns(part)}
        script = scripts.get(name, {})
        if name != "exploration" and not scripted:
            parse(
                type(part), {**part.model_dump(), **script}, f"{where} (fidelity: release): {name}"
            )  # not used: named right
        new |= script if scripted else {}
        new = {field: value for field, value in new.items() if field not in own}
        changed[name] = parse(type(part), {**part.model_dump(), **new}, f"{where} (fidelity: release): {name}")
    return changed


def uses_scripts(exploration: Any) -> bool:
    """Whether the released N-GRPO scripts' values are for a method of this exploration."""
    return bool(exploration.needs_table)


def switch_rows(run: RunSpec) -> list[dict[str, str]]:
    """Every switch that applies to a run: name, paper, release, and which of them (or what else) the run has set."""
    return [
        {"switch": s.name, "paper": s.in_paper, "release": s.in_release, "run": s.held(getattr(run, s.part))}
        for s in SWITCHES
        if s.concerns(getattr(run, s.part))
    ]
