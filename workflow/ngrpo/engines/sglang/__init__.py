"""Stock sglang 0.4.6.post5 with input mixing: a plugin beside it, no forked file.

Three functions are the seam for whoever builds an sglang Engine: verl's rollout worker, `ngrpo.engines.sglang.engine`.

1. `install(...)` in the parent, before an sglang Engine (or a subclass) is built.
2. `request_params(mixer, seed, batch=...)` → a request's `sampling_params["custom_params"]`.
3. `record_of(output, tokens)` → the `Record` of one of the engine's outputs.

`cpu` holds what a machine without a GPU needs, `hooks` what runs in the scheduler processes, `state` the mixing itself.
Requests without our `custom_params` pass through untouched.
"""

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ngrpo.engines.model_folder import is_dense, open_table
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
from ngrpo.method.neighbors import Table
from ngrpo.method.records import Record

_settings: Settings | None = None  # of the latest `install` in this process


def install(
    neighbors: Path | None = None,
    *,
    model: Path | None = None,
    refresh: str = "never",
    space: str = "embedding",
    batch_timeout: float = 300.0,
    width: int = 1,
    noise: bool = False,
    dense: bool = False,
) -> Settings:
    """Make every sglang Engine that this process builds from now on a mixing one; may be called again.

    neighbors: the table's file, read by each scheduler process; None if no mixer looks neighbors up. model: if
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
        raise unknown_name("neighbor space", space, SPACES, where="sglang: space")
    table = None
    if neighbors is not None:
        table = Table.load(neighbors) if model is None else open_table(neighbors, model)
    try:
        found = version("sglang")
    except PackageNotFoundError:
        found = "not installed"
    if found != VERSION:
        raise UserError(
            f"sglang is {found}, but the plugin is written for {VERSION}",
            where="training environment",
            do=f"install sglang=={VERSION}",
        )
    cpu.prepare()
    with quiet_import():
        import sglang.srt.entrypoints.engine as entry

    _settings = Settings(
        None if neighbors is None else Path(neighbors).absolute(),
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
        with _deaths_told():
            manager, report = launch(server_args, port_args)
        if report is not None and KEY not in report:
            raise UserError("sglang's scheduler started without the plugin", where="sglang: run_scheduler_process")
        return manager, report

    checked_launch.stock = launch
    entry._launch_subprocesses = checked_launch
    return _settings


def room(mixers: Sequence[Mixer]) -> dict[str, Any]:
    """What `install` must be told to serve these mixers: width, noise, dense."""
    return {
        "width": max((m.width for m in mixers), default=1),
        "noise": any(m.kind == "gaussian" for m in mixers),
        "dense": any(is_dense(m) for m in mixers),
    }


def request_params(
    mixer: Mixer, seed: int, batch: tuple[str, int] | None = None, *, installed: Settings | None = None
) -> dict[str, Any]:
    """A request's `custom_params`: its mixer, its seed in [0, 2**62), and the batch that it waits for.

    batch: (id, n), n ≥ 1: no request of the batch is scheduled before all n have arrived, which makes runs on a CPU
    reproducible to the bit; ids must not be used twice. installed: what `install` returned for this engine, if another
    one was built since. Raises UserError where its table or room doesn't fit the mixer.
    """
    installed = installed or _settings
    if installed is None:
        raise UserError("the sglang plugin isn't installed", where="request_params", do="call install() first")
    if not 0 <= seed < 1 << 62:
        raise UserError(f"seed is {seed}", where="request: seed", do="choose a number in [0, 2**62)")
    installed.check(mixer)
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


@contextmanager
def _deaths_told() -> Iterator[None]:
    """sglang waits for ever for a scheduler that is killed before its first word (by a memory limit, for example).

    It is told as sglang tells of one that fails: by SIGQUIT.
    """
    import psutil

    before, over = set(multiprocessing.active_children()), threading.Event()

    def watch() -> None:
        seen: set[psutil.Process] = set()
        while not over.wait(0.1):
            for child in set(multiprocessing.active_children()) - before:
                with suppress(psutil.NoSuchProcess):
                    seen.add(psutil.Process(child.pid))
            if any(gone(p) for p in seen):
                os.kill(os.getpid(), signal.SIGQUIT)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def gone(process: Any) -> bool:
    """Whether a process has ended."""
    import psutil

    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
