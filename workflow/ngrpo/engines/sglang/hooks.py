"""The entry points of sglang's processes, the check at their start, and what the plugin doesn't support.

Schedulers are spawned, so the parent replaces their entry point by `run_scheduler` (see `install` in the package),
which puts the subclasses in place before the scheduler is built. Nothing here imports sglang before `cpu` has prepared
it.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ngrpo.engines.sglang import cpu
from ngrpo.engines.sglang.state import KEY, PluginSettings
from ngrpo.errors import UserError

REFRESH = ("never", "update")
SPACES = ("embedding", "lm_head")

# (setting, its value when off): features whose code paths bypass the plugin
UNSUPPORTED: tuple[tuple[str, Any], ...] = (
    ("speculative_algorithm", None),
    ("dp_size", 1),
    ("pp_size", 1),
    ("enable_dp_attention", False),
    ("enable_mixed_chunk", False),
    ("enable_hierarchical_cache", False),
    ("enable_torch_compile", False),
    ("enable_nan_detection", False),
    ("disaggregation_mode", "null"),
    ("lora_paths", None),
    ("is_embedding", False),
)


def check_server(server: Any) -> None:
    """Raise UserError where sglang's server arguments ask for something that mixing doesn't support."""
    for name, off in UNSUPPORTED:
        if getattr(server, name) != off:
            raise UserError(
                f"input mixing doesn't work with {name}={getattr(server, name)!r}",
                where=f"sglang: {name}",
                do=f"leave {name} at {off!r}, or run sglang without the plugin",
            )


class Report:
    """The scheduler's pipe to its parent; lets the message "ready" through once every substitute is in place."""

    def __init__(self, pipe: Any):
        self.pipe = pipe

    def send(self, message: dict) -> None:
        """Check and send. Raises UserError, which ends the scheduler, where sglang runs something of its own."""
        from ngrpo.engines.sglang.overrides import SUBSTITUTES, not_in_place

        if missing := not_in_place():
            raise UserError(
                f"sglang runs without these parts of the plugin: {', '.join(missing)}", where="sglang plugin"
            )
        self.pipe.send({**message, KEY: {"substitutes": len(SUBSTITUTES)}})


def run_scheduler(settings: PluginSettings, *args: Any) -> None:
    """A scheduler process's entry point: sglang's own, with the subclasses in place first."""
    with quiet_import():
        cpu.prepare()
        cpu.patch()
        from sglang.srt.managers.scheduler import run_scheduler_process
        from sglang.srt.model_loader import weight_utils

        from ngrpo.engines import loopback
        from ngrpo.engines.sglang import unusual
        from ngrpo.engines.sglang.overrides import substitute

        loopback.install()
        unusual.patch()
        substitute(settings)
    weight_utils.tqdm = lambda files, **_: files  # no progress bar amid the study's own
    run_scheduler_process(*args[:-1], Report(args[-1]))


def run_detokenizer(*args: Any) -> None:
    """The detokenizer process's entry point: sglang's own, imported without its remarks."""
    with quiet_import():
        cpu.prepare()
        from sglang.srt.managers.detokenizer_manager import run_detokenizer_process
    run_detokenizer_process(*args)


@contextmanager
def quiet_import() -> Iterator[None]:
    """sglang remarks on import that it lacks packages which only some GPUs use."""
    logger = logging.getLogger("sglang")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
