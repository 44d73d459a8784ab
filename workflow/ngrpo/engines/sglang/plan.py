"""What a request of ours carries through sglang, and what one scheduled batch needs of its requests."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from ngrpo.method.mixers import Mixer, Step
from ngrpo.method.records import FedStep, Origin, Record, log_probs_of


@dataclass
class RequestState:
    """What a request of ours carries: its seed and mixer, and the mixed steps of its response so far."""

    seed: int
    mixer: Mixer
    batch: tuple[str, int] | None = None
    settings: bytes = bytes(8)  # digest of how it is mixed
    steps: list[FedStep] = field(default_factory=list)  # ascending
    state: int = 0  # what the mixer wants back at the next step
    corrected: int = 0  # steps whose own likelihoods the output has

    def read(self, at: int, sketch: tuple[float, ...]) -> None:
        """The model has read what token `at` of the response feeds; noted where that is mixed."""
        number = bisect_left(self.steps, at, key=attrgetter("at"))
        if number < len(self.steps) and self.steps[number].at == at:
            self.steps[number] = self.steps[number]._replace(sketch=sketch)

    def correct(self, log_probs: list[float], fed: int) -> None:
        """Put the likelihoods of the steps since the last call in the output's log-probs; fed: tokens that feed."""
        log_probs_of(self.steps[self.corrected :], log_probs, fed)
        self.corrected = len(self.steps)

    def record(self, tokens: list[int], start: int, weights: Tensor | None) -> Record:
        """The response's record; start: position of its first token; weights: fingerprint of the engine's."""
        known = 0 if weights is None else int(weights)
        return Record.of_steps(tokens, self.steps, self.mixer, Origin(self.seed, start, self.settings, known))


class BatchPlan:
    """What one scheduled batch needs from us; goes from the scheduler to the model runner and back."""

    def __init__(self, batch: Any):
        self.reqs: list[Any] = batch.reqs
        self.requests: list[RequestState | None] = [getattr(r, "ngrpo", None) for r in batch.reqs]
        groups: dict[Mixer, list[int]] = {}
        for row, request in enumerate(self.requests):
            if request is not None:
                groups.setdefault(request.mixer, []).append(row)
        ours = [row for rows in groups.values() for row in rows]
        self.any, self.all = bool(ours), len(ours) == len(self.reqs)
        self.groups = list(groups.items())
        self.mixes = any(mixer.mixes for mixer in groups)
        self.needs_rms = any(mixer.needs_rms for mixer in groups)
        limits = [self.reqs[row].sampling_params for row in ours]
        self.restricts = any(p.top_p < 1 or p.top_k < 1 << 30 for p in limits)
        self.extends: bool = batch.forward_mode.is_extend()
        self.lost: list[Any] = []  # requests whose whole-vocabulary mixtures a prefill would need: nothing holds them
        self.seeds = self.states = self.replay = None
        self.noisy = False  # whether something that is fed again had noise
        self.again: list[tuple[RequestState, int]] = []  # what is fed again: whose, and of which token
        if self.extends and self.any:
            self.seeds = torch.tensor([r.seed if r else 0 for r in self.requests])
            self.states = torch.tensor([r.state if r else 0 for r in self.requests], dtype=torch.int32)
            self.replay = self._replay(batch.prefix_lens, batch.extend_lens)
        self.steps: list[tuple[list[int], Step]] = []  # rows and their steps on the CPU, set by sampling: see `_mix`
        self.read: Tensor | None = None  # sketches of what the model read, on the CPU: of `again`, or of all rows
        self.before: list[int] = []  # each response's length before this batch's results came in

    @property
    def feeds(self) -> bool:
        """Whether some input of this batch is anything but its token's embedding."""
        return self.replay is not None if self.extends else self.mixes

    def _replay(self, prefixes: Sequence[int], extends: Sequence[int]) -> tuple[Tensor, ...] | None:
        """What this prefill must feed again (after a retraction, or for a later chunk of a response), or None.

        Places (M,) in its input, ids and weights (M, k), and the noise: sigmas, seeds and positions (M,).
        """
        fed, offset = [], 0
        for req, request, prefix, extend in zip(self.reqs, self.requests, prefixes, extends, strict=True):
            for index, ids, weights, sigma, *_ in request.steps if request is not None else ():
                position = len(req.origin_input_ids) + index
                if prefix <= position < prefix + extend:
                    fed.append((offset + position - prefix, ids, weights, sigma, request.seed, position))
                    self.again.append((request, index))
                    if request.mixer.dense:
                        self.lost.append(req)
                        break
            offset += extend
        if not fed:
            return None
        places, ids, weights, *noise = zip(*fed, strict=True)
        k = max(map(len, ids))
        ids, weights = (torch.tensor([row + [0] * (k - len(row)) for row in rows]) for rows in (ids, weights))
        self.noisy = any(noise[0])
        return torch.tensor(places), ids, weights.int(), *map(torch.tensor, noise)

    def arrive(self) -> None:
        """Note the responses' lengths before this batch's results come in."""
        self.before = [len(req.output_ids) for req in self.reqs]

    def absorb_sketches(self) -> None:
        """Give earlier steps what the model read of them: once results are here, before a response is sent."""
        read, self.read = self.read, None
        if read is not None:
            steps = self.again if self.extends else zip(self.requests, [n - 1 for n in self.before], strict=True)
            for (request, at), sketch in zip(steps, read.tolist(), strict=True):
                if request is not None:
                    request.read(at, tuple(sketch))

    def absorb(self) -> None:
        """Give requests what was read of their earlier steps, and their new ones; a second call changes nothing."""
        self.absorb_sketches()
        steps, self.steps = self.steps, []
        for rows, step in steps:
            states = [0] * len(rows) if step.state is None else step.state.tolist()
            sigmas = [0.0] * len(rows) if step.sigma is None else step.sigma.tolist()
            own = [None] * len(rows) if step.likelihood is None else step.likelihood.tolist()
            scores = [()] * len(rows) if step.scores is None else map(tuple, step.scores.tolist())
            fed = zip(step.on.tolist(), step.ids.tolist(), step.weights.tolist(), sigmas, own, scores, strict=True)
            for row, state, (on, ids, weights, sigma, *rest) in zip(rows, states, fed, strict=True):
                request = self.requests[row]
                if len(self.reqs[row].output_ids) == self.before[row] + 1:
                    request.state = state
                    if on:
                        request.steps.append(FedStep(self.before[row], ids, weights, sigma, (), *rest))
