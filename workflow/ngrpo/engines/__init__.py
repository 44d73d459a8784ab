"""Who samples: sglang at every scale, and a small transformers loop as the oracle of the tests.

`ngrpo.engines.contract` says what every engine promises; `open_engine` finds one by name.
"""
