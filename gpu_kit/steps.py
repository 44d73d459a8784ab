"""What the kit runs, most important first: a quarter of an hour on a fast card, more in several calls."""

from dataclasses import dataclass, field

PYTHON, FIGURES = "{python}", "{figures}"
"""In a command: the environment's Python; the file that a check writes its figures to, or pytest its results."""


@dataclass(frozen=True)
class Step:
    """One step. on_card, on_cpu: seconds expected with a card and without one, None: not run there; it is ended after
    twice as many. hide_card: it runs on the CPU although there is a card."""

    name: str
    title: str
    command: tuple[str, ...]
    on_card: float | None
    on_cpu: float | None
    hide_card: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def tests(self) -> bool:
        """Whether it is a run of pytest, whose counts are its figures."""
        return "pytest" in self.command

    def expected(self, card: bool) -> float | None:
        """Seconds on this node; None: not run here."""
        return self.on_card if card else self.on_cpu


def _check(name: str) -> tuple[str, ...]:
    return (PYTHON, "-W", "ignore", "-m", f"gpu_kit.checks.{name}", FIGURES)


def _pytest(*arguments: str) -> tuple[str, ...]:
    return (PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={FIGURES}", *arguments)


STEPS = (
    Step("replay", "What was fed, replayed in float32, graphs on and off", _check("replay"), 120, 180),
    Step("gpu-tests", "Tests for a card, bfloat16 (tests/gpu)", _pytest("-m", "gpu", "tests/gpu"), 120, None),
    Step("mixing-cost", "Tokens a second with and without mixing, 1.5B shape", _check("mixing_cost"), 150, None),
    Step("learning", "A training through verl learns the toy", _check("learning"), 150, 300),
    Step("step-times", "Microseconds of one decoding step", _check("step_times"), 45, None),
    Step("tables", "Exact neighbor tables of a whole vocabulary", _check("tables"), 100, None),
    Step(
        "graphs", "CUDA graphs emulated on the CPU, every mixer (tests/contract)",
        _pytest("tests/contract/test_graphs.py", "tests/contract/test_recorded_graphs.py"), 90, 240, hide_card=True,
    ),
    Step(
        "contract", "What every engine promises (tests/contract)",
        _pytest("tests/contract/test_engines.py", "tests/contract/test_engine_mixers.py", "-k", "not transformers]"),
        240, 900,
    ),
)  # fmt: skip
