"""Stock sglang 0.4.6.post5 with input mixing: a plugin beside it, no forked file.

Three functions are the seam that other users of sglang (verl's rollout worker) need; `SGLangEngine` uses them too:

1. `install(...)` in the parent, before an sglang Engine (or a subclass) is built.
2. `request_params(mixer, seed, batch=...)` → a request's `sampling_params["custom_params"]`.
3. `record_of(output, tokens)` → the `Record` of one of the engine's outputs.

`cpu` holds what a machine without a GPU needs, `hooks` what runs in the scheduler processes, `state` the mixing itself.
Requests without our `custom_params` pass through untouched.
"""

import asyncio
import atexit
import functools
import itertools
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ngrpo.engines.contract import Request, Sample, Sampling
from ngrpo.engines.neighbours import end_tokens, is_dense, model_config, open_table
from ngrpo.engines.sglang import cpu
from ngrpo.engines.sglang.hooks import (
    KEY,
    REFRESH,
    SPACES,
    VERSION,
    Settings,
    check_server,
    quiet_import,
    run_detokenizer,
    run_scheduler,
)
from ngrpo.errors import UserError, unknown_name
from ngrpo.method.mixers import Mixer
from ngrpo.method.neighbours import Table
from ngrpo.method.records import Record

_settings: Settings | None = None  # of the latest `install` in this process


def install(
    neighbours: Path | None = None,
    *,
    model: Path | None = None,
    refresh: str = "never",
    space: str = "embedding",
    batch_timeout: float = 300.0,
    width: int = 1,
    noise: bool = False,
    dense: bool = False,
) -> None:
    """Make every sglang Engine that this process builds from now on a mixing one; may be called again.

    neighbours: the table's file, read by each scheduler process; None if no mixer looks neighbours up. model: if
    given, the table is checked against its vocabulary. refresh: "never" (the precomputed table stays, as the paper's)
    or "update" (rebuilt from the engine's own weights after they change); space: of which rows then, "embedding" (E) or
    "lm_head" (the output layer's, as the release). batch_timeout: seconds that requests of a
    batch wait for each other. width: candidates of the widest mixer that needs no table (a table's k counts anyway).
    noise, dense: whether some mixers add Gaussian noise, or mix the whole vocabulary (see `room`).
    Raises UserError for another sglang, a table that doesn't fit, an unknown refresh or space.
    """
    global _settings
    if refresh not in REFRESH:
        raise unknown_name("table refresh", refresh, REFRESH, where="sglang: refresh")
    if space not in SPACES:
        raise unknown_name("neighbour space", space, SPACES, where="sglang: space")
    table = None
    if neighbours is not None:
        table = Table.load(neighbours) if model is None else open_table(neighbours, model)
    cpu.prepare()
    with quiet_import():
        import sglang
        import sglang.srt.entrypoints.engine as entry

    if sglang.__version__ != VERSION:
        raise UserError(
            f"sglang is {sglang.__version__}, but the plugin is written for {VERSION}",
            where="training environment",
            do=f"install sglang=={VERSION}",
        )
    _settings = Settings(
        None if neighbours is None else Path(neighbours).absolute(),
        table.metric if table else None,
        table.k if table else None,
        refresh,
        space,
        batch_timeout,
        max(width, table.k if table else 1),
        noise,
        dense,
    )
    entry.run_scheduler_process = functools.partial(run_scheduler, _settings)
    entry.run_detokenizer_process = run_detokenizer
    launch = getattr(entry._launch_subprocesses, "stock", entry._launch_subprocesses)

    @functools.wraps(launch)
    def checked_launch(server_args: Any, port_args: Any = None) -> Any:
        check_server(server_args)
        manager, report = launch(server_args, port_args)
        if report is not None and KEY not in report:
            raise UserError("sglang's scheduler started without the plugin", where="sglang: run_scheduler_process")
        return manager, report

    checked_launch.stock = launch
    entry._launch_subprocesses = checked_launch


def room(mixers: Sequence[Mixer]) -> dict[str, Any]:
    """What `install` must be told to serve these mixers: width, noise, dense."""
    return {
        "width": max((m.width for m in mixers), default=1),
        "noise": any(m.kind == "gaussian" for m in mixers),
        "dense": any(is_dense(m) for m in mixers),
    }


def request_params(mixer: Mixer, seed: int, batch: tuple[str, int] | None = None) -> dict[str, Any]:
    """A request's `custom_params`: its mixer, its seed in [0, 2**62), and the batch that it waits for.

    batch: (id, n), n ≥ 1: no request of the batch is scheduled before all n have arrived, which makes runs on a CPU
    reproducible to the bit; ids must not be used twice. Raises UserError where the installed table doesn't fit the
    mixer.
    """
    if _settings is None:
        raise UserError("the sglang plugin isn't installed", where="request_params", do="call install() first")
    if not 0 <= seed < 1 << 62:
        raise UserError(f"seed is {seed}", where="request: seed", do="choose a number in [0, 2**62)")
    _settings.check(mixer)
    return {KEY: {"seed": seed, "mixer": {"kind": mixer.kind, **asdict(mixer)}, "batch": batch}}


def record_of(output: dict[str, Any], tokens: Sequence[int]) -> Record:
    """The record of one sglang output, checked against its response tokens (with the ending token, unpadded).

    Raises UserError for an aborted request and for tokens that aren't this output's.
    """
    reason = output["meta_info"]["finish_reason"] or {}
    if reason.get("type") == "abort":
        raise UserError(f"sglang gave up on a request: {reason['message']}", where="sglang")
    if KEY not in reason:
        raise UserError("an sglang output without a record", where="sglang", do="send requests with request_params()")
    record = Record.unpack(reason[KEY])
    record.check(tokens)
    return record


class SGLangEngine:
    """An engine (see `contract`) on a Hugging Face folder, through `sglang.Engine`.

    refresh, space, batch_timeout, width: see `install`. machine: sglang's server arguments that change speed and
    memory, e.g. max_running_requests, max_total_tokens, tp_size, chunked_prefill_size, log_level.
    """

    def __init__(
        self,
        model: Path,
        neighbours: Path | None = None,
        *,
        refresh: str = "never",
        space: str = "embedding",
        batch_timeout: float = 300.0,
        width: int = 1,
        noise: bool = False,
        dense: bool = False,
        **machine: Any,
    ):
        began = time.monotonic()
        model_config(model)
        install(
            neighbours,
            model=model,
            refresh=refresh,
            space=space,
            batch_timeout=batch_timeout,
            width=width,
            noise=noise,
            dense=dense,
        )
        import psutil
        import sglang.srt.entrypoints.engine as entry
        from sglang.srt.server_args import ServerArgs

        known = {f.name for f in fields(ServerArgs)}
        for name in machine:
            if name not in known:
                raise unknown_name("sglang server argument", name, known, where="engine: machine")
        arguments = {
            "dtype": "float32" if cpu.on_cpu() else "auto",
            "random_seed": 0,
            "log_level": "error",
            "skip_tokenizer_init": True,  # tokens in, tokens out
            **machine,
        }
        self.ends = end_tokens(model)
        self._count = itertools.count()
        self._dead = False
        own = psutil.Process()
        others = set(own.children())
        configure = entry._set_envs_and_config
        # sglang answers a child's error by killing the whole process tree
        entry._set_envs_and_config = lambda server: (configure(server), signal.signal(signal.SIGQUIT, self._died))
        logging.getLogger("sglang").setLevel(arguments["log_level"].upper())
        try:
            with keeping_signals():
                self.server = entry.Engine(model_path=str(model), **cpu.server_arguments(arguments))
                self._processes = _servers(own, others)
                loop = asyncio.get_event_loop()
                loop.run_until_complete(_start_loop(self.server.tokenizer_manager))
        except BaseException:
            self._processes = _servers(own, others)
            self.close()
            raise
        finally:
            entry._set_envs_and_config = configure
        signal.signal(signal.SIGQUIT, self._died)
        atexit.unregister(self.server.shutdown)
        atexit.register(self.close)
        info = self.server.scheduler_info
        self.room = min(info["max_total_num_tokens"], info["max_req_input_len"] + 5)
        table = f"{_settings.metric} neighbours, k={_settings.k}" if _settings.k else "no neighbour table"
        print(
            f"[sglang] {Path(model).name} on {'CPU' if cpu.on_cpu() else 'GPU'}, {table}, room for "
            f"{info['max_total_num_tokens']} tokens ({time.monotonic() - began:.0f} s)",
            file=sys.stderr,
        )

    def _died(self, *signal_and_frame: object) -> None:
        """A child of sglang reports an error that it doesn't survive; its log is on stderr."""
        self._dead = True
        if not hasattr(self, "server"):
            raise UserError("an sglang process died while it started; its message is above", where="sglang")

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
            self._check_room(request, sampling)
        params = [{**common, "custom_params": request_params(r.mixer, r.seed, batch)} for r in requests]
        outputs = asyncio.get_event_loop().run_until_complete(
            self._watched(
                self.server.async_generate(
                    input_ids=[list(r.prompt) for r in requests], sampling_params=params, return_logprob=True
                )
            )
        )
        return [_sample(output) for output in outputs]

    def _check_room(self, request: Request, sampling: Sampling) -> None:
        """sglang would shorten a response without a word."""
        if not request.prompt:
            raise UserError("an empty prompt", where="request: prompt")
        if len(request.prompt) + sampling.max_new_tokens > self.room:
            raise UserError(
                f"a prompt of {len(request.prompt)} tokens and {sampling.max_new_tokens} new ones don't fit "
                f"{self.room} tokens",
                where="sglang: max_total_tokens, context_length; sampling: max_new_tokens",
                do="raise the engine's limits within the model's context, or ask for fewer tokens",
            )

    async def _watched(self, answer: Awaitable[Any]) -> Any:
        """The answer, or an error when one of sglang's processes dies on the way."""
        task = asyncio.ensure_future(answer)
        while not task.done():
            await asyncio.wait({task}, timeout=1)
            if not task.done() and (self._dead or any(_gone(p) for p in self._processes)):
                task.cancel()
                raise UserError(
                    "an sglang process died", where="sglang", do="see its messages above; log_level=info tells more"
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

        tree = [q for p in self._processes if not _gone(p) for q in (*p.children(recursive=True), p)]
        self._processes = []
        for process in tree:
            if not _gone(process):
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

    def __enter__(self) -> "SGLangEngine":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


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
    """The children that sglang started; Python's own resource tracker, which serves them, ends by itself."""
    fresh = [p for p in own.children() if p not in others]
    return [p for p in fresh if not any("resource_tracker" in word for word in p.cmdline())]


def _gone(process: Any) -> bool:
    """Whether a process has ended."""
    import psutil

    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _sample(output: dict[str, Any]) -> Sample:
    """One of sglang's outputs as a sample."""
    written = output["meta_info"]["output_token_logprobs"]
    tokens = [token for _, token, _ in written]
    record = record_of(output, tokens)
    reason = output["meta_info"]["finish_reason"]["type"]
    return Sample(tokens, [lp for lp, _, _ in written], reason, record)
