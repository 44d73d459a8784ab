"""A scheduler that forgets what it mixed: negative control of the prefix cache's cap and of replay after retraction."""

from typing import Any

from ngrpo.engines.sglang import hooks, state


def run_scheduler(*args: Any) -> None:
    """As the plugin's, but prefixes are shared past the first mixed position, and nothing is replayed."""
    hooks.first_mixed = lambda req: None
    state.Plan._replay = lambda *args: (None, None)
    hooks.run_scheduler(*args)
