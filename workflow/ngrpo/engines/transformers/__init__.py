"""The oracle of the tests: a small, readable sampling loop over transformers."""
