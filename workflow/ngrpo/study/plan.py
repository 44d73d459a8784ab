"""`ngrpo plan` and `ngrpo ledger`: the jobs of a target, what each would cost and why it would run, and what was spent.

Jobs and their dependencies are those of rules/. A job is done when its output is there, says that it was made for this
spec, and nothing that it depends on is to be made. Snakemake has the last word (`snakemake -n TARGET`): it also looks
at times and at the code of cheap stages.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ngrpo.errors import unknown_name
from ngrpo.files import read_json
from ngrpo.study.costs import Costs, Span, evaluation_spent, run_spent
from ngrpo.study.expand import Study
from ngrpo.study.specs import RunSpec

STAGES = (
    "dataset",
    "model",
    "training_data",
    "neighbours",
    "train",
    "sample",
    "grade",
    "analyse",
    "notebook",
    "report",
)


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

    @property
    def device_hours(self) -> Span:
        """Hours of all its devices together."""
        return self.wall * self.devices


class Plan:
    """The jobs of a target, in an order in which they could run."""

    def __init__(self, study: Study, results: Path, costs: Costs, target: str = "all"):
        self.study, self.results, self.costs = study, results, costs
        self._made: dict[tuple[str, str], Job] = {}
        self.jobs: list[Job] = []
        for job in self._targets(target):
            self._add(job)

    def _targets(self, target: str) -> Iterator[Job]:
        study = self.study
        names = study.size.targets.get(target, (target,))
        known = {"all", "report", "fetch", *study.size.targets, *study.products}
        for name in names:
            if name in ("all", "report"):
                yield self._report()
            elif name == "fetch":
                yield from (self._dataset(d) for d in study.datasets)
                yield from (self._model(m) for m in study.models)
            elif name in study.cells:
                yield self._analyse(name)
            elif name in study.runs:
                yield self._train(name)
            elif name in study.neighbours:
                yield self._neighbours(name)
            elif name in study.models:
                yield self._model(name)
            else:
                raise unknown_name("target", name, known, where="ngrpo plan")

    def _add(self, job: Job) -> None:
        for needed in job.needs:
            self._add(needed)
        if job not in self.jobs:
            self.jobs.append(job)

    def _job(self, stage: str, name: str, needs: list[Job], why: str, wall: Span, devices: int = 0) -> Job:
        waiting = next((f"{n.stage} {n.name}" for n in needs if n.why), None)
        why = why or (f"{waiting} is to be made" if waiting else "")
        return self._made.setdefault((stage, name), Job(stage, name, needs, why, wall if why else Span(), devices))

    def _cheap(self, stage: str, name: str, needs: list[Job], output: str, spec=None, card: str | None = None) -> Job:
        why = self._missing(output) or (self._other(spec, card) if spec is not None and card else "")
        return self._job(stage, name, needs, why, self.costs.cheap(stage))

    def _missing(self, output: str) -> str:
        return "" if (self.results / output).exists() else "not made yet"

    def _other(self, spec, card: str) -> str:
        """Why an output that is there doesn't count: it was made for another spec; names the first changed value."""
        path = self.results / card
        if not path.exists() or read_json(path).get("spec") in (None, spec.digest):
            return ""
        return "its spec has changed"

    def _dataset(self, name: str) -> Job:
        spec = self.study.datasets[name]
        return self._cheap("dataset", name, [], f"data/{name}.parquet", spec, f"data/{name}.card.json")

    def _model(self, name: str) -> Job:
        return self._cheap("model", name, [], f"models/{name}")

    def _training_data(self, model: str) -> Job:
        spec = self.study.training_data[model]
        needs = [self._dataset(spec.dataset.id), *(self._dataset(b.id) for b in spec.benchmarks), self._model(model)]
        stem = f"data/{spec.dataset.id}.{model}"
        return self._cheap("training_data", model, needs, f"{stem}.parquet", spec, f"{stem}.card.json")

    def _neighbours(self, name: str) -> Job:
        needs = [self._model(self.study.neighbours[name].model.id)]
        return self._cheap("neighbours", name, needs, f"neighbors/{name}.safetensors")

    def _table_of(self, mixer: object, model) -> list[Job]:
        name = self.study.neighbour_table(mixer, model)
        return [self._neighbours(name)] if name else []

    def _train(self, name: str) -> Job:
        spec, folder = self.study.runs[name], f"runs/{name}"
        needs = [self._model(spec.model.id), self._training_data(spec.model.id), self._dataset(spec.validation.id)]
        needs += self._table_of(spec.exploration, spec.model)
        why = self._missing(f"{folder}/model") or self._other(spec, f"{folder}/model/ngrpo.json")
        changed = changed_values(spec, self.results / folder / "spec.json")
        steps = self.costs.total_steps(spec)
        if changed:
            why = f"its spec has changed: {changed}"
        elif why == "not made yet" and (found := run_spent(self.results / folder)):
            why, steps = f"stopped at step {len(found[0])} of {steps}", max(0, steps - len(found[0]))
        devices = self.costs.model(spec.model.id).devices
        return self._job("train", name, needs, why, self.costs.train(spec, steps), devices)

    def _evaluation(self, name: str) -> Job:
        spec = self.study.evaluations[name]
        base = spec.policy.model if isinstance(spec.policy, RunSpec) else spec.policy
        policy = self._train(spec.policy.id) if isinstance(spec.policy, RunSpec) else self._model(base.id)
        needs = [policy, self._dataset(spec.benchmark.id), *self._table_of(spec.decoding.mixer, base)]
        stem = f"evaluations/{name}"
        changed = changed_values(spec, self.results / f"{stem}.spec.json")
        why = self._missing(f"{stem}.samples.parquet") or self._other(spec, f"{stem}.samples.card.json")
        why = f"its spec has changed: {changed}" if changed else why
        samples = self._job("sample", name, needs, why, self.costs.sample(spec), 1)
        return self._cheap("grade", name, [samples, self._dataset(spec.benchmark.id)], f"{stem}.grades.parquet")

    def _analyse(self, table: str) -> Job:
        cells = [c.evaluation for c in self.study.cells[table]]
        again = [e for name in cells for e in self.study.repeats.get(name, ())]
        needs = [self._evaluation(e) for e in dict.fromkeys((*cells, *again))]
        return self._cheap("analyse", table, needs, f"analysis/{table}.parquet")

    def _report(self) -> Job:
        tables = [self._analyse(t) for t in self.study.size.tables]
        notebook = self._cheap("notebook", "results", tables, "report/results.ipynb")
        return self._cheap("report", "report", [*tables, notebook], "report/index.html")

    def wall(self, nodes: int | None = None) -> Span:
        """Hours from start to end: the longest chain, or, on so many nodes, no less than the work divided by them."""
        chain: dict[int, Span] = {}
        for job in self.jobs:
            before = [chain[id(n)] for n in job.needs]
            start = Span(max((b.low for b in before), default=0), max((b.high for b in before), default=0))
            chain[id(job)] = start + job.wall
        low, high = (max((getattr(s, side) for s in chain.values()), default=0.0) for side in ("low", "high"))
        if nodes:
            whole = max((j.devices for j in self.jobs), default=1) or 1
            work = total(j.device_hours for j in self.jobs)
            low, high = max(low, work.low / whole / nodes), max(high, work.high / whole / nodes)
        return Span(low, high)


def total(spans) -> Span:
    """The sum of spans."""
    found = list(spans)
    return Span(sum(s.low for s in found), sum(s.high for s in found))


def changed_values(spec, written: Path) -> str:
    """The values in which a spec differs from the one written beside its results, at most three; empty where none."""
    if not written.exists():
        return ""
    old, new = (dict(_flat(value)) for value in (json.loads(written.read_text()), json.loads(spec.text())))
    keys = [k for k in dict.fromkeys((*old, *new)) if old.get(k) != new.get(k)]
    told = [f"{k} {old.get(k, 'unset')} → {new.get(k, 'unset')}" for k in keys[:3]]
    return ", ".join(told) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _flat(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, json.dumps(value, ensure_ascii=False)


def _hours(span: Span) -> str:
    def one(x: float) -> str:
        return f"{x:,.0f}" if x >= 100 else f"{x:.1f}" if x >= 1 else f"{x:.2f}"

    return "–" if span.high == 0 else one(span.low) if span.low == span.high else f"{one(span.low)} – {one(span.high)}"


def plan_text(plan: Plan, *, rate: float | None, nodes: int | None, every_job: bool) -> str:
    """The plan as a page of text: jobs by stage, totals, and why jobs would run."""
    from ngrpo.analysis.inspect import table

    costs, device = plan.costs, plan.costs.declared.device
    rows = []
    for stage in STAGES:
        jobs = [j for j in plan.jobs if j.stage == stage]
        if jobs:
            run = [j for j in jobs if j.why]
            cost = total(j.device_hours for j in run)
            basis = "measured" if run and all(j.wall.measured for j in run) else "declared"
            rows.append([stage, len(jobs), len(jobs) - len(run), len(run), _hours(cost), basis if cost.high else ""])
    work, wall = total(j.device_hours for j in plan.jobs), plan.wall(nodes)
    lines = [table(["stage", "jobs", "done", "to run", f"{device}-hours", "costs"], rows), ""]
    lines.append(f"{device}-hours   {_hours(work)}")
    where = f"on {nodes} node{'s' if nodes > 1 else ''}" if nodes else "with as many nodes as jobs"
    lines.append(f"wall time   {_hours(wall)} hours {where}")
    if device == "GPU":
        price = costs.file.gpu_hour if rate is None else rate
        money = " – ".join(dict.fromkeys(f"{x * price:,.0f}" for x in (work.low, work.high)))
        lines.append(f"money       {money} {costs.file.currency} at {price:g} an hour")
    if any(j.why and j.devices and not j.wall.measured for j in plan.jobs):
        lines.append("Costs are declared estimates (config/costs.yaml) until runs of the same model have measured them")
    lines += ["", "why"]
    if every_job:
        lines += [f"  {j.stage} {j.name}: {j.why}" for j in plan.jobs if j.why]
    else:
        reasons = Counter((j.stage, "waits for what it needs" if j.why.endswith("to be made") else j.why)
                          for j in plan.jobs if j.why)  # fmt: skip
        lines += [f"  {stage}: {n} × {why}" if n > 1 else f"  {stage}: {why}" for (stage, why), n in reasons.items()]
    return "\n".join(lines if any(j.why for j in plan.jobs) else [*lines[:1], "", "Nothing to be done."])


def ledger_text(study: Study, results: Path, costs: Costs) -> str:
    """Planned (declared) against spent device-hours of every run and evaluation."""
    from ngrpo.analysis.inspect import table

    rows, planned, spent = [], Span(), 0.0
    for name, spec in study.runs.items():
        steps, devices = costs.total_steps(spec), costs.model(spec.model.id).devices
        plan = costs.train(spec, steps, declared=True) * devices
        found = run_spent(results / "runs" / name)
        done = f"{len(found[0])} of {steps} steps" if found else "not started"
        rows.append([f"train {name}", done, _hours(plan), _hours(_once(found)), found[1].hours if found else 0.0])
        planned, spent = planned + plan, spent + (found[1].device_hours if found else 0.0)
    for name, spec in study.evaluations.items():
        plan, samples = costs.sample(spec, declared=True), results / "evaluations" / f"{name}.samples.parquet"
        found = evaluation_spent(samples)
        done = "done" if samples.exists() else "not started"
        rows.append([f"sample {name}", done, _hours(plan), _hours(_once(found)), found[1].hours if found else 0.0])
        planned, spent = planned + plan, spent + (found[1].device_hours if found else 0.0)
    device = costs.declared.device
    text = [[*row[:4], f"{row[4]:.2f}" if row[4] else "–"] for row in rows]
    head = ["job", "state", f"planned {device}-hours", "spent", "wall hours"]
    note = (
        "Planned is what config/costs.yaml declares. Spent is the logged time of steps and samples, without start-ups."
    )
    return "\n".join([table(head, text), "", f"planned {_hours(planned)}, spent {spent:.2f} {device}-hours", note])


def _once(found: tuple | None) -> Span:
    hours = found[1].device_hours if found else 0.0
    return Span(hours, hours)
