"""What a GPU adds to the engine's contract: CUDA graphs, bfloat16, tensor parallelism, and the price of mixing.

| check | on a GPU | on a CPU |
|---|---|---|
| two ways of running agree | CUDA graphs on and off; TP 2 and 1 (two GPUs) | overlap schedule on and off; TP 2 and 1 |
| drift between rollout and trainer | bfloat16 engine, autocast trainer | the same, and float32 |
| throughput with and without mixing | ρ=0.1 at least 0.90 of ρ=0 (Table 14) | at least 0.60: cores are shared |

In bfloat16 two ways of running part after a few tokens (TP 2 and 1 on a CPU: after a tenth of the steps), wherever two
tokens are nearly as likely, so there each way is held to the same trainer and to the same gate instead.
"""

import statistics
import time

import pytest

pytestmark = [pytest.mark.train, pytest.mark.gpu, pytest.mark.engine]

torch = pytest.importorskip("torch", reason="the training environment has torch")

import unmixed  # noqa: E402
from replaying import MEAN, MOST, SAME, SAMPLING, TEMPERATURE, candidates, requests  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from ngrpo.engines.contract import Request, Sampling  # noqa: E402
from ngrpo.method.mixers import WEIGHT_SCALE, NeighborMixer, NoMixer  # noqa: E402

GPUS = torch.cuda.device_count()
DEVICE = "cuda" if GPUS else "cpu"
needs_gpu = pytest.mark.skipif(not GPUS, reason="needs a GPU: a CPU captures no CUDA graphs")
needs_two = pytest.mark.skipif(GPUS == 1, reason="tensor parallelism needs two GPUs, there is one")
# |Δ log-prob| between rollout and trainer in bfloat16: largest, average. On a CPU this model showed 0.22 and 0.043,
# and 5.1 at most where records were dropped. A real model's figures may differ: nobody has measured them.
DRIFT_MOST, DRIFT_MEAN = 0.7, 0.1
SPEED = 0.90 if GPUS else 0.60
PAIRS = [
    pytest.param({"disable_cuda_graph": True}, id="cuda-graphs", marks=needs_gpu),
    pytest.param({"disable_overlap_schedule": True}, id="overlap-schedule"),
    pytest.param({"tp_size": 2}, id="tensor-parallelism", marks=needs_two),
]


def agreement(ours, others) -> tuple[float, float]:
    """Share of the steps before two samples part in token or candidates, and the largest |Δ log-prob| among them."""
    shared, off, steps = 0, 0.0, 0
    for a, b in zip(ours, others, strict=True):
        fed, other = candidates(a.record), candidates(b.record)
        steps += min(len(a.tokens), len(b.tokens))
        for t, (x, y, p, q) in enumerate(zip(a.tokens, b.tokens, a.log_probs, b.log_probs, strict=False)):
            if x != y or fed.get(t) != other.get(t):
                break
            shared += 1
            off = max(off, abs(p - q))
    return shared / steps, off


def drift(model, asked, samples, *, low: bool, drop: bool = False) -> torch.Tensor:
    """|rollout's log-prob − trainer's| of all tokens; low: bfloat16 autocast, as verl's actor; drop: forget records."""
    hf = AutoModelForCausalLM.from_pretrained(model, torch_dtype=torch.float32).to(DEVICE)
    E = hf.get_input_embeddings().weight.detach()
    off = []
    for request, sample in zip(asked, samples, strict=True):
        start, record = len(request.prompt), sample.record
        fed = E[torch.tensor([*request.prompt, *sample.tokens], device=DEVICE)].clone()
        for index, ids, weights in zip(record.index, record.ids, record.weights, strict=True):
            weights = torch.tensor(weights, dtype=torch.float32, device=DEVICE) / WEIGHT_SCALE
            fed[start + index] = (E[torch.tensor(ids, device=DEVICE)] * weights[:, None]).sum(0)
        if drop:
            fed = E[torch.tensor([*request.prompt, *sample.tokens], device=DEVICE)]
        with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16, enabled=low):
            logits = hf(inputs_embeds=fed[None]).logits[0, start - 1 : -1]
        log_probs = torch.log_softmax(logits.float() / TEMPERATURE, -1)
        own = log_probs.gather(1, torch.tensor(sample.tokens, device=DEVICE)[:, None])[:, 0].cpu()
        off.append((own - torch.tensor(sample.log_probs)).abs())
    return torch.cat(off)


def gates(sample, steps: int) -> list[int]:
    """Which of a response's first steps mixed."""
    return [index for index in sample.record.index.tolist() if index < steps]


@pytest.mark.parametrize("other", PAIRS)
def test_two_ways_of_running_give_the_same_samples(start, model, other):
    asked = requests(8)
    ways = [engine.generate(asked, SAMPLING) for engine in (start(), start(**other))]
    for a, b in zip(*ways, strict=True):
        steps = min(len(a.tokens), len(b.tokens)) - 1  # the last token of a response feeds nothing
        assert gates(a, steps) == gates(b, steps)
    if GPUS:
        for samples in ways:
            off = drift(model[0], asked, samples, low=True)
            assert off.max() <= DRIFT_MOST
            assert off.mean() <= DRIFT_MEAN
    else:
        shared, off = agreement(*ways)
        assert shared == 1
        assert off <= SAME


def test_a_run_that_feeds_other_inputs_would_be_seen(start, model):
    """What a captured graph without mixing does: other samples, and records that don't replay."""
    asked = requests(8)
    samples = start(unmixed.run_scheduler).generate(asked, SAMPLING)
    assert agreement(start().generate(asked, SAMPLING), samples)[0] < 1
    assert drift(model[0], asked, samples, low=GPUS > 0).max() > DRIFT_MOST  # on average it can pass for rounding


@pytest.mark.parametrize(
    "graphs", [pytest.param(True, id="graphs", marks=needs_gpu), pytest.param(False, id="no-graphs")]
)
def test_bfloat16_drift_between_rollout_and_trainer_is_bounded(start, model, graphs):
    asked = requests(8)
    samples = start(dtype="bfloat16", disable_cuda_graph=not graphs).generate(asked, SAMPLING)
    off = drift(model[0], asked, samples, low=True)
    dropped = drift(model[0], asked, samples, low=True, drop=True)
    print(f"bfloat16: at most {off.max():.3f}, on average {off.mean():.4f}; records dropped: {dropped.max():.2f}")
    assert sum(len(s.record.index) for s in samples) > 0
    assert off.max() <= DRIFT_MOST
    assert off.mean() <= DRIFT_MEAN
    assert dropped.max() > DRIFT_MOST
    assert dropped.mean() > DRIFT_MEAN


@pytest.mark.skipif(GPUS > 0, reason="GPU attention kernels don't take float32")
def test_float32_drift_is_rounding(start, model):
    asked = requests(8)
    off = drift(model[0], asked, start().generate(asked, SAMPLING), low=False)
    assert off.max() <= MOST
    assert off.mean() <= MEAN


def test_mixing_costs_little(start):
    """Table 14: N-GRPO's rollout makes 0.90 to 0.91 of GRPO's tokens a second."""
    engine, rounds, tokens = start(), 5, 96
    prompts = [request.prompt for request in requests(16)]
    speeds = {0.1: [], None: []}
    for number in range(rounds + 1):  # the first one warms up
        for rho in list(speeds)[:: 1 if number % 2 else -1]:
            mixer = NoMixer() if rho is None else NeighborMixer(rho)
            asked = [Request(p, 100 * number + i, mixer) for i, p in enumerate(prompts)]
            began = time.perf_counter()
            samples = engine.generate(asked, Sampling(TEMPERATURE, tokens))
            speed = sum(len(s.tokens) for s in samples) / (time.perf_counter() - began)
            if number:
                speeds[rho].append(speed)
    ratio = statistics.median(a / b for a, b in zip(speeds[0.1], speeds[None], strict=True))
    print(f"rho=0.1: {ratio:.3f} of the tokens a second without mixing ({statistics.median(speeds[None]):.0f})")
    assert ratio >= SPEED
