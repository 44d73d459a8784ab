"""The replaying actor, without Ray: against plain autograd on inputs_embeds, and against stock verl bit for bit."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from transformers import Qwen2Config, Qwen2ForCausalLM

from ngrpo.errors import UserError
from ngrpo.method import rng
from ngrpo.method.mixers import WEIGHT_SCALE, quantize
from ngrpo.method.records import Noise, Origin, Record, gather
from ngrpo.method.sketches import signs
from ngrpo.training.verl import accelerator

pytestmark = pytest.mark.train

B, P, T, K, V, D = 8, 6, 10, 3, 200, 32
TEMPERATURE = 0.7


@pytest.fixture(scope="module", autouse=True)
def _verl():
    """A process group of one, and the accelerator module's shims, which stock verl needs here too."""
    accelerator.patch()
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{Path(folder) / 'group'}", rank=0, world_size=1)
        yield
        dist.destroy_process_group()


def _model(tied: bool = True) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=V, hidden_size=D, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=tied, initializer_range=0.3, attn_implementation="eager",
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


def _config(**changes):
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer").actor_rollout_ref.actor
    OmegaConf.set_struct(config, False)
    config.update(
        use_torch_compile=False, ppo_mini_batch_size=B, ppo_micro_batch_size_per_gpu=B // 2, use_kl_loss=False,
        entropy_coeff=0.0, use_remove_padding=False, use_fused_kernels=False, loss_agg_mode="seq-mean-token-mean",
    )  # fmt: skip
    config.update(changes)
    return config


def _batch():
    """Left- and right-padded sequences, with a mixture at about half of the response positions that feed anything."""
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(3, V, (B, P + T), generator=g)
    mask = torch.ones(B, P + T, dtype=torch.long)
    for row in range(B):
        mask[row, : row % 4] = 0
        mask[row, P + T - row % 5 :] = 0 if row % 5 else 1
    ids[mask == 0] = 0
    lengths = mask[:, P:].sum(-1).tolist()
    records = []
    for row, length in enumerate(lengths):
        index = (torch.rand(length, generator=g) < 0.5).nonzero()[:, 0]
        candidates = torch.randint(3, V, (len(index), K), generator=g)
        weights = quantize(torch.softmax(torch.randn(len(index), K, generator=g), -1))
        response = ids[row, P : P + length].tolist()
        records.append(
            Record.of(response, index.tolist(), candidates.tolist(), weights.tolist(), k=K, origin=Origin(row, P))
        )
    tensors = {
        "input_ids": ids,
        "responses": ids[:, P:],
        "attention_mask": mask,
        "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
        "response_mask": mask[:, P:],
    }
    return tensors, records


TENSORS, RECORDS = _batch()
MASK = TENSORS["response_mask"].bool()


def _data(records=RECORDS, **tensors):
    from verl import DataProto

    from ngrpo.training.verl.actor import KEY, SEEDS

    extra = {} if records is None else {KEY: np.array([r.pack() for r in records], dtype=object)}
    tensors = {SEEDS: torch.arange(B), **tensors}
    meta = {"micro_batch_size": B // 2, "temperature": TEMPERATURE, "use_dynamic_bsz": False, "max_token_len": 40}
    return DataProto.from_dict({**TENSORS, **tensors}, non_tensors=extra, meta_info=meta)


def noise_record(row: int, length: int, noise: Noise | None) -> Record:
    """A response's record that holds noise alone, or nothing."""
    text = TENSORS["responses"][row, :length].tolist()
    return Record.of(text, [], [], [], k=1, origin=Origin(row, 17), noise=noise)


def _actor(kind=None, model=None, **config):
    from ngrpo.training.verl.actor import ReplayActor

    model = model or _model()
    return (kind or ReplayActor)(_config(**config), model, torch.optim.AdamW(model.parameters(), lr=1e-2))


def _fed(model, records) -> torch.Tensor:
    """Input embeddings (B, P + T) by plain arithmetic."""
    E = model.get_input_embeddings()
    fed = E(TENSORS["input_ids"]).clone()
    for row, record in enumerate(records):
        for at, ids, weights in zip(record.index, record.ids, record.weights, strict=True):
            fed[row, P + at] = (
                torch.tensor(weights / WEIGHT_SCALE, dtype=torch.float32)[:, None] * E(torch.tensor(ids))
            ).sum(0)
        if record.noise is not None:
            for at in range(record.length - 1):
                key = torch.tensor([record.origin.seed]), torch.tensor([record.origin.start + at])
                fed[row, P + at] = fed[row, P + at] + float(record.noise.sigma[0]) * rng.normal(*key, D)[0]
    return fed


def _oracle(model, records) -> torch.Tensor:
    """Log-probs (B, T) by plain transformers on inputs_embeds."""
    fed = _fed(model, records)
    logits = model(
        inputs_embeds=fed, attention_mask=TENSORS["attention_mask"], position_ids=TENSORS["position_ids"]
    ).logits
    lp = torch.log_softmax(logits[:, P - 1 : -1] / TEMPERATURE, -1)
    return lp.gather(-1, TENSORS["responses"][..., None])[..., 0]


def test_replayed_log_probs_equal_plain_transformers_and_token_ids_alone_dont() -> None:
    replayed, _ = _actor().compute_log_prob(_data(), calculate_entropy=True)
    with torch.no_grad():
        expected, naive = _oracle(_model(), RECORDS), _oracle(_model(), [])
    assert (replayed - expected)[MASK].abs().max() < 1e-5
    assert (naive - expected)[MASK].abs().max() > 0.1


def test_noise_that_is_not_replayed_is_drawn_anew_by_each_pass() -> None:
    """By the old log-probs' pass and the reference's, each the same again; the control: replayed noise is one."""

    def records(anew: bool) -> list[Record]:
        sigma = np.float32([0.5])
        return [noise_record(row, n, Noise(sigma, anew)) for row, n in enumerate(MASK.sum(-1).tolist())]

    def log_probs(anew: bool, optimizer: bool = True) -> torch.Tensor:
        actor = _actor()
        actor.actor_optimizer = actor.actor_optimizer if optimizer else None  # verl's reference has none
        return actor.compute_log_prob(_data(records(anew)))[0][MASK]

    with torch.no_grad():
        rollout = _oracle(_model(), records(False))[MASK]
    assert (log_probs(False) - rollout).abs().max() < 1e-5
    assert torch.equal(log_probs(False, optimizer=False), log_probs(False))
    assert (log_probs(True) - rollout).abs().max() > 0.1
    assert (log_probs(True, optimizer=False) - log_probs(True)).abs().max() > 0.1
    assert torch.equal(log_probs(True), log_probs(True))


def test_noise_is_replayed_from_its_key() -> None:
    noisy = [noise_record(row, n, Noise(np.float32([0.2]))) for row, n in enumerate(MASK.sum(-1).tolist())]
    replayed, _ = _actor().compute_log_prob(_data(noisy))
    with torch.no_grad():
        expected, naive = _oracle(_model(), noisy), _oracle(_model(), [])
    assert (replayed - expected)[MASK].abs().max() < 1e-5
    assert (naive - expected)[MASK].abs().max() > 0.1


@pytest.mark.parametrize("records", [None, "empty", "anchor"])
def test_without_mixing_it_is_stock_bit_for_bit(records) -> None:
    """No records, records without steps, and records whose mixtures are exactly the token (k = 1)."""
    from verl.workers.actor.dp_actor import DataParallelPPOActor

    lengths = MASK.sum(-1).tolist()
    if records == "empty":
        records = [noise_record(row, n, None) for row, n in enumerate(lengths)]
    elif records == "anchor":
        rows = [TENSORS["responses"][r, :n].tolist() for r, n in enumerate(lengths)]
        records = [
            Record.of(r, range(len(r)), [[t] for t in r], [[WEIGHT_SCALE]] * len(r), k=1, origin=Origin(i, P))
            for i, r in enumerate(rows)
        ]
    ours, stock = _actor(), _actor(DataParallelPPOActor)
    for a, b in zip(
        ours.compute_log_prob(_data(records), calculate_entropy=True),
        stock.compute_log_prob(_data(None), calculate_entropy=True),
        strict=True,
    ):
        assert torch.equal(a, b)
    advantages = torch.randn(B, 1, generator=torch.Generator().manual_seed(2)).expand(B, T).contiguous()
    old = _oracle(_model(), []).detach()
    for actor, own in ((ours, records), (stock, None)):
        actor.update_policy(_data(own, old_log_probs=old, advantages=advantages))
    pairs = zip(ours.actor_module.parameters(), stock.actor_module.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_gradients_reach_candidate_rows_as_in_plain_autograd() -> None:
    """An untied model, so that the output layer doesn't fill the table's gradient."""
    model, plain = _model(tied=False), _model(tied=False)
    actor = _actor(model=model)
    from ngrpo.training.verl.actor import KEY

    packed = np.array([r.pack() for r in RECORDS], dtype=object)
    _, replayed = actor._forward_micro_batch({**TENSORS, KEY: packed}, TEMPERATURE)
    (replayed * MASK).sum().backward()
    (_oracle(plain, RECORDS) * MASK).sum().backward()
    ours, theirs = (m.get_input_embeddings().weight.grad for m in (model, plain))
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()
    _, ids, _ = gather(RECORDS, T)
    only_candidates = set(ids.flatten().tolist()) - set(TENSORS["input_ids"].flatten().tolist())
    assert only_candidates
    assert (ours[sorted(only_candidates)].norm(dim=-1) > 0).any()


def test_records_of_another_response_are_refused() -> None:
    """By every pass; also where only the seed says so: two responses of one prompt may have the same text."""
    from ngrpo.training.verl.actor import SEEDS

    foreign = [_data([*RECORDS[1:], RECORDS[0]]), _data(**{SEEDS: torch.arange(B).flip(0)})]
    for data in foreign:
        with pytest.raises(UserError, match="another response"):
            _actor().compute_log_prob(data)
        with pytest.raises(UserError, match="another response"):
            _actor().update_policy(data)


def test_records_follow_their_responses_through_reordering_and_dynamic_micro_batches() -> None:
    expected, _ = _actor().compute_log_prob(_data())
    order = torch.randperm(B, generator=torch.Generator().manual_seed(3))
    data = _data()
    data.reorder(order)
    data.meta_info["use_dynamic_bsz"] = True
    replayed, _ = _actor().compute_log_prob(data)
    assert (replayed - expected[order])[MASK[order]].abs().max() < 1e-5


def _unpad_input(hidden: torch.Tensor, mask: torch.Tensor):
    """flash_attn's function of this name, in plain torch: the rows that stay, their places, and what verl ignores."""
    indices = mask.flatten().nonzero()[:, 0]
    lengths = mask.sum(-1, dtype=torch.int32)
    return hidden.flatten(0, 1)[indices], indices, lengths.cumsum(0), int(lengths.max())


def _pad_input(hidden_states: torch.Tensor, indices: torch.Tensor, batch: int, seqlen: int) -> torch.Tensor:
    """flash_attn's function of this name, in plain torch."""
    out = hidden_states.new_zeros(batch * seqlen, *hidden_states.shape[1:])
    return out.index_put((indices,), hidden_states).unflatten(0, (batch, seqlen))


def test_removed_padding_changes_no_log_prob(monkeypatch) -> None:
    """One sequence a micro-batch: without flash attention, packed sequences would see each other."""
    from einops import rearrange
    from verl.workers.actor import dp_actor

    kernels = {"unpad_input": _unpad_input, "pad_input": _pad_input, "rearrange": rearrange}
    for name, function in {**kernels, "index_first_axis": lambda rows, indices: rows[indices]}.items():
        monkeypatch.setattr(dp_actor, name, function, raising=False)
    data = _data()
    data.meta_info["micro_batch_size"] = 1
    replayed, _ = _actor(use_remove_padding=True).compute_log_prob(data)
    with torch.no_grad():
        expected, naive = _oracle(_model(), RECORDS), _oracle(_model(), [])
    assert (replayed - expected)[MASK].abs().max() < 1e-5
    assert (naive - expected)[MASK].abs().max() > 0.1


def test_sequence_parallel_slices_hold_the_mixtures_of_their_tokens(monkeypatch) -> None:
    from verl.utils import ulysses

    from ngrpo.training.verl.actor import KEY, remove_padding, scatter

    tensors = {k: v for k, v in TENSORS.items() if k != KEY}
    inputs = scatter(tensors, np.array([r.pack() for r in _read(RECORDS)], dtype=object))
    keep = TENSORS["attention_mask"].bool()
    inputs.ids[:, 0] = TENSORS["input_ids"][inputs.mask]  # so that a candidate names its token
    for parts in (1, 2, 3):
        seen = 0
        for part in range(parts):
            monkeypatch.setattr(ulysses, "get_ulysses_sequence_parallel_world_size", lambda group=None, n=parts: n)
            monkeypatch.setattr(dist, "get_world_size", lambda group=None, n=parts: n)
            monkeypatch.setattr(ulysses, "get_ulysses_sequence_parallel_rank", lambda group=None, r=part: r)
            packed, _, _ = ulysses.ulysses_pad_and_slice_inputs(TENSORS["input_ids"][keep][None], None, parts)
            cut = remove_padding(inputs, keep, parts, part)
            assert cut.mask.shape == packed.shape
            assert torch.equal(cut.ids[:, 0], packed[cut.mask])
            places, sketches, _ = cut.sketches
            assert torch.equal(places, cut.mask)
            assert torch.equal(sketches, inputs.sketches[1][seen : seen + len(cut.ids)])
            seen += len(cut.ids)
        assert seen == len(inputs.ids)


def test_statistics_are_those_of_the_mixtures() -> None:
    actor = _actor()
    actor.compute_log_prob(_data())
    E = actor.actor_module.get_input_embeddings().weight.detach()
    _, ids, weights = gather(RECORDS, T)
    mixed = ((weights / WEIGHT_SCALE)[..., None] * E[ids]).sum(1)
    cosine = torch.cosine_similarity(mixed, E[ids[:, 0]], dim=-1)
    seen = actor.mixer.cosines
    assert seen.count == len(ids)
    assert seen.total / seen.count == pytest.approx(float(cosine.mean()), abs=1e-6)
    assert seen.least == pytest.approx(float(cosine.min()), abs=1e-6)
    assert seen.below == float((cosine < 0.95).sum())


def _read(records: list[Record], *, but: int = -1) -> list[Record]:
    """The records with sketches of what an engine's model reads; but: the row where it reads tokens alone."""
    E = _model()
    with torch.no_grad():
        fed, plain = _fed(E, records), _fed(E, [])
    sketches = [
        ((plain if row == but else fed)[row, P : P + r.length - 1][torch.from_numpy(r.mixed())] @ signs(D)).numpy()
        for row, r in enumerate(records)
    ]
    return [replace(r, sketches=read) for r, read in zip(records, sketches, strict=True)]


def _deviations(records: list[Record], *, reorder: bool = False, **meta):
    actor, data = _actor(), _data(records)
    data.meta_info |= meta
    if reorder:
        data.reorder(torch.randperm(B, generator=torch.Generator().manual_seed(3)))
    actor.compute_log_prob(data)
    return actor.mixer.deviations


NOISY = [noise_record(row, n, Noise(np.float32([0.2]))) for row, n in enumerate(MASK.sum(-1).tolist())]


@pytest.mark.parametrize("records", [RECORDS, NOISY, [*RECORDS[:4], *NOISY[4:]]], ids=["mixtures", "noise", "both"])
def test_every_mixed_input_is_compared_with_what_the_engines_model_read(records) -> None:
    """Wherever it lies in the batch; one response whose inputs its model read otherwise is named by its seed."""
    mixed = sum(int(r.mixed().sum()) for r in records)
    for how in ({}, {"reorder": True, "use_dynamic_bsz": True}):
        seen = _deviations(_read(records), **how)
        assert seen.count == mixed
        assert seen.largest < 1e-5
        for row in (2, 6):
            seen = _deviations(_read(records, but=row), **how)
            assert (seen.count, seen.seed) == (mixed, row)
            assert seen.largest > 0.1
    rows, seeds = seen.rows(B)
    assert (rows[:, 0].sum(), rows[:, 1].max(), seeds.tolist()) == (seen.count, seen.largest, [6] * B)


def test_inputs_without_sketches_and_those_of_other_passes_are_not_compared() -> None:
    from ngrpo.training.verl.actor import Deviations

    assert _deviations(RECORDS) == Deviations()
    actor, data = _actor(), _data(_read(RECORDS))
    actor.actor_optimizer = None  # verl's reference has none, and other weights than the engine
    actor.compute_log_prob(data)
    assert actor.mixer.deviations is None


def test_a_sketch_that_is_no_number_is_far_away() -> None:
    broken = [replace(r, sketches=np.full_like(r.sketches, np.nan)) for r in _read(RECORDS)]
    assert _deviations(broken).largest == float("inf")


def updated(kind: str, cap: float | None, rollout: torch.Tensor, old: torch.Tensor) -> list[torch.Tensor]:
    """The weights after an update from these log-probs; cap: of importance weights, None: off."""
    from ngrpo.training.verl.losses import register

    register()
    own = {} if cap is None else {"ngrpo": {"rollout_is_threshold": cap}}
    actor = _actor(policy_loss={"loss_mode": kind}, clip_ratio_low=0.2, clip_ratio_high=0.2, **own)
    advantages = torch.linspace(-1, 1, B)[:, None].expand(B, T).contiguous()
    actor.update_policy(_data(old_log_probs=old, rollout_log_probs=rollout, advantages=advantages))
    return [p.detach() for p in actor.actor_module.parameters()]


@pytest.mark.parametrize("kind", ["vanilla", "gspo"])
def test_truncated_importance_sampling_weighs_and_is_off_without_a_cap(kind: str) -> None:
    old = _oracle(_model(), RECORDS).detach()

    def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
        return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

    rarer, likelier = old - 0.5, old + torch.linspace(0, 1, T)
    off = updated(kind, None, old, old)
    assert same(off, updated(kind, None, rarer, old))  # off: the rollout's log-probs don't matter
    assert same(off, updated(kind, 2.0, old, old))  # ratios of 1: the same bits
    assert same(off, updated(kind, 1.0, rarer, old))  # e^0.5, cut at 1
    assert not same(off, updated(kind, 2.0, likelier, old))  # the control: ratios below 1 weigh


def test_importance_weights_are_ratios_up_to_their_cap() -> None:
    from ngrpo.method.objectives.surrogate import truncated_ratio

    old, rollout = torch.log(torch.tensor([0.5, 0.1, 0.9])), torch.log(torch.tensor([0.25, 0.2, 0.001]))
    assert truncated_ratio(old, rollout, 3.0).tolist() == pytest.approx([2.0, 0.5, 3.0])


def test_gspo_runs_through_verls_registry() -> None:
    from ngrpo.training.verl.losses import register

    register()
    actor = _actor(policy_loss={"loss_mode": "gspo"}, clip_ratio_low=3e-4, clip_ratio_high=4e-4)
    old = _oracle(_model(), RECORDS).detach()
    advantages = torch.ones(B, T)
    metrics = actor.update_policy(_data(old_log_probs=old, advantages=advantages))
    assert metrics["actor/pg_loss"][0] == pytest.approx(-1.0, abs=1e-3)  # the ratio is 1 before any update


def _gradients(aggregation: str, **parts) -> list[torch.Tensor]:
    """Of one update's loss, with micro-batches as these settings make them."""
    actor, gradients = _actor(loss_agg_mode=aggregation, use_kl_loss=True, **parts), []

    def step() -> torch.Tensor:
        gradients.extend(p.grad.clone() for p in actor.actor_module.parameters())
        return torch.tensor(0.0)

    actor._optimizer_step = step
    generator = torch.Generator().manual_seed(3)
    noise = {name: 0.1 * torch.randn(B, T, generator=generator) for name in ("old_log_probs", "ref_log_prob")}
    log_probs = _oracle(_model(), RECORDS).detach()
    advantages = torch.randn(B, 1, generator=generator).expand(B, T)
    actor.update_policy(_data(advantages=advantages, **{name: log_probs + n for name, n in noise.items()}))
    return gradients


def _apart(some: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    """The largest difference of two gradients, as a share of the largest entry."""
    largest = max(float(g.abs().max()) for g in others)
    return max(float((a - b).abs().max()) for a, b in zip(some, others, strict=True)) / largest


def test_token_budgets_change_gradients_by_rounding_alone() -> None:
    """With records, which must follow their rows; the control: an average over tokens depends on the parts, in verl."""

    def budgeted(aggregation: str, tokens: int) -> list[torch.Tensor]:
        return _gradients(aggregation, use_dynamic_bsz=True, ppo_max_token_len_per_gpu=tokens)

    whole = _gradients("seq-mean-token-mean", ppo_micro_batch_size_per_gpu=B)
    for tokens in (P + T, 40):
        assert _apart(budgeted("seq-mean-token-mean", tokens), whole) < 1e-5
    assert _apart(budgeted("token-mean", P + T), _gradients("token-mean", ppo_micro_batch_size_per_gpu=B)) > 1e-3


def test_token_budgets_change_log_probs_by_rounding_alone() -> None:
    expected, _ = _actor().compute_log_prob(_data())
    data = _data()
    data.meta_info |= {"use_dynamic_bsz": True, "max_token_len": P + T}
    budgeted, _ = _actor().compute_log_prob(data)
    assert (budgeted - expected)[MASK].abs().max() < 1e-5
    assert (budgeted - expected.flip(0))[MASK].abs().max() > 0.1  # the control: rows in another order
