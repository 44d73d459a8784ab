"""A scheduler whose model runner is sglang's own: negative control of the check that every substitute is in place."""

from typing import Any

from ngrpo.engines.sglang import cpu, hooks


def run_scheduler(*args: Any) -> None:
    """As the plugin's, but sglang finds its own ModelRunner."""
    cpu.prepare()
    from sglang.srt.managers import tp_worker

    from ngrpo.engines.sglang import overrides

    stock, substitute = tp_worker.ModelRunner, overrides.substitute

    def all_but_one(settings: hooks.PluginSettings) -> None:
        substitute(settings)
        tp_worker.ModelRunner = stock

    overrides.substitute = all_but_one
    hooks.run_scheduler(*args)
