"""The actor that replays mixed inputs: stock DataParallelPPOActor around an embedding that feeds what the rollout fed.

Records (paper §3.3) travel beside their responses as packed bytes in the DataProto's non-tensor part. The mixtures are
made by a pair of hooks on the input embedding: one lookup for token ids and all candidates, then `mixers.blend`. Only
the embedding's own forward is used, so FSDP, gradient checkpointing, remove-padding and sequence-parallel slicing need
nothing more, and gradients reach the candidates' rows.

Where the mixer has a likelihood of its own, another hook takes the candidates' logits from the model's output, and
mixed steps get that likelihood in place of their token's log-prob: in all three passes.

Departures from stock verl: none where no step is mixed; that path runs untouched, bit for bit.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from verl import DataProto
from verl.workers.actor.dp_actor import DataParallelPPOActor

from ngrpo.errors import UserError
from ngrpo.method import rng
from ngrpo.method.mixers import Mixer, blend
from ngrpo.method.objectives.surrogate import truncated_ratio
from ngrpo.method.records import Record, gather, gather_noise, gather_scores, gather_sketches
from ngrpo.method.sketches import deviations, signs

KEY = "ngrpo_records"  # of the records in DataProto.non_tensor_batch
SEEDS = "ngrpo_seeds"  # of their responses' seeds in DataProto.batch, put there by the trainer
STATISTICS = "mixing_statistics"  # of a log-prob pass's mixing cosines in its output
DEVIATIONS, FARTHEST = "ngrpo_deviations", "ngrpo_farthest"  # in its output, too: see `Deviations`


@dataclass
class Inputs:
    """What one forward pass feeds in place of embeddings: masks have the shape of the input ids."""

    mask: Tensor  # bool: mixed positions
    ids: Tensor  # (M, k) int64, in the mask's row-major order
    weights: Tensor  # (M, k) int32
    noise: tuple[Tensor, Tensor, Tensor, Tensor] | None = None  # mask, and per position seed, position, sigma
    sketches: tuple[Tensor, Tensor, Tensor] | None = None  # mask, and per position the engine's sketch, its seed
    scores: Tensor | None = None  # (M, k) float32, of the mixer's own likelihood; of the padded batch alone


@dataclass
class Cosines:
    """Statistics of cosine(ẽ, E[v*]) over mixed steps (Appendix E): how many, sum, least, how many below 0.95."""

    count: float = 0.0
    total: float = 0.0
    least: float = 1.0
    below: float = 0.0

    def add(self, cosine: Tensor) -> None:
        """Take in some steps' cosines."""
        if cosine.numel():
            self.count += cosine.numel()
            self.total += float(cosine.double().sum())
            self.least = min(self.least, float(cosine.min()))
            self.below += float((cosine < 0.95).sum())

    def row(self, batch: int) -> Tensor:
        """(batch, 4) float32 that sums and minimizes to these figures, whatever order its rows come in."""
        out = torch.tensor([[0.0, 0.0, 1.0, 0.0]]).repeat(batch, 1)
        out[0] = torch.tensor([self.count, self.total, self.least, self.below])
        return out


@dataclass
class Deviations:
    """How far mixed inputs are from what the engine's model read: how many were compared, the farthest and its seed."""

    count: int = 0
    largest: float = 0.0
    seed: int = -1

    def add(self, off: Tensor, seed: Tensor) -> None:
        """Take in some inputs' deviations (N,), and the seeds of their requests (N,)."""
        if off.numel():
            self.count += off.numel()
            largest, at = off.nan_to_num(nan=torch.inf).max(0)
            if float(largest) > self.largest:
                self.largest, self.seed = float(largest), int(seed[at])

    def rows(self, batch: int) -> tuple[Tensor, Tensor]:
        """(batch, 2) float64 that sums to the count and has the largest, and (batch,) int64: each row's seed."""
        out = torch.zeros(batch, 2, dtype=torch.float64)
        out[0] = torch.tensor([self.count, self.largest])
        return out, torch.full((batch,), self.seed)


@dataclass
class EmbeddingMixer:
    """The hook pair on an input embedding. `inputs` None: the lookup is stock."""

    inputs: Inputs | None = None
    cosines: Cosines | None = None
    deviations: Deviations | None = None  # None: this pass isn't the one that must read what the engine's model read
    _shape: torch.Size = field(default_factory=lambda: torch.Size(()))

    def attach(self, embedding: nn.Module) -> None:
        """Hook the module."""
        embedding.register_forward_pre_hook(self._before)
        embedding.register_forward_hook(self._after)

    def _before(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor] | None:
        if self.inputs is None:
            return None
        ids = args[0]
        if ids.shape != self.inputs.mask.shape:
            raise RuntimeError(f"records for inputs of shape {self.inputs.mask.shape} met inputs of {ids.shape}")
        self._shape = ids.shape
        return (torch.cat([ids.reshape(-1), self.inputs.ids.reshape(-1)])[None],)

    def _after(self, module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
        if self.inputs is None:
            return None
        mixed, rows = self.inputs, out[0]
        n, d = mixed.mask.numel(), out.shape[-1]
        fed = rows[:n]
        if mixed.ids.numel():
            candidates = rows[n:].view(*mixed.ids.shape, d)
            mixtures = blend(candidates, mixed.weights)
            if self.cosines is not None:
                self.cosines.add(torch.cosine_similarity(mixtures.float(), candidates[:, 0].float(), dim=-1))
            fed = fed.index_put((mixed.mask.reshape(-1).nonzero()[:, 0],), mixtures)
        if mixed.noise is not None:
            mask, seed, position, sigma = mixed.noise
            at = mask.reshape(-1).nonzero()[:, 0]
            noise = sigma[:, None] * rng.normal(seed, position, d)
            fed = fed.index_put((at,), (fed[at].float() + noise).to(fed.dtype))
        if mixed.sketches is not None and self.deviations is not None:
            mask, sketches, seed = mixed.sketches
            read = fed[mask.reshape(-1).nonzero()[:, 0]]
            self.deviations.add(deviations(read, sketches, signs(d, device=read.device)), seed)
        return fed.view(*self._shape, d)


@dataclass
class CandidateLogits:
    """A hook on a model's output that takes logits of mixed steps' candidates. `drawn` None: it takes none.

    drawn: a mask of the shape of the input ids, of positions whose logits drew a mixed step, and in its row-major order
    the step's token and its candidates (M, 1 + k).
    """

    drawn: tuple[Tensor, Tensor] | None = None
    logits: Tensor | None = None  # (M, 1 + k) float32

    def attach(self, model: nn.Module) -> None:
        """Hook the module."""
        model.register_forward_hook(self._after)

    def _after(self, module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        if self.drawn is not None:  # now: verl divides them in place by the temperature
            mask, ids = self.drawn
            row, column = mask.nonzero(as_tuple=True)
            self.logits = out.logits[row[:, None], column[:, None], ids].float()

    def log_probs(self, own: Tensor, temperature: float) -> Tensor:
        """The candidates' log-probs (M, k), given those of the steps' tokens (M,): logits differ as they do."""
        assert self.logits is not None
        z = self.logits / temperature
        return own[:, None] + z[:, 1:] - z[:, :1]


class _WithRecords(DataProto):
    """A DataProto whose `select` takes along the records, which stock dp_actor's list of keys doesn't know."""

    def select(self, batch_keys=None, non_tensor_batch_keys=None, **kwargs):
        """As DataProto's."""
        keys = [*(non_tensor_batch_keys or []), KEY]
        return super().select(batch_keys=batch_keys, non_tensor_batch_keys=keys, **kwargs)


def _with_records(data: DataProto) -> DataProto:
    if KEY not in data.non_tensor_batch:
        return data
    return _WithRecords(batch=data.batch, non_tensor_batch=data.non_tensor_batch, meta_info=data.meta_info)


def check_records(data: DataProto) -> None:
    """Raise UserError unless every record was made for the response beside it.

    The trainer has looked into them (`record_guard`); since then the batch has been reordered and cut. Seeds travel
    with the tensors, records beside them: what tears them apart is seen, between responses of the same text, too.
    """
    responses, width = data.batch["responses"].cpu(), data.batch["responses"].shape[1]
    lengths = data.batch["attention_mask"][:, -width:].sum(-1).tolist()
    seeds = data.batch[SEEDS].tolist()
    for packed, response, length, seed in zip(data.non_tensor_batch[KEY], responses, lengths, seeds, strict=True):
        Record.unpack(packed).check(response[:length].tolist(), seed)


def importance_weighted(data: DataProto, cap: float) -> DataProto:
    """The data with its advantages weighted by π_trainer / π_rollout, at most cap: each token's policy term is."""
    weights = truncated_ratio(data.batch["old_log_probs"], data.batch["rollout_log_probs"], cap)
    batch = data.batch.copy()
    batch["advantages"] = batch["advantages"] * weights
    return DataProto(batch=batch, non_tensor_batch=data.non_tensor_batch, meta_info=data.meta_info)


def scatter(micro_batch: dict[str, Any], records: np.ndarray, purpose: str = "") -> Inputs | None:
    """A micro-batch's records as masks over its padded input ids (B, L); None where nothing is mixed.

    purpose: of the pass; noise that isn't replayed is drawn anew for each.
    """
    unpacked = [Record.unpack(packed) for packed in records]
    B, L = micro_batch["input_ids"].shape
    T = micro_batch["responses"].shape[1]
    device = micro_batch["input_ids"].device
    mask, ids, weights = gather(unpacked, T)
    noise = gather_noise(unpacked, T, purpose)
    if not mask.any() and noise is None:
        return None

    def padded(mask: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        whole = torch.zeros(B, L, dtype=torch.bool)
        whole[:, L - T :] = mask
        return whole.to(device), *(v.to(device) for v in values)

    sketches, scores = gather_sketches(unpacked, T), gather_scores(unpacked)
    return Inputs(
        *padded(mask, ids, weights),
        noise=None if noise is None else padded(*noise),
        sketches=None if sketches is None else padded(*sketches),
        scores=None if scores is None else scores.to(device),
    )


def remove_padding(inputs: Inputs, attention_mask: Tensor, parts: int = 1, part: int = 0) -> Inputs:
    """The same inputs for packed ids (1, nnz), or for one of the equal slices that sequence parallelism cuts them in.

    attention_mask (B, L) bool. As verl's `ulysses_pad_and_slice_inputs`, the packed row is padded to a multiple of
    `parts` and rank `part` sees one slice.
    """

    def cut(mask: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        packed = mask[attention_mask][None]
        order = packed.long().cumsum(1) - 1
        missing = -packed.shape[1] % parts
        packed = nn.functional.pad(packed, (0, missing)).chunk(parts, 1)[part]
        order = nn.functional.pad(order, (0, missing)).chunk(parts, 1)[part]
        return packed, *(v[order[packed]] for v in values)

    mask, ids, weights = cut(inputs.mask, inputs.ids, inputs.weights)
    others = (None if values is None else cut(*values) for values in (inputs.noise, inputs.sketches))
    return Inputs(mask, ids, weights, *others)


class ReplayActor(DataParallelPPOActor):
    """Stock actor and reference policy, fed what the rollout fed.

    Replaces verl's DataParallelPPOActor. Safe: nothing but the input embedding's hooks differs, and without mixed steps
    they pass everything through. Were it stock, replay parity would fail at the first mixed step
    (tests/workflow/test_training.py: dropped records).
    """

    def __init__(self, config, actor_module: nn.Module, actor_optimizer=None):
        super().__init__(config, actor_module, actor_optimizer)
        self.mixer = EmbeddingMixer()
        self.purpose = ""
        self.mixer.attach(actor_module.get_input_embeddings())
        self.exploration: Mixer | None = None  # one with a likelihood of its own
        self.candidates = CandidateLogits()

    def explore(self, mixer: Mixer) -> None:
        """Replay this mixer's steps: what it needs beside their inputs. Raises UserError where verl hides logits."""
        if not mixer.own_likelihood:
            return
        if self.use_ulysses_sp or self.use_fused_kernels:
            raise UserError(
                f"the likelihood of {mixer.kind} needs whole logits",
                where="verl: ulysses_sequence_parallel_size, use_fused_kernels",
                do="set them to 1 and false",
            )
        self.exploration = mixer
        self.candidates.attach(self.actor_module)

    def _drawn(self, micro_batch: dict[str, Any], inputs: Inputs | None) -> tuple[Tensor, Tensor] | None:
        """Where mixed steps were drawn, and what, as `CandidateLogits` wants it; inputs: of the padded batch."""
        if self.exploration is None or inputs is None:
            return None
        token = micro_batch["input_ids"][inputs.mask]
        ids = torch.cat([token[:, None], inputs.ids], -1)
        before = inputs.mask.roll(-1, 1)
        return (before[micro_batch["attention_mask"].bool()][None] if self.use_remove_padding else before), ids

    def _inputs(self, micro_batch: dict[str, Any]) -> Inputs | None:
        records = micro_batch.pop(KEY, None)
        inputs = None if records is None else scatter(micro_batch, records, self.purpose)
        self.candidates.drawn = self._drawn(micro_batch, inputs)
        self.steps = None if inputs is None else inputs.mask[:, -micro_batch["responses"].shape[1] :]
        self.scores = None if inputs is None else inputs.scores
        if inputs is None or not self.use_remove_padding:
            return inputs
        parts, part = 1, 0
        if self.use_ulysses_sp:
            from verl.utils.ulysses import get_ulysses_sequence_parallel_rank

            parts, part = self.ulysses_sequence_parallel_size, get_ulysses_sequence_parallel_rank()
        return remove_padding(inputs, micro_batch["attention_mask"].bool(), parts, part)

    def _forward_micro_batch(self, micro_batch, temperature, calculate_entropy=False):
        self.mixer.inputs = self._inputs(micro_batch)
        try:
            entropy, log_probs = super()._forward_micro_batch(micro_batch, temperature, calculate_entropy)
            return entropy, self._with_likelihoods(log_probs, temperature)
        finally:
            self.mixer.inputs = self.candidates.drawn = self.candidates.logits = None

    def _with_likelihoods(self, log_probs: Tensor, temperature: float) -> Tensor:
        """Log-probs (B, T), those of mixed steps in place of their tokens' where the mixer has its own."""
        if self.exploration is None or self.candidates.drawn is None:
            return log_probs
        at = self.steps.nonzero(as_tuple=True)
        own = self.candidates.log_probs(log_probs[at].float(), temperature)
        return log_probs.index_put(at, self.exploration.likelihood(own, self.scores).to(log_probs.dtype))

    def compute_log_prob(self, data: DataProto, calculate_entropy=False):
        """As stock, on the replayed inputs; `mixer` then holds this pass's statistics.

        The old policy's inputs are compared with what the engine's model read: its weights are the engine's.
        """
        if KEY in data.non_tensor_batch:
            check_records(data)
        self.mixer.cosines = Cosines()
        self.purpose = "reference" if self.actor_optimizer is None else "old"
        self.mixer.deviations = Deviations() if self.purpose == "old" else None
        return super().compute_log_prob(_with_records(data), calculate_entropy)

    def update_policy(self, data: DataProto):
        """As stock, on the replayed inputs; where the run asks for it, with truncated importance sampling."""
        if KEY in data.non_tensor_batch:
            check_records(data)
        if cap := (self.config.get("ngrpo") or {}).get("rollout_is_threshold"):
            data = importance_weighted(data, cap)
        self.mixer.cosines = self.mixer.deviations = None
        self.purpose = "update"
        return super().update_policy(_with_records(data))
