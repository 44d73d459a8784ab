"""Input mixers as configuration: exploration in training and decoding in evaluation are the same object."""

from typing import Annotated, Literal

from pydantic import Field

from ngrpo.study.base import Config

Metric = Literal["cosine", "l2", "l1"]


class NoMixer(Config):
    """The sampled token's embedding is fed back: stock rollout, standard decoding."""

    kind: Literal["none"] = "none"


class NeighbourMixer(Config):
    """N-GRPO's neighbour mixing (Eq. 6-11)."""

    kind: Literal["neighbours"]
    rho: float = Field(0.1, ge=0, le=1)
    """ρ, probability that a step mixes (Eq. 11; Table 6: 0.1); 1 is the ablation "w/o rate"."""
    k: int = Field(3, ge=1)
    """Candidates of a mixture, the anchor included (Eq. 8; Table 6: 3)."""
    metric: Metric = "cosine"
    """Distance of the neighbour table (Eq. 7; Table 4 compares the three)."""


Mixer = Annotated[NoMixer | NeighbourMixer, Field(discriminator="kind")]
