"""The replaying actor, without Ray: against plain autograd on inputs_embeds, and against stock verl bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_actor import (
    MASK,
    RECORDS,
    TEMPERATURE,
    TENSORS,
    B,
    K,
    P,
    T,
    make_actor,
    make_data,
    make_model,
    noise_record,
    plain_distributions,
    plain_log_probs,
    process_group,  # noqa: F401
)

from ngrpo.errors import UserError
from ngrpo.method.mixers import WEIGHT_SCALE, GumbelMixer, MultiplexMixer
from ngrpo.method.records import Noise, Origin, Record, gather, gather_scores

pytestmark = pytest.mark.train


def test_replayed_log_probs_equal_plain_transformers_and_token_ids_alone_dont() -> None:
    replayed, _ = make_actor().compute_log_prob(make_data(), calculate_entropy=True)
    with torch.no_grad():
        expected, naive = plain_log_probs(make_model(), RECORDS), plain_log_probs(make_model(), [])
    assert (replayed - expected)[MASK].abs().max() < 1e-5
    assert (naive - expected)[MASK].abs().max() > 0.1


SCORED = [replace(r, scores=np.random.default_rng(7).normal(-2, 1, r.ids.shape).astype(np.float32)) for r in RECORDS]
OWN = {
    "multiplex": (MultiplexMixer(k=K), RECORDS, lambda lp, scores: lp.sum(-1)),
    "soft-grpo": (
        GumbelMixer(k=K, chosen_by="probability", log_prob="noise"),
        SCORED,
        lambda lp, scores: torch.distributions.Gumbel(0.0, 1.0).log_prob(scores - torch.log_softmax(lp, -1)).sum(-1),
    ),
}
"""A mixer, its records, and its steps' log-likelihood from their candidates' log-probs and scores."""


def own_log_probs(model, records, likelihood) -> torch.Tensor:
    """Log-probs (B, T) by plain transformers, those of mixed steps of all their candidates."""
    lp = plain_distributions(model, records)
    out = lp.gather(-1, TENSORS["responses"][..., None])[..., 0]
    mask, ids, _ = gather(records, T)
    own = likelihood(lp[mask].gather(-1, ids), gather_scores(records))
    return out.index_put(mask.nonzero(as_tuple=True), own)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", OWN)
def test_a_mixer_with_a_likelihood_of_its_own_has_it_in_every_pass(monkeypatch, name: str, packed: bool) -> None:
    """In log-probs and gradients; the control: an actor that isn't told of it."""
    if packed:
        remove_padding(monkeypatch)
    size = {"use_remove_padding": packed, "ppo_micro_batch_size_per_gpu": 1 if packed else B}
    model, advantages = make_model(), torch.linspace(-1, 1, B)[:, None].expand(B, T).contiguous()
    mixer, records, likelihood = OWN[name]
    expected = own_log_probs(model, records, likelihood)
    per_token = (expected - expected.detach()).exp() * -advantages * MASK
    (per_token.sum(-1) / MASK.sum(-1)).mean().backward()
    for aware in (True, False):
        actor, gradients = make_actor(**size), []
        if aware:
            actor.explore(mixer)
        data = make_data(records, old_log_probs=expected.detach(), advantages=advantages)
        data.meta_info["micro_batch_size"] = 1 if packed else B
        off = (actor.compute_log_prob(data)[0] - expected)[MASK].abs().max()
        actor._optimizer_step = lambda of=actor, to=gradients: (
            to.extend(p.grad.clone() for p in of.actor_module.parameters()) or torch.tensor(0.0)
        )
        actor.update_policy(data)
        apart = _apart(gradients, [p.grad for p in model.parameters()])
        assert (off < 1e-5) == (apart < 1e-4) == aware, (off, apart)


def test_noise_that_is_not_replayed_is_drawn_anew_by_each_pass() -> None:
    """By the old log-probs' pass and the reference's, each the same again; the control: replayed noise is one."""

    def records(anew: bool) -> list[Record]:
        sigma = np.float32([0.5])
        return [noise_record(row, n, Noise(sigma, anew)) for row, n in enumerate(MASK.sum(-1).tolist())]

    def log_probs(anew: bool, optimizer: bool = True) -> torch.Tensor:
        actor = make_actor()
        actor.actor_optimizer = actor.actor_optimizer if optimizer else None  # verl's reference has none
        return actor.compute_log_prob(make_data(records(anew)))[0][MASK]

    with torch.no_grad():
        rollout = plain_log_probs(make_model(), records(False))[MASK]
    assert (log_probs(False) - rollout).abs().max() < 1e-5
    assert torch.equal(log_probs(False, optimizer=False), log_probs(False))
    assert (log_probs(True) - rollout).abs().max() > 0.1
    assert (log_probs(True, optimizer=False) - log_probs(True)).abs().max() > 0.1
    assert torch.equal(log_probs(True), log_probs(True))


def test_noise_is_replayed_from_its_key() -> None:
    noisy = [noise_record(row, n, Noise(np.float32([0.2]))) for row, n in enumerate(MASK.sum(-1).tolist())]
    replayed, _ = make_actor().compute_log_prob(make_data(noisy))
    with torch.no_grad():
        expected, naive = plain_log_probs(make_model(), noisy), plain_log_probs(make_model(), [])
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
    ours, stock = make_actor(), make_actor(DataParallelPPOActor)
    for a, b in zip(
        ours.compute_log_prob(make_data(records), calculate_entropy=True),
        stock.compute_log_prob(make_data(None), calculate_entropy=True),
        strict=True,
    ):
        assert torch.equal(a, b)
    advantages = torch.randn(B, 1, generator=torch.Generator().manual_seed(2)).expand(B, T).contiguous()
    old = plain_log_probs(make_model(), []).detach()
    for actor, own in ((ours, records), (stock, None)):
        actor.update_policy(make_data(own, old_log_probs=old, advantages=advantages))
    pairs = zip(ours.actor_module.parameters(), stock.actor_module.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_gradients_reach_candidate_rows_as_in_plain_autograd() -> None:
    """An untied model, so that the output layer doesn't fill the table's gradient."""
    model, plain = make_model(tied=False), make_model(tied=False)
    actor = make_actor(model=model)
    from ngrpo.training.verl.actor import KEY

    packed = np.array([r.pack() for r in RECORDS], dtype=object)
    _, replayed = actor._forward_micro_batch({**TENSORS, KEY: packed}, TEMPERATURE)
    (replayed * MASK).sum().backward()
    (plain_log_probs(plain, RECORDS) * MASK).sum().backward()
    ours, theirs = (m.get_input_embeddings().weight.grad for m in (model, plain))
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()
    _, ids, _ = gather(RECORDS, T)
    only_candidates = set(ids.flatten().tolist()) - set(TENSORS["input_ids"].flatten().tolist())
    assert only_candidates
    assert (ours[sorted(only_candidates)].norm(dim=-1) > 0).any()


def test_records_of_another_response_are_refused() -> None:
    """By every pass; also where only the seed says so: two responses of one prompt may have the same text."""
    from ngrpo.training.verl.actor import SEEDS

    foreign = [make_data([*RECORDS[1:], RECORDS[0]]), make_data(**{SEEDS: torch.arange(B).flip(0)})]
    for data in foreign:
        with pytest.raises(UserError, match="another response"):
            make_actor().compute_log_prob(data)
        with pytest.raises(UserError, match="another response"):
            make_actor().update_policy(data)


def test_records_follow_their_responses_through_reordering_and_dynamic_micro_batches() -> None:
    expected, _ = make_actor().compute_log_prob(make_data())
    order = torch.randperm(B, generator=torch.Generator().manual_seed(3))
    data = make_data()
    data.reorder(order)
    data.meta_info["use_dynamic_bsz"] = True
    replayed, _ = make_actor().compute_log_prob(data)
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


def remove_padding(monkeypatch) -> None:
    """Give verl the functions that it takes from flash attention."""
    from einops import rearrange
    from verl.workers.actor import dp_actor

    kernels = {"unpad_input": _unpad_input, "pad_input": _pad_input, "rearrange": rearrange}
    for name, function in {**kernels, "index_first_axis": lambda rows, indices: rows[indices]}.items():
        monkeypatch.setattr(dp_actor, name, function, raising=False)


def test_removed_padding_changes_no_log_prob(monkeypatch) -> None:
    """One sequence a micro-batch: without flash attention, packed sequences would see each other."""
    remove_padding(monkeypatch)
    data = make_data()
    data.meta_info["micro_batch_size"] = 1
    replayed, _ = make_actor(use_remove_padding=True).compute_log_prob(data)
    with torch.no_grad():
        expected, naive = plain_log_probs(make_model(), RECORDS), plain_log_probs(make_model(), [])
    assert (replayed - expected)[MASK].abs().max() < 1e-5
    assert (naive - expected)[MASK].abs().max() > 0.1


def test_statistics_are_those_of_the_mixtures() -> None:
    actor = make_actor()
    actor.compute_log_prob(make_data())
    E = actor.actor_module.get_input_embeddings().weight.detach()
    _, ids, weights = gather(RECORDS, T)
    mixed = ((weights / WEIGHT_SCALE)[..., None] * E[ids]).sum(1)
    cosine = torch.cosine_similarity(mixed, E[ids[:, 0]], dim=-1)
    seen = actor.mixer.cosines
    assert seen.count == len(ids)
    assert seen.total / seen.count == pytest.approx(float(cosine.mean()), abs=1e-6)
    assert seen.least == pytest.approx(float(cosine.min()), abs=1e-6)
    assert seen.below == float((cosine < 0.95).sum())


def updated(kind: str, cap: float | None, rollout: torch.Tensor, old: torch.Tensor) -> list[torch.Tensor]:
    """The weights after an update from these log-probs; cap: of importance weights, None: off."""
    from ngrpo.training.verl.losses import register

    register()
    own = {} if cap is None else {"ngrpo": {"rollout_is_threshold": cap}}
    actor = make_actor(policy_loss={"loss_mode": kind}, clip_ratio_low=0.2, clip_ratio_high=0.2, **own)
    advantages = torch.linspace(-1, 1, B)[:, None].expand(B, T).contiguous()
    actor.update_policy(make_data(old_log_probs=old, rollout_log_probs=rollout, advantages=advantages))
    return [p.detach() for p in actor.actor_module.parameters()]


@pytest.mark.parametrize("kind", ["vanilla", "gspo"])
def test_truncated_importance_sampling_weighs_and_is_off_without_a_cap(kind: str) -> None:
    old = plain_log_probs(make_model(), RECORDS).detach()

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
    actor = make_actor(policy_loss={"loss_mode": "gspo"}, clip_ratio_low=3e-4, clip_ratio_high=4e-4)
    old = plain_log_probs(make_model(), RECORDS).detach()
    advantages = torch.ones(B, T)
    metrics = actor.update_policy(make_data(old_log_probs=old, advantages=advantages))
    assert metrics["actor/pg_loss"][0] == pytest.approx(-1.0, abs=1e-3)  # the ratio is 1 before any update


def _gradients(aggregation: str, **parts) -> list[torch.Tensor]:
    """Of one update's loss, with micro-batches as these settings make them."""
    actor, gradients = make_actor(loss_agg_mode=aggregation, use_kl_loss=True, **parts), []

    def step() -> torch.Tensor:
        gradients.extend(p.grad.clone() for p in actor.actor_module.parameters())
        return torch.tensor(0.0)

    actor._optimizer_step = step
    generator = torch.Generator().manual_seed(3)
    noise = {name: 0.1 * torch.randn(B, T, generator=generator) for name in ("old_log_probs", "ref_log_prob")}
    log_probs = plain_log_probs(make_model(), RECORDS).detach()
    advantages = torch.randn(B, 1, generator=generator).expand(B, T)
    actor.update_policy(make_data(advantages=advantages, **{name: log_probs + n for name, n in noise.items()}))
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
    expected, _ = make_actor().compute_log_prob(make_data())
    data = make_data()
    data.meta_info |= {"use_dynamic_bsz": True, "max_token_len": P + T}
    budgeted, _ = make_actor().compute_log_prob(data)
    assert (budgeted - expected)[MASK].abs().max() < 1e-5
    assert (budgeted - expected.flip(0))[MASK].abs().max() > 0.1  # the control: rows in another order
