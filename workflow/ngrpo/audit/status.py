"""What of a study is there: which artifacts are whole, missing or of another spec, how far each run came, and the
command that makes what is missing. Reads files, computes no result.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from ngrpo.errors import UserError
from ngrpo.files import read_json
from ngrpo.foreign import parquet_rows, read_parquet
from ngrpo.grades import GRADES
from ngrpo.statistics.mismatch import limits_of
from ngrpo.study.cards import DataCard, ModelCard, SamplesCard, TrainedCard, id_digest
from ngrpo.study.expand import DEFAULT_FOLDER, Study
from ngrpo.study.layout import Results, RunFiles
from ngrpo.study.run_log import LOGGED, planned_steps, read_metrics
from ngrpo.study.specs import EvaluationSpec, RunSpec
from ngrpo.study.spent import run_spent
from ngrpo.terminal import quoted

Status = Literal["ok", "missing", "other spec", "incomplete", "unreadable"]
GRADE_COLUMNS = pa.schema(
    [
        pa.field("problem_id", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("grade", pa.string(), nullable=False),
        pa.field("spec", pa.string(), nullable=False),
    ]
)
"""Columns of grades that numbers are computed from."""


def command(study: Study, results: Results, target: Path | str) -> str:
    """The Snakemake command that makes something of this study. target: a file's or folder's path below the results,
    or a target's name."""
    machine = "--profile slurm" if study.scale == "paper" else "--cores 2"
    settings = [] if study.named in (None, Path(DEFAULT_FOLDER)) else [f"config={study.named}"]
    settings += [] if study.scale == "toy" else [f"scale={study.scale}"]
    if any(d.dataset.source.kind == "folder" for d in study.datasets.values()):
        settings.append("data_folder=PATH")
    if results.root.parent != Path("results"):
        settings.append(f"results={results.root.parent}")
    # the target comes first: Snakemake takes every word after --config for a setting
    words = [str(target), *(["--config", *settings] if settings else [])]
    return f"snakemake {machine} {shlex.join(words)}"


@dataclass(frozen=True)
class Grades:
    """An evaluation's grades, or why they can't be used."""

    status: Status
    note: str
    """Empty, or one sentence for the reader."""
    frame: pd.DataFrame | None


def read_grades(study: Study, results: Results, evaluation: str) -> Grades:
    """One evaluation's grades, checked against the study: its spec, n samples of every problem, and the problems that
    the data set's and the samples' cards say were there."""
    spec: EvaluationSpec = study.evaluations[evaluation]
    path = results.evaluation(evaluation).grades
    make = command(study, results, path)
    if not path.exists():
        return Grades("missing", f"not there yet; made by: {make}", None)
    try:
        frame = read_parquet(path, GRADE_COLUMNS).to_pandas()
    except UserError as e:
        return Grades("unreadable", f"{e.what}; remade by: {make}", None)
    strange = sorted(set(frame["grade"].unique()) - set(GRADES))
    if strange:
        return Grades("unreadable", f"'{quoted(strange[0])}' is no grade; remade by: {make}", None)
    specs = sorted(frame["spec"].unique())
    if specs != [spec.digest]:
        made_for = quoted(", ".join(specs) or "none")
        return Grades(
            "other spec", f"made for another spec ({made_for}, wanted {spec.digest}); remade by: {make}", None
        )
    try:
        fault = _samples_fault(frame, spec.samples) or _problems_fault(frame, spec, results, evaluation)
        note = _overlong(results, evaluation)
    except UserError as e:
        return Grades("unreadable", f"{e.what} ({e.where}); remade by: {make}", None)
    return Grades("incomplete", f"{fault}; remade by: {make}", None) if fault else Grades("ok", note, frame)


def _samples_fault(frame: pd.DataFrame, n: int) -> str:
    """What is wrong with the samples of each problem: there must be 0 … n−1, each once. Empty where nothing is."""
    places, problems = pd.factorize(frame["problem_id"], sort=True)
    sizes, samples = np.bincount(places, minlength=len(problems)), frame["sample"].to_numpy(dtype=np.int64)
    short = np.flatnonzero(sizes != n)
    if len(short):
        first = f"{quoted(problems[short[0]])}: {sizes[short[0]]}"
        return f"{len(short)} of {len(problems)} problems have another number of samples than {n} ({first})"
    beyond = (samples < 0) | (samples >= n)
    doubled = np.flatnonzero(beyond | pd.Series(places * n + samples).duplicated().to_numpy())
    if len(doubled):
        first = f"{quoted(frame['problem_id'].iloc[doubled[0]])}: {samples[doubled[0]]}"
        return f"{len(doubled)} samples are there twice or have a number beyond 0 … {n - 1} ({first})"
    return ""


def _problems_fault(frame: pd.DataFrame, spec: EvaluationSpec, results: Results, evaluation: str) -> str:
    """How the graded problems differ from those that the cards (and, where it is here, the data) say were asked."""
    files, data = results.evaluation(evaluation), results.dataset(spec.benchmark.id)
    graded, left_out, expected = set(frame["problem_id"].unique()), set[str](), None
    if files.samples_card.exists():
        card: SamplesCard = read_json(files.samples_card, SamplesCard)
        left_out = set(card["overlong_prompts"])
        expected = card["sampled"]
        if card["spec"] != spec.digest:
            return f"its samples were drawn for another spec ({quoted(card['spec'])}, wanted {spec.digest})"
        if expected + len(left_out) != card["problems"]:
            return f"its samples' card counts {expected} + {len(left_out)} problems of {card['problems']}"
        if card["samples"] != expected * spec.samples:
            return f"its samples' card counts {card['samples']} samples of {expected} × {spec.samples}"
        if len(graded) != expected:
            return f"{len(graded)} problems are graded, {expected} were sampled"
    if data.card.exists():
        made: DataCard = read_json(data.card, DataCard)
        asked = min(made["rows_out"], spec.benchmark.dataset.limit or made["rows_out"])
        if len(graded | left_out) != asked:
            return f"{len(graded | left_out)} problems are accounted for, {asked} are asked ({spec.benchmark.id})"
        if "asked" in made and made["asked"] != id_digest(graded | left_out):
            return f"its problems aren't those of {spec.benchmark.id}{_strangers(graded | left_out, data.problems)}"
    return ""


def _strangers(ids: set[str], problems: Path) -> str:
    """The first id that the data doesn't have, where the data is here."""
    if not problems.exists():
        return ""
    known = set(read_parquet(problems, ["id"])["id"].to_pylist())
    strange = sorted(ids - known)
    return f": there is no '{quoted(strange[0])}'" if strange else ""


def _overlong(results: Results, evaluation: str) -> str:
    path = results.evaluation(evaluation).samples_card
    if not path.exists():
        return ""
    card: SamplesCard = read_json(path, SamplesCard)
    left = len(card["overlong_prompts"])
    return f"{left} of {card['problems']} prompts exceed the token limit and were not sampled" if left else ""


# --- training runs ---


def read_log(path: Path) -> pd.DataFrame:
    """A run's metrics.jsonl: one row a step in order, columns of LOGGED that were logged, NaN where a step has none.

    Of a step logged twice (before and after a resume) the later counts.
    """
    raw = pd.DataFrame(read_metrics(path))
    log = pd.DataFrame({name: raw[key] for name, key in LOGGED.items() if key in raw})
    if log.empty:
        return pd.DataFrame({"step": pd.Series(dtype="int64")})
    return log.drop_duplicates("step", keep="last").sort_values("step").reset_index(drop=True)


class Parity(NamedTuple):
    """What of a run's difference between rollout and trainer is limited: its column, name, worst step, and limit."""

    column: str
    what: str
    worst: float | None
    limit: float


def share_of_limit(parity: Parity) -> float:
    """How much of its limit the worst step took."""
    return (parity.worst or 0.0) / parity.limit


@dataclass(frozen=True)
class RunState:
    """How far one training run came."""

    id: str
    spec: RunSpec
    state: Literal["finished", "unfinished", "not started", "other spec"]
    note: str
    log: pd.DataFrame
    steps: int | None
    """Steps that its spec asks for; None where they follow from the data and the data isn't there."""
    chosen_step: int | None
    validation: float | None
    ended: str = ""
    """Why it is finished before its last step; empty where it isn't."""
    learned_nothing: str = ""
    """How one sees that it learned nothing; empty where it did, or isn't finished."""

    @property
    def done(self) -> int:
        """The last step logged."""
        return int(self.log["step"].max()) if len(self.log) else 0

    @property
    def parity(self) -> Parity:
        """How far its rollout and its trainer have differed in what is limited for its model's dtype."""
        limits = limits_of(self.spec.model.model.dtype, self.spec.training.parity_limit)
        if limits.largest is not None:
            return Parity("parity_max", "|rollout − replayed| log-prob", self.over("parity_max", "max"), limits.largest)
        assert limits.mean is not None
        return Parity("parity_mean", "mean |rollout − replayed| log-prob", self.over("parity_mean", "max"), limits.mean)

    def over(self, column: str, how: str) -> float | None:
        """A statistic ("max", "min", "mean", "sum") of a logged column; None where nothing was logged."""
        values = self.log[column].dropna() if column in self.log else pd.Series(dtype=float)
        return float(values.agg(how)) if len(values) else None


def steps_of(spec: RunSpec, results: Results) -> int | None:
    """The steps that a run shall have; None where they follow from data that isn't there."""
    if spec.training.steps is not None:
        return spec.training.steps
    data = results.training_data(spec.data.dataset.id, spec.model.id)
    if data.problems.exists():
        return planned_steps(spec.training, parquet_rows(data.problems))
    card: DataCard | None = read_json(data.card, DataCard) if data.card.exists() else None
    return planned_steps(spec.training, card["rows_out"]) if card else None


def _with_throughput(log: pd.DataFrame, spec: RunSpec, files: RunFiles) -> pd.DataFrame:
    """The log with a column `throughput`: response tokens a second of rollout, on each device."""
    if not {"response_length", "rollout_seconds"} <= set(log):
        return log
    spent = run_spent(files)
    responses = spec.training.batch_prompts * spec.training.group / (spent[1].devices if spent else 1)
    return log.assign(throughput=responses * log["response_length"] / log["rollout_seconds"])


def _learned_nothing(log: pd.DataFrame, equals_base: bool) -> str:
    """How a finished run's log, or its weights, show that it learned nothing."""
    idle = pd.Series(False, index=log.index)
    for column, value in (("zero_std", 1), ("gradient", 0)):
        if column in log:
            idle |= log[column] == value
    signs = [f"none of its {len(idle)} steps had a policy gradient"] if len(idle) and idle.all() else []
    if equals_base:
        signs.append("its weights are the base model's, to the last bit")
    return " and ".join(signs)


def run_state(study: Study, results: Results, run: str) -> RunState:
    """One run's state, from its exported model's card and its log."""
    spec, files = study.runs[run], results.run(run)
    log, steps = _with_throughput(read_log(files.metrics), spec, files), steps_of(spec, results)
    make = command(study, results, run)
    if files.model_card.exists():
        made: ModelCard = read_json(files.model_card, ModelCard)
        if made["spec"] != spec.digest:
            note = f"trained for another spec ({quoted(made['spec'])}, wanted {spec.digest}); retrained by: {make}"
            return RunState(run, spec, "other spec", note, log, steps, None, None)
        card: TrainedCard = read_json(files.model_card, TrainedCard)
        ended, nothing = card.get("ended", ""), _learned_nothing(log, card.get("equals_base", False))
        return RunState(run, spec, "finished", "", log, steps, card["step"], card["score"], ended, nothing)
    if len(log):
        note = f"stopped or running at step {int(log['step'].max())} of {steps or '?'}; continued by: {make}"
        return RunState(run, spec, "unfinished", note, log, steps, None, None)
    return RunState(run, spec, "not started", f"not there yet; made by: {make}", log, steps, None, None)
