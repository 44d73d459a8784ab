"""Engines that share a card: by itself each takes 0.88 of what is free, and the tests hold up to six open at once."""

from collections.abc import Iterator

import pytest

SHARE = {
    "mem_fraction_static": 0.1,
    "max_total_tokens": 16384,
    "max_running_requests": 64,
    "cuda_graph_bs": [1, 2, 4, 8, 16],
}
"""Of a card, what an engine of a tiny model takes; on an H100 the whole suite ran so."""


@pytest.fixture(scope="module", autouse=True)
def one_card() -> Iterator[None]:
    """Every engine of the tests that finds a GPU takes this share of it, unless it asks for more."""
    from ngrpo.engines.sglang import cpu

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "GPU_DEFAULTS", SHARE)
        yield
