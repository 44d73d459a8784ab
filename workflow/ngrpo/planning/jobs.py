"""The jobs of a target with their reasons, as Snakemake has them, and what each would take.

A job is done when Snakemake wouldn't run it. Where it would, its reason is put into the study's terms: which values of
its spec have changed, at which step it stopped, what it waits for.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ngrpo.files import read_json
from ngrpo.planning.changes import changed_values
from ngrpo.planning.costs import Costs, Span, total
from ngrpo.planning.snakemake_dag import snakemake_dag
from ngrpo.study.batches import Batch, decide_batches
from ngrpo.study.cards import SamplesCard
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.study.naming import but_for_ids, made_names
from ngrpo.study.run_log import logged_steps

NAMED_BY = {
    "dataset": "dataset",
    "model": "model",
    "policy": "policy",
    "training_data": "model",
    "neighbors": "table_id",
    "diagnostics": "run",
    "train": "run",
    "sample": "system",
    "predictions": "evaluation",
    "grade": "evaluation",
    "analyze": "table",
    "notebook": "notebook",
    "report": "",
    "crate": "",
}
"""Every stage in the order in which a study goes through them: the wildcard that names its jobs."""

CODE = "its code has changed"


@dataclass
class Job:
    """One job: its stage and name, what it needs, what it would take, and why it runs (empty: it is done)."""

    stage: str
    name: str
    needs: list["Job"] = field(default_factory=list)
    why: str = ""
    wall: Span = field(default_factory=Span)
    """Hours from start to end; nothing for a job that is done."""
    devices: int = 0
    caution: str = ""
    """What its configuration implies and a user should know before it runs."""

    @property
    def device_hours(self) -> Span:
        """Hours of all its devices together."""
        return self.wall * self.devices


def planned_jobs(
    study: Study, results: Results, costs: Costs, *targets: str, data_folder: Path | None = None
) -> list[Job]:
    """Every job of the targets (all that Snakemake takes: names and files), each once, after those that it needs.

    Raises UserError for a target that Snakemake doesn't know.
    """
    with snakemake_dag(study, results, targets or ("all",), data_folder) as dag:
        reader = _Reader(study, results, costs)
        running = set(dag.needrun_jobs())
        asked = [job for job in dag.jobs if not job.rule.norun]
        made = {job: Job(*reader.names(job)) for job in asked}
        for job, plan in made.items():
            plan.needs = sorted((made[n] for n in dag.dependencies[job] if n in made), key=_place)
            if job in running:
                makers = {str(f): made[n] for n, files in dag.dependencies[job].items() if n in made for f in files}
                plan.why = reader.why(job, plan, dag.reason(job), makers)
            reader.add_cost(job, plan, dag.reason(job))
            plan.caution = reader.caution(plan)
    return sorted(made.values(), key=_place)


def _place(job: Job) -> tuple[int, str, str]:
    stages = list(NAMED_BY)
    return stages.index(job.stage) if job.stage in stages else len(stages), job.stage, job.name


class _Reader:
    """Snakemake's jobs in the study's terms."""

    def __init__(self, study: Study, results: Results, costs: Costs):
        self.study, self.results, self.costs = study, results, costs
        specs = study.specs().items()
        self.specs = {str(results.spec(spec.digest)): (spec, results.root / name) for name, spec in specs}
        self.batches = {(b.rule, b.system): b for b in decide_batches(study, results)}

    def names(self, job: Any) -> tuple[str, str]:
        """A job's stage, and its name within it."""
        if batch := self._batch(job):
            return "sample", batch.name
        return job.rule.name, job.wildcards_dict.get(NAMED_BY.get(job.rule.name), job.rule.name)

    def caution(self, plan: Job) -> str:
        """What a training's equations imply before anything runs."""
        run = self.study.runs.get(plan.name) if plan.stage == "train" else None
        if run is None or not run.exploration.deterministic_text:
            return ""
        idle = run.training.idle_steps
        after = f"; it ends after {idle} such steps" if idle else ""
        return (
            f"all {run.training.group} responses to a prompt will be one text, whatever the seed: no step samples, so "
            f"groups have no variance, advantages are 0, and nothing can be learned{after}"
        )

    def _batch(self, job: Any) -> Batch | None:
        return self.batches.get((job.rule.name, job.wildcards_dict.get("system", "")))

    def why(self, job: Any, plan: Job, reason: Any, makers: dict[str, Job]) -> str:
        """Why Snakemake would run a job, the first cause alone."""
        changed = self._changed(job)
        missing = [*map(str, reason.missing_output), *map(str, reason.incomplete_output)]
        if plan.stage == "train" and missing and not changed and (done := self._done(plan)):
            return (
                f"stopped at step {done} of {self.costs.total_steps(self.study.runs[plan.name]) or 'an unknown number'}"
            )
        started = plan.stage == "train" and self._done(plan)
        if missing and not (changed and started):
            return self._missing(job, plan)
        if changed:
            return f"its spec has changed: {changed}"
        cause = next(iter(self._causes(job.rule.name, reason, makers)), str(reason))
        if cause == CODE and self._is_users(plan):
            return f"your file or folder holds something else now, or {CODE}"
        return cause

    def _is_users(self, plan: Job) -> bool:
        """Whether a job copies or reads what lies in a folder of the user's."""
        if plan.stage == "model":
            return self.study.size.models[plan.name].source.kind == "folder"
        return plan.stage == "dataset" and self.study.size.datasets[plan.name].source.kind == "folder"

    def _causes(self, rule: str, reason: Any, makers: dict[str, Job]) -> Iterator[str]:
        """Snakemake's reason in words, one cause after the other."""
        remade = set(map(str, reason.updated_input_run))
        for path in sorted(set(map(str, reason.updated_input)) - remade):
            maker = makers.get(path)
            named = f"{maker.stage} {maker.name}" if maker else "its spec" if path in self.specs else path
            yield f"{named} is newer"
        for path in sorted(remade & makers.keys()):
            yield f"{makers[path].stage} {makers[path].name} is to be made"
        if reason.params_changed or reason.code_changed:
            shows = rule in ("analyze", "notebook", "report")
            yield "its code, or what it shows of the configuration, has changed" if shows else CODE
        if reason.input_changed:
            yield "it is made of other files than before"
        if reason.software_stack_changed:
            yield "its environment has changed"

    def _done(self, plan: Job) -> int:
        return logged_steps(self.results.run(plan.name).metrics)

    def _missing(self, job: Any, plan: Job) -> str:
        batch = self._batch(job)
        lost = self._lost(batch) if batch else []
        if batch and 0 < len(lost) < len(batch.evaluations):
            return "; ".join(f"{self.study.evaluations[name].benchmark.id}: not made yet" for name in lost)
        same = (
            self._renamed.get(but_for_ids(self.study.runs[plan.name].json_value())) if plan.stage == "train" else None
        )
        if same:
            return (
                f"not made yet; '{same[0]}' was made for the same under other ids of models or data sets: with those"
                " ids back (a title is what tables show) it would be taken"
            )
        return "not made yet"

    @cached_property
    def _renamed(self) -> dict[str, list[str]]:
        """What is there for a run's settings, whatever its models and data sets are called."""
        return made_names(self.results.root, but_for_ids)

    def _changed(self, job: Any) -> str:
        """The changed values of the job's specs, as far as what was made for other ones is there."""
        wanted = [self.specs[path] for path in map(str, job.input) if path in self.specs]
        changes = dict.fromkeys(changed_values(spec, read_json(beside)) for spec, beside in wanted if beside.exists())
        return "; ".join(change for change in changes if change)

    def _lost(self, batch: Batch) -> list[str]:
        """A batch's evaluations that have no samples of their spec: those that its job would draw."""
        lost = []
        for name in batch.evaluations:
            files, spec = self.results.evaluation(name), self.study.evaluations[name]
            card = read_json(files.samples_card, SamplesCard) if files.samples_card.exists() else {}
            if not files.samples.exists() or card.get("spec") not in (None, spec.digest):
                lost.append(name)
        return lost

    def add_cost(self, job: Any, plan: Job, reason: Any) -> None:
        """The job's devices, and what it would take if it would run."""
        batch = self._batch(job)
        if plan.stage == "train":
            spec = self.study.runs[plan.name]
            plan.devices, steps = self.costs.model(spec.model.id).devices, self.costs.total_steps(spec)
            if plan.why.startswith("stopped"):
                steps = max(0, steps - self._done(plan))
            wall = self.costs.train(spec, steps)
        elif batch:
            own = {str(p) for p in job.input if str(p) in self.specs}
            others = {str(f) for f in (*reason.updated_input, *reason.updated_input_run)} - own
            drawn = batch.evaluations if others or not (lost := self._lost(batch)) else lost
            plan.devices, wall = 1, total(self.costs.sample(self.study.evaluations[name]) for name in drawn)
        else:
            wall = self.costs.cheap(plan.stage)
        plan.wall = wall if plan.why else Span()
