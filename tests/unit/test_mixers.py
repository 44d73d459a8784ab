"""Promises of the input mixers (Eq. 6-11)."""

import operator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ngrpo.errors import UserError
from ngrpo.method import mixers, rng
from ngrpo.method.mixers import (
    ENDED,
    WEIGHT_SCALE,
    GaussianMixer,
    GumbelMixer,
    MultiplexMixer,
    NeighborMixer,
    NoMixer,
    SoftThinkingMixer,
    blend,
    feed,
    kinds,
    measured,
    mixer_from,
    quantize,
)
from ngrpo.study import mixing

pytestmark = pytest.mark.train

B, V, D = 64, 40, 16


def _table(k: int) -> torch.Tensor:
    """Anchor first, then its followers on a ring."""
    return (torch.arange(V)[:, None] + torch.arange(k)) % V


def _step(mixer, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(B, V, generator=generator) * 3
    token = torch.randint(V, (B,), generator=generator)
    k = mixer.width
    return z, token, mixer.step(z, token, torch.arange(B), torch.full((B,), 9), _table(k))


@given(st.integers(1, 6), st.integers(0, 1000))
def test_weights_sum_to_one_exactly_and_follow_the_softmax_over_candidates(k: int, seed: int) -> None:
    z, _, step = _step(NeighborMixer(rho=1.0, k=k), seed)
    assert (step.weights.sum(-1) == WEIGHT_SCALE).all()
    assert (step.weights >= 0).all()
    alpha = torch.softmax(z.gather(-1, step.ids), -1)
    assert (step.weights / WEIGHT_SCALE - alpha).abs().max() <= (k - 1) * 2**-16 + 1e-6
    assert (step.ids[:, 0] == z.argmax(-1)).all()


def test_a_mixed_step_writes_the_anchor_and_another_writes_the_sample() -> None:
    z, token, step = _step(NeighborMixer(rho=0.5))
    assert 0 < step.on.sum() < B
    assert (step.token[step.on] == z.argmax(-1)[step.on]).all()
    assert (step.token[~step.on] == token[~step.on]).all()


@given(st.floats(0, 1))
def test_the_gate_mixes_a_share_rho(rho: float) -> None:
    n = 20_000
    mixer = NeighborMixer(rho=rho, k=1)
    z = torch.zeros(n, 1)
    on = mixer.step(z, z[:, 0].long(), torch.arange(n), torch.zeros(n, dtype=torch.int64), torch.zeros(1, 1)).on
    assert abs(on.double().mean().item() - rho) <= 4.5 * (rho * (1 - rho) / n) ** 0.5 + 1e-12


def test_rho_zero_never_mixes_and_rho_one_always_does() -> None:
    for rho, share in ((0.0, 0), (1.0, B)):
        _, token, step = _step(NeighborMixer(rho=rho))
        assert step.on.sum() == share
        if not share:
            assert torch.equal(step.token, token)


def test_no_mixer_feeds_the_token() -> None:
    _, token, step = _step(NoMixer())
    assert not step.on.any()
    assert torch.equal(step.token, token)
    assert torch.equal(step.ids[:, 0], token)
    assert (step.weights == WEIGHT_SCALE).all()


def test_k_one_feeds_exactly_the_anchors_embedding() -> None:
    E = torch.randn(V, D)
    z, _, step = _step(NeighborMixer(rho=1.0, k=1))
    assert torch.equal(blend(E[step.ids], step.weights), E[z.argmax(-1)])


def test_a_permutation_of_candidates_changes_nothing_but_rounding() -> None:
    E = torch.randn(V, D, dtype=torch.float64).float()
    _, _, step = _step(NeighborMixer(rho=1.0, k=5))
    order = torch.randperm(5, generator=torch.Generator().manual_seed(1))
    one, other = blend(E[step.ids], step.weights), blend(E[step.ids[:, order]], step.weights[:, order])
    assert (one - other).abs().max() < 1e-6
    # the control: weights that stay behind when their candidates move do change the mixture
    assert (one - blend(E[step.ids[:, order]], step.weights)).abs().max() > 0.1


def test_blend_is_differentiable_in_the_rows_and_equals_the_formula() -> None:
    rows = torch.randn(7, 3, D, requires_grad=True)
    weights = quantize(torch.softmax(torch.randn(7, 3), -1))
    blend(rows, weights).sum().backward()
    assert torch.allclose(rows.grad, (weights / WEIGHT_SCALE)[..., None].expand_as(rows))


def test_temperature_enters_through_the_scaled_logits() -> None:
    mixer = NeighborMixer(rho=1.0)
    z, token, sharp = _step(mixer)
    flat = mixer.step(z / 10, token, torch.arange(B), torch.full((B,), 9), _table(3))
    assert torch.equal(flat.ids, sharp.ids)
    assert (flat.weights[:, 0] < sharp.weights[:, 0]).float().mean() > 0.9


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "neighbors", "rho": 1.2}, "rho is 1.2"),
        ({"kind": "neighbors", "rho": -0.1}, "rho is -0.1"),
        ({"kind": "neighbors", "rho": 0.1, "k": 0}, "k is 0"),
        ({"kind": "neighbor", "rho": 0.1}, "did you mean 'neighbors'"),
        ({"kind": "neighbors", "rho": 0.1, "rate": 1}, "rate"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        mixer_from(settings)


CONFIGURED = (
    mixing.NoMixer(),
    mixing.NeighborMixer(kind="neighbors"),
    mixing.GaussianMixer(kind="gaussian"),
    mixing.GaussianMixer(kind="gaussian", replay=False),
    mixing.GaussianMixer(kind="gaussian", replay=False, scope="row", k=3, temperature=0.7, rho=0.1),
    mixing.NeighborMixer(kind="neighbors", rho=1.0),
    mixing.NeighborMixer(kind="neighbors", rho=1.0, text="sampled"),
    mixing.GumbelMixer(kind="gumbel"),
    mixing.GumbelMixer(kind="gumbel", text="sampled", weights="clean"),
    mixing.SoftThinkingMixer(kind="soft-thinking"),
    mixing.SoftThinkingMixer(kind="soft-thinking", keep=10),
    mixing.MultiplexMixer(kind="multiplex"),
    mixing.MinPMixer(kind="min-p"),
)


def test_a_mixer_and_its_configuration_say_the_same_of_it() -> None:
    assert {c.kind for c in CONFIGURED} == set(kinds())
    said = {}
    for configured in CONFIGURED:
        mixer = mixer_from(mixing.settings(configured, {}))
        of = operator.attrgetter("mixes", "needs_table", "replayed", "dense", "deterministic_text")
        said[configured] = of(mixer)
        assert said[configured] == of(configured)
    assert len(set(said.values())) == 6  # the control: they don't all say one thing


NEW_KIND = '''
from dataclasses import dataclass
from typing import ClassVar

from ngrpo.method.mixers.interface import Mixer, Step, only_token


@dataclass(frozen=True)
class StillMixer(Mixer):
    """Feeds E[0]."""

    kind: ClassVar[str] = "quite-still"
    often: int = 1

    def step(self, z, token, seed, position, table=None, *, rms=None, state=None):
        return Step(token, token >= 0, *only_token(token * 0))
'''


def test_a_new_kind_is_found_by_its_files_name(tmp_path, monkeypatch) -> None:
    with pytest.raises(UserError, match="no input mixer 'quite-still'"):
        mixer_from({"kind": "quite-still"})
    (tmp_path / "quite_still.py").write_text(NEW_KIND)
    monkeypatch.setattr(mixers, "__path__", [*mixers.__path__, str(tmp_path)])
    mixer = mixer_from({"kind": "quite-still", "often": 2})
    assert (mixer.kind, mixer.often, mixer.mixes, mixer.needs_table, mixer.width) == ("quite-still", 2, True, False, 1)
    token = torch.tensor([4, 5])
    E = torch.randn(V, D)
    step = mixer.step(torch.zeros(2, V), token, token, token)
    assert torch.equal(feed(step, token, token, E.__getitem__, lambda weights: weights @ E), E[[0, 0]])


def test_what_is_fed_is_the_mixture_the_noisy_token_or_the_whole_vocabularys() -> None:
    E = torch.randn(V, D)
    z, token, seed, position = _inputs()
    rms = E.square().mean(-1).sqrt()

    def fed(mixer):
        step = mixer.step(z, token, seed, position, _table(mixer.width), rms=rms)
        return step, feed(step, seed, position, E.__getitem__, lambda weights: weights @ E)

    step, vectors = fed(NeighborMixer(1.0))
    assert torch.equal(vectors, blend(E[step.ids], step.weights))
    step, vectors = fed(GaussianMixer())
    assert torch.equal(vectors, E[token] + step.sigma[:, None] * rng.normal(seed, position, D))
    assert not torch.equal(vectors, E[token] + step.sigma[:, None] * rng.normal(seed, position + 1, D))
    _, vectors = fed(SoftThinkingMixer())
    assert torch.equal(vectors, torch.softmax(z, -1) @ E)
    _, vectors = fed(NoMixer())
    assert torch.equal(vectors, E[token])


def test_mixing_without_a_table_is_refused() -> None:
    one = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(UserError, match="without a neighbor table"):
        NeighborMixer(rho=1.0).step(torch.zeros(1, V), one, one, one, None)


def _inputs(seed: int = 0, scale: float = 3.0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(B, V, generator=generator) * scale
    token = torch.randint(V, (B,), generator=generator)
    return z, token, torch.arange(B), torch.full((B,), 9)


def test_release_weights_are_the_softmax_of_probabilities_and_bound_the_anchor() -> None:
    z, token, seed, position = _inputs(scale=30.0)
    step = NeighborMixer(1.0, weights="probabilities").step(z, token, seed, position, _table(3))
    p = torch.softmax(z, -1).gather(-1, step.ids)
    assert (step.weights / WEIGHT_SCALE - torch.softmax(p, -1)).abs().max() < 1e-4
    assert (step.weights[:, 0] / WEIGHT_SCALE).max() <= 0.577  # at k=3 it can't exceed 0.576
    paper = NeighborMixer(1.0).step(z, token, seed, position, _table(3))
    assert (paper.weights[:, 0] / WEIGHT_SCALE).max() > 0.9
    assert torch.equal(paper.ids, step.ids)


def test_release_text_is_the_sampled_token_and_nothing_else_changes() -> None:
    z, token, seed, position = _inputs()
    ours = NeighborMixer(0.5).step(z, token, seed, position, _table(3))
    theirs = NeighborMixer(0.5, text="sampled").step(z, token, seed, position, _table(3))
    assert torch.equal(theirs.token, token)
    assert not torch.equal(ours.token, token)
    assert all(torch.equal(getattr(ours, f), getattr(theirs, f)) for f in ("on", "ids", "weights"))


END = 7  # stands for the token that ends thinking
STOPPING = {
    "neighbors": (NeighborMixer(1.0), {"rho": 1.0}),
    "neighbors, sampled text": (NeighborMixer(1.0, text="sampled"), {"rho": 1.0, "text": "sampled"}),
    "gaussian": (GaussianMixer(), {}),
    "gaussian, on a mixture": (GaussianMixer(k=3, scope="row", replay=False), {"k": 3, "scope": "row"}),
    "gumbel": (GumbelMixer(), {}),
    "gumbel, sampled text": (GumbelMixer(text="sampled"), {"text": "sampled"}),
    "multiplex": (MultiplexMixer(), {}),
}


@pytest.mark.parametrize("name", STOPPING)
def test_mixing_stops_from_the_step_that_writes_the_end_of_thinking_on(name: str) -> None:
    """That step itself feeds the end's own embedding; before it, and without an end, every step mixes."""
    endless, settings = STOPPING[name]
    mixer = mixer_from({"kind": endless.kind, **settings, "stop_after": END})
    z, token, seed, position = _inputs()
    z[:8, END], token[:8] = 60.0, END  # eight sequences that write it whatever the mixer writes
    rms = torch.ones(V)
    start = torch.zeros(B, dtype=torch.int32)
    first = mixer.step(z, token, seed, position, _table(mixer.width), rms=rms, state=start)
    wrote = first.token == END
    assert 8 <= wrote.sum() < B
    assert torch.equal(first.on, ~wrote)
    assert torch.equal(first.state == ENDED, wrote)
    z, token, *_ = _inputs(1)
    second = mixer.step(z, token, seed, position + 1, _table(mixer.width), rms=rms, state=first.state)
    assert not second.on[wrote].any()
    assert torch.equal(second.token[wrote], token[wrote])  # from then on the sampled token is written
    control = endless.step(z, token, seed, position, _table(mixer.width), rms=rms, state=start)
    assert control.on.all()


def test_released_noise_is_added_to_a_mixture_as_large_as_it_and_gated() -> None:
    E = torch.randn(V, D) * torch.rand(V, 1)
    z, token, seed, position = _inputs()
    rms = E.square().mean(-1).sqrt()
    mixer = GaussianMixer(scope="row", replay=False, k=3, temperature=0.7, rho=0.4)
    step = measured(mixer.step(z, token, seed, position, rms=rms), E.__getitem__)
    top, ids = z.topk(3, -1)
    assert torch.equal(step.ids, ids)
    assert torch.allclose(step.weights / WEIGHT_SCALE, torch.softmax(top / 0.7, -1), atol=1e-4)
    mixture = blend(E[step.ids], step.weights)
    assert torch.allclose(step.sigma, 0.33 * mixture.square().mean(-1).sqrt())
    assert torch.equal(step.token, token)
    assert torch.equal(step.on, rng.uniform(seed, position, rng.GATE) < 0.4)
    noise = feed(step, seed, position, E.__getitem__, lambda weights: weights @ E) - mixture
    assert torch.allclose(noise, step.sigma[:, None] * rng.normal(seed, position, D), atol=1e-6)
    # the control: each of the three differs from the paper's
    paper = GaussianMixer().step(z, token, seed, position, rms=rms)
    assert paper.on.all()
    assert paper.ids.shape == (B, 1)
    assert not torch.allclose(paper.sigma, step.sigma, rtol=0.01)


def test_what_a_mixer_says_is_deterministic_gives_one_text_whatever_the_seed() -> None:
    table = _table(3)
    fixed = NeighborMixer(1.0)
    varied = [NeighborMixer(1.0, text="sampled"), NeighborMixer(0.9), GaussianMixer(), NoMixer()]
    z, token, seed, position = _inputs()

    def text(mixer, salt: int):
        drawn = (token + salt) % V  # another seed samples another token
        return mixer.step(z, drawn, seed + 1000 * salt, position, table, rms=torch.ones(V))

    assert fixed.deterministic_text
    one, other = text(fixed, 0), text(fixed, 1)
    assert all(torch.equal(getattr(one, f), getattr(other, f)) for f in ("token", "on", "ids", "weights"))
    for mixer in varied:
        assert not mixer.deterministic_text
        assert not torch.equal(text(mixer, 0).token, text(mixer, 1).token)
    assert not NeighborMixer(1.0, stop_after=END).deterministic_text  # after the end tokens are sampled


def test_gaussian_noise_is_the_rms_of_e_and_zero_is_stock() -> None:
    E = torch.randn(V, D) * torch.rand(V, 1)
    rms = E.square().mean(-1).sqrt()
    z, token, seed, position = _inputs()
    step = GaussianMixer().step(z, token, seed, position, rms=rms)
    assert torch.equal(step.token, token)
    assert torch.allclose(step.sigma, 0.33 * E.square().mean().sqrt().expand(B))
    assert torch.allclose(GaussianMixer(scope="row").step(z, token, seed, position, rms=rms).sigma, 0.33 * rms[token])
    assert not GaussianMixer(factor=0.0).step(z, token, seed, position, rms=rms).on.any()


@given(st.integers(0, 2**62 - 1), st.integers(0, 2**20), st.integers(1, 33))
def test_noise_depends_on_its_key_alone(seed: int, position: int, n: int) -> None:
    one = rng.normal(torch.tensor([seed]), torch.tensor([position]), n)
    many = rng.normal(torch.tensor([1, seed, 2]), torch.tensor([0, position, 5]), n)
    assert torch.equal(one[0], many[1])
    assert not torch.equal(rng.normal(torch.tensor([seed]), torch.tensor([position + 1]), n), one)


def test_normal_and_gumbel_numbers_have_their_moments() -> None:
    key = torch.arange(4000), torch.zeros(4000, dtype=torch.int64)
    x, g = rng.normal(*key, 51).double(), rng.gumbel(*key, 51).double()
    assert abs(x.mean()) < 0.01
    assert abs(x.std() - 1) < 0.01
    assert abs((x**4).mean() - 3) < 0.1
    assert abs(g.mean() - 0.5772) < 0.015
    assert abs(g.var() - 1.6449) < 0.03


def test_gumbel_writes_a_draw_from_p_and_mixes_its_top_k() -> None:
    n = 20_000
    z = torch.tensor([[1.0, 0.0, -1.0, 0.5]]).expand(n, -1)
    mixer = GumbelMixer(k=3, low=-50, high=50)
    token = torch.zeros(n, dtype=torch.int64)
    step = mixer.step(z, token, torch.arange(n), token)
    assert step.on.all()
    assert torch.equal(step.token, step.ids[:, 0])
    share = torch.bincount(step.token, minlength=4) / n
    assert (share - torch.softmax(z[0], -1)).abs().max() < 0.02
    assert (step.weights[:, 0] >= step.weights[:, 1]).all()
    clean = GumbelMixer(k=3, low=-50, high=50, weights="clean").step(z, token, torch.arange(n), token)
    assert torch.equal(clean.ids, step.ids)
    assert torch.allclose(clean.weights / WEIGHT_SCALE, torch.softmax(z.gather(-1, clean.ids), -1), atol=1e-4)


def test_soft_thinking_mixes_the_whole_vocabulary_or_the_authors_kept_few() -> None:
    z, token, seed, position = _inputs(scale=1.0)
    whole = SoftThinkingMixer().step(z, token, seed, position)
    assert torch.allclose(whole.dense, torch.softmax(z, -1))
    few = SoftThinkingMixer(keep=10).step(z, token, seed, position)
    assert few.dense is None
    assert few.ids.shape == (B, 10)
    assert (few.weights.sum(-1) == WEIGHT_SCALE).all()
    assert torch.equal(few.ids[:, 0], z.argmax(-1))


def test_cold_stop_ends_thinking_after_so_many_sure_steps() -> None:
    z = torch.full((2, V), -50.0)
    z[:, 3] = 50.0
    z[1] = 0.0  # never sure
    token, seed = torch.tensor([3, 5]), torch.arange(2)
    mixer = SoftThinkingMixer(keep=5, cold_steps=3, stop_after=7)
    state, written = None, []
    for t in range(4):
        step = mixer.step(z, token, seed, torch.full((2,), t), state=state)
        state = step.state
        written.append(step.token.tolist())
    assert written == [[3, 5], [3, 5], [7, 5], [3, 5]]
    assert state.tolist() == [ENDED, 0]


@pytest.mark.parametrize("weights", [[[1.0, 0.0]], [[0.0, 1.0]], [[0.5, 0.5]]])
def test_extreme_weights_fit_their_integers(weights) -> None:
    out = quantize(torch.tensor(weights))
    assert out.sum() == WEIGHT_SCALE
    assert (out[:, 1:] < WEIGHT_SCALE).all()
    assert (out >= 0).all()
