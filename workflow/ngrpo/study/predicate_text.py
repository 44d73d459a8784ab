"""Claims as text: a predicate in a line, and the page docs/claims.md, which says of every sentence what judges it."""

from collections.abc import Iterator
from pathlib import Path

from ngrpo.study.predicates import (
    FILE,
    PAPER,
    Claim,
    ClaimsFile,
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
from ngrpo.study.reading import read_yaml


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
    who = system.method or system.row or "the base model"
    return who if system.decoding == "standard" else f"{who} with {system.decoding}"


def claims_page(config: Path) -> str:
    """The page, from a configuration folder's claims."""
    file = read_yaml(ClaimsFile, config / FILE)
    papers = {name: claim for name, claim in file.claims.items() if claim.scale == PAPER}
    others = {name: claim for name, claim in file.claims.items() if name not in papers}
    families = len({claim.family for claim in papers.values()})
    parts = [
        "# Which sentence is judged by which claim",
        "<!-- Generated from config/claims.yaml by `make docs`: edit that file, not this page. -->",
        f"This study checks {len(papers)} statements of the paper’s §4.2 to 4.5 and Appendices D to G, in {families}\n"
        "families, each as a claim of [config/claims.yaml](../config/claims.yaml), and here in our words. *Judged as*\n"
        "names methods, decodings, models and benchmarks by their ids. Pass@k is the bootstrap’s, as the paper’s\n"
        "numbers are, where it doesn’t say *unbiased*. Every claim is answered on these benchmarks and on problems\n"
        "like these. `ngrpo claim` lists all with their verdicts and prints the one that it is given; how these come\n"
        "about: [statistics.md](statistics.md).",
        "## Judged",
        _claims_table(papers),
        "## Not judged, and why",
        _table(
            ("place", "what the paper says", "not judged, because"),
            [(u.where, u.says, u.because) for u in file.unjudged],
        ),
        "## Of a scale, not of the paper",
        "Verdicts at work where no claim of the paper is judged. In brackets: what is to be expected.",
        _claims_table(others),
    ]
    return "\n\n".join(parts) + "\n"


def _claims_table(claims: dict[str, Claim]) -> str:
    head = ("place", "claim", "says", "judged as")
    return _table(head, [(c.where, name, c.says, _judged_as(c)) for name, c in claims.items()])


def _judged_as(claim: Claim) -> str:
    test = claim.test
    words = [f"{test.model}: {predicate_text(test)}"]
    words += ["unbiased"] if estimator_text(test) == "unbiased" or isinstance(test, LosesNone) else []
    words += [f"limit {limit}"] if (limit := limit_text(test)) else []
    words += [f"on {claim.question}"] if claim.question != "these benchmarks" else []
    return "; ".join(words)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(_lines(head, rows))


def _lines(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
