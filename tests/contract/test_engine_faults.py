"""What the sglang plugin does with bad input and with processes that die: a clear error, and the others go on."""

import asyncio
import multiprocessing
import os
import re
import signal
import threading
import time

import pytest

pytestmark = pytest.mark.train

torch = pytest.importorskip("torch", reason="the training environment has torch")

import stockrunner  # noqa: E402
from replaying import SAMPLING, TEMPERATURE, assert_same, requests, shared_steps  # noqa: E402

import ngrpo.engines.sglang as plugin  # noqa: E402
from ngrpo.engines import open_engine  # noqa: E402
from ngrpo.engines.contract import Sampling  # noqa: E402
from ngrpo.engines.sglang.engine import _sample  # noqa: E402
from ngrpo.errors import UserError  # noqa: E402
from ngrpo.method.mixers import NoMixer, SoftThinkingMixer  # noqa: E402


@pytest.fixture(scope="module")
def sglang(models):
    """sglang that waits three seconds for a batch."""
    with open_engine("sglang", *models(), batch_timeout=3.0, log_level="error") as engine:
        yield engine


def schedulers() -> list:
    """This process's scheduler processes."""
    import psutil

    return [p for p in psutil.Process().children() if p.name().startswith("sglang::schedul")]


@pytest.mark.engine
def test_a_scheduler_that_is_killed_as_it_starts_is_reported(models):
    known, killed = set(multiprocessing.active_children()), []

    def kill() -> None:
        deadline = time.monotonic() + 60
        while not killed and time.monotonic() < deadline:
            for child in set(multiprocessing.active_children()) - known:
                time.sleep(1)
                os.kill(child.pid, signal.SIGKILL)
                killed.append(child.pid)
                break
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(UserError, match="died while it started"):
        open_engine("sglang", *models(), log_level="error")
    killer.join()
    assert killed


@pytest.mark.engine
def test_a_scheduler_with_a_part_of_sglangs_own_does_not_start(models, monkeypatch, capfd):
    monkeypatch.setattr(plugin, "run_scheduler", stockrunner.run_scheduler)
    with pytest.raises(UserError, match="died while it started"):
        open_engine("sglang", *models(), log_level="error")
    assert re.search(r"without these parts of the plugin: .*ModelRunner", capfd.readouterr().err)


@pytest.mark.engine
def test_a_scheduler_that_is_killed_while_it_samples_is_reported(models):
    with open_engine("sglang", *models(), log_level="error") as engine:
        timer = threading.Timer(0.5, lambda: [p.kill() for p in schedulers()])
        timer.start()
        with pytest.raises(UserError, match="an sglang process died"):
            engine.generate(requests(64), Sampling(TEMPERATURE, max_new_tokens=400))
        timer.join()


@pytest.fixture(scope="module")
def cramped(models):
    """sglang with memory for four requests at most."""
    with open_engine("sglang", *models(), [SoftThinkingMixer()], max_total_tokens=256, log_level="error") as engine:
        yield engine


@pytest.mark.engine
def test_more_requests_than_memory_holds_all_finish(sglang, cramped):
    asked = requests(24)
    alone = [sglang.generate([request], SAMPLING)[0] for request in asked]
    shared = [shared_steps(a, b) for a, b in zip(cramped.generate(asked, SAMPLING), alone, strict=True)]
    assert sorted(shared)[8:] == [48] * 16  # rounding parts a random model's samples now and then


@pytest.mark.engine
def test_soft_thinking_that_memory_interrupts_is_refused_and_others_finish(cramped):
    """Nothing records a mixture of the whole vocabulary, so that it can't be fed again."""
    with pytest.raises(UserError, match="raise max_total_tokens"):
        cramped.generate(requests(24, SoftThinkingMixer()), SAMPLING)
    assert len(cramped.generate(requests(24), SAMPLING)) == 24
    assert len(cramped.generate(requests(1, SoftThinkingMixer()), SAMPLING)) == 1


@pytest.mark.engine
def test_a_batch_that_never_fills_is_refused_and_others_go_on(sglang):
    began = time.monotonic()
    params = [
        {"max_new_tokens": 4, "custom_params": plugin.request_params(NoMixer(), i, ("half", 3))} for i in range(2)
    ]
    with pytest.raises(ValueError, match="only 2 of 3 requests of batch half"):
        sglang.server.generate(input_ids=[[5, 6], [7, 8]], sampling_params=params)
    assert 3 <= time.monotonic() - began < 30
    assert len(sglang.generate(requests(2), SAMPLING)) == 2


@pytest.mark.engine
def test_an_aborted_request_leaves_the_others_alone(sglang):
    asked = requests(3)
    server = sglang.server

    async def abort_one() -> list:
        params = [
            {"temperature": TEMPERATURE, "max_new_tokens": 400 if i == 0 else 48, "ignore_eos": True}
            | {"custom_params": plugin.request_params(r.mixer, r.seed)}
            for i, r in enumerate(asked)
        ]
        tasks = [
            asyncio.ensure_future(
                server.async_generate(input_ids=list(r.prompt), sampling_params=p, return_logprob=True)
            )
            for r, p in zip(asked, params, strict=True)
        ]
        await asyncio.sleep(0.1)
        for rid, state in list(server.tokenizer_manager.rid_to_state.items()):
            if state.obj.sampling_params["max_new_tokens"] == 400:
                server.tokenizer_manager.abort_request(rid)
        return await asyncio.gather(*tasks)

    outputs = asyncio.get_event_loop().run_until_complete(abort_one())
    with pytest.raises(UserError, match="gave up"):
        plugin.record_of(outputs[0], [])
    assert_same([_sample(o) for o in outputs[1:]], sglang.generate(asked[1:], SAMPLING))


@pytest.mark.engine
def test_unsuitable_settings_are_refused_by_name(models, monkeypatch):
    model, table = models()
    for machine, word in (
        ({"dp_size": 2}, "dp_size"),
        ({"enable_mixed_chunk": True}, "enable_mixed_chunk"),
        ({"max_runing_requests": 4}, "max_running_requests"),
    ):
        with pytest.raises(UserError, match=word):
            open_engine("sglang", model, table, **machine)
    with pytest.raises(UserError, match="refresh"):
        open_engine("sglang", model, table, refresh="sometimes")
    with pytest.raises(UserError, match="did you mean 'lm_head'"):
        open_engine("sglang", model, table, space="lm-head")
    monkeypatch.setattr(plugin, "version", lambda _: "0.5.0")
    with pytest.raises(UserError, match=r"0\.4\.6\.post5"):
        open_engine("sglang", model, table)
    server = type("Server", (), {**dict(plugin.hooks.UNSUPPORTED), "speculative_algorithm": "EAGLE"})
    with pytest.raises(UserError, match="speculative_algorithm"):
        plugin.check_server(server)


def test_a_table_of_another_vocabulary_is_refused(models, tmp_path):
    from ngrpo.method.neighbor_table import build

    build(torch.randn(100, 8), 3, "cosine").save(tmp_path / "other.safetensors")
    for name in ("transformers", "sglang"):
        with pytest.raises(UserError, match="vocabulary and table don't match"):
            open_engine(name, models()[0], tmp_path / "other.safetensors")
