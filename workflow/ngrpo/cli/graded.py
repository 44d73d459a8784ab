"""Commands of answers: grade them, show a problem's, compare two evaluations."""

import os
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ngrpo.cli.options import FILE, FOLDER, out_option, with_study
from ngrpo.errors import UserError
from ngrpo.terminal import echo

NORMAL_QUANTILE = 1.959964
"""Of a 95 % interval."""
CONFIG = Path(__file__).resolve().parents[3] / "config"
"""The project's own configuration."""
CONVENTIONS = ("paper", "math-verify", "release-math500", "release-gpqa", "second")
"""The names of ngrpo.grading.SETTINGS; a test holds them together (the command line imports no grader)."""

_settings_options = [
    click.option("--convention", type=click.Choice(CONVENTIONS), default="paper", show_default=True,
                 help="Whose rules; single settings go on top."),
    click.option("--comparison", type=click.Choice(["math_verify", "string", "second"]),
                 help="Compare mathematics by Math-Verify, as normalized strings, or by the second grader."),
    click.option("--boxes", type=click.Choice(["last", "all"]),
                 help="The last \\boxed, or all boxes of the final statement as one answer, as Math-Verify reads."),
    click.option("--tolerance", type=float, help="Numbers this share apart are equal: 0.01 is 1 %."),
    click.option("--sets-equal-relations", is_flag=True, default=None,
                 help="A reference (0, 1) equals an answer 0 < x < 1, too."),
    click.option("--choice", type=click.Choice(["strict", "lenient", "second"]),
                 help="A choice: the line `Answer: X`, or as the release or the second grader reads it."),
    click.option("--letters", help="Letters that a choice may have: ABCD unless said, at most ABCDEFGHIJ."),
]  # fmt: skip
_limits_options = [
    click.option("--seconds", type=float, default=5.0, show_default=True, help="Processor time for one comparison."),
    click.option("--memory-mb", type=int, default=512, show_default=True, help="Memory for one comparison."),
    click.option("--longest", type=int, default=10_000, show_default=True,
                 help="Characters of an answer; a longer one is a grader error."),
]  # fmt: skip
_field_options = [
    click.option("--id-field", default="id", show_default=True, help="Where a row holds its id (JSONL)."),
    click.option("--response-field", default="response", show_default=True, help="Where it holds the response."),
    click.option("--answer-field", default="answer", show_default=True,
                 help="Where it holds the reference, or a list of them; reward_model.ground_truth goes inside."),
    click.option("--kind", type=click.Choice(["math", "choice", "number"]), help="The kind of rows that name none."),
]  # fmt: skip


def _with_options(command: Any) -> Any:
    for option in reversed([*_settings_options, *_limits_options, *_field_options]):
        command = option(command)
    return command


@click.command()
@click.argument("answers", type=FILE)
@click.option("--problems", type=FILE, help="The benchmark's problems (for samples in parquet).")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=os.cpu_count,
    show_default="one a core",
    help="Grader processes.",
)
@click.option("--second", is_flag=True, help="With the second grader's verdicts, too (samples in parquet always are).")
@_with_options
@out_option
def grade(answers: Path, problems: Path | None, workers: int, out: Path, **options: Any) -> None:
    """Grade samples (parquet) or any system's outputs (JSONL rows {id, response, answer, kind}).

    Each setting that isn't given is the paper's: the last \\boxed, Math-Verify's comparison, `Answer: X`.
    """
    from ngrpo.grading import GradingLimits, ResponseFields, grade_file, grade_samples
    from ngrpo.progress import counter

    _refuse_unused(answers, problems)
    settings = _settings(options)
    limits = GradingLimits(options["seconds"], options["memory_mb"], options["longest"])
    progress = counter("graded", "different answers")
    if answers.suffix == ".parquet":
        if problems is None:
            raise UserError("samples need their problems", where="ngrpo grade", do="add --problems FILE")
        counts = grade_samples(answers, problems, out, workers, limits, settings, progress)
    else:
        fields = ResponseFields(
            options["id_field"], options["response_field"], options["answer_field"], options["kind"]
        )
        counts = grade_file(answers, out, workers, limits, settings, progress, fields, second=options["second"])
    echo(_summary(counts))
    echo(f"wrote {out}")


def _refuse_unused(answers: Path, problems: Path | None) -> None:
    """Raises UserError for options that say something of the other kind of file."""
    samples = answers.suffix == ".parquet"
    names = ("id_field", "response_field", "answer_field", "kind")
    given = [n for n in names if click.get_current_context().get_parameter_source(n) is not ParameterSource.DEFAULT]
    unused = [f"--{n.replace('_', '-')}" for n in given if samples]
    unused += ["--problems"] if problems is not None and not samples else []
    if unused:
        kind = "samples in parquet" if samples else "rows in JSON Lines, which hold their answers"
        raise UserError(f"{unused[0]} says nothing of {kind}", where="ngrpo grade", do="leave it out")


def _settings(options: dict[str, Any]) -> Any:
    """The convention with the single settings on top."""
    from dataclasses import replace

    from ngrpo.grading import SETTINGS

    names = {"comparison": "math", "boxes": "boxes", "tolerance": "tolerance", "choice": "choice", "letters": "letters"}
    names["sets_equal_relations"] = "sets_equal_relations"
    given = {field: options[name] for name, field in names.items() if options[name] is not None}
    return replace(SETTINGS[options["convention"]], **given)


def _summary(counts: Any) -> str:
    """Accuracy with its interval, and how many answers got each grade; then the same of the second grader."""
    from ngrpo.formatting import percent, percent_range
    from ngrpo.grades import GRADES, displayed
    from ngrpo.statistics.intervals import wilson

    lines = []
    for name, own in (("", counts), ("second grader: ", counts.second)):
        if own is None:
            continue
        total, right = sum(own.values()), own.get("correct", 0)
        interval = percent_range(*wilson(right / total, total, NORMAL_QUANTILE))
        lines.append(f"{name}accuracy {percent(right / total)} % (95 % interval {interval}, each answer on its own)")
        lines.append(f"  {total:,} answers: " + ", ".join(f"{own.get(g, 0):,} {displayed(g)}" for g in GRADES))
    if counts.second is not None:
        lines.append(f"the two graders differ on {counts.differ:,} answers")
    return "\n".join(lines)


@click.command()
@click.argument("evaluation")
@click.argument("problem")
@with_study
def show(evaluation: str, problem: str, config: Path, scale: str, results: Path) -> None:
    """Show a problem of an evaluation (POLICY/DECODING/BENCHMARK): all its samples whole, their answers and grades.

    EVALUATION may be any system's JSONL of responses; PROBLEM is then a row's id or problem_id.
    """
    from ngrpo.report.finished import problem_text, response_text
    from ngrpo.study.expand import load_study
    from ngrpo.study.layout import Results

    if _is_file(evaluation):
        echo(response_text(Path(evaluation), problem))
    else:
        echo(problem_text(load_study(config, scale, results / scale), Results(results / scale), evaluation, problem))


@click.command()
@click.argument("first")
@click.argument("second")
@with_study
def diff(first: str, second: str, config: Path, scale: str, results: Path) -> None:
    """Compare two evaluations of one benchmark: Mean@n, Pass@k, and which problems flipped.

    Both may be JSONL that `ngrpo grade` wrote, of any systems.
    """
    from ngrpo.report.finished import difference_text, graded_difference_text
    from ngrpo.study.expand import load_study
    from ngrpo.study.layout import Results

    if _is_file(first) or _is_file(second):
        echo(graded_difference_text(Path(first), Path(second)))
    else:
        echo(difference_text(load_study(config, scale, results / scale), Results(results / scale), first, second))


@click.command()
@click.argument("model")
@click.option("--against", help="Another one to compare it with, on the same problems: paired differences.")
@click.option("--benchmark", required=True, help="A data set of a scale of the configuration, such as aime24, or toy.")
@click.option("-n", "--samples", type=click.IntRange(1), default=32, show_default=True, help="Samples a problem.")
@click.option("--base", help="The base model of an adapter: its folder or its name on the hub.")
@click.option("--problems", type=FILE, help="A file with the benchmark's problems, in place of the hub's.")
@click.option("--limit", type=click.IntRange(1), help="Ask only the first so many problems.")
@click.option(
    "--template", type=click.Choice(["chat", "plain"]), help="How it is asked; default: as the scale's models."
)
@click.option("--temperature", type=click.FloatRange(0, min_open=True), help="Default: the scale's, as the following.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="Share of probability that is drawn from.")
@click.option("--max-new-tokens", type=click.IntRange(1), help="Tokens after which an answer is cut.")
@click.option("--seed", default=1, show_default=True, help="Root of all random numbers.")
@click.option("--cores", type=click.IntRange(1), default=os.cpu_count, show_default="all", help="Processors to use.")
@click.option(
    "--config", type=FOLDER, default=CONFIG, show_default="the project's", help="Whose scales know benchmarks."
)
@click.option("--out", type=FOLDER, help="Where results are kept; default: results/evaluate/BENCHMARK.")
def evaluate(model: str, against: str | None, config: Path, out: Path | None, cores: int, **asked: Any) -> None:
    """Evaluate MODEL on a benchmark: draw samples, grade them, print the table. What is there isn't made again.

    MODEL is a folder, a name on the hub (owner/name@revision), or a .jsonl file of predictions.
    """
    from ngrpo.evaluating import EvaluationRequest
    from ngrpo.evaluating import evaluate as run

    limits = {name: asked.pop(name) for name in ("temperature", "top_p", "max_new_tokens")}
    decoding = {name: value for name, value in limits.items() if value is not None}
    models = [model, *([against] if against else [])]
    out = out or Path("results") / "evaluate" / asked["benchmark"]
    echo(run(EvaluationRequest(models, decoding=decoding, **asked), config=config, out=out, cores=cores))


def _is_file(name: str) -> bool:
    """Whether an argument names a JSONL file and no evaluation."""
    return name.endswith((".jsonl", ".json")) or Path(name).is_file()
