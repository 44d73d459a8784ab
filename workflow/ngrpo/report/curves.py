"""Which training curves the page has, and what a reader sees in each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Curve:
    """One training curve. column: of a run's log; what: the y axis's label; about: what a reader sees there."""

    column: str
    what: str
    about: str
    smooth: bool = True
    log: bool = False
    share: bool = False


CURVES = (
    Curve("reward", "mean reward", "Share of rollout answers that the grader accepts, a step."),
    Curve(
        "zero_std",
        "groups of one reward",
        "Share of groups whose responses all got one reward, and so no advantage; at 100 % nothing can be learned.",
        share=True,
    ),
    Curve(
        "validation", "validation score", "Mean score on the validation problems; a ring marks the chosen step.", False
    ),
    Curve("response_length", "response tokens", "Mean length of a rollout's response."),
    Curve("truncated", "truncated responses", "Share of rollout responses that reached the token limit.", share=True),
    Curve("entropy", "entropy (nats)", "Mean entropy of the policy's next-token distribution."),
    Curve("kl", "KL to the base (nats)", "k3 estimate of the divergence from the base model, before its coefficient."),
    Curve(
        "parity_max",
        "largest |Δ log-prob|",
        "Largest difference between the rollout's and the replayed log-probs of a step; above a dashed limit the run"
        " stops. In bfloat16 single tokens of healthy runs reach nats, and no largest difference is limited.",
        False,
        log=True,
    ),
    Curve(
        "parity_mean",
        "mean |Δ log-prob|",
        "Mean difference between the rollout's and the replayed log-probs of a step; above a dashed limit the run"
        " stops.",
        False,
        log=True,
    ),
    Curve("k3_kl", "k3 KL to the trainer", "k3 estimate of KL(rollout ‖ trainer), in nats.", False, log=True),
    Curve("throughput", "tokens a second", "Response tokens that rollout draws in a second on each device."),
    Curve("mixing_share", "share of mixed steps", "Share of rollout steps that fed back a mixture.", share=True),
    Curve("mixing_cosine", "cosine to the anchor", "Mean cosine between a mixture and its anchor's embedding."),
)
