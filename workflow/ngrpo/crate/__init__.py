"""A study as a Workflow Run RO-Crate, and its check: who unpacks one can recompute every table from its grades.

A crate mirrors the project's folders, so that the same code reads it: Snakefile, rules/, config/ (the configuration
that was used), envs/ and results/{scale}/ with specs, cards, metrics, grades, tables and report. Left out are weights,
checkpoints and the problems themselves, which are others' to publish, and samples, which are large: their cards are in
it. What may go in is a list (`packed`), links are refused, and what says on which machine it was made is taken out.
"""

from ngrpo.crate.export import export
from ngrpo.crate.verify import verify

__all__ = ["export", "verify"]
