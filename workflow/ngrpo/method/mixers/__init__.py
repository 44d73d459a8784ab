"""Input mixers: which token is written down, and which vector is fed to the next step; one file a kind.

| kind | file | what is fed |
|---|---|---|
| none | none.py | E[token]: stock decoding |
| neighbors | neighbors.py | with probability ρ the mixture of the anchor and its neighbors (Eq. 6–11) |
| gaussian | gaussian.py | E[token] + σ·N(0, I) (STHT) |
| gumbel | gumbel.py | the mixture of the k likeliest after Gumbel noise |
| soft-thinking | soft_thinking.py | Σ p(v) E[v] |
| min-p | min_p.py | E[token], the token being a draw from those not much less likely than the likeliest |
| multiplex | multiplex.py | the average of K tokens that are drawn independently |

`interface` says what a mixer is. A kind is found by its file's name, so a new one needs no line here.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from ngrpo.errors import UserError, unknown_name
from ngrpo.method.mixers.gaussian import GaussianMixer
from ngrpo.method.mixers.gumbel import GumbelMixer
from ngrpo.method.mixers.interface import (
    ENDED,
    WEIGHT_SCALE,
    Mixer,
    Step,
    add_noise,
    blend,
    feed,
    measured,
    quantize,
    weighted_sum,
)
from ngrpo.method.mixers.min_p import MinPMixer
from ngrpo.method.mixers.multiplex import MultiplexMixer
from ngrpo.method.mixers.neighbors import NeighborMixer
from ngrpo.method.mixers.none import NoMixer
from ngrpo.method.mixers.soft_thinking import SoftThinkingMixer

__all__ = [
    "ENDED",
    "WEIGHT_SCALE",
    "GaussianMixer",
    "GumbelMixer",
    "MinPMixer",
    "Mixer",
    "MultiplexMixer",
    "NeighborMixer",
    "NoMixer",
    "SoftThinkingMixer",
    "Step",
    "add_noise",
    "blend",
    "feed",
    "kinds",
    "measured",
    "mixer_from",
    "quantize",
    "weighted_sum",
]


def kinds() -> dict[str, str]:
    """Every kind of mixer, and the module that holds it."""
    files = (module.name for module in pkgutil.iter_modules(__path__) if module.name != "interface")
    return {name.replace("_", "-"): f"{__name__}.{name}" for name in files}


def mixer_from(settings: Mapping[str, Any]) -> Mixer:
    """The mixer that {kind, …its settings} describes. Raises UserError for an unknown kind or setting."""
    rest = dict(settings)
    kind = rest.pop("kind", "none")
    if kind not in kinds():
        raise unknown_name("input mixer", kind, kinds(), where="mixer: kind")
    module = importlib.import_module(kinds()[kind])
    made = next(c for c in vars(module).values() if isinstance(c, type) and getattr(c, "kind", None) == kind)
    try:
        return made(**rest)
    except TypeError as e:
        raise UserError(f"these settings don't fit: {e}", where=f"mixer {kind}") from None
