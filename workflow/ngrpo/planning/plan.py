"""`ngrpo plan` and `ngrpo ledger`: the jobs of a target, what each would cost and why it would run, and what was spent.

Jobs and their dependencies are those of rules/. A job is done when its output is there, was made for this spec, is no
older than its inputs, and nothing that it depends on is to be made. Snakemake has the last word (`snakemake -n
TARGET`): it also looks at the code of cheap stages, and lets a small input that is newer but the same pass.
"""

import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ngrpo.errors import unknown_name
from ngrpo.files import read_json
from ngrpo.planning.costs import Costs, Span, Spent, evaluation_spent, run_spent
from ngrpo.study.expand import Batch, Study
from ngrpo.study.specs import RunSpec, Spec

STAGES = (
    "dataset",
    "model",
    "training_data",
    "neighbors",
    "diagnostics",
    "train",
    "sample",
    "grade",
    "analyze",
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
    made: float | None = None
    """When its output was made, seconds since the epoch; None where there is none."""

    @property
    def device_hours(self) -> Span:
        """Hours of all its devices together."""
        return self.wall * self.devices


class Plan:
    """The jobs of one or several targets, each once, in an order in which they could run."""

    def __init__(self, study: Study, results: Path, costs: Costs, *targets: str):
        self.study, self.results, self.costs = study, results, costs
        self._made: dict[tuple[str, str], Job] = {}
        self._batch_of = {name: batch for batch in study.batches for name in batch.evaluations}
        self.jobs: list[Job] = []
        for target in targets or ("all",):
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
            elif name.removeprefix("diagnostics-") in study.mixing_runs:
                yield self._diagnostics(name.removeprefix("diagnostics-"))
            elif name in study.neighbors:
                yield self._neighbors(name)
            elif name in study.models:
                yield self._model(name)
            else:
                raise unknown_name("target", name, known, where="ngrpo plan")

    def _add(self, job: Job) -> None:
        if any(job is other for other in self.jobs):
            return
        for needed in job.needs:
            self._add(needed)
        self.jobs.append(job)

    def _job(
        self, stage: str, name: str, needs: list[Job], outputs: list[str], why: str, wall: Span, devices: int = 0
    ) -> Job:
        ages = [_made_at(self.results / output) for output in outputs]
        made = None if None in ages else min(ages)
        waiting = next((f"{n.stage} {n.name} is to be made" for n in needs if n.why), "")
        newer = next((f"{n.stage} {n.name} is newer" for n in needs if n.made and made and n.made > made), "")
        why = why or waiting or newer
        job = Job(stage, name, needs, why, wall if why else Span(), devices, made)
        return self._made.setdefault((stage, name), job)

    def _cheap(self, stage: str, name: str, needs: list[Job], output: str, why: str = "") -> Job:
        return self._job(stage, name, needs, [output], self._missing(output) or why, self.costs.cheap(stage))

    def _missing(self, output: str) -> str:
        return "" if (self.results / output).exists() else "not made yet"

    def _changed(self, spec: Spec, written: str, output: str, card: str | None = None) -> str:
        """Why an output that is there doesn't count: the changed values where the old spec file is there still, else
        what the output's card says, or, where it has none, that the spec file is newer. Paths relative to results."""
        if found := changed_values(spec, self.results / written):
            return f"its spec has changed: {found}"
        if card and (self.results / card).exists():
            told = read_json(self.results / card).get("spec")
            return "its spec has changed" if told not in (None, spec.digest) else ""
        made, asked = _made_at(self.results / output), _made_at(self.results / written)
        return "its spec is newer" if made and asked and asked > made else ""

    def _dataset(self, name: str) -> Job:
        stem, spec = f"data/{name}", self.study.datasets[name]
        why = self._changed(spec, f"{stem}.spec.json", f"{stem}.parquet", f"{stem}.card.json")
        return self._cheap("dataset", name, [], f"{stem}.parquet", why)

    def _model(self, name: str) -> Job:
        stem, spec = f"models/{name}", self.study.models[name]
        why = self._changed(spec, f"{stem}.spec.json", stem, f"{stem}/ngrpo.json")
        return self._cheap("model", name, [], stem, why)

    def _training_data(self, model: str) -> Job:
        spec = self.study.training_data[model]
        needs = [self._dataset(spec.dataset.id), *(self._dataset(b.id) for b in spec.benchmarks), self._model(model)]
        stem = f"data/{spec.dataset.id}.{model}"
        why = self._changed(spec, f"{stem}.spec.json", f"{stem}.parquet", f"{stem}.card.json")
        return self._cheap("training_data", model, needs, f"{stem}.parquet", why)

    def _neighbors(self, name: str) -> Job:
        stem, spec = f"neighbors/{name}", self.study.neighbors[name]
        why = self._changed(spec, f"{stem}.spec.json", f"{stem}.safetensors")
        return self._cheap("neighbors", name, [self._model(spec.model.id)], f"{stem}.safetensors", why)

    def _table_of(self, mixer: object, model) -> list[Job]:
        name = self.study.neighbor_table(mixer, model)
        return [self._neighbors(name)] if name else []

    def _train(self, name: str) -> Job:
        spec, folder = self.study.runs[name], f"runs/{name}"
        needs = [self._model(spec.model.id), self._training_data(spec.model.id), self._dataset(spec.validation.id)]
        needs += self._table_of(spec.exploration, spec.model)
        steps, found = self.costs.total_steps(spec), run_spent(self.results / folder)
        why = self._changed(spec, f"{folder}/spec.json", f"{folder}/model", f"{folder}/model/ngrpo.json")
        if self._missing(f"{folder}/model") and (not found or not why):
            why = "not made yet"
            if found:
                why, steps = f"stopped at step {len(found[0])} of {steps}", max(0, steps - len(found[0]))
        devices = self.costs.model(spec.model.id).devices
        return self._job("train", name, needs, [f"{folder}/model"], why, self.costs.train(spec, steps), devices)

    def _diagnostics(self, run: str) -> Job:
        spec = self.study.runs[run]
        needs = [self._model(spec.model.id), self._dataset(spec.validation.id)]
        needs += self._table_of(spec.exploration, spec.model)
        output = f"diagnostics/{run}.json"
        why = self._changed(spec, f"runs/{run}/spec.json", output, output)
        return self._cheap("diagnostics", run, needs, output, why)

    def _sample(self, batch: Batch) -> Job:
        specs = {name: self.study.evaluations[name] for name in batch.evaluations}
        spec = next(iter(specs.values()))
        base = spec.policy.model if isinstance(spec.policy, RunSpec) else spec.policy
        policy = self._train(spec.policy.id) if isinstance(spec.policy, RunSpec) else self._model(base.id)
        needs = [policy, *(self._dataset(b) for b in batch.benchmarks), *self._table_of(spec.decoding.mixer, base)]
        outputs = {name: f"evaluations/{name}.samples.parquet" for name in specs}
        whys = {}
        for name, output in outputs.items():
            stem = f"evaluations/{name}"
            changed = self._changed(specs[name], f"{stem}.spec.json", output, f"{stem}.samples.card.json")
            if why := self._missing(output) or changed:
                whys[name] = why
        told = "; ".join(dict.fromkeys(whys.values()))
        if 0 < len(whys) < len(specs):
            told = "; ".join(f"{specs[name].benchmark.id}: {why}" for name, why in whys.items())
        wall = total(self.costs.sample(s) for s in specs.values())
        job = self._job("sample", batch.name, needs, list(outputs.values()), told, wall, 1)
        if job.why and job.why == told:  # the other samples of the batch stay
            job.wall = total(self.costs.sample(specs[name]) for name in whys)
        return job

    def _evaluation(self, name: str) -> Job:
        needs = [self._sample(self._batch_of[name]), self._dataset(self.study.evaluations[name].benchmark.id)]
        return self._cheap("grade", name, needs, f"evaluations/{name}.grades.parquet")

    def _analyse(self, table: str) -> Job:
        cells = [c.evaluation for c in self.study.cells[table]]
        again = [e for name in cells for e in self.study.extra_seeds.get(name, ())]
        needs = [self._evaluation(e) for e in dict.fromkeys((*cells, *again))]
        return self._cheap("analyze", table, needs, f"analysis/{table}.parquet")

    def _report(self) -> Job:
        tables = [self._analyse(t) for t in self.study.size.tables]
        notebook = self._cheap("notebook", "results", tables, "report/results.ipynb")
        diagnostics = [self._diagnostics(run) for run in self.study.mixing_runs]
        return self._cheap("report", "report", [*tables, notebook, *diagnostics], "report/index.html")

    def wall(self, nodes: int | None = None) -> Span:
        """Hours from start to end: the longest chain, or, with so many nodes, a schedule that starts what fits.

        A node has as many devices as the largest job takes; jobs without devices never wait for one.
        """
        return Span(*(self._end(nodes, side) for side in ("low", "high")))

    def _end(self, nodes: int | None, side: str) -> float:
        whole = max((j.devices for j in self.jobs), default=0)
        free = [whole] * (nodes or len(self.jobs))
        waiting, ended, now = dict(enumerate(self.jobs)), set(), 0.0
        running: list[tuple[float, int, int | None]] = []
        while waiting or running:
            for place, job in list(waiting.items()):
                if not all(id(n) in ended for n in job.needs):
                    continue
                hours, node = getattr(job.wall, side), None
                if hours and job.devices:
                    node = next((i for i, n in enumerate(free) if n >= job.devices), None)
                    if node is None:
                        continue
                    free[node] -= job.devices
                del waiting[place]
                heapq.heappush(running, (now + hours, place, node))
            now = running[0][0]
            while running and running[0][0] == now:
                _, place, node = heapq.heappop(running)
                ended.add(id(self.jobs[place]))
                if node is not None:
                    free[node] += self.jobs[place].devices
        return now


def _made_at(path: Path) -> float | None:
    """When an output was made, as Snakemake takes it (a folder's: that of its stamp); None where it isn't there."""
    stamp = path / ".snakemake_timestamp"
    found = stamp if stamp.exists() else path
    return found.stat().st_mtime if found.exists() else None


def total(spans: Iterable[Span]) -> Span:
    """The sum of spans."""
    found = list(spans)
    return Span(sum(s.low for s in found), sum(s.high for s in found), bool(found) and all(s.measured for s in found))


def changed_values(spec: Spec, written: Path) -> str:
    """The values in which a spec differs from the one written beside its results, at most three; empty where none.

    A value that several parts of the spec repeat (a run's model, and its data's) is told once.
    """
    if not written.exists():
        return ""
    old, new = dict(_flat(read_json(written))), dict(_flat(spec.json_value()))
    changes = {k: (old.get(k, "unset"), new.get(k, "unset")) for k in dict.fromkeys((*old, *new))}
    changes = {k: (a, b) for k, (a, b) in changes.items() if a != b}
    longest_first = sorted(changes, key=len, reverse=True)
    keys = list({(*k.split(".")[-3:], *changes[k]): k for k in longest_first}.values())[::-1]
    told = [f"{k} {' → '.join(changes[k])}" for k in keys[:3]]
    return ", ".join(told) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _flat(value: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested JSON value as (dotted key, text); items of a list under their ids."""
    if isinstance(value, list) and value and all(isinstance(item, dict) and "id" in item for item in value):
        value = {item["id"]: item for item in value}
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, json.dumps(value, ensure_ascii=False)


def _hours(span: Span) -> str:
    def one(x: float) -> str:
        return f"{x:,.0f}" if x >= 100 else f"{x:.1f}" if x >= 1 else f"{x:.2f}"

    return "–" if span.high == 0 else one(span.low) if span.low == span.high else f"{one(span.low)} – {one(span.high)}"


def plan_text(
    plan: Plan, *, rate: float | None, nodes: int | None, every_job: bool, currency: str | None = None
) -> str:
    """The plan as a page of text: jobs by stage, totals, and why jobs would run."""
    from ngrpo.terminal import text_table

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
    lines = [text_table(["stage", "jobs", "done", "to run", f"{device}-hours", "costs"], rows), ""]
    lines.append(f"{device}-hours   {_hours(work)}")
    where = f"on {nodes} node{'s' if nodes > 1 else ''}" if nodes else "with as many nodes as jobs"
    lines.append(f"wall time   {_hours(wall)} hours {where}")
    if device == "GPU":
        price = costs.file.gpu_hour if rate is None else rate
        money = " – ".join(dict.fromkeys(f"{x * price:,.0f}" for x in (work.low, work.high)))
        lines.append(f"money       {money} {currency or costs.file.currency} at {price:g} an hour")
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
    """Planned (declared), spent and still to come: device-hours of every run and evaluation, and their sums."""
    from ngrpo.terminal import text_table

    device = costs.declared.device
    ahead = {(j.stage, j.name): j for j in Plan(study, results, costs, *study.cells).jobs if j.devices}
    rows, sums, spent = [], {"train": Span(), "sample": Span()}, 0.0

    def add(stage: str, name: str, done: str, plan: Span, found: tuple | None) -> None:
        nonlocal spent
        wall = f"{found[1].hours:.2f}" if found else "–"
        rows.append([f"{stage} {name}", done, _hours(plan), _hours(_once(found)), wall,
                     _hours(ahead[stage, name].device_hours)])  # fmt: skip
        sums[stage], spent = sums[stage] + plan, spent + (found[1].device_hours if found else 0.0)

    for name, spec in study.runs.items():
        steps, found = costs.total_steps(spec), run_spent(results / "runs" / name)
        planned = costs.train(spec, steps, declared=True) * costs.model(spec.model.id).devices
        add("train", name, f"{len(found[0])} of {steps} steps" if found else "not started", planned, found)
    for batch in study.batches:
        there = [f"{name}.samples.parquet" for name in batch.evaluations]
        made = [path for name in there if (path := results / "evaluations" / name).exists()]
        done = "done" if len(made) == len(there) else f"{len(made)} of {len(there)} done" if made else "not started"
        planned = total(costs.sample(study.evaluations[name], declared=True) for name in batch.evaluations)
        took = [found[1] for path in made if (found := evaluation_spent(path))]
        spent_on = Spent(sum(t.hours for t in took), 1, took[0].on_gpus) if took else None
        add("sample", batch.name, done, planned, (None, spent_on) if took else None)
    left = [j for j in ahead.values() if j.why]
    head = ["job", "state", f"planned {device}-hours", "spent", "wall hours", "to come"]
    return "\n".join(
        [
            text_table(head, rows),
            "",
            f"planned   {_hours(total(sums.values()))} {device}-hours",
            f"spent     {spent:.2f} {device}-hours",
            f"to come   {_hours(total(j.device_hours for j in left))} {device}-hours, {len(left)} of {len(ahead)} jobs",
            "Planned is what config/costs.yaml declares; to come is by measured times where there are any. Spent is the"
            " logged time of steps and samples, without start-ups.",
        ]
    )


def _once(found: tuple | None) -> Span:
    hours = found[1].device_hours if found else 0.0
    return Span(hours, hours)
