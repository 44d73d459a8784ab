"""A policy objective as configuration. Its kinds are the keys of CLIP_RANGES; each has a loss of that name in
`ngrpo.method.objectives` (which needs torch, and is not imported here)."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from ngrpo.errors import name_hint
from ngrpo.study.base import Config, unset

CLIP_RANGES: dict[str, tuple[float, float]] = {
    "grpo": (0.2, 0.2),  # Eq. 12
    "gspo": (3e-4, 4e-4),  # arXiv 2507.18071, §5.1; the paper states none, its release clips GSPO at 0.2 too
    "dr_grpo": (0.2, 0.2),  # arXiv 2503.20783: GRPO's
}
"""Every kind, and how far below and above 1 its ratio may go where the configuration doesn't say."""

DUAL_CLIPS: dict[str, float | None] = {
    "grpo": 3.0,  # verl's; Eq. 12 has none
    "gspo": None,
}
"""Kinds that can have a dual clip, and the one in force where the configuration doesn't say; None: none."""

WITHOUT_STD = ("dr_grpo",)
"""Kinds whose advantages aren't divided by the group's standard deviation where the configuration doesn't say."""

Aggregation = Literal["seq-mean-token-mean", "token-mean"]
PolicyAggregation = Literal["seq-mean-token-mean", "token-mean", "seq-mean-token-sum-norm"]

POLICY_AGGREGATIONS: dict[str, PolicyAggregation] = {"dr_grpo": "seq-mean-token-sum-norm"}
"""Kinds whose policy term has an aggregation of its own where the configuration doesn't say."""


def _known(kind: str) -> str:
    if kind not in CLIP_RANGES:
        hint = name_hint(kind, CLIP_RANGES)
        raise PydanticCustomError("objective", "There is no such objective; {hint}", {"hint": hint})
    return kind


Kind = Annotated[str, AfterValidator(_known), WithJsonSchema({"enum": list(CLIP_RANGES), "type": "string"})]


class Objective(Config):
    """The policy loss (GRPO: arXiv 2606.10768, Eq. 12-13; GSPO: arXiv 2507.18071; Dr. GRPO: arXiv 2503.20783)."""

    kind: Kind = "grpo"
    """grpo: a ratio per token; gspo: one per sequence; dr_grpo: grpo's without its two divisions (by a response's own
    length, by the group's standard deviation)."""
    clip_low: float | None = Field(None, gt=0)
    """Lower clip range of the ratio; None: the kind's own, 0.2 for grpo (Eq. 12) and dr_grpo, 3e-4 for gspo."""
    clip_high: float | None = Field(None, gt=0)
    """Upper clip range; None: the kind's own, 0.2 for grpo and dr_grpo, 4e-4 for gspo."""
    kl_coefficient: float = Field(0.001, ge=0)
    """β of the k3 KL estimator (Table 6)."""
    aggregation: Aggregation = "seq-mean-token-mean"
    """Eq. 13: mean over sequences of the mean over tokens; the release: mean over all tokens."""
    policy_aggregation: PolicyAggregation | None = None
    """The policy term's own aggregation, the KL term keeping `aggregation`; None: the same, but for dr_grpo, whose own
    is "seq-mean-token-sum-norm" (a response's sum over tokens, divided by the longest possible length). The release's
    GSPO: always "seq-mean-token-mean". verl aggregates both terms of GRPO alike, so there it is refused."""
    dual_clip: float | None = Field(None, gt=1)
    """Where A < 0 the loss is at most this times |A| (dual clip); None: the kind's own, verl's 3 for grpo, none for
    gspo (the release's GSPO: 3). Eq. 12 has none: for GRPO a large number switches it off."""

    rollout_is_threshold: float | None = Field(None, ge=1)
    """Truncated importance sampling between rollout and trainer: each token's policy term is weighted by
    π_trainer / π_rollout, at most this much (as verl's setting of this name, whose default is 2). None: off, as in the
    paper and its release."""
    norm_adv_by_std: bool | None = None
    """Whether advantages are divided by the standard deviation of their group (Eq. 12); None: the kind's own, which is
    yes but for dr_grpo."""
    entropy_coefficient: float | None = Field(None, gt=0)
    """Weight of an entropy bonus: so much of the policy's mean token entropy is subtracted from the loss. None: none,
    as in the paper."""
    overlong_share: float | None = Field(None, gt=0, le=1)
    """Soft penalty of long responses (DAPO, arXiv 2503.14476, Eq. 13): over this last share of `max_response_tokens`
    the reward falls, by 1/2 at the end, as DAPO's −1 among its rewards of ±1 (its buffer: 0.2). None: none."""
    equal_groups: Literal["drop"] | None = None
    """Groups whose responses are all right or all wrong: "drop" leaves them out of the policy term's average (DAPO,
    Eq. 11, which draws others in their place). None: they count, as in the paper."""
    reward: Annotated[Literal["correct", "shuffled", "random", "format"] | None, unset("correct")] = None
    """What a response is rewarded for: being right (None: the paper), or, as a control that shows what is learned
    without that, another response's reward ("shuffled"), a coin's ("random") or having an answer at all ("format")."""

    @model_validator(mode="after")
    def _can_be_minimized(self) -> "Objective":
        if self.kind == "grpo" and self.policy_aggregation not in (None, self.aggregation):
            raise PydanticCustomError(
                "objective", "verl aggregates GRPO's policy and KL terms alike: set aggregation, not policy_aggregation"
            )
        if self.dual_clip is not None and self.kind not in DUAL_CLIPS:
            raise PydanticCustomError("objective", "{kind} has no dual clip: leave dual_clip out", {"kind": self.kind})
        return self

    @property
    def dual(self) -> float | None:
        """The dual clip in force; None: none."""
        return self.dual_clip or DUAL_CLIPS.get(self.kind)

    @property
    def policy(self) -> PolicyAggregation | None:
        """The policy term's own aggregation in force; None: that of the whole loss."""
        return self.policy_aggregation or POLICY_AGGREGATIONS.get(self.kind)

    @property
    def by_std(self) -> bool:
        """Whether advantages are divided by their group's standard deviation."""
        return self.kind not in WITHOUT_STD if self.norm_adv_by_std is None else self.norm_adv_by_std

    @property
    def clip(self) -> tuple[float, float]:
        """The clip range in force, below and above 1."""
        low, high = CLIP_RANGES[self.kind]
        return self.clip_low or low, self.clip_high or high
