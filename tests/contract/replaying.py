"""What the contract's tests share: requests, an independent replay of what was fed, and comparisons of samples."""

import asyncio

import torch
from tiny_models import VOCABULARY
from transformers import AutoModelForCausalLM

from ngrpo.engines.contract import Request, Sampling
from ngrpo.method import rng
from ngrpo.method.mixers import WEIGHT_SCALE, NeighborMixer
from ngrpo.method.sketches import deviations, signs

TEMPERATURE = 0.9
SAMPLING = Sampling(TEMPERATURE, max_new_tokens=48)
MOST, MEAN = 1e-4, 5e-6  # replay parity in float32: largest and mean difference of log-probs
SAME = 1e-3  # log-probs of the same sample from differently shaped products, after tens of steps of it
OFF = 0.1  # what dropped records must exceed
INPUTS = 1e-4  # how far, as a share of its length, an input is from what the engine's model read of it


def prompts(n: int, length: int = 12) -> list[tuple[int, ...]]:
    """Prompts of different lengths."""
    generator = torch.Generator().manual_seed(7)
    return [tuple(torch.randint(3, VOCABULARY, (length + i % 5,), generator=generator).tolist()) for i in range(n)]


def requests(n: int, mixer=NeighborMixer(rho=0.3)) -> list[Request]:  # noqa: B008
    """n requests with a seed each."""
    return [Request(p, 1000 + i, mixer) for i, p in enumerate(prompts(n))]


def inputs(E: torch.Tensor, prompt, tokens, record=None) -> torch.Tensor:
    """Input embeddings of prompt and response; record: what was fed."""
    fed = E[torch.tensor([*prompt, *tokens])].clone()
    if record is not None:
        for index, ids, weights in zip(record.index, record.ids, record.weights, strict=True):
            weights = torch.tensor(weights, dtype=torch.float32) / WEIGHT_SCALE
            fed[len(prompt) + index] = (E[torch.tensor(ids)] * weights[:, None]).sum(0)
        if record.noise is not None:
            position = torch.arange(len(prompt), len(prompt) + len(tokens) - 1)
            noise = rng.normal(torch.full_like(position, record.noise_seed("old")), position, E.shape[1])
            fed[len(prompt) : -1] += torch.from_numpy(record.noise.sigma)[:, None] * noise
    return fed


def logits_of(model, prompt, tokens, record=None) -> torch.Tensor:
    """Logits (T, V) of the response's tokens under an independent forward pass; record: what was fed."""
    hf = AutoModelForCausalLM.from_pretrained(model, torch_dtype=torch.float32, attn_implementation="eager")
    fed = inputs(hf.get_input_embeddings().weight.detach(), prompt, tokens, record)
    with torch.no_grad():
        return hf(inputs_embeds=fed[None]).logits[0, len(prompt) - 1 : -1]


def likelihood_ratios(model, prompt, tokens) -> torch.Tensor:
    """p(token) / max p at each token (T,) of a response that fed its own tokens."""
    log_p = torch.log_softmax(logits_of(model, prompt, tokens) / TEMPERATURE, -1)
    return (log_p.gather(1, torch.tensor(tokens)[:, None])[:, 0] - log_p.amax(-1)).exp()


def replayed(model, prompt, tokens, record=None, mixer=None) -> torch.Tensor:
    """Log-probs of the response under an independent forward pass over input embeddings; record: what was fed.

    mixer: where it has a likelihood of its own, mixed steps have that one.
    """
    log_p = torch.log_softmax(logits_of(model, prompt, tokens, record) / TEMPERATURE, -1)
    out = log_p.gather(1, torch.tensor(tokens)[:, None])[:, 0]
    if record is not None and mixer is not None and mixer.own_likelihood:
        at = torch.from_numpy(record.index)
        scores = None if record.scores is None else torch.from_numpy(record.scores)
        out[at] = mixer.likelihood(log_p[at].gather(1, torch.from_numpy(record.ids)), scores)
    return out


def input_deviations(model, asked, samples, *, drop: bool = False) -> torch.Tensor:
    """How far each mixed input is from what the engine's model read; drop: forget the records' mixtures."""
    E = AutoModelForCausalLM.from_pretrained(model, torch_dtype=torch.float32).get_input_embeddings().weight.detach()
    parts = []
    for r, s in zip(asked, samples, strict=True):
        mixed = torch.from_numpy(s.record.mixed())
        if mixed.any():
            fed = inputs(E, r.prompt, s.tokens, None if drop else s.record)[len(r.prompt) : -1][mixed]
            parts.append(deviations(fed, torch.from_numpy(s.record.sketches), signs(E.shape[1])))
    return torch.cat(parts)


def through_sglang(engine, input_ids, params):
    """Outputs of sglang itself; an error if it dies."""
    answer = engine.server.async_generate(input_ids=input_ids, sampling_params=params, return_logprob=True)
    return asyncio.get_event_loop().run_until_complete(engine._watched(answer))


def differences(model, asked, samples, *, drop: bool = False) -> torch.Tensor:
    """|engine's log-prob − replayed log-prob| of all tokens; drop: forget the records."""
    return torch.cat(
        [
            (replayed(model, r.prompt, s.tokens, None if drop else s.record, r.mixer) - torch.tensor(s.log_probs)).abs()
            for r, s in zip(asked, samples, strict=True)
        ]
    )


def assert_parity(model, asked, samples) -> None:
    """Replay parity, and that records matter."""
    off = differences(model, asked, samples)
    assert off.max() <= MOST
    assert off.mean() <= MEAN
    assert differences(model, asked, samples, drop=True).max() >= OFF
    assert input_deviations(model, asked, samples).max() <= INPUTS
    assert input_deviations(model, asked, samples, drop=True).max() >= 10 * INPUTS


def facts(sample) -> tuple:
    """Everything of a sample but its log-probs."""
    r = sample.record
    return sample.tokens, sample.finish_reason, r.index.tolist(), r.ids.tolist()


def assert_same(ours, others) -> None:
    """Equal samples; log-probs and weights up to the rounding of differently shaped matrix products."""
    for a, b in zip(ours, others, strict=True):
        assert facts(a) == facts(b)
        assert abs(torch.tensor(a.log_probs) - torch.tensor(b.log_probs)).max() <= SAME
        assert (abs(a.record.weights - b.record.weights) <= 8).all()


def candidates(record) -> dict[int, set[int]]:
    """At each mixed step, the candidates that weigh anything."""
    steps = zip(record.index.tolist(), record.ids, record.weights, strict=True)
    return {index: set(ids[weights > 0].tolist()) for index, ids, weights in steps}


def shared_steps(a, b) -> int:
    """Steps before two samples' tokens, candidates or log-probs (by more than 10 SAME) part."""
    steps = zip(a.tokens, b.tokens, a.log_probs, b.log_probs, strict=False)
    parts = [t for t, (x, y, p, q) in enumerate(steps) if x != y or abs(p - q) > 10 * SAME]
    fed, others = candidates(a.record), candidates(b.record)
    parts += [t for t in range(min(len(a.tokens), len(b.tokens))) if fed.get(t) != others.get(t)]
    return min(parts, default=min(len(a.tokens), len(b.tokens)))
