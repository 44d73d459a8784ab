"""What a response is rewarded for: being right, or, as a control of the method, something else.

A control shows that what a run learns comes from its reward. "random" and "format" are two of Spurious Rewards
(arXiv 2506.10947), which found a model family that gets better with them.
"""

import torch
from torch import Tensor

from ngrpo.errors import unknown_name
from ngrpo.method import rng

REWARDS = ("correct", "shuffled", "random", "format")


def overlong_penalty(length: Tensor, longest: int, share: float) -> Tensor:
    """What long responses lose (DAPO, arXiv 2503.14476, Eq. 13): lengths (N,) in tokens → (N,) float32 in [−1/2, 0].

    0 up to (1 − share) · longest tokens, then falling evenly to −1/2. Half of DAPO's, whose rewards are ±1 and not 0
    and 1: group advantages come out the same.
    """
    buffer = share * longest
    return ((longest - buffer - length.float()) / buffer).clamp(-1, 0) / 2


def rewards(kind: str, correct: Tensor, answered: Tensor, seed: Tensor) -> Tensor:
    """The rewards of a rollout batch, each 0 or 1: (N,) float32.

    correct, answered (N,): 1 where a response is right, or has an answer at all. seed (N,) int64: each response's own,
    all different. The result depends on the batch's responses and not on their order.

    | kind | a response's reward |
    |---|---|
    | correct | 1 if it is right |
    | shuffled | another one's: the batch's rewards, dealt out at random, so that their number stays |
    | random | 1 with probability 1/2 |
    | format | 1 if it has an answer, right or wrong |

    Raises UserError for another kind.
    """
    if kind not in REWARDS:
        raise unknown_name("reward", kind, REWARDS, where="objective.reward")
    if kind == "correct":
        return correct.float()
    if kind == "format":
        return answered.float()
    drawn = rng.uniform(seed, torch.zeros_like(seed), rng.REWARD)
    if kind == "random":
        return (drawn < 0.5).float()
    dealt = torch.empty_like(correct, dtype=torch.float32)
    dealt[drawn.argsort()] = correct.float()[seed.argsort()]
    return dealt
