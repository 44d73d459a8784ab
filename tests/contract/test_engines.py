"""What every engine promises (`ngrpo.engines.contract`), and what the sglang plugin promises beside it."""

import asyncio
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

pytestmark = pytest.mark.train

torch = pytest.importorskip("torch", reason="the training environment has torch")

import forgetful  # noqa: E402
from replaying import (  # noqa: E402
    MOST,
    OFF,
    SAMPLING,
    TEMPERATURE,
    assert_parity,
    assert_same,
    differences,
    prompts,
    replayed,
    requests,
    through_sglang,
)
from tiny_models import tiny_table  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

import ngrpo.engines.sglang as plugin  # noqa: E402
from ngrpo.engines import open_engine  # noqa: E402
from ngrpo.engines.contract import Request, Sampling  # noqa: E402
from ngrpo.engines.sglang import cpu  # noqa: E402
from ngrpo.engines.sglang.engine import _sample, keeping_signals  # noqa: E402
from ngrpo.errors import UserError  # noqa: E402
from ngrpo.method.mixers import WEIGHT_SCALE, NeighborMixer, NoMixer  # noqa: E402
from ngrpo.method.neighbor_table import Table  # noqa: E402


@pytest.fixture(scope="module")
def transformers(models):
    """The oracle, untied."""
    with open_engine("transformers", *models()) as engine:
        yield engine


def started(models, tied: bool, scheduler=plugin.run_scheduler, **machine):
    """sglang, set to retract requests at each step of more than ten, and with this scheduler process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGLANG_TEST_RETRACT", "true")
        patch.setattr(plugin, "run_scheduler", scheduler)
        return open_engine("sglang", *models(tied=tied), log_level="error", **machine)


@pytest.fixture(scope="module")
def sglang(models):
    """sglang as it is by default: overlap schedule, prefix cache."""
    with started(models, tied=False, batch_timeout=3.0) as engine:
        yield engine


@pytest.fixture(scope="module")
def strained(models):
    """sglang, tied, without overlap, with prefill in small chunks and a table that follows the weights."""
    machine = {"disable_overlap_schedule": True, "chunked_prefill_size": 24}
    with started(models, tied=True, refresh="update", **machine) as engine:
        yield engine


@pytest.fixture(scope="module")
def forgetting(models):
    """The negative control: it forgets what it mixed."""
    with started(models, True, forgetful.run_scheduler, disable_overlap_schedule=True) as engine:
        yield engine


def ask(engine, prompt, custom, *, tokens=48):
    """One request through sglang itself, without a batch to wait for."""
    params = {"temperature": TEMPERATURE, "max_new_tokens": tokens, "ignore_eos": True, "custom_params": custom}
    return through_sglang(engine, list(prompt), params)


def written(output) -> tuple[list[int], torch.Tensor]:
    """An sglang output's tokens and log-probs."""
    log_probs, tokens, _ = zip(*output["meta_info"]["output_token_logprobs"], strict=True)
    return list(tokens), torch.tensor(log_probs)


# --- every engine ---------------------------------------------------------------------------------------------------


def test_replaying_the_records_gives_the_log_probs_and_dropping_them_does_not(engine, models):
    asked = requests(6)
    assert_parity(models()[0], asked, engine.generate(asked, SAMPLING))


def test_about_rho_of_the_steps_mix_and_write_the_anchor(engine):
    samples = engine.generate(requests(8), SAMPLING)
    steps = sum(len(s.tokens) - 1 for s in samples)
    assert 0.2 < sum(len(s.record.index) for s in samples) / steps < 0.4
    for s in samples:
        s.record.check(s.tokens)
        assert (s.record.weights.sum(1) == WEIGHT_SCALE).all()
        assert s.record.ids[:, 0].tolist() == [s.tokens[i] for i in s.record.index]


def test_rho_zero_is_stock_decoding_bit_for_bit(engine):
    a = engine.generate(requests(5, NoMixer()), SAMPLING)
    b = engine.generate(requests(5, NeighborMixer(rho=0.0)), SAMPLING)
    assert [(s.tokens, s.log_probs) for s in a] == [(s.tokens, s.log_probs) for s in b]
    mixed = engine.generate(requests(5), SAMPLING)
    assert [s.tokens for s in mixed] != [s.tokens for s in a]


def test_a_sample_depends_on_its_request_alone(engine):
    asked = requests(7)
    together = engine.generate(asked, SAMPLING)
    assert_same(engine.generate(asked[::-1], SAMPLING)[::-1], together)
    assert_same([engine.generate([r], SAMPLING)[0] for r in asked[:3]], together[:3])
    other = engine.generate([Request(asked[0].prompt, 1, asked[0].mixer)], SAMPLING)[0]
    assert other.tokens != together[0].tokens


def test_the_same_batch_gives_the_same_bits_again(engine):
    a, b = (engine.generate(requests(7), SAMPLING) for _ in range(2))
    assert [(s.log_probs, s.record.pack()) for s in a] == [(s.log_probs, s.record.pack()) for s in b]


def test_each_request_has_its_own_mixer(engine):
    mixers = [NoMixer(), NeighborMixer(0.3), NeighborMixer(1.0), NeighborMixer(0.5, k=2), NeighborMixer(0.5, k=1)]
    asked = [Request(p, 50 + i, m) for i, (p, m) in enumerate(zip(prompts(5), mixers, strict=True))]
    together = engine.generate(asked, SAMPLING)
    assert [s.record.k for s in together] == [1, 3, 3, 2, 1]
    assert_same([engine.generate([r], SAMPLING)[0] for r in asked], together)


def test_one_candidate_feeds_exactly_the_anchor(engine):
    """k=1 at ρ=1 is greedy decoding, to the bit."""
    greedy = Sampling(TEMPERATURE, 32, top_k=1)
    a = engine.generate(requests(4, NeighborMixer(rho=1.0, k=1)), Sampling(TEMPERATURE, 32))
    b = engine.generate(requests(4, NoMixer()), greedy)
    assert [(s.tokens, s.log_probs) for s in a] == [(s.tokens, s.log_probs) for s in b]
    assert all((s.record.weights == WEIGHT_SCALE).all() and len(s.record.index) == len(s.tokens) - 1 for s in a)


def test_responses_end_where_they_should(engine):
    asked = requests(3)
    whole = engine.generate(asked, SAMPLING)
    assert {s.finish_reason for s in whole} == {"length"}
    stop = whole[0].tokens[20]
    cut = engine.generate(asked, Sampling(TEMPERATURE, 48, stop_token_ids=(stop,)))
    end = whole[0].tokens.index(stop) + 1
    assert (cut[0].tokens, cut[0].finish_reason) == (whole[0].tokens[:end], "stop")
    assert (cut[0].record.index < end - 1).all()
    one = engine.generate(asked, Sampling(TEMPERATURE, 1))
    assert [s.tokens for s in one] == [s.tokens[:1] for s in whole]
    assert all(len(s.record.index) == 0 for s in one)


def test_restricted_sampling_keeps_log_probs_of_the_whole_distribution(engine, models):
    asked = requests(4)
    samples = engine.generate(asked, Sampling(TEMPERATURE, 32, top_p=0.8, top_k=5))
    assert_parity(models()[0], asked, samples)


def test_bad_requests_are_refused_by_name(engine):
    for request, word in (
        (Request((), 1), "empty prompt"),
        (Request((5,), 1, NeighborMixer(0.1, metric="l2")), "metric"),
        (Request((5,), 1, NeighborMixer(0.1, k=4)), "k is 4"),
        (Request((5,) * 500, 1), "max_new_tokens"),
    ):
        with pytest.raises(UserError, match=word):
            engine.generate([request], SAMPLING)
    assert len(engine.generate(requests(1), SAMPLING)[0].tokens) == 48


# --- sglang ---------------------------------------------------------------------------------------------------------


@pytest.mark.engine
def test_both_engines_give_the_same_samples(sglang, transformers):
    asked = requests(8)
    assert_same(sglang.generate(asked, SAMPLING), transformers.generate(asked, SAMPLING))


def run_stock_scheduler(*args) -> None:
    """sglang's own scheduler process on this machine."""
    cpu.prepare()
    cpu.patch()
    from sglang.srt.managers.scheduler import run_scheduler_process

    run_scheduler_process(*args)


@pytest.mark.engine
def test_without_mixing_it_is_the_engine_without_the_plugin_bit_for_bit(sglang, models):
    import sglang.srt.entrypoints.engine as entry

    arguments = {"model_path": str(models()[0]), "dtype": "float32", "random_seed": 0, "log_level": "error"}
    with pytest.MonkeyPatch.context() as patch, keeping_signals():
        patch.setattr(entry, "run_scheduler_process", run_stock_scheduler)
        patch.setattr(entry, "_launch_subprocesses", entry._launch_subprocesses.stock)
        stock = entry.Engine(**cpu.server_arguments({**arguments, "skip_tokenizer_init": True}))
    try:
        greedy = {"temperature": 0, "max_new_tokens": 40, "ignore_eos": True}
        for i, prompt in enumerate(prompts(3)):
            answer = stock.async_generate(input_ids=list(prompt), sampling_params=greedy, return_logprob=True)
            peer = asyncio.get_event_loop().run_until_complete(asyncio.wait_for(answer, timeout=60))
            for custom in (
                plugin.request_params(NoMixer(), i),
                plugin.request_params(NeighborMixer(0.0), i),
                None,  # a stock request
            ):
                while not sglang.server.flush_cache().success:  # a shorter prefill has another rounding
                    time.sleep(0.01)
                params = {**greedy, "custom_params": custom}
                ours = sglang.server.generate(input_ids=list(prompt), sampling_params=params, return_logprob=True)
                assert ours["meta_info"]["output_token_logprobs"] == peer["meta_info"]["output_token_logprobs"]
    finally:
        sglang_processes = {p.pid for p in sglang._processes}
        import psutil

        for child in psutil.Process().children():
            if child.pid not in sglang_processes and child.name().startswith("sglang"):
                child.kill()


@pytest.mark.engine
def test_a_failed_subprocess_beside_an_engine_is_seen_as_failed(sglang):
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL  # sglang's own handler would reap it first
    program = "import time; time.sleep(0.05); raise SystemExit(3)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 3


@pytest.mark.engine
def test_stock_requests_in_the_same_batch_are_left_alone(sglang, models):
    asked = requests(4)
    greedy = {"temperature": 0, "max_new_tokens": 48, "ignore_eos": True}
    params = [
        {"temperature": TEMPERATURE, "max_new_tokens": 48, "ignore_eos": True}
        | {"custom_params": plugin.request_params(r.mixer, r.seed)}
        for r in asked
    ]
    mixed = [greedy, params[0], greedy, params[1], params[2], params[3]]
    text = [list(p) for p in (prompts(6)[4], *[r.prompt for r in asked[:1]], prompts(6)[5])]
    text += [list(r.prompt) for r in asked[1:]]
    outputs = through_sglang(sglang, text, mixed)
    alone = sglang.generate(asked, SAMPLING)
    assert [written(outputs[i])[0] for i in (1, 3, 4, 5)] == [s.tokens for s in alone]
    for i in (0, 2):
        peer = sglang.server.generate(input_ids=text[i], sampling_params=greedy)
        assert [t for _, t, _ in outputs[i]["meta_info"]["output_token_logprobs"]] == peer["output_ids"]
        assert "ngrpo" not in outputs[i]["meta_info"]["finish_reason"]


def follow_up(engine, model) -> tuple[int, int, float, float]:
    """Ask for more after part of a mixed response, by token ids alone.

    Returns cached tokens, the prompt's length, the log-probs' distance from a forward pass over token ids, and the
    distance that the mixed history makes.
    """
    first = requests(1)[0]
    output = ask(engine, first.prompt, plugin.request_params(first.mixer, first.seed))
    tokens, _ = written(output)
    record = plugin.record_of(output, tokens)
    text = [*first.prompt, *tokens[:40]]
    again = ask(engine, text, plugin.request_params(NoMixer(), 5), tokens=8)
    more, log_probs = written(again)
    plain = replayed(model, text, more)
    index = record.index[record.index < 40]
    ids, weights = record.ids[: len(index)], record.weights[: len(index)]
    mixed_history = replace(record, index=index, ids=ids, weights=weights, length=48)
    mixed = replayed(model, first.prompt, [*tokens[:40], *more], mixed_history)[40:]
    return (
        again["meta_info"]["cached_tokens"],
        len(first.prompt),
        float((plain - log_probs).abs().max()),
        float((mixed - plain).abs().max()),
    )


@pytest.mark.engine
def test_prompts_are_shared_and_responses_are_not(sglang, models):
    cached, prompt, off, apart = follow_up(sglang, models()[0])
    assert cached == prompt
    assert off <= MOST
    assert apart >= OFF


@pytest.mark.engine
def test_sharing_mixed_prefixes_would_be_seen(forgetting, models):
    cached, prompt, off, _ = follow_up(forgetting, models(tied=True)[0])
    assert cached > prompt
    assert off >= OFF


def crowd(engine) -> tuple[list[Request], list, int]:
    """More requests than the strained engine lets run; returns requests, samples and how often one was retracted."""
    asked = requests(14)
    params = [
        {"temperature": TEMPERATURE, "max_new_tokens": 32, "stop_token_ids": list(engine.ends)}
        | {"custom_params": plugin.request_params(r.mixer, r.seed, ("crowd", len(asked)))}
        for r in asked
    ]
    outputs = through_sglang(engine, [list(r.prompt) for r in asked], params)
    # a retracted request finds its own prompt in the cache, but for the last token, each time that it comes back
    again = sum(o["meta_info"]["cached_tokens"] // (len(r.prompt) - 1) for r, o in zip(asked, outputs, strict=True))
    return asked, [_sample(o) for o in outputs], again


@pytest.mark.engine
def test_retracted_requests_replay_their_mixes(strained, models):
    asked, samples, retracted = crowd(strained)
    assert retracted >= 3
    assert_parity(models(tied=True)[0], asked, samples)
    assert_same([strained.generate([r], Sampling(TEMPERATURE, 32))[0] for r in asked], samples)


@pytest.mark.engine
def test_requests_retracted_before_their_first_token_come_back(sglang, transformers):
    """With the overlap schedule; stock sglang breaks off there when log-probs are asked for."""
    asked, samples, _ = crowd(sglang)
    assert_same(transformers.generate(asked, Sampling(TEMPERATURE, 32)), samples)


@pytest.mark.engine
def test_forgetting_the_mixes_of_retracted_requests_would_be_seen(forgetting, models):
    asked, samples, retracted = crowd(forgetting)
    assert retracted >= 3
    assert differences(models(tied=True)[0], asked, samples).max() >= OFF


@pytest.mark.engine
def test_responses_that_are_prefilled_again_in_chunks_replay_their_mixes(strained, models):
    """Retracted after more tokens than a chunk holds: the prefill of a response goes on where its last chunk ended."""
    asked = [Request(p, 70 + i, NeighborMixer(0.3)) for i, p in enumerate(prompts(14, length=16))]
    samples = strained.generate(asked, Sampling(TEMPERATURE, 64))
    assert_parity(models(tied=True)[0], asked, samples)
    assert len(strained.generate(asked[:2], SAMPLING)) == 2  # no memory was lost: sglang counts it when it is idle


@pytest.mark.engine
def test_chunked_prefill_changes_nothing(strained, models):
    asked = [Request(p, 9 + i, NeighborMixer(0.3)) for i, p in enumerate(prompts(4, length=70))]
    assert_parity(models(tied=True)[0], asked, strained.generate(asked, SAMPLING))


@pytest.mark.engine
def test_new_weights_are_used_and_a_following_table_is_rebuilt(strained, models, tmp_path):
    old, new = models(tied=True)[0], models(tied=True, seed=1)[0]
    asked = requests(4)
    try:
        strained.load_weights(new)
        samples = strained.generate(asked, SAMPLING)
        assert_parity(new, asked, samples)
        assert differences(old, asked, samples).max() >= OFF
        table = Table.load(tiny_table(new, tmp_path / "new.safetensors")).ids
        assert all(s.record.ids.tolist() == table[s.record.ids[:, 0]].tolist() for s in samples)
        weights = AutoModelForCausalLM.from_pretrained(old).state_dict()
        strained.server.update_weights_from_tensor([(n, w) for n, w in weights.items() if n != "lm_head.weight"])
        assert_parity(old, asked, strained.generate(asked, SAMPLING))
    finally:
        strained.load_weights(old)
