"""Input mixers as configuration: exploration in training and decoding in evaluation are the same object.

Each field that the paper and its released code treat differently names both (see `ngrpo.study.switches`).
"""

from typing import Annotated, ClassVar, Literal, Protocol

from pydantic import BeforeValidator, Field

from ngrpo.study.base import Config


def _unset(paper: object) -> BeforeValidator:
    """The paper's own value, said aloud, is the same spec as silence."""
    return BeforeValidator(lambda value: None if value == paper else value)


Metric = Literal["cosine", "l2", "l1"]
Space = Literal["embedding", "lm_head"]


class MixerConfig(Config):
    """What every mixer's configuration says of it, as the mixer itself does (`ngrpo.method.mixers.interface`)."""

    mixes: ClassVar[bool] = True
    """False: every step feeds the written token's own embedding."""
    needs_table: ClassVar[bool] = False
    """Looks neighbors up: has `metric`, `k` and `space`, which name the table."""

    @property
    def replayed(self) -> bool:
        """Whether training feeds again what the rollout fed."""
        return True


class TableFields(Protocol):
    """What the configuration of a mixer with `needs_table` has: which neighbor table it is."""

    @property
    def metric(self) -> Metric:
        """Distance."""
        ...

    @property
    def k(self) -> int:
        """Columns, the anchor's included."""
        ...

    @property
    def space(self) -> Space | None:
        """Whose rows; None: the input embedding's."""
        ...


class NoMixer(MixerConfig):
    """The sampled token's embedding is fed back: stock rollout, standard decoding."""

    mixes: ClassVar[bool] = False
    kind: Literal["none"] = "none"


class NeighborMixer(MixerConfig):
    """N-GRPO's neighbor mixing (Eq. 6-11)."""

    needs_table: ClassVar[bool] = True
    kind: Literal["neighbors"]
    rho: float = Field(0.1, ge=0, le=1)
    """ρ, probability that a step mixes (Eq. 11; Table 6: 0.1); 1 is the ablation "w/o rate"."""
    k: int = Field(3, ge=1)
    """Candidates of a mixture, the anchor included (Eq. 8; Table 6: 3)."""
    metric: Metric = "cosine"
    """Distance of the neighbor table (Eq. 7; Table 4 compares the three)."""
    weights: Annotated[Literal["logits", "probabilities"] | None, _unset("logits")] = None
    """Mixing weights: softmax over the candidates of the scaled logits (None or "logits": Eq. 9) or of the
    probabilities ("probabilities": the release)."""
    text: Annotated[Literal["anchor", "sampled"] | None, _unset("anchor")] = None
    """What a mixed step writes: the anchor (None: the paper) or the sampled token ("sampled": the release)."""
    stop_after: str | None = None
    """A token after which nothing is mixed (the release: "</think>"); None: never stops (the paper)."""
    space: Annotated[Space | None, _unset("embedding")] = None
    """Where neighbors are looked for: rows of E (None: the paper) or of the output layer ("lm_head": the release)."""
    refresh: Literal[1] | None = None
    """1: the table is rebuilt from the policy's own weights at every training step, as the release's search amounts to;
    None: never (the paper)."""


class GaussianMixer(MixerConfig):
    """STHT (arXiv 2509.19170): Gaussian noise on every fed embedding."""

    kind: Literal["gaussian"]
    factor: float = Field(0.33, ge=0)
    """σ in units of the root mean square of the embedding's entries."""
    scope: Annotated[Literal["matrix", "row"] | None, _unset("matrix")] = None
    """Root mean square of the whole matrix (None: the paper) or of the one row ("row": the release)."""
    replay: Annotated[bool | None, _unset(True)] = None
    """Whether training sees the rollout's noise again (None: yes, the paper); False draws none (the release)."""

    @property
    def replayed(self) -> bool:
        """Whether training sees the rollout's noise again."""
        return self.replay is not False


class GumbelMixer(MixerConfig):
    """Gumbel Soft-Thinking (SofT-GRPO, arXiv 2511.06411)."""

    kind: Literal["gumbel"]
    k: int = Field(5, ge=1)
    """Candidates that are mixed."""
    temperature: float = Field(0.1, gt=0)
    """τ_g of the weights."""
    low: float = -1.5
    """Lower clamp of the noise."""
    high: float = 3.0
    """Upper clamp of the noise."""
    weights: Annotated[Literal["noisy", "clean"] | None, _unset("noisy")] = None
    """Weights from the noisy scores (None: the paper) or from the clean logits ("clean": the release)."""


class SoftThinkingMixer(MixerConfig):
    """Soft Thinking (arXiv 2505.15778), for decoding only."""

    kind: Literal["soft-thinking"]
    keep: int | None = Field(None, ge=1)
    """None: the whole vocabulary is mixed; n: the authors' variant, the n likeliest of what the next three leave."""
    top_k: int = 30
    """With `keep`: the likeliest tokens that may be mixed."""
    top_p: float = Field(0.95, gt=0, le=1)
    """With `keep`: the share of probability that may be mixed."""
    min_p: float = Field(0.001, ge=0)
    """With `keep`: the least probability, relative to the likeliest token's."""
    cold_entropy: float = 0.01
    """Entropy (nats) below which a step counts as cold."""
    cold_steps: int = Field(256, ge=1)
    """So many cold steps in a row force the end of thinking (authors' variant)."""
    stop_after: str | None = "</think>"
    """The end of thinking, after which decoding is standard; a model without this token thinks to the end."""

    @property
    def replayed(self) -> bool:
        """Whether the mixtures are recorded: those of the whole vocabulary aren't."""
        return self.keep is not None


Mixer = Annotated[
    NoMixer | NeighborMixer | GaussianMixer | GumbelMixer | SoftThinkingMixer, Field(discriminator="kind")
]


def settings(mixer: MixerConfig, token_id: dict[str, int]) -> dict:
    """The plain settings that `ngrpo.method.mixers.mixer_from` takes; unset knobs absent, tokens as ids.

    token_id: the model's vocabulary. A stop token that the model doesn't have is left out: it can't be written.
    """
    plain = mixer.model_dump(mode="json", exclude_none=True, exclude={"space", "refresh"})
    if "stop_after" in plain:
        stop = token_id.get(plain.pop("stop_after"))
        plain.update({} if stop is None else {"stop_after": stop})
    return plain
