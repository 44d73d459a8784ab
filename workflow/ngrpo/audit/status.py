"""What of a study is there: which artifacts are whole, missing or of another spec, how far each run came, and the
command that makes what is missing. Reads files, computes no result.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ngrpo.files import read_json
from ngrpo.study.expand import Study
from ngrpo.study.layout import EvaluationFiles, Results, RunFiles
from ngrpo.study.run_log import LOGGED, planned_steps, read_metrics
from ngrpo.study.specs import EvaluationSpec, RunSpec
from ngrpo.study.spent import run_spent

Status = Literal["ok", "missing", "other spec", "incomplete", "unreadable"]
GRADE_COLUMNS = ("problem_id", "sample", "grade", "spec")


def command(study: Study, results: Results, target: Path | str) -> str:
    """The Snakemake command that makes something of this study. target: a file's or folder's path below the results,
    or a target's name."""
    machine = "--profile slurm" if study.scale == "paper" else "--cores 2"
    settings = [] if study.scale == "toy" else [f"scale={study.scale}"]
    if any(d.dataset.source.kind == "folder" for d in study.datasets.values()):
        settings.append("data_folder=PATH")
    if results.root.parent != Path("results"):
        settings.append(f"results={results.root.parent}")
    # the target comes first: Snakemake takes every word after --config for a setting
    return " ".join(["snakemake", machine, str(target), *(["--config", *settings] if settings else [])])


@dataclass(frozen=True)
class Grades:
    """An evaluation's grades, or why they can't be used."""

    status: Status
    note: str
    """Empty, or one sentence for the reader."""
    frame: pd.DataFrame | None


def read_grades(study: Study, results: Results, evaluation: str) -> Grades:
    """One evaluation's grades, checked against the study: its spec and n samples of every problem."""
    spec: EvaluationSpec = study.evaluations[evaluation]
    files = results.evaluation(evaluation)
    path, make = files.grades, command(study, results, files.grades)
    if not path.exists():
        return Grades("missing", f"not there yet; made by: {make}", None)
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as e:
        return Grades("unreadable", f"not a readable parquet file ({str(e).splitlines()[0]}); remade by: {make}", None)
    absent = [c for c in GRADE_COLUMNS if c not in table.column_names]
    if absent:
        return Grades("unreadable", f"has no column {', '.join(absent)}; remade by: {make}", None)
    frame = table.to_pandas()
    specs = sorted(set(frame["spec"]))
    if specs != [spec.digest]:
        note = (
            f"made for another spec ({', '.join(map(str, specs)) or 'none'}, wanted {spec.digest}); remade by: {make}"
        )
        return Grades("other spec", note, None)
    sizes = frame.groupby("problem_id").size()
    short = sizes[sizes != spec.samples]
    if len(short):
        note = (
            f"{len(short)} of {len(sizes)} problems have another number of samples than {spec.samples}"
            f" ({short.index[0]}: {short.iloc[0]}); remade by: {make}"
        )
        return Grades("incomplete", note, None)
    return Grades("ok", _overlong(files), frame)


def _overlong(files: EvaluationFiles) -> str:
    if not files.samples_card.exists():
        return ""
    card = read_json(files.samples_card)
    left = len(card.get("overlong_prompts", {}))
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

    @property
    def done(self) -> int:
        """The last step logged."""
        return int(self.log["step"].max()) if len(self.log) else 0

    def over(self, column: str, how: str) -> float | None:
        """A statistic ("max", "min", "mean", "sum") of a logged column; None where nothing was logged."""
        values = self.log[column].dropna() if column in self.log else pd.Series(dtype=float)
        return float(values.agg(how)) if len(values) else None


def _steps(spec: RunSpec, results: Results) -> int | None:
    if spec.training.steps is not None:
        return spec.training.steps
    data = results.training_data(spec.data.dataset.id, spec.model.id).problems
    return planned_steps(spec.training, pq.read_metadata(data).num_rows) if data.exists() else None


def _with_throughput(log: pd.DataFrame, spec: RunSpec, files: RunFiles) -> pd.DataFrame:
    """The log with a column `throughput`: response tokens a second of rollout, on each device."""
    if not {"response_length", "rollout_seconds"} <= set(log):
        return log
    spent = run_spent(files)
    responses = spec.training.batch_prompts * spec.training.group / (spent[1].devices if spent else 1)
    return log.assign(throughput=responses * log["response_length"] / log["rollout_seconds"])


def run_state(study: Study, results: Results, run: str) -> RunState:
    """One run's state, from its exported model's card and its log."""
    spec, files = study.runs[run], results.run(run)
    log, steps = _with_throughput(read_log(files.metrics), spec, files), _steps(spec, results)
    make = command(study, results, run)
    if files.model_card.exists():
        card = read_json(files.model_card)
        if card.get("spec") != spec.digest:
            note = f"trained for another spec ({card.get('spec')}, wanted {spec.digest}); retrained by: {make}"
            return RunState(run, spec, "other spec", note, log, steps, None, None)
        return RunState(run, spec, "finished", "", log, steps, card["step"], card["score"])
    if len(log):
        note = f"stopped or running at step {int(log['step'].max())} of {steps or '?'}; continued by: {make}"
        return RunState(run, spec, "unfinished", note, log, steps, None, None)
    return RunState(run, spec, "not started", f"not there yet; made by: {make}", log, steps, None, None)
