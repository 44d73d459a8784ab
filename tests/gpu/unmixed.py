"""A scheduler that feeds plain tokens while it records mixtures: what a captured graph without mixing would do."""

from typing import Any

from ngrpo.engines.sglang import hooks, state


def run_scheduler(*args: Any) -> None:
    """As the plugin's, but a decoding step's input is the token's own embedding."""
    state.MixState._next_input = lambda self, rows, slot: rows
    hooks.run_scheduler(*args)
