"""N-GRPO reproduced: every stage of the study as an importable function and an ``ngrpo`` subcommand."""

__version__ = "0.1.0"
