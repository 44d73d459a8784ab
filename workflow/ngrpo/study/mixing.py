"""Input mixers as configuration: exploration in training and decoding in evaluation are the same object.

Each field that the paper and its released code treat differently names both (see `ngrpo.study.switches`).
"""

from typing import Annotated, ClassVar, Literal, Protocol

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from ngrpo.study.base import Config, unset

Metric = Literal["cosine", "l2", "l1", "random"]
Space = Literal["embedding", "lm_head"]


class MixerConfig(Config):
    """What every mixer's configuration says of it, as the mixer itself does (`ngrpo.method.mixers.interface`)."""

    kind: str
    mixes: ClassVar[bool] = True
    """False: every step feeds the written token's own embedding."""
    needs_table: ClassVar[bool] = False
    """Looks neighbors up: has `metric`, `k` and `space`, which name the table."""

    @property
    def replayed(self) -> bool:
        """Whether training feeds again what the rollout fed."""
        return True

    @property
    def dense(self) -> bool:
        """Whether steps weigh the whole vocabulary, which no record holds: no training can replay it."""
        return False

    @property
    def rate(self) -> float | None:
        """The share of steps that mix; None: the settings don't say it, or it depends on the text."""
        return None if self.mixes else 0.0

    @property
    def deterministic_text(self) -> bool:
        """Whether a prompt has one response whatever the seed: no step's text or input depends on a draw."""
        return False

    def without_effect_in_decoding(self) -> dict[str, str]:
        """Settings that are set and that a decoding can't follow: each with the reason."""
        return {}


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
    """ρ, probability that a step mixes (Eq. 11; §4.1: 0.1); 1 is the ablation "w/o rate"."""
    k: int = Field(3, ge=1)
    """Candidates of a mixture, the anchor included (Eq. 8; Table 6: 3)."""
    metric: Metric = "cosine"
    """Distance of the neighbor table (Eq. 7; Table 4 compares cosine, l2 and l1). "random": tokens drawn at random in
    place of the nearest. In a trained vocabulary their logits give them no weight, and mixing does nothing: as a
    control take `fed: random`."""
    weights: Annotated[Literal["logits", "probabilities"] | None, unset("logits")] = None
    """Mixing weights: softmax over the candidates of the scaled logits (None or "logits": Eq. 9) or of the
    probabilities ("probabilities": the release)."""
    text: Annotated[Literal["anchor", "sampled"] | None, unset("anchor")] = None
    """What a mixed step writes: the anchor (None: the paper) or the sampled token ("sampled": the release)."""
    fed: Annotated[Literal["neighbors", "random"] | None, unset("neighbors")] = None
    """Whose embeddings are mixed with the anchor's: the neighbors' (None: the paper), or with their weights those of
    other tokens, a fixed shuffle of the vocabulary ("random": a control)."""
    stop_after: str | None = None
    """A token from whose step on nothing is mixed, that step included (the release: "</think>"); None: never stops (the
    paper)."""
    space: Annotated[Space | None, unset("embedding")] = None
    """Where neighbors are looked for: rows of E (None: the paper) or of the output layer ("lm_head": the release)."""
    refresh: Literal[1] | None = None
    """1: the table is rebuilt from the policy's own weights at every training step: once per iteration, as the paper's
    Appendix G reads, and what the release's search finds. None: one table of the base model for the whole run, which is
    our reading of "precomputed"."""

    @property
    def rate(self) -> float | None:
        """ρ; None where mixing stops at a token."""
        return self.rho if self.stop_after is None else None

    @property
    def deterministic_text(self) -> bool:
        """ρ = 1 without an end: every step writes the anchor and feeds its mixture, and no step samples (Eq. 6-11)."""
        return self.rho == 1 and self.text is None and self.stop_after is None

    def without_effect_in_decoding(self) -> dict[str, str]:
        """refresh: evaluation changes no weights."""
        why = "an evaluation's weights don't change, and its table is the base model's"
        return {} if self.refresh is None else {"refresh": why}


class GaussianMixer(MixerConfig):
    """STHT (arXiv 2509.19170): Gaussian noise on every fed embedding."""

    kind: Literal["gaussian"]
    factor: float = Field(0.33, ge=0)
    """σ in units of the root mean square of the embedding's entries."""
    scope: Annotated[Literal["matrix", "row"] | None, unset("matrix")] = None
    """Root mean square of the whole matrix (None: the paper) or of the one vector that gets the noise ("row": the
    release)."""
    replay: Annotated[bool | None, unset(True)] = None
    """Whether training sees the rollout's noise again (None: yes, the paper); False: each pass of training draws its
    own (the release), so that replay parity can't hold and isn't required."""
    k: int | None = Field(None, ge=1)
    """What gets the noise: E[token] (None: the paper), or the mixture of so many likeliest tokens (the release)."""
    temperature: Annotated[float | None, unset(1.0)] = Field(None, gt=0)
    """With `k`: of the mixture's weights, softmax(z̃ / temperature) over its tokens (None: 1; the release: 0.7)."""
    rho: Annotated[float | None, unset(1.0)] = Field(None, ge=0, le=1)
    """Probability that a step mixes (None: 1, every step, the paper; the release has its mixing rate)."""
    stop_after: str | None = None
    """A token from whose step on nothing is mixed, that step included (the release: "</think>"); None: never stops (the
    paper)."""

    @model_validator(mode="after")
    def _has_effect(self) -> "GaussianMixer":
        if self.temperature is not None and self.k is None:
            raise PydanticCustomError("mixer", "temperature weighs the mixture of k tokens: set k, or leave it out")
        return self

    @property
    def replayed(self) -> bool:
        """Whether training sees the rollout's noise again."""
        return self.replay is not False

    @property
    def rate(self) -> float | None:
        """ρ; None where mixing stops at a token."""
        still = self.factor == 0 and self.k is None
        return None if self.stop_after is not None else 0.0 if still else 1.0 if self.rho is None else self.rho

    def without_effect_in_decoding(self) -> dict[str, str]:
        """replay: nothing is replayed in an evaluation."""
        return {} if self.replay is None else {"replay": "an evaluation replays nothing"}


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
    weights: Annotated[Literal["noisy", "clean"] | None, unset("noisy")] = None
    """Weights from the noisy scores (None: the paper) or from the clean logits ("clean": the release)."""
    chosen_by: Annotated[Literal["noise", "probability"] | None, unset("noise")] = None
    """Candidates are the k largest after noise (None: N-GRPO's comparison), or the k likeliest, renormalized before
    they get noise ("probability": SofT-GRPO)."""
    text: Annotated[Literal["candidate", "sampled"] | None, unset("candidate")] = None
    """What a step writes: its first candidate, which the noise has drawn (None: the paper), or the sampled token
    ("sampled": the release, whose noise selects what is mixed and nothing else)."""
    log_prob: Annotated[Literal["noise", "release"] | None, unset("token")] = None
    """What a mixed step's log-prob is: its written token's (None: N-GRPO's comparison), the density of its noisy scores
    ("noise": SofT-GRPO's own objective), or that density as SofT-GRPO's code has it ("release")."""
    stop_after: str | None = None
    """A token from whose step on nothing is mixed, that step included (the release: "</think>"); None: never stops (the
    paper)."""

    @property
    def rate(self) -> float | None:
        """Every step; None where mixing stops at a token."""
        return 1.0 if self.stop_after is None else None

    def without_effect_in_decoding(self) -> dict[str, str]:
        """log_prob: nothing is trained in an evaluation."""
        return {} if self.log_prob is None else {"log_prob": "an evaluation trains nothing"}


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
    """The end of thinking, after whose step decoding is standard; a model without this token thinks to the end."""

    @model_validator(mode="after")
    def _has_effect(self) -> "SoftThinkingMixer":
        fields = {name: field for name, field in type(self).model_fields.items() if name not in ("kind", "keep")}
        changed = [name for name, field in fields.items() if getattr(self, name) != field.default]
        idle = [name for name in changed if name != "stop_after" and self.keep is None]
        if idle:
            raise PydanticCustomError("mixer", "{name} has no effect without keep: set keep", {"name": idle[0]})
        if self.stop_after is None and (cold := [name for name in changed if name.startswith("cold_")]):
            raise PydanticCustomError("mixer", "{name} has no effect without stop_after", {"name": cold[0]})
        return self

    @property
    def dense(self) -> bool:
        """Whether the whole vocabulary is mixed."""
        return self.keep is None

    @property
    def replayed(self) -> bool:
        """Whether the mixtures are recorded: those of the whole vocabulary aren't."""
        return self.keep is not None

    @property
    def rate(self) -> float | None:
        """Every step; None where mixing stops at a token."""
        return 1.0 if self.stop_after is None else None


class MultiplexMixer(MixerConfig):
    """Multiplex Thinking (arXiv 2601.08808): several tokens are drawn at each step, their embeddings averaged."""

    kind: Literal["multiplex"]
    k: int = Field(3, ge=1)
    """K, tokens that are drawn independently at each thinking step, the written one included (the paper's width: 3)."""
    weights: Annotated[Literal["uniform", "probabilities"] | None, unset("uniform")] = None
    """Weights of the draws: equal (None) or their probabilities, renormalized over the draws ("probabilities": the
    paper's default)."""
    top_p: Annotated[float | None, unset(1.0)] = Field(None, gt=0, le=1)
    """Nucleus that the draws beside the written token come from, where a decoding has one (None: 1, no limit)."""
    stop_after: str | None = "</think>"
    """The end of thinking, after whose step decoding is standard; a model without this token thinks to the end."""

    @property
    def rate(self) -> float | None:
        """Every step; None where mixing stops at a token."""
        return 1.0 if self.stop_after is None else None


class MinPMixer(MixerConfig):
    """Min-p sampling (arXiv 2407.01082): nothing is mixed, and no token is drawn that is much less likely than the
    likeliest."""

    mixes: ClassVar[bool] = False
    kind: Literal["min-p"]
    min_p: float = Field(0.1, ge=0, le=1)
    """The least probability, relative to the likeliest token's (its paper: 0.05 to 0.1); 0: of all tokens."""
    top_p: Annotated[float | None, unset(1.0)] = Field(None, gt=0, le=1)
    """Nucleus that tokens come from, too, in place of the decoding's own (None: 1, no limit)."""


Mixer = Annotated[
    NoMixer | NeighborMixer | GaussianMixer | GumbelMixer | SoftThinkingMixer | MultiplexMixer | MinPMixer,
    Field(discriminator="kind"),
]


def _for_decoding(mixer: MixerConfig) -> MixerConfig:
    for name, why in mixer.without_effect_in_decoding().items():
        raise PydanticCustomError("decoding", "{name} can't be followed here: {why}", {"name": name, "why": why})
    return mixer


DecodingMixer = Annotated[Mixer, AfterValidator(_for_decoding)]
"""A mixer without settings that only training could follow."""


def _for_training(mixer: MixerConfig) -> MixerConfig:
    if mixer.dense:
        raise PydanticCustomError(
            "exploration",
            "{kind} mixes the whole vocabulary, which no training can replay: set keep",
            {"kind": mixer.kind},
        )
    return mixer


TrainingMixer = Annotated[Mixer, AfterValidator(_for_training)]
"""A mixer that training can replay."""


def settings(mixer: MixerConfig, token_id: dict[str, int]) -> dict:
    """The plain settings that `ngrpo.method.mixers.mixer_from` takes; unset knobs absent, tokens as ids.

    token_id: the model's vocabulary. A stop token that the model doesn't have is left out: it can't be written.
    """
    plain = mixer.model_dump(mode="json", exclude_none=True, exclude={"space", "refresh"})
    if "stop_after" in plain:
        stop = token_id.get(plain.pop("stop_after"))
        plain.update({} if stop is None else {"stop_after": stop})
    return plain
