"""How far a step's rollout and its trainer disagree, and whether that is rounding: the last of three guards.

With equal weights and equal inputs the two differ by rounding alone, which in bfloat16 reaches nats at single tokens of
healthy runs. So no largest difference is limited there, but what a systematic fault moves (`LIMITS`). What is wrong
with one response's record is found by `ngrpo.method.record_checks`, with certainty; it can't be seen here. That a mixed
input isn't what the engine's model read needs no statistics either: each is compared (`INPUT`).

| letter | meaning | shape |
|---|---|---|
| d | log-prob of the rollout − that of the trainer, of each written token | (B, T) |
| r | exp(−d), the importance ratio π_trainer / π_rollout | (B, T) |
| m | the mean of both log-probs | (B, T) |

Names are those of verl's rollout correction (docs/algo/rollout_corr.md of its repository) where it has one:
`rollout_corr/kl` is the mean of d, an estimate of KL(π_rollout ‖ π_trainer); `rollout_corr/k3_kl` its k3 estimate, the
mean of r + d − 1; `rollout_corr/rollout_is_…` is of the ratios: their mean, the shares beyond 2 and below 1/2, and the
effective sample size as a share of the tokens (of ratios truncated at 2, verl's default: a single token would rule it).

Departures: KL and k3 clamp the log-ratio to ±20, as verl's importance weights do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ngrpo.errors import unknown_name

MEAN, LARGEST, QUANTILES = "parity/mean", "parity/max", {0.99: "parity/q0.99", 0.999: "parity/q0.999"}
SLOPE, RATIO, SIGMAS = "parity/temperature", "parity/mixed_ratio", "parity/mixed_sigmas"
BEFORE, INPUT = "parity/before_mixing", "parity/input_deviation"
BAND = 2.0
"""Ratios beyond BAND or below 1/BAND count as outside; verl truncates there by default."""
CUT = 1.0
"""Nats at which single differences are cut for the slope, and where mixed and plain inputs are compared: the few tokens
that rounding moves by nats can't decide there."""
FLOOR = 0.01
"""Nats that are added to both sides of that comparison: rounding that is nearly nothing makes no ratio."""


@dataclass(frozen=True)
class MismatchLimits:
    """Beyond which a step stops its run. None: not limited.

    inputs: of a mixed input's distance from what the engine's model read, as a share of its length
    (`ngrpo.method.sketches`). largest: of |d| at any token. mean: of |d|. slope: of d on m, which is about how far one
    temperature is from the other, relative to them. ratio and sigmas: of the mean |d| of tokens whose own input was a
    mixture to that of tokens whose input was plain, and by how many standard errors. jump: of the mean |d| to the run's
    own before, where it is above the floor.
    """

    inputs: float
    largest: float | None = None
    mean: float | None = None
    slope: float | None = None
    ratio: float | None = None
    sigmas: float = 8.0
    jump: float | None = None
    jump_floor: float = 0.05


FLOAT32_LARGEST = 1e-3
"""Of |d| in float32: replays differ by around 1e-5 on a CPU, dropped records by nats (docs/gpu.md)."""

LIMITS = {
    "float32": MismatchLimits(inputs=0.005, largest=FLOAT32_LARGEST),
    "bfloat16": MismatchLimits(inputs=0.05, mean=0.25, slope=0.1, ratio=1.5, jump=3.0),
    "float16": MismatchLimits(inputs=0.05, mean=0.25, slope=0.1, ratio=1.5, jump=3.0),
}
"""By the rollout's dtype. Of inputs in bfloat16: five times the largest that rounding makes in a million of them
(`make simulate-mismatch`); in float32: ten times TensorFloat-32's 2⁻¹¹ an entry. bfloat16's mean is four times the
largest published (0.064, a mixture of experts; dense models 0.01 to 0.04); the others hold in simulations. float16
rounds eight times finer: none of its means is published, and bfloat16's limits hold."""

WARN = 0.5
"""The share of a limit from which a step is warned of."""

_COLUMNS = (
    *("n", "abs", "d", "k3", "w", "ww", "high", "low", "m", "mm", "c", "cm"),
    *("mixed", "mixed_abs", "plain", "plain_abs"),
)


def sums(rollout: np.ndarray, trainer: np.ndarray, written: np.ndarray, mixed: np.ndarray) -> np.ndarray:
    """What a step's measures are computed from, for each response: (B, len(_COLUMNS)) float64.

    rollout, trainer: log-probs (B, T); written (B, T) bool: tokens of the responses; mixed (B, T) bool: tokens whose
    own input was a mixture.
    """
    a, b = (np.where(written, x, 0).astype(np.float64) for x in (rollout, trainer))
    d, m, on = a - b, (a + b) / 2, written.astype(np.float64)
    bounded = d.clip(-20, 20)
    ratio = np.exp(-bounded) * on
    weight, c = ratio.clip(max=BAND), d.clip(-CUT, CUT)
    cut = np.abs(c)
    own, plain = on * mixed, on * ~mixed
    high, low = (ratio > BAND) * on, (ratio < 1 / BAND) * on
    k3 = (np.expm1(-bounded) + bounded) * on
    columns = (
        on,
        np.abs(d),
        d,
        k3,
        weight,
        weight**2,
        high,
        low,
        m,
        m * m,
        c,
        c * m,
        own,
        cut * own,
        plain,
        cut * plain,
    )
    return np.stack([column.sum(-1) for column in columns], -1)


def measures(parts: np.ndarray) -> dict[str, np.ndarray]:
    """The measures of steps: parts (..., B, columns) of `sums` → values (...) under the names of metrics.jsonl."""
    total = dict(zip(_COLUMNS, np.moveaxis(parts.sum(-2), -1, 0), strict=True))
    n = total["n"]
    mean_c, mean_m = total["c"] / n, total["m"] / n
    spread = total["mm"] / n - mean_m**2
    ratio, sigmas = _mixed_to_plain(parts)
    return {
        MEAN: total["abs"] / n,
        SLOPE: (total["cm"] / n - mean_c * mean_m) / np.maximum(spread, 1e-6),
        RATIO: ratio,
        SIGMAS: sigmas,
        "rollout_corr/kl": total["d"] / n,
        "rollout_corr/k3_kl": total["k3"] / n,
        "rollout_corr/rollout_is_mean": total["w"] / n,
        "rollout_corr/rollout_is_eff_sample_size": total["w"] ** 2 / np.maximum(n * total["ww"], 1e-300),
        "rollout_corr/rollout_is_ratio_fraction_high": total["high"] / n,
        "rollout_corr/rollout_is_ratio_fraction_low": total["low"] / n,
    }


def _mixed_to_plain(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean |d| of tokens with a mixed input by that of tokens with a plain one, and its excess in standard errors.

    Differences are cut (`CUT`); errors are those of responses, whose tokens aren't independent. 1 and 0 where a step
    has too little of either kind to tell.
    """
    own, own_abs, plain, plain_abs = np.moveaxis(parts[..., -4:], -1, 0)
    n, of = np.maximum(own.sum(-1), 1), np.maximum(plain.sum(-1), 1)
    mean, yardstick = own_abs.sum(-1) / n, plain_abs.sum(-1) / of
    residual = (own_abs - own * mean[..., None]) / n[..., None] - (plain_abs - plain * yardstick[..., None]) / of[
        ..., None
    ]
    error = np.sqrt((residual**2).sum(-1)) + 1e-9
    enough = (plain > 1).mean(-1) > 0.5  # where every step mixes, first tokens alone are plain: they are like no others
    enough &= own.sum(-1) > 0
    return np.where(enough, (mean + FLOOR) / (yardstick + FLOOR), 1.0), np.where(
        enough, (mean - yardstick) / error, 0.0
    )


def measured(rollout: np.ndarray, trainer: np.ndarray, written: np.ndarray, mixed: np.ndarray) -> dict[str, float]:
    """All measures of one step, as metrics.jsonl has them; arguments as `sums`."""
    values = {name: float(value) for name, value in measures(sums(rollout, trainer, written, mixed)).items()}
    off = np.abs(np.asarray(rollout, np.float64) - trainer)
    values[LARGEST] = float(off[written].max(initial=0.0))
    levels = np.quantile(off[written], list(QUANTILES)) if written.any() else np.zeros(len(QUANTILES))
    values |= dict(zip(QUANTILES.values(), map(float, levels), strict=True))
    before = written & ~np.logical_or.accumulate(mixed, -1)
    values[BEFORE] = float(off[before].mean()) if before.any() else 0.0
    return values


def limits_of(dtype: str, largest: float | None = None) -> MismatchLimits:
    """The limits for a rollout's dtype; largest: a float32 run's own, in place of its dtype's."""
    if dtype not in LIMITS:
        raise unknown_name("dtype with known rounding", dtype, LIMITS, where="actor_rollout_ref.rollout.dtype")
    limits = LIMITS[dtype]
    return limits if largest is None or limits.largest is None else replace(limits, largest=largest)


def faults(
    values: Mapping[str, float], limits: MismatchLimits, earlier: Sequence[float] = (), share: float = 1.0
) -> list[str]:
    """What of a step is beyond so much of its limits, in words; empty: nothing. earlier: means |d| of steps before."""
    beyond: list[str] = []
    mean, slope, off = values[MEAN], values.get(SLOPE, 0.0), values.get(INPUT, 0.0)
    if not off <= share * limits.inputs:
        beyond.append(
            f"a mixed input isn't what the engine's model read: {off:.2g} of its length away (limit {limits.inputs:g})"
        )
    if limits.largest is not None and not values[LARGEST] <= share * limits.largest:
        beyond.append(f"the largest difference of a log-prob is {values[LARGEST]:.3g} (limit {limits.largest:g})")
    if limits.mean is not None and not mean <= share * limits.mean:
        beyond.append(f"log-probs differ by {mean:.3g} on average (limit {limits.mean:g})")
    if limits.slope is not None and not abs(slope) <= share * limits.slope:
        beyond.append(
            f"differences follow the log-prob, as by another temperature or other inputs ({slope:+.0%}, limit "
            f"{limits.slope:.0%})"
        )
    if limits.ratio is not None and values.get(SIGMAS, 0.0) > limits.sigmas:
        ratio = values[RATIO]
        if not ratio - 1 <= share * (limits.ratio - 1):
            beyond.append(
                f"after a mixed input log-probs differ {ratio:.2g} times as much as after a plain one "
                f"({values[SIGMAS]:.0f} standard errors; limit {limits.ratio:g}): what was fed isn't what is replayed"
            )
    if limits.jump is not None and earlier and mean > limits.jump_floor:
        usual = float(np.median(earlier[-20:]))
        if not mean <= (1 + share * (limits.jump - 1)) * usual:
            beyond.append(f"log-probs differ by {mean:.3g} on average, {mean / usual:.2g} times as much as before")
    return beyond


def nearly_stopped(row: Mapping[str, float], limits: MismatchLimits | None) -> str:
    """What of a logged step is beyond half of what would stop its run, in words; empty: nothing.

    limits: None where rollout and trainer needn't agree.
    """
    beyond = [] if limits is None or MEAN not in row else faults(row, limits, share=WARN)
    return f"rollout and trainer differ much: {'; '.join(beyond)}; at its limits the run stops" if beyond else ""
