"""The paper's checkable sentences: predicates, evidence, verdicts."""
