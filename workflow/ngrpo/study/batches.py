"""Which evaluations are one sampling job: a policy's benchmarks that the same tables ask for share an engine.

Decided once. What was decided is in evaluations/batches.json, and a table that is added later makes batches of the
evaluations that nobody asked for before; it neither splits nor joins one that is there. So a job that waits in a
cluster's queue still finds its rule, and nothing is drawn again because it would share its job with others now. Delete
the file to have all batches decided anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ngrpo.files import digest, read_json, write_json
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results

Decided = Mapping[str, list[list[str]]]
"""policy/decoding: the benchmarks of each of its batches."""
LONGEST_NAMES = 120
"""Characters of a batch's benchmarks in names of rules and logs."""


@dataclass(frozen=True)
class Batch:
    """Evaluations of one policy and decoding: one job, one start of the engine."""

    system: str
    """policy/decoding."""
    benchmarks: tuple[str, ...]

    @property
    def joined(self) -> str:
        """The benchmarks as a part of a name: of many, which no file name would hold, the first and a digest of all."""
        names = "+".join(self.benchmarks)
        if len(names) <= LONGEST_NAMES:
            return names
        return f"{self.benchmarks[0]}+{len(self.benchmarks) - 1}.{digest(list(self.benchmarks))}"

    @property
    def rule(self) -> str:
        """The name of the Snakemake rule that draws these benchmarks, whatever the policy."""
        return f"sample-{self.joined}"

    @property
    def name(self) -> str:
        """system/benchmarks: the evaluation's path where there is one."""
        return f"{self.system}/{self.joined}"

    @property
    def evaluations(self) -> list[str]:
        """Their paths."""
        return [f"{self.system}/{b}" for b in self.benchmarks]


def batches(study: Study, decided: Decided) -> list[Batch]:
    """Every evaluation of the study in one batch: as decided before and in that order, the others by their tables."""
    place = {f"{s}/{b}": tuple(group) for s, groups in decided.items() for group in groups for b in group}
    groups: dict[tuple[str, tuple[str, ...], bool], list[str]] = {}
    for name, tables in _asking(study).items():
        system, _, benchmark = name.rpartition("/")
        groups.setdefault((system, place.get(name, tables), name in place), []).append(benchmark)
    return [
        Batch(system, tuple(sorted(benchmarks, key=group.index) if decided_before else benchmarks))
        for (system, group, decided_before), benchmarks in groups.items()
    ]


def decide_batches(study: Study, results: Results) -> list[Batch]:
    """The study's batches; those that are new are written down."""
    decided = read_json(results.batches, dict[str, list[list[str]]]) if results.batches.exists() else {}
    made = batches(study, decided)
    known = {f"{s}/{b}" for s, groups in decided.items() for group in groups for b in group}
    value: dict[str, list[list[str]]] = {system: list(groups) for system, groups in decided.items()}
    for batch in made:
        if not known & set(batch.evaluations):
            value.setdefault(batch.system, []).append(list(batch.benchmarks))
    if value != decided:
        write_json(results.batches, value)
    return made


def _asking(study: Study) -> dict[str, tuple[str, ...]]:
    """Evaluation whose samples are drawn here: the tables that need it, a further seed's with its first one's."""
    tables: dict[str, list[str]] = {name: [] for name, spec in study.evaluations.items() if spec.base is not None}
    for table, cells in study.cells.items():
        for name in dict.fromkeys(cell.evaluation for cell in cells if cell.evaluation in tables):
            for each in (name, *study.extra_seeds.get(name, ())):
                tables[each].append(table)
    return {name: tuple(asking) for name, asking in tables.items()}
