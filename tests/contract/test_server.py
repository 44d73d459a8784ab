"""`ngrpo serve`: sglang's HTTP server answers clients that mix as the engine does, and others as stock sglang does."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from ngrpo.engines import sglang as plugin
from ngrpo.engines.contract import Request, Sampling
from ngrpo.errors import UserError
from ngrpo.method.mixers import NeighborMixer, NoMixer

pytestmark = [pytest.mark.train, pytest.mark.engine]
PROMPTS = ([5, 9, 13], [7, 7, 7, 3])
MIXER = NeighborMixer(rho=0.5, k=3)
NEW, STARTS = 24, 120


def a_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def serving(model: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "ngrpo", "serve", model, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def url(models) -> Iterator[str]:
    """A server of the tiny model, which has no tokenizer."""
    model, table = models()
    port = a_port()
    options = ("--port", str(port), "--skip-tokenizer-init", "--log-level", "error")
    server, at = serving(model, "--neighbors", str(table), "--", *options), f"http://127.0.0.1:{port}"
    for _ in range(STARTS):
        assert server.poll() is None, server.stdout.read()
        try:
            if requests.get(f"{at}/health", timeout=5).ok:
                break
        except requests.ConnectionError:
            time.sleep(1)
    yield at
    server.send_signal(signal.SIGINT)
    assert server.wait(30) is not None


def ask(url: str, prompt: list[int], params: dict | None, **sampling) -> requests.Response:
    asked = {"max_new_tokens": NEW, "ignore_eos": True, **sampling, **({"custom_params": params} if params else {})}
    body = {"input_ids": prompt, "sampling_params": asked, "return_logprob": True}
    return requests.post(f"{url}/generate", json=body, timeout=60)


def test_it_answers_as_the_engine_does(url: str, models) -> None:
    from ngrpo.engines.sglang.engine import SGLangEngine

    model, table = models()
    answers = [ask(url, prompt, plugin.request_params(MIXER, seed)).json() for seed, prompt in enumerate(PROMPTS)]
    sampling = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=NEW)
    asked = [Request(tuple(prompt), seed, MIXER) for seed, prompt in enumerate(PROMPTS)]
    with SGLangEngine(model, table, [MIXER]) as engine:
        samples = engine.generate(asked, sampling)
        other = engine.generate([Request(tuple(PROMPTS[0]), 0, NoMixer())], sampling)
    for answer, sample in zip(answers, samples, strict=True):
        tokens, record = plugin.tokens_of(answer), plugin.record_of(answer)
        length = len(sample.tokens)  # the engine ends at an end token, the request above goes on
        assert tokens[:length] == list(sample.tokens)
        assert set(sample.record.index) <= set(record.index)
        assert len(record.index) > 0
    assert plugin.tokens_of(answers[0])[: len(other[0].tokens)] != list(other[0].tokens)  # mixing makes a difference


def test_the_same_request_gets_the_same_answer(url: str) -> None:
    once, again = (ask(url, PROMPTS[0], plugin.request_params(MIXER, 3)).json() for _ in range(2))
    assert plugin.tokens_of(once) == plugin.tokens_of(again)
    assert plugin.record_of(once).pack() == plugin.record_of(again).pack()
    other = ask(url, PROMPTS[0], plugin.request_params(MIXER, 4)).json()
    assert plugin.tokens_of(other) != plugin.tokens_of(once)


def test_others_get_what_stock_answers(url: str) -> None:
    answer = ask(url, PROMPTS[0], None, temperature=0).json()
    assert len(answer["output_ids"]) == NEW
    with pytest.raises(UserError, match="without a record"):
        plugin.record_of(answer)


def test_what_the_table_cannot_serve_is_refused_by_name(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "_settings", None)  # a client's process has no engine
    answer = ask(url, PROMPTS[0], plugin.request_params(NeighborMixer(rho=0.5, k=3, metric="l2"), 1))
    assert "l2" in answer.text
    assert "cosine" in answer.text
    assert ask(url, PROMPTS[0], plugin.request_params(MIXER, 1)).ok  # and the server goes on


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--", "--speculative-algorithm", "EAGLE"), "speculative_algorithm"),
        (("--", "--no-such-option"), "--no-such-option"),
        (("--neighbors", "nowhere.safetensors"), "nowhere.safetensors"),
    ],
)
def test_what_it_cannot_do_ends_the_start(models, options: tuple[str, ...], says: str) -> None:
    model, _ = models()
    server = serving(model, *options)
    said, _ = server.communicate(timeout=120)
    assert server.returncode != 0
    assert says in said
    assert not re.search(r"Traceback", said)


@pytest.mark.parametrize("seconds", [0, 10])
def test_it_leaves_no_process_behind(models, seconds: int) -> None:
    """Ended while its engine starts, or some time after."""
    import psutil

    model, _ = models()
    server = serving(model, "--", "--port", str(a_port()), "--skip-tokenizer-init", "--log-level", "error")
    for _ in range(STARTS):
        children = psutil.Process(server.pid).children(recursive=True)
        if len(children) > 2:
            break
        time.sleep(0.5)
    time.sleep(seconds)
    server.send_signal(signal.SIGTERM)
    server.wait(60)
    _, left = psutil.wait_procs(children, timeout=30)
    assert not left
