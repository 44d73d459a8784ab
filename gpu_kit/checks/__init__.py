"""Steps that are no tests: each a program, `python -m gpu_kit.checks.NAME FILE`, which writes its figures to FILE."""
