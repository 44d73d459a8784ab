"""Whether a run can learn: what its log says of groups without variance and of steps without any policy gradient.

A group whose responses all got one reward has advantages of 0 (Eq. 12). Where all groups do, the policy term has no
gradient. The KL term's is 0 at the base model, too, but for rounding, of which Adam makes steps of full size: the
weights may drift and still nothing is learned. So advantages count, and a gradient of exactly 0 does, too.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

GRADIENT, ZERO_STD, IDENTICAL = "policy/gradient_norm", "reward/frac_reward_zero_std", "response/frac_identical"
"""As metrics.jsonl names them."""


class IdleSteps:
    """Steps in a row without any policy gradient. limit: after how many a run ends; 0: never."""

    def __init__(self, limit: int, logged: Iterable[Mapping[str, Any]] = ()):
        """logged: the steps so far, as metrics.jsonl has them: a resumed run goes on counting."""
        self.limit, self.count = limit, 0
        for row in logged:
            self.saw(no_advantage=row.get(ZERO_STD) == 1, norm=row.get(GRADIENT))

    def saw(self, *, no_advantage: bool, norm: float | None) -> None:
        """Take in a step. no_advantage: all are 0; norm: of its gradient, over all its updates; None: not known."""
        self.count = self.count + 1 if no_advantage or norm == 0 else 0

    @property
    def over(self) -> bool:
        """Whether the run is to end."""
        return 0 < self.limit <= self.count

    @property
    def why(self) -> str:
        """Why it ends, in words."""
        return f"no policy gradient in {self.count} steps in a row"


def warning(row: Mapping[str, Any]) -> str:
    """What is wrong with a step from which nothing can be learned; empty where something can."""
    if row.get(ZERO_STD) != 1:
        return ""
    same = "all responses to each prompt are identical" if row.get(IDENTICAL) == 1 else "each group got one reward"
    return f"nothing can be learned from this step: {same}, so all advantages are 0 ({ZERO_STD} = 1)"


def same_weights(model: Path, base: Path) -> bool:
    """Whether a policy's weights are those of its base model, to the last bit, in the policy's type.

    Both are folders with safetensors; a tensor that only one of them holds (a tied output layer) isn't compared.
    """
    from safetensors import safe_open

    def places(folder: Path) -> dict[str, Path]:
        files = {}
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, framework="pt") as opened:
                files |= dict.fromkeys(opened.keys(), file)
        return files

    mine, others = places(model), places(base)
    shared = [name for name in mine if name in others]
    for name in shared:
        with safe_open(mine[name], framework="pt") as a, safe_open(others[name], framework="pt") as b:
            tensor, other = a.get_tensor(name), b.get_tensor(name)
            if tensor.shape != other.shape or not bool((tensor == other.to(tensor.dtype)).all()):
                return False
    return bool(shared)
