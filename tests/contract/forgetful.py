"""A scheduler that forgets what it mixed: negative control of the prefix cache's cap and of replay after retraction."""

from typing import Any

from ngrpo.engines.sglang import hooks, plan


def run_scheduler(*args: Any) -> None:
    """As the plugin's, but prefixes are shared beyond the prompt, and nothing is replayed."""
    from sglang.srt.managers.schedule_batch import Req
    from sglang.srt.mem_cache.radix_cache import RadixCache

    from ngrpo.engines.sglang import overrides

    for ours, stock in ((overrides.MixingCache, RadixCache), (overrides.MixingRequest, Req)):
        for name in ("cache_finished_req", "cache_unfinished_req", "adjust_max_prefix_ids"):
            if name in vars(ours):
                setattr(ours, name, vars(stock)[name])
    plan.BatchPlan._replay = lambda *args: None
    hooks.run_scheduler(*args)
