"""A predicate of config/claims.yaml in a line: who is compared with whom, in what, on what, by which limit."""

from ngrpo.study.predicates import (
    PAPER,
    Compared,
    Diagnosed,
    Higher,
    Logged,
    LosesNone,
    Most,
    Predicate,
    Similar,
    Slowdown,
    System,
    metrics_of,
)


def predicate_text(test: Predicate) -> str:
    """Who is compared with whom, in what, on what; systems, metrics and benchmarks by their ids."""
    if isinstance(test, Higher | Similar):
        return _difference(test)
    if isinstance(test, Most):
        others, cells = ", ".join(map(_system, test.than)), f"{_listed(test.metrics)} × {_listed(test.benchmarks)}"
        return (
            f"{_system(test.system)} above each of {others} in {test.at_least} of the {len(test.cells)} cells {cells}"
        )
    if isinstance(test, LosesNone):
        lost = f"at most {test.at_most:g} % of all problems"
        return f"solved by {_system(test.than)} and not by {_system(test.system)}: {lost} of {_listed(test.benchmarks)}"
    if isinstance(test, Slowdown):
        return f"rollouts of {test.method} at most {test.at_most:g} % slower than those of {test.than}"
    side, limit = test.limit
    bound = f"{'at least' if side > 0 else 'at most'} {limit:g}"
    if isinstance(test, Logged):
        over = "in its mean over steps" if test.over_steps == "mean" else "in every step"
        return f"{test.metric} of {test.method}’s training, {over}: {bound}"
    assert isinstance(test, Diagnosed), "every kind has its line"
    return f"{test.share} in {test.method}’s diagnostics: {bound}"


def estimator_text(test: Predicate) -> str | None:
    """Which estimator of Pass@k is used; None where none is."""
    if not isinstance(test, Compared) or all(metric == "mean" for metric in metrics_of(test)):
        return None
    return test.estimator


def limit_text(test: Predicate) -> str | None:
    """Whose a margin or limit is, and why it lies there; None where there is none."""
    whose, why = getattr(test, "whose", None), getattr(test, "why", None)
    return f"{'the paper’s' if whose == PAPER else whose}: {why}" if whose else None


def _difference(test: Higher | Similar) -> str:
    others = ", ".join(map(_system, test.others))
    on = _listed(test.benchmarks)
    if len(test.benchmarks) > 1:
        on = f"each of {on}" if test.each else f"average of {on}"
    if isinstance(test, Similar):
        return f"{_system(test.system)} within {test.within:g} points of {others}: {test.metric}, {on}"
    sizes = ", ".join(f"{size:.2f}" for size in test.paper)
    return f"{_system(test.system)} above {others}: {test.metric}, {on} (to be seen: {sizes} points)"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def _system(system: System) -> str:
    who = system.method or "the base model"
    return who if system.decoding == "standard" else f"{who} with {system.decoding}"
