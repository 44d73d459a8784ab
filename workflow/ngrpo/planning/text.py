"""`ngrpo plan` and `ngrpo ledger` as text: jobs and their costs, why they would run; what was planned and spent."""

from collections import Counter
from collections.abc import Sequence

from ngrpo.formatting import size_text
from ngrpo.gpu_memory import CARDS, GB, budget, shape_like, smallest_card
from ngrpo.planning.costs import Costs, Span, total
from ngrpo.planning.disk import room, unknown
from ngrpo.planning.jobs import Job
from ngrpo.planning.power_text import decidable_line
from ngrpo.planning.schedule import wall_time
from ngrpo.study.batches import decide_batches
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.study.run_log import logged_steps
from ngrpo.study.spent import Spent, evaluation_spent, run_spent
from ngrpo.terminal import text_table


def _hours(span: Span) -> str:
    def one(x: float) -> str:
        return f"{x:,.0f}" if x >= 100 else f"{x:.1f}" if x >= 1 else f"{x:.2f}"

    return "–" if span.high == 0 else one(span.low) if span.low == span.high else f"{one(span.low)} – {one(span.high)}"


def plan_text(
    jobs: Sequence[Job],
    costs: Costs,
    *,
    study: Study | None = None,
    rate: float | None = None,
    nodes: int | None = None,
    every_job: bool = False,
    currency: str | None = None,
) -> str:
    """The plan as a page of text: jobs by stage, totals, and why jobs would run.

    study: whose jobs they are, for the room on disk. rate, currency: of a GPU-hour; None: as config/costs.yaml says.
    nodes: that can be had at a time; None: all.
    """
    stages = _stages(jobs, costs.declared.device)
    running = [j for j in jobs if j.why]
    if not running:
        return f"{stages}\n\nNothing to be done."
    return "\n".join(
        [
            *filter(None, [decidable_line(study, costs) if study else ""]),
            stages,
            "",
            *_totals(jobs, costs, rate, nodes, currency),
            *(_room(running, study, costs, nodes) if study else []),
            *(_memory(running, study, costs) if study else []),
            "",
            "why",
            *_reasons(running, every_job),
            *_cautions(running),
        ]
    )


def _room(running: Sequence[Job], study: Study, costs: Costs, nodes: int | None) -> list[str]:
    """What the jobs that would run add on disk."""
    batches = {b.name: b for b in decide_batches(study, costs.results)}
    names = {stage: [j.name for j in running if j.stage == stage] for stage in ("model", "train", "sample")}
    drawn = [e for name in names["sample"] for e in batches[name].evaluations]
    needed = room(study, costs, models=names["model"], runs=names["train"], evaluations=drawn, at_once=nodes)
    lines = []
    if names["train"]:
        number = min(nodes or len(names["train"]), len(names["train"]))
        peak = f"{size_text(needed.one)} with one training at a time"
        peak += f", {size_text(needed.many)} with {number}" if number > 1 else ""
        lines.append(f"disk        {peak}; {size_text(needed.stays)} stay")
    if missing := unknown(study, costs):
        lines.append(f"Not in it: {', '.join(missing)}, whose parameters aren't declared (config/costs.yaml)")
    return lines


def _memory(running: Sequence[Job], study: Study, costs: Costs) -> list[str]:
    """On which GPUs the models that would be trained fit (computed: `ngrpo.gpu_memory`)."""
    if costs.declared.device != "GPU":
        return []
    lines = []
    specs = {study.runs[j.name].model.id: study.runs[j.name] for j in running if j.stage == "train"}
    for model, spec in specs.items():
        declared = costs.model(model)
        if declared.parameters is None:
            continue
        shape, longest = (
            shape_like(declared.parameters),
            spec.training.max_prompt_tokens + spec.training.max_response_tokens,
        )
        card = smallest_card(declared.devices, shape, longest)
        size = f"of {card} GB or more" if card else f"of {CARDS[-1]} GB are too small"
        example = budget((card or CARDS[-1]) * GB, declared.devices, shape, longest)
        lines.append(f"{model} on {declared.devices} GPUs {size}: {example}")
    return [f"{'memory' if i == 0 else '':12}{line}" for i, line in enumerate(lines)]


def _cautions(running: Sequence[Job]) -> list[str]:
    lines = [f"  {j.stage} {j.name}: {j.caution}" for j in running if j.caution]
    return ["", "can't learn, by its equations", *lines] if lines else []


def _stages(jobs: Sequence[Job], device: str) -> str:
    rows = []
    for stage in dict.fromkeys(j.stage for j in jobs):
        own = [j for j in jobs if j.stage == stage]
        run = [j for j in own if j.why]
        cost = total(j.device_hours for j in run)
        basis = "measured" if run and all(j.wall.measured for j in run) else "declared"
        rows.append([stage, len(own), len(own) - len(run), len(run), _hours(cost), basis if cost.high else ""])
    return text_table(["stage", "jobs", "done", "to run", f"{device}-hours", "costs"], rows)


def _totals(
    jobs: Sequence[Job], costs: Costs, rate: float | None, nodes: int | None, currency: str | None
) -> list[str]:
    work, device = total(j.device_hours for j in jobs), costs.declared.device
    where = f"on {nodes} node{'s' if nodes > 1 else ''}" if nodes else "with as many nodes as jobs"
    lines = [f"{device}-hours   {_hours(work)}", f"wall time   {_hours(wall_time(jobs, nodes))} hours {where}"]
    if device == "GPU":
        price = costs.file.gpu_hour if rate is None else rate
        money = " – ".join(dict.fromkeys(f"{x * price:,.0f}" for x in (work.low, work.high)))
        lines.append(f"money       {money} {currency or costs.file.currency} at {price:g} an hour")
    lines += costs.undeclared
    if any(j.why and j.devices and not j.wall.measured and j.wall.high for j in jobs):
        lines.append("Costs are declared estimates (config/costs.yaml) until runs of the same model have measured them")
    return lines


def _reasons(running: Sequence[Job], every_job: bool) -> list[str]:
    if every_job:
        return [f"  {j.stage} {j.name}: {j.why}" for j in running]
    waits = "waits for what it needs"
    counts = Counter((j.stage, waits if j.why.endswith("to be made") else j.why) for j in running)
    return [f"  {stage}: {n} × {why}" if n > 1 else f"  {stage}: {why}" for (stage, why), n in counts.items()]


def ledger_text(study: Study, results: Results, jobs: Sequence[Job], costs: Costs) -> str:
    """Planned (declared), spent and still to come: device-hours of every run and evaluation, and their sums.

    jobs: those of all tables.
    """
    device, ahead = costs.declared.device, {(j.stage, j.name): j for j in jobs if j.devices}
    rows, plans, spent = [], [], 0.0
    for stage, name, state, plan, took in (*_trainings(study, results, costs), *_samplings(study, results, costs)):
        hours = took.device_hours if took else 0.0
        wall = f"{took.hours:.2f}" if took else "–"
        to_come = _hours(ahead[stage, name].device_hours) if (stage, name) in ahead else "–"
        rows.append([f"{stage} {name}", state, _hours(plan), _hours(Span(hours, hours)), wall, to_come])
        plans.append(plan)
        spent += hours
    left = [j for j in ahead.values() if j.why]
    head = ["job", "state", f"planned {device}-hours", "spent", "wall hours", "to come"]
    return "\n".join(
        [
            text_table(head, rows),
            "",
            f"planned   {_hours(total(plans))} {device}-hours",
            f"spent     {spent:.2f} {device}-hours",
            f"to come   {_hours(total(j.device_hours for j in left))} {device}-hours, {len(left)} of {len(ahead)} jobs",
            "Planned is what config/costs.yaml declares; to come is by measured times where there are any. Spent is the"
            " logged time of steps and samples, without start-ups.",
            *costs.undeclared,
        ]
    )


Line = tuple[str, str, str, Span, Spent | None]
"""A job's stage and name, how far it is, what it was planned to take in device-hours, and what it has."""


def _trainings(study: Study, results: Results, costs: Costs) -> list[Line]:
    lines: list[Line] = []
    for name, spec in study.runs.items():
        files, steps = results.run(name), costs.total_steps(spec)
        done, took = logged_steps(files.metrics), run_spent(files)
        plan = costs.train(spec, steps, declared=True) * costs.model(spec.model.id).devices
        state = f"{done} of {steps or '?'} steps" if done else "not started"
        lines.append(("train", name, state, plan, took[1] if took else None))
    return lines


def _samplings(study: Study, results: Results, costs: Costs) -> list[Line]:
    lines: list[Line] = []
    for batch in decide_batches(study, results):
        made = [files for name in batch.evaluations if (files := results.evaluation(name)).samples.exists()]
        whole = len(made) == len(batch.evaluations)
        state = "done" if whole else f"{len(made)} of {len(batch.evaluations)} done" if made else "not started"
        plan = total(costs.sample(study.evaluations[name], declared=True) for name in batch.evaluations)
        took = [timed[1] for files in made if (timed := evaluation_spent(files))]
        spent = Spent(sum(t.device_hours for t in took), 1, took[0].on_gpus) if took else None
        lines.append(("sample", batch.name, state, plan, spent))
    return lines
