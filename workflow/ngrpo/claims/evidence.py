"""What a study knows about a predicate: effects with their intervals, read from grades and training logs.

A comparison of trained policies takes every training seed that is there for both of them: pairs of runs with the same
seed. What is missing is noted with the command that makes it, and nothing is filled in. Claims and their verdicts:
ngrpo.claims.verdicts.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ngrpo.audit.status import Grades, RunState, read_grades, run_state
from ngrpo.statistics.effects import QUESTIONS, Effect
from ngrpo.statistics.metrics import Counts, count, problem_values
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.study.predicates import System, said_of


@dataclass(frozen=True)
class Answer:
    """What an effect is for one of ngrpo.statistics.effects.QUESTIONS: 95 % interval, two-sided p (None for a share,
    which has no sign), detectable size."""

    question: str
    low: float
    high: float
    p: float | None
    detectable: float

    @classmethod
    def of(cls, effect: Effect, question: str = QUESTIONS[0]) -> "Answer":
        """The answer that an effect gives."""
        low, high = effect.interval(question=question)
        return cls(question, float(low), float(high), float(effect.p(question)), float(effect.detectable(question)))


@dataclass(frozen=True)
class ShownEffect:
    """One effect. Differences and Mean or Pass@k are shares, cosines themselves; low and high: the 95 % interval."""

    what: str
    unit: str
    """points | share | number"""
    estimate: float
    low: float
    high: float
    detectable: float
    paper: float
    """What `reference` says: the paper's value, a margin, or a size to be seen."""
    seeds: int
    a: float | None = None
    """The system's own value, and b the other's."""
    b: float | None = None
    p: float | None = None
    """Two-sided; it agrees with the interval: both are for the question "on these benchmarks"."""
    beyond: Answer | None = None
    """The same for "on problems like these"."""
    n: int | None = None
    problems: int | None = None
    by_seed: tuple[float, ...] = ()
    other_estimator: float | None = None
    reference: str = "paper"
    margin: bool = False
    """Whether `paper` is a margin: the effect has to lie within it, on either side of 0."""
    note: str = ""
    """What the compared runs hold differently of paper and released code."""
    files: tuple[str, ...] = ()
    """Relative to results/{scale}."""
    quantity: str = ""
    """What it is a number of (ngrpo.claims.quantities)."""


@dataclass
class Evidence:
    """What a predicate is judged by, while it is collected."""

    parts: list[ShownEffect] = field(default_factory=list)
    tests: list[tuple[Effect, float]] = field(default_factory=list)
    """What must be above 0, and the size that an effect of interest has: all of them, where there are no cells."""
    cells: list[list[tuple[Effect, float]]] = field(default_factory=list)
    """The same, by cell: all of a cell's must be above 0, in at least `at_least` cells."""
    at_least: int = 0
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    """What isn't there of training seeds that a verdict can do without."""
    replicated: bool = True
    """Whether every trained policy comes with enough seeds."""
    seen: dict[int, list[str]] = field(default_factory=dict)
    """A training seed: digests of the data of it that were compared."""
    notes: list[str] = field(default_factory=list)
    """What the verdict has to say besides: where the two estimators of Pass@k disagree."""
    unconfirmed: list[str] = field(default_factory=list)
    """Differences that the claim says are above 0 and that aren't by the other estimator: they support nothing."""

    def saw(self, seed: int, digest: str) -> None:
        """Note that a seed's data with this digest were looked at."""
        self.seen.setdefault(seed, []).append(digest)


@dataclass(frozen=True)
class Common:
    """The training seeds that systems have in common, and their evaluations."""

    seeds: tuple[int, ...]
    names: dict[tuple[int, str, int], str]
    """The evaluation of (place of the system, benchmark, seed); one that isn't trained has the same with each."""
    note: str
    """What a reader has to know of seeds that aren't used."""


class Reader:
    """Grades and logs of one study, each read once."""

    def __init__(self, study: Study, results: Results):
        self.study, self.results = study, results
        self._grades: dict[str, Grades] = {}
        self._values: dict[tuple[str, str, str], pd.Series] = {}
        self._counts: dict[str, Counts] = {}
        self._right: dict[str, pd.DataFrame] = {}
        self._runs: dict[str, RunState] = {}

    def further(self, seed: int) -> int | None:
        """A training seed as the study's specs take it: None for its own."""
        return None if seed == self.study.first_seed else seed

    def common(
        self, systems: Sequence[System], model: str, benchmarks: Sequence[str], evidence: Evidence
    ) -> Common | None:
        """The training seeds for which all systems' evaluations on these benchmarks can be used; None where there is
        none. Why others can't is noted."""
        own = [self.study.common_seeds(s.method, s.decoding, model, benchmarks) for s in systems if s.method]
        planned = sorted(set.intersection(*own)) if own else [self.study.first_seed]
        usable: dict[int, dict[tuple[int, str, int], str]] = {}
        lost: list[str] = []
        for seed in planned:
            missing: list[str] = []
            names = {
                (place, benchmark, seed): self.evaluation(system, model, benchmark, seed, missing) or ""
                for benchmark in benchmarks
                for place, system in enumerate(systems)
            }
            usable.update({} if missing else {seed: names})
            lost += missing
        lost = list(dict.fromkeys(lost))
        (evidence.unused if usable else evidence.missing).extend(lost)
        if not usable:
            return None
        notes = [f"on {len(usable)} of {len(planned)} training seeds"] if len(usable) < len(planned) else []
        if alone := sorted(set().union(*own) - set(planned)):
            are = "seed" if len(alone) == 1 else "seeds"
            notes.append(f"paired on common training seeds: one system alone has {are} {', '.join(map(str, alone))}")
        return Common(tuple(usable), {at: n for names in usable.values() for at, n in names.items()}, "; ".join(notes))

    def evaluation(self, system: System, model: str, benchmark: str, seed: int, missing: list[str]) -> str | None:
        """The evaluation's id where its grades can be used; else None, and why in `missing`."""
        name = self.study.evaluation_of(system, model, benchmark, self.further(seed))
        if name is None:
            note = f"no table of scale {self.study.scale} measures {said_of(system)} on {benchmark}"
        else:
            grades = self.grades(name)
            if grades.frame is not None:
                return name
            note = f"Evaluation {name}: {grades.status}: {grades.note}"
        if note not in missing:
            missing.append(note)
        return None

    def grades(self, name: str) -> Grades:
        """An evaluation's grades, or why they can't be used."""
        if name not in self._grades:
            self._grades[name] = read_grades(self.study, self.results, name)
        return self._grades[name]

    def values(self, name: str, metric: str, estimator: str) -> pd.Series:
        """A value a problem of a usable evaluation."""
        key = (name, metric, estimator)
        if key not in self._values:
            self._values[key] = problem_values(self.counts(name), metric, estimator, where=name)
        return self._values[key]

    def counts(self, name: str) -> Counts:
        """A usable evaluation in numbers."""
        if name not in self._counts:
            frame = self._grades[name].frame
            assert frame is not None, f"{name} was asked for its values and isn't usable"
            self._counts[name] = count(frame, name)
        return self._counts[name]

    def right(self, name: str) -> pd.DataFrame:
        """Which samples of a usable evaluation are correct: a row a problem, sorted; a column a sample."""
        if name not in self._right:
            frame = self._grades[name].frame
            assert frame is not None, f"{name} was asked for its samples and isn't usable"
            places, problems = pd.factorize(frame["problem_id"].astype(str), sort=True)
            samples = frame["sample"].to_numpy()  # of each problem 0 … n − 1: `read_grades` saw to it
            table = np.zeros((len(problems), int(samples.max()) + 1), dtype=bool)
            table[places, samples] = (frame["grade"] == "correct").to_numpy()
            self._right[name] = pd.DataFrame(table, index=list(problems))
        return self._right[name]

    def log(self, method: str, model: str, seed: int, missing: list[str]) -> tuple[str, pd.DataFrame] | None:
        """A finished run's id and log; else None, and why in `missing`."""
        run = self.study.run_id(method, model, self.further(seed))
        if run is None:
            missing.append(f"no table of scale {self.study.scale} trains {method} on {model}")
            return None
        state = self.run(run)
        if note := state.note or ("" if len(state.log) > 1 else "logged fewer than two steps"):
            missing.append(f"Training run {run}: {note}")
            return None
        return run, state.log

    def run(self, run: str) -> RunState:
        """A training run's state."""
        if run not in self._runs:
            self._runs[run] = run_state(self.study, self.results, run)
        return self._runs[run]


def digest_of(*parts: np.ndarray) -> str:
    """12 hex digits of what was looked at."""
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:12]


def system_name(study: Study, system: System) -> str:
    """How the page names a system: its method's title, and the decoding's where it isn't the standard one and has
    another; a row from elsewhere by its label."""
    if system.row:
        return system.row
    who = study.study.methods[system.method].title if system.method else "Base"
    how = study.study.decodings[system.decoding].title
    return who if system.decoding == "standard" or how == who else f"{who} with {how}"


def metric_name(metric: str, samples: int) -> str:
    """The metric as the tables name it."""
    return f"Mean@{samples}" if metric == "mean" else f"P{metric[1:]}"
