"""A policy objective as configuration. Its kinds are the keys of CLIP_RANGES; each has a loss of that name in
`ngrpo.method.objectives` (which needs torch, and is not imported here)."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from ngrpo.errors import nearest_name
from ngrpo.study.base import Config

CLIP_RANGES: dict[str, tuple[float, float]] = {
    "grpo": (0.2, 0.2),  # Eq. 12
    "gspo": (3e-4, 4e-4),  # arXiv 2507.18071, §5.1; the paper states none, its release clips GSPO at 0.2 too
}
"""Every kind, and how far below and above 1 its ratio may go where the configuration doesn't say."""


def _known(kind: str) -> str:
    if kind not in CLIP_RANGES:
        near = nearest_name(kind, CLIP_RANGES)
        hint = f"did you mean '{near}'?" if near else f"known: {', '.join(CLIP_RANGES)}"
        raise PydanticCustomError("objective", "There is no such objective; {hint}", {"hint": hint})
    return kind


Kind = Annotated[str, AfterValidator(_known), WithJsonSchema({"enum": list(CLIP_RANGES), "type": "string"})]


class Objective(Config):
    """The policy loss (GRPO: arXiv 2606.10768, Eq. 12-13; GSPO: arXiv 2507.18071)."""

    kind: Kind = "grpo"
    """grpo: a ratio per token; gspo: one per sequence."""
    clip_low: float | None = Field(None, gt=0)
    """Lower clip range of the ratio; None: the kind's own, 0.2 for grpo (Eq. 12), 3e-4 for gspo."""
    clip_high: float | None = Field(None, gt=0)
    """Upper clip range; None: the kind's own, 0.2 for grpo, 4e-4 for gspo."""
    kl_coefficient: float = Field(0.001, ge=0)
    """β of the k3 KL estimator (Table 6)."""
    aggregation: Literal["seq-mean-token-mean", "token-mean"] = "seq-mean-token-mean"
    """Eq. 13: mean over sequences of the mean over tokens; the release: mean over all tokens."""

    @property
    def clip(self) -> tuple[float, float]:
        """The clip range in force, below and above 1."""
        low, high = CLIP_RANGES[self.kind]
        return self.clip_low or low, self.clip_high or high
