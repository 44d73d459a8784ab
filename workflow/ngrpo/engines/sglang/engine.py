"""The sglang engine of the contract: stock sglang 0.4.6.post5 on a Hugging Face folder, with the mixing plugin."""

import asyncio
import atexit
import functools
import itertools
import logging
import os
import signal
import tempfile
import time
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from ngrpo.engines import loopback
from ngrpo.engines import sglang as plugin
from ngrpo.engines.contract import Request, Sample, Sampling
from ngrpo.engines.model_folder import end_tokens, model_config
from ngrpo.engines.sglang import cpu
from ngrpo.errors import Unfinished, UserError, unknown_name
from ngrpo.method.mixers import Mixer
from ngrpo.scratch import make_scratch
from ngrpo.terminal import echo


def open(model: Path, neighbors: Path | None = None, mixers: Sequence[Mixer] = (), **machine: Any) -> "SGLangEngine":
    """Start sglang (see `ngrpo.engines.open_engine`). machine: see `SGLangEngine`."""
    return SGLangEngine(model, neighbors, mixers, **machine)


class SGLangEngine:
    """An engine (see `contract`) on a Hugging Face folder, through `sglang.Engine`.

    mixers, refresh, space, batch_timeout: see `ngrpo.engines.sglang.install`. machine: sglang's server arguments that
    change speed and memory, e.g. max_running_requests, max_total_tokens, tp_size, chunked_prefill_size, log_level; and
    dtype (see `model_folder.engine_dtype`).
    """

    def __init__(
        self,
        model: Path,
        neighbors: Path | None = None,
        mixers: Sequence[Mixer] = (),
        *,
        refresh: str = "never",
        space: str = "embedding",
        batch_timeout: float = 300.0,
        **machine: Any,
    ):
        began = time.monotonic()
        model_config(model)
        self.installed = plugin.install(
            neighbors, model=model, mixers=mixers, refresh=refresh, space=space, batch_timeout=batch_timeout
        )
        _check_arguments(machine)
        self.ends = end_tokens(model)
        self._count = itertools.count()
        self._dead = False
        self._sockets: list[Any] = []
        self._start(
            {
                "model_path": str(model),
                "random_seed": 0,
                "log_level": "error",
                "skip_tokenizer_init": True,  # tokens in, tokens out
                **machine,
                "trust_remote_code": False,
            }
        )
        info = self.server.scheduler_info
        self.capacity = min(info["max_total_num_tokens"], info["max_req_input_len"] + 5)  # tokens of one request
        table = f"{self.installed.metric} neighbors, k={self.installed.k}" if self.installed.k else "no neighbor table"
        echo(
            f"[sglang] {Path(model).name} on {'CPU' if cpu.on_cpu() else 'GPU'}, {table}, room for "
            f"{info['max_total_num_tokens']} tokens ({time.monotonic() - began:.0f} s)",
            err=True,
        )

    def _start(self, arguments: dict[str, Any]) -> None:
        """Start sglang's processes, without leaving its signal handlers behind; on failure, end them."""
        import psutil
        import sglang.srt.entrypoints.engine as entry
        from sglang.srt.managers import tokenizer_manager

        own = psutil.Process()
        others = set(own.children())
        replacements = (
            (entry, "_set_envs_and_config", functools.partial(self._configure, entry._set_envs_and_config)),
            (entry, "get_zmq_socket", self._connect),
            (tokenizer_manager, "get_zmq_socket", self._connect),
        )
        logging.getLogger("sglang").setLevel(arguments["log_level"].upper())
        os.environ.update(loopback.environment())
        self._scratch = make_scratch(f"process {os.getpid()}", "[sglang] ")
        private = (tempfile, "tempdir", str(self._scratch.temporary))  # sglang's sockets, which take pickles
        try:
            with keeping_signals(), _replaced(*replacements, private):
                self.server = entry.Engine(**cpu.server_arguments(arguments))
                self._processes = _servers(own, others)
                loop = asyncio.get_event_loop()
                loop.run_until_complete(_start_loop(self.server.tokenizer_manager))
        except BaseException:
            self._processes = _servers(own, others)
            self.close()
            raise
        signal.signal(signal.SIGQUIT, self._died)
        atexit.unregister(self.server.shutdown)
        atexit.register(self.close)

    def _configure(self, stock: Any, server_args: Any) -> None:
        """sglang's settings of this process; but a child's error doesn't kill the whole process tree, as sglang does.

        Safe: `_died` ends the start, or the answer that is waited for. Not in place, a killed scheduler ends the
        caller, and with it the contract test that kills one.
        """
        stock(server_args)
        signal.signal(signal.SIGQUIT, self._died)

    def _connect(self, *which: Any) -> Any:
        """sglang's socket, remembered: an open one to a dead process would keep its context from ever ending."""
        from sglang.srt.utils import get_zmq_socket

        self._sockets.append(get_zmq_socket(*which))
        return self._sockets[-1]

    def _died(self, *signal_and_frame: object) -> None:
        """A child of sglang reports an error that it doesn't survive; its log is on stderr."""
        first, self._dead = not self._dead, True
        if first and not hasattr(self, "server"):
            raise Unfinished("an sglang process died while it started; its message is above", where="sglang")

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Sample]:
        """The samples, in the order of the requests."""
        if not requests:
            return []
        batch = (f"{os.getpid()}-{next(self._count)}", len(requests))
        common = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k if sampling.top_k > 0 else -1,
            "max_new_tokens": sampling.max_new_tokens,
            "stop_token_ids": sorted({*self.ends, *sampling.stop_token_ids}),
        }
        for request in requests:
            self._check_capacity(request, sampling)
        params = [
            {**common, "custom_params": plugin.request_params(r.mixer, r.seed, batch, installed=self.installed)}
            for r in requests
        ]
        outputs = asyncio.get_event_loop().run_until_complete(
            self._watched(
                self.server.async_generate(
                    input_ids=[list(r.prompt) for r in requests], sampling_params=params, return_logprob=True
                )
            )
        )
        return [_sample(output) for output in outputs]

    def _check_capacity(self, request: Request, sampling: Sampling) -> None:
        """sglang would shorten a response without a word."""
        if not request.prompt:
            raise UserError("an empty prompt", where="request: prompt")
        if len(request.prompt) + sampling.max_new_tokens > self.capacity:
            raise UserError(
                f"a prompt of {len(request.prompt)} tokens and {sampling.max_new_tokens} new ones don't fit "
                f"{self.capacity} tokens",
                where="sglang: max_total_tokens, context_length; sampling: max_new_tokens",
                do="raise the engine's limits within the model's context, or ask for fewer tokens",
            )

    async def _watched(self, answer: Awaitable[Any]) -> Any:
        """The answer, or an error when one of sglang's processes dies on the way."""
        task = asyncio.ensure_future(answer)
        while not task.done():
            await asyncio.wait({task}, timeout=1)
            if not task.done() and (self._dead or any(_has_ended(p) for p in self._processes)):
                task.cancel()
                raise Unfinished(
                    "an sglang process died", where="sglang", do="see its messages above; log_level=info says more"
                )
        try:
            return task.result()
        except ValueError as error:  # how sglang reports a request that its scheduler refused
            raise UserError(f"sglang refused a request: {error}", where="sglang") from error

    def load_weights(self, model: Path) -> None:
        """Take the weights of another folder of the same architecture."""
        from sglang.srt.managers.io_struct import UpdateWeightFromDiskReqInput

        manager = self.server.tokenizer_manager
        done, message, *_ = asyncio.get_event_loop().run_until_complete(
            manager.update_weights_from_disk(UpdateWeightFromDiskReqInput(str(model)), None)
        )
        if not done:
            raise UserError(f"sglang didn't load the weights: {message}", where=model)

    def close(self) -> None:
        """End sglang's processes, and only them."""
        import psutil

        tree = [q for p in self._processes if not _has_ended(p) for q in (*p.children(recursive=True), p)]
        self._processes = []
        for process in tree:
            if not _has_ended(process):
                process.kill()
        psutil.wait_procs(tree, timeout=10)
        if hasattr(self, "server"):
            atexit.unregister(self.close)
            tasks = self.server.tokenizer_manager.asyncio_tasks
            loop = asyncio.get_event_loop()
            for task in tasks:
                loop.call_soon(task.cancel)
            if not loop.is_closed() and tasks:
                loop.run_until_complete(asyncio.wait(tasks, timeout=2))
            tasks.clear()
        for socket in self._sockets:
            socket.close(linger=0)
        self._scratch.remove()

    def __enter__(self) -> "SGLangEngine":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _check_arguments(machine: dict[str, Any]) -> None:
    """Raise UserError, with the nearest name, for a server argument that sglang doesn't have."""
    from sglang.srt.server_args import ServerArgs

    known = {f.name for f in fields(ServerArgs)}
    for name in machine:
        if name not in known:
            raise unknown_name("sglang server argument", name, known, where="engine: machine")


@contextmanager
def _replaced(*places: tuple[Any, str, Any]) -> Iterator[None]:
    """Attributes (owner, name, value) that are others for a while."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    try:
        for owner, name, value in places:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


@contextmanager
def keeping_signals() -> Iterator[None]:
    """Take back the signals that an engine takes as it starts.

    Its SIGCHLD handler reaps other people's children: a failed subprocess then looks as if it had ended well.
    """
    handlers = {s: signal.getsignal(s) for s in (signal.SIGCHLD, signal.SIGQUIT, signal.SIGTERM)}
    try:
        yield
    finally:
        for s, handler in handlers.items():
            signal.signal(s, handler)


async def _start_loop(manager: Any) -> None:
    """Start the tokenizer manager's loop, as its first request would, and take back the signals that it takes."""
    manager.auto_create_handle_loop()
    for s in (signal.SIGTERM, signal.SIGQUIT):
        asyncio.get_running_loop().remove_signal_handler(s)


def _servers(own: Any, others: set) -> list[Any]:
    """The living children that sglang started; Python's own resource tracker, which serves them, ends by itself."""
    import psutil

    servers = []
    for child in own.children():
        with suppress(psutil.NoSuchProcess):
            if child not in others and not any("resource_tracker" in word for word in child.cmdline()):
                servers.append(child)
    return servers


def _has_ended(process: Any) -> bool:
    """Whether a process has ended, reaped or not."""
    import psutil

    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _sample(output: dict[str, Any]) -> Sample:
    """One of sglang's outputs as a sample."""
    tokens, written = plugin.tokens_of(output), output["meta_info"]["output_token_logprobs"]
    record = plugin.record_of(output, tokens)
    reason = output["meta_info"]["finish_reason"]["type"]
    return Sample(tokens, [lp for lp, _, _ in written], reason, record)
