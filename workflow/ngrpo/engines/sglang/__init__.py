"""Stock sglang 0.4.6.post5 with input mixing: a plugin beside it, no forked file.

Three functions are the seam for whoever builds an sglang Engine: verl's rollout worker, `ngrpo.engines.sglang.engine`,
`ngrpo.engines.sglang.server`.

1. `install(...)` in the parent, before an sglang Engine (or a subclass) is built.
2. `request_params(mixer, seed, batch=...)` → a request's `sampling_params["custom_params"]`.
3. `record_of(output)` → the `Record` of one of the engine's outputs.

`state` holds the mixing itself, `overrides` the subclasses that scheduler processes run, `hooks` their entry points and
settings, `cpu` what a machine without a GPU needs. Requests without our `custom_params` pass through untouched.
"""

import base64
import functools
import multiprocessing.connection
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ngrpo.background import beside
from ngrpo.engines.model_folder import open_table
from ngrpo.engines.sglang import cpu, hooks, newer
from ngrpo.engines.sglang.hooks import check_server, run_detokenizer, run_scheduler
from ngrpo.engines.sglang.state import KEY, VERSION, PluginSettings
from ngrpo.errors import UserError, unknown_name
from ngrpo.method.mixers import Mixer
from ngrpo.method.neighbor_table import Table
from ngrpo.method.records import Record

newer.prepare()  # now: a spawned process imports sglang as it unpickles its arguments, before any function of ours runs

_settings: PluginSettings | None = None  # of the latest `install` in this process


def install(
    neighbors: Path | None = None,
    *,
    model: Path | None = None,
    mixers: Sequence[Mixer] = (),
    refresh: str = "never",
    space: str = "embedding",
    batch_timeout: float = 300.0,
) -> PluginSettings:
    """Make every sglang Engine that this process builds from now on a mixing one; may be called again.

    neighbors: the table's file, read by each scheduler process; None if no mixer looks neighbors up. model: if given,
    the table is checked against its vocabulary. mixers: those that requests will ask for, checked against the table.
    refresh: "never" (the precomputed table stays, as the paper's) or "update" (rebuilt from the engine's own weights
    after they change); space: of which rows then, "embedding" (E) or "lm_head" (the output layer's, as the release).
    batch_timeout: seconds that requests of a batch wait for each other.
    Raises UserError for another sglang, a table that doesn't fit, an unknown refresh or space.
    """
    global _settings
    if refresh not in hooks.REFRESH:
        raise unknown_name("table refresh", refresh, hooks.REFRESH, where="sglang: refresh")
    if space not in hooks.SPACES:
        raise unknown_name("neighbor space", space, hooks.SPACES, where="sglang: space")
    _check_version()
    path, metric, k = None, None, None
    if neighbors is not None:
        table = Table.load(neighbors) if model is None else open_table(neighbors, model)
        path, metric, k = Path(neighbors).absolute(), table.metric, table.k
    settings = PluginSettings(path, metric, k, refresh, space, batch_timeout)
    for mixer in mixers:
        settings.check(mixer)
    cpu.prepare()
    with hooks.quiet_import():
        import sglang.srt.entrypoints.engine as entry

    entry.run_scheduler_process = functools.partial(run_scheduler, settings)
    entry.run_detokenizer_process = run_detokenizer
    stock = getattr(entry._launch_subprocesses, "stock", entry._launch_subprocesses)
    entry._launch_subprocesses = functools.partial(_launch_checked, stock)
    entry._launch_subprocesses.stock = stock
    if server := sys.modules.get("sglang.srt.entrypoints.http_server"):  # it has the name from there
        server._launch_subprocesses = entry._launch_subprocesses
    _settings = settings
    return settings


def _check_version() -> None:
    try:
        installed = version("sglang")
    except PackageNotFoundError:
        installed = "not installed"
    if installed != VERSION:
        raise UserError(
            f"sglang is {installed}, but the plugin is written for {VERSION}",
            where="training environment",
            do=f"install sglang=={VERSION}",
        )


def _launch_checked(stock: Any, server_args: Any, port_args: Any = None) -> Any:
    """sglang's start of its processes; refuses settings that go around the plugin, and a scheduler without it.

    Safe: the stock result is returned. Not in place, a killed scheduler is waited for without end: a contract test
    kills one.
    """
    check_server(server_args)
    with _deaths_reported():
        manager, report = stock(server_args, port_args)
    if report is not None and KEY not in report:
        raise UserError("sglang's scheduler started without the plugin", where="sglang: run_scheduler_process")
    return manager, report


def request_params(
    mixer: Mixer, seed: int, batch: tuple[str, int] | None = None, *, installed: PluginSettings | None = None
) -> dict[str, Any]:
    """A request's `custom_params`: its mixer, its seed in [0, 2**62), and the batch that it waits for.

    batch: (id, n), n ≥ 1: no request of the batch is scheduled before all n have arrived, which makes runs on a CPU
    reproducible to the bit; ids must not be used twice. installed: what `install` returned for this engine, if another
    one was built since. Raises UserError where its table doesn't fit the mixer; a client of a server, which has no
    engine of its own, hears that from the server.
    """
    installed = installed or _settings
    if not 0 <= seed < 1 << 62:
        raise UserError(f"seed is {seed}", where="request: seed", do="choose a number in [0, 2**62)")
    if installed is not None:
        installed.check(mixer)
    return {KEY: {"seed": seed, "mixer": {"kind": mixer.kind, **asdict(mixer)}, "batch": batch}}


def record_of(output: dict[str, Any], tokens: Sequence[int] | None = None) -> Record:
    """The record of one sglang output, checked against its response tokens (with the ending token, unpadded).

    tokens: where they come from elsewhere; else those beside the output's log-probs (`return_logprob`). Raises
    UserError for an aborted request and for tokens that aren't this output's.
    """
    reason = output["meta_info"]["finish_reason"] or {}
    if reason.get("type") == "abort":
        raise UserError(f"sglang gave up on a request: {reason['message']}", where="sglang")
    if KEY not in reason:
        raise UserError("an sglang output without a record", where="sglang", do="send requests with request_params()")
    record = Record.unpack(base64.b64decode(reason[KEY]))
    record.check(tokens_of(output) if tokens is None else tokens)
    return record


def tokens_of(output: dict[str, Any]) -> list[int]:
    """The response tokens of one sglang output, with the ending token. Raises UserError where it has no log-probs."""
    if "output_token_logprobs" not in output["meta_info"]:
        do = "ask for them: return_logprob=True"
        raise UserError("an sglang output without its tokens’ log-probs", where="sglang", do=do)
    return [token for _, token, _ in output["meta_info"]["output_token_logprobs"]]


@contextmanager
def _deaths_reported() -> Iterator[None]:
    """sglang waits for ever for a scheduler that is killed before its first word (by a memory limit, for example).

    It is reported as sglang reports one that fails: by SIGQUIT.
    """
    before = set(multiprocessing.active_children())

    def watch(over: threading.Event) -> None:
        seen: set[Any] = set()
        while not over.wait(0.1):
            seen |= set(multiprocessing.active_children()) - before
            while multiprocessing.connection.wait([process.sentinel for process in seen], timeout=0):
                # again until it is heard: a signal just before the main thread blocks in a read doesn't end the read
                signal.pthread_kill(threading.main_thread().ident, signal.SIGQUIT)
                if over.wait(1):
                    return

    with beside(watch):
        yield
