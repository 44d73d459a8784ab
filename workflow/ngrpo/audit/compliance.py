"""Whether every run trained as it should have: each required value beside what the run itself wrote down, row by row.

Three sources say what a run did: spec.json, verl.json (verl's settings as its trainer held them when training started)
and metrics.jsonl. Two say what it should have done: its spec, and at a scale that counts as evidence the paper (§4.1,
Table 6). The rows for verl are written down here a second time, not taken from the code that configures verl: a checker
that shares the mistake wouldn't find it.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

from ngrpo.audit.status import RunState
from ngrpo.files import read_json
from ngrpo.study.config import Method
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.study.mixing import TableFields
from ngrpo.study.paper_values import PaperValues
from ngrpo.study.specs import RunSpec
from ngrpo.study.switches import SWITCHES, uses_scripts

State = Literal["ok", "off", "declared", "not recorded"]
STATES = {
    "ok": "as required",
    "off": "off",
    "declared": "differs, as its method says in study.yaml",
    "not recorded": "not recorded",
}
EVALUATIONS = "evaluations"
"""What stands in a run's place where a check is of the study's evaluations."""
SIGMAS = 5
"""Standard errors by which a logged share of mixed steps may miss ρ."""


@dataclass(frozen=True)
class ComplianceCheck:
    """One requirement of one run."""

    run: str
    what: str
    required: Any
    by: str
    """Who requires it: the paper's table or section, or the spec."""
    recorded: Any
    """What the run wrote down; None where it wrote nothing."""
    file: str
    """Where it stands, relative to results/{scale}."""
    state: State
    note: str = ""


def compliance(
    study: Study, results: Results, runs: list[RunState], paper: PaperValues | None
) -> list[ComplianceCheck]:
    """Every check of every run that has started, in the study's order."""
    methods = _methods_of_runs(study)
    checks = [
        check for run in runs if run.state != "not started" for check in _checks(study, results, run, paper, methods)
    ]
    return [*(_of_evaluations(study, results, paper) if study.size.verdicts and paper else ()), *checks]


def _of_evaluations(study: Study, results: Results, paper: PaperValues) -> Iterator[ComplianceCheck]:
    """Every evaluation's settings against the paper's: one row where all agree, else one for each that doesn't."""
    files = {name: results.evaluation(name).spec for name in study.evaluations}
    drawn = {name: spec for name, spec in study.evaluations.items() if spec.base is not None}
    made = {name: spec for name, spec in drawn.items() if files[name].exists()}
    for what, required, value_of in (
        ("n, samples a problem", paper.evaluation.samples, lambda e: e.samples),
        ("temperature", paper.evaluation.temperature, lambda e: e.decoding.temperature),
        ("top-p", paper.evaluation.top_p, lambda e: e.decoding.top_p),
        ("new tokens, at most", paper.evaluation.max_new_tokens, lambda e: e.decoding.max_new_tokens),
    ):
        other = {name: value_of(e) for name, e in made.items() if not _same(required, value_of(e))}
        for name, value in other.items():
            file = results.relative(files[name])
            yield ComplianceCheck(EVALUATIONS, f"{what}: {name}", required, "paper, §4.1", value, file, "off")
        if made and not other:
            file = results.relative(files[next(iter(made))])
            yield ComplianceCheck(
                EVALUATIONS, f"{what}, all {len(made)}", required, "paper, §4.1", required, file, "ok"
            )


def _checks(
    study: Study, results: Results, run: RunState, paper: PaperValues | None, methods: dict[str, list[Method]]
) -> Iterator[ComplianceCheck]:
    if study.size.verdicts and paper:
        sets = _declared(study, run, methods.get(run.id) or methods.get(_first(run.id), []))
        file = results.relative(results.run(run.id).spec)
        for what, by, required, value, field in _of_paper(run.spec, paper):
            state: State = "ok" if _same(required, value) else "declared" if field in sets else "off"
            yield ComplianceCheck(run.id, what, required, by, value, file, state)
    yield _spec_file(run, results)
    yield from _of_verl(run, results)
    yield from _of_log(run, results)


def _same(required: Any, value: Any) -> bool:
    if isinstance(required, bool) or not isinstance(required, int | float) or not isinstance(value, int | float):
        return required == value
    return math.isclose(required, value, rel_tol=1e-9)


def _of_paper(spec: RunSpec, paper: PaperValues) -> Iterator[tuple[str, str, Any, Any, tuple[str, str]]]:
    """(what, source, required, value, (part, field)) of every setting that the paper states."""
    h, t, mixer = paper.hyperparameters, spec.training, spec.exploration
    table, text = "paper, Table 6", "paper, §4.1"
    if mixer.needs_table:
        neighbors = cast(TableFields, mixer)
        yield "k, candidates", table, h.k, neighbors.k, ("exploration", "k")
        if paper.mixing:
            rho = getattr(mixer, "rho", mixer.rate)
            yield "ρ, share of mixed steps", text, paper.mixing.rho, rho, ("exploration", "rho")
            yield "metric of the neighbors", text, paper.mixing.metric, neighbors.metric, ("exploration", "metric")
    yield "τ, rollout temperature", table, h.temperature, t.temperature, ("training", "temperature")
    yield "prompts a batch", table, h.batch_prompts, t.batch_prompts, ("training", "batch_prompts")
    updates, reading = t.batch_prompts / t.mini_batch_prompts, f"{table}: gradient accumulation, read as"
    if updates == 1:
        yield "updates a batch", f"{reading} one update", 1, updates, ("training", "mini_batch_prompts")
    else:
        field = ("training", "mini_batch_prompts")
        yield "updates a batch", f"{reading} updates", h.gradient_accumulation, updates, field
    yield "responses a prompt, G", table, h.group, t.group, ("training", "group")
    yield "prompt tokens, at most", table, h.max_prompt_tokens, t.max_prompt_tokens, ("training", "max_prompt_tokens")
    limit = ("training", "max_response_tokens")
    yield "response tokens, at most", table, h.max_response_tokens, t.max_response_tokens, limit
    yield "learning rate", table, h.learning_rate, t.learning_rate, ("training", "learning_rate")
    yield "β of the KL term", table, h.kl_coefficient, spec.objective.kl_coefficient, ("objective", "kl_coefficient")
    epochs = t.epochs if t.steps is None else f"{t.steps} steps"
    yield "epochs", table, h.epochs, epochs, ("training", "steps" if t.steps else "epochs")
    yield "validation set", text, paper.evaluation.validation, spec.validation.id, ("", "validation")


def _methods_of_runs(study: Study) -> dict[str, list[Method]]:
    """The methods of each run of the study's own seed, by the run's id: equal specs are one run."""
    methods: dict[str, list[Method]] = defaultdict(list)
    for name, method in study.study.methods.items():
        for model in {spec.model.id for spec in study.runs.values()}:
            if run := study.run_id(name, model):
                methods[run].append(method)
    return methods


def _declared(study: Study, run: RunState, methods: list[Method]) -> set[tuple[str, str]]:
    """(part, field) of what the run's methods set apart from the paper, themselves or by their preset."""
    fields: set[tuple[str, str]] = set()
    for method in methods:
        for part in ("exploration", "objective"):
            fields |= {(part, field) for field in getattr(method, part).model_fields_set}
        fields |= {("training", field) for field in method.training}
        if method.fidelity == "release":
            fields |= {(s.part, s.field) for s in SWITCHES}
            scripts = study.size.release.get(run.spec.model.id, {}) if uses_scripts(run.spec.exploration) else {}
            fields |= {(part, field) for part, values in scripts.items() for field in values}
    return fields


def _first(run: str) -> str:
    """The id of the run that this one repeats with another seed."""
    stem, dash, seed = run.rpartition("-seed")
    return stem if dash and seed.isdecimal() else run


def _spec_file(run: RunState, results: Results) -> ComplianceCheck:
    path = results.run(run.id).spec
    file, what, by = results.relative(path), "spec on file (its digest)", "study.yaml"
    if not path.exists():
        return ComplianceCheck(run.id, what, run.spec.digest, by, None, file, "not recorded")
    same = path.read_text(encoding="utf-8") == run.spec.text()
    recorded = run.spec.digest if same else "another"
    return ComplianceCheck(run.id, what, run.spec.digest, by, recorded, file, "ok" if same else "off")


# --- verl's settings ---

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"


NOT_THE_MIXERS = ("space", "refresh", "stop_after")
"""Settings of an exploration that the mixer doesn't see by their names: the table's; a token that becomes an id."""


def verl_settings(spec: RunSpec) -> dict[str, Any]:
    """The settings that verl 0.5.0 must have had for this spec, as its dotted keys."""
    t, o = spec.training, spec.objective
    low, high = o.clip
    return {
        "trainer.ngrpo.spec_digest": spec.digest,
        "trainer.ngrpo.seed": spec.seed,
        "trainer.test_freq": t.validate_every,
        "algorithm.adv_estimator": "grpo",
        "algorithm.norm_adv_by_std_in_grpo": o.by_std,
        "algorithm.use_kl_in_reward": False,
        "data.train_batch_size": t.batch_prompts,
        "data.max_prompt_length": t.max_prompt_tokens,
        "data.max_response_length": t.max_response_tokens,
        f"{ACTOR}.ppo_mini_batch_size": t.mini_batch_prompts,
        f"{ACTOR}.ppo_epochs": 1,
        f"{ACTOR}.optim.lr": t.learning_rate,
        f"{ACTOR}.optim.lr_warmup_steps": t.warmup_steps,
        f"{ACTOR}.optim.weight_decay": t.weight_decay,
        f"{ACTOR}.policy_loss.loss_mode": "vanilla" if o.kind == "grpo" else o.kind,
        f"{ACTOR}.clip_ratio_low": low,
        f"{ACTOR}.clip_ratio_high": high,
        f"{ACTOR}.clip_ratio_c": o.dual or 3.0,
        f"{ACTOR}.loss_agg_mode": o.aggregation,
        f"{ACTOR}.grad_clip": 1.0,
        "trainer.balance_batch": True,
        f"{ACTOR}.entropy_coeff": o.entropy_coefficient or 0,
        f"{ACTOR}.use_kl_loss": True,
        f"{ACTOR}.kl_loss_coef": o.kl_coefficient,
        f"{ACTOR}.kl_loss_type": "low_var_kl",
        f"{ROLLOUT}.n": t.group,
        f"{ROLLOUT}.temperature": t.temperature,
        f"{ROLLOUT}.top_p": 1.0,
        f"{ROLLOUT}.top_k": -1,
        f"{ROLLOUT}.val_kwargs.n": t.validation_samples,
        f"{ROLLOUT}.val_kwargs.temperature": spec.validation_decoding.temperature,
        f"{ROLLOUT}.val_kwargs.top_p": spec.validation_decoding.top_p,
        f"{ROLLOUT}.ngrpo.exploration.kind": spec.exploration.kind,
        **{
            f"{ROLLOUT}.ngrpo.exploration.{name}": value
            for name, value in spec.exploration.model_dump(exclude={"kind", *NOT_THE_MIXERS}).items()
            if value is not None
        },
        **_only_if_set({"trainer.ngrpo.parity_limit": t.parity_limit, "trainer.ngrpo.reward": o.reward}),
        **_only_if_set({f"{ACTOR}.ngrpo.rollout_is_threshold": o.rollout_is_threshold}),
        **_only_if_set({f"{ROLLOUT}.ngrpo.refresh": getattr(spec.exploration, "refresh", None)}),
        **_only_if_set(
            {}
            if o.kind == "grpo"  # verl's own loss, which has its own settings, above
            else {f"{ACTOR}.ngrpo.policy_aggregation": o.policy, f"{ACTOR}.ngrpo.dual_clip": o.dual}
        ),
    }


def _only_if_set(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value is not None}


def _at(settings: dict, dotted: str) -> Any:
    value: Any = settings
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _of_verl(run: RunState, results: Results) -> Iterator[ComplianceCheck]:
    path = results.run(run.id).verl_settings
    file = results.relative(path)
    if not path.exists():
        note = "the run left no record of verl’s settings; a run trained by this version does"
        yield ComplianceCheck(run.id, "verl’s settings", "a record", "this checker", None, file, "not recorded", note)
        return
    settings = read_json(path, dict[str, Any])
    for key, required in verl_settings(run.spec).items():
        value = _at(settings, key)
        yield ComplianceCheck(run.id, key, required, "spec", value, file, "ok" if _same(required, value) else "off")


# --- what it logged ---


def _of_log(run: RunState, results: Results) -> Iterator[ComplianceCheck]:
    t, file = run.spec.training, results.relative(results.run(run.id).metrics)

    def check(what: str, required: Any, recorded: Any, good: bool, note: str = "") -> ComplianceCheck:
        return ComplianceCheck(run.id, what, required, "spec", recorded, file, "ok" if good else "off", note)

    steps = list(run.log["step"].astype(int))
    gaps = steps != list(range(1, len(steps) + 1))
    done = len(steps) == run.steps if run.state == "finished" and run.steps and not run.ended else True
    logged = f"{len(steps)}{', with gaps' if gaps else ''}"
    yield check("steps logged, each once", run.steps or "all", logged, not gaps and done, run.note or run.ended)
    if not steps:
        return
    if run.learned_nothing:
        yield check(
            "what it learned",
            "something",
            "nothing",
            False,
            f"{run.learned_nothing}: what stands under its name is no trained policy",
        )
    if "learning_rate" in run.log and len(steps) > t.warmup_steps:
        highest = run.over("learning_rate", "max")
        yield check("learning rate of the updates, highest", t.learning_rate, highest, _same(t.learning_rate, highest))
    if (longest := run.over("response_length", "max")) is not None:
        limit = t.max_response_tokens
        yield check("mean response length, highest", f"≤ {limit}", round(longest, 1), longest <= limit)
    parity = run.parity
    if parity.worst is not None and run.spec.exploration.replayed:
        good, shown = parity.worst <= parity.limit, float(f"{parity.worst:.2g}")
        note = "" if good else "its policy was trained on another history than the one it sampled"
        yield check(f"{parity.what}, highest", f"≤ {parity.limit:g}", shown, good, note=note)
    yield from _mixed(run, check)
    if run.validation is not None and "validation" in run.log:
        best = run.log["validation"].max()
        good = bool(run.log.loc[run.log["step"] == run.chosen_step, "validation"].eq(best).any())
        yield check("validation of the chosen step, the highest", round(best, 4), round(run.validation, 4), good)


def _mixed(run: RunState, check: Callable[[str, Any, Any, bool], ComplianceCheck]) -> Iterator[ComplianceCheck]:
    """The share of mixed steps against what the mixer's settings say, within what chance allows."""
    rate, share = run.spec.exploration.rate, run.over("mixing_share", "mean")
    length = run.over("response_length", "sum")
    if share is None or rate is None:
        return
    if rate in (0, 1):
        yield check("share of mixed steps", rate, share, math.isclose(share, rate, abs_tol=1e-9))
    elif length is not None:
        tokens = length * run.spec.training.batch_prompts * run.spec.training.group
        allowed = SIGMAS * math.sqrt(rate * (1 - rate) / tokens) + 1e-9
        yield check("share of mixed steps", f"{rate:g} ± {allowed:.2g}", round(share, 5), abs(share - rate) <= allowed)
