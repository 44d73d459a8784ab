"""Which training problems stay: short enough, gradable, each once, and in no benchmark. The card says why each left."""

import re
import unicodedata
from pathlib import Path
from typing import Any

from ngrpo.data.datasets import card_path, read_problems, write_problems
from ngrpo.data.prompts import open_tokenizer, prompt_ids
from ngrpo.errors import UserError
from ngrpo.files import file_sha256, write_json
from ngrpo.grading import Grader, Item
from ngrpo.progress import steps
from ngrpo.study.specs import TrainingDataSpec

REASONS = ("no answer", "unparsable answer", "duplicate", "in a benchmark", "prompt too long")

_LATEX_SPACE = re.compile(r"\\[,;:!> ]|~|\\(?:quad|qquad|left|right|displaystyle)(?![a-zA-Z])|[\s$]+")


def fingerprint(problem: str) -> str:
    """A problem's text without case, white space, dollar signs and LaTeX spacing: equal ones are one problem."""
    return _LATEX_SPACE.sub("", unicodedata.normalize("NFKC", problem)).casefold()


def unparsable(rows: list[dict], workers: int) -> set[str]:
    """Ids of mathematical answers that the grader can't match with themselves: no response could ever be right."""
    items = [Item(r["id"], f"\\boxed{{{r['answer']}}}", r["answer"]) for r in rows if r["kind"] == "math"]
    with Grader(workers=workers) as grader:
        grades = grader.grade(items)
    return {item.id for item, grade in zip(items, grades, strict=True) if grade.grade != "correct"}


def make_training_data(
    spec: TrainingDataSpec, *, problems: Path, benchmarks: list[Path], model: Path, out: Path, workers: int = 2
) -> None:
    """Filter `problems` and write the rest to `out`, with a card that names every row that left and why.

    benchmarks: problem files that training must not see. model: the folder whose tokenizer and template count tokens.
    Raises UserError where nothing is left.
    """
    rows = read_problems(problems)
    held_out = {fingerprint(r["problem"]) for path in benchmarks for r in read_problems(path)}
    tokenizer = open_tokenizer(model)
    bad = unparsable([r for r in rows if r["answer"]], workers)
    label = f"[training-data {spec.dataset.id}.{spec.model.id}]"
    staying, left = _sort(rows, spec, label, tokenizer=tokenizer, held_out=held_out, unparsable=bad)
    if not staying:
        raise UserError(
            f"no training problem is left of {len(rows)}: {', '.join(f'{len(v)} {k}' for k, v in left.items() if v)}",
            where=problems,
            do="look at max_prompt_tokens and at the data set's fields",
        )
    beyond = [row["id"] for row in staying[spec.dataset.dataset.limit :]] if spec.dataset.dataset.limit else []
    if beyond:
        staying, left["beyond the limit"] = staying[: spec.dataset.dataset.limit], beyond
    write_problems(out, staying)
    write_json(
        card_path(out),
        {
            "dataset": spec.dataset.id,
            "model": spec.model.id,
            "spec": spec.digest,
            "rows_in": len(rows),
            "rows_out": len(staying),
            "left": {reason: len(ids) for reason, ids in left.items()},
            "left_ids": left,
            "max_prompt_tokens": spec.max_prompt_tokens,
            "kept_out_of": sorted(path.stem for path in benchmarks),
            "sha256": file_sha256(out),
        },
    )
    gone = ", ".join(f"{len(ids)} {reason}" for reason, ids in left.items() if ids)
    print(f"{label} {len(staying)} of {len(rows)} problems stay" + (f"; left out: {gone}" if gone else ""))


def _sort(
    rows: list[dict], spec: TrainingDataSpec, label: str, *, tokenizer: Any, held_out: set[str], unparsable: set[str]
) -> tuple[list[dict], dict[str, list[str]]]:
    """The rows that stay, and the ids of the others under the first reason that applies.

    held_out: fingerprints of the benchmarks' problems. unparsable: ids of rows whose answer can't be graded.
    """
    left: dict[str, list[str]] = {reason: [] for reason in REASONS}
    staying: list[dict] = []
    seen: set[str] = set()

    def prompt_length(problem: str) -> int:
        return len(prompt_ids(tokenizer, spec.model.model, spec.dataset.dataset, problem))

    for row in steps(rows, label, "problems"):
        key = fingerprint(row["problem"])
        if not row["answer"]:
            reason = "no answer"
        elif row["id"] in unparsable:
            reason = "unparsable answer"
        elif key in seen:
            reason = "duplicate"
        elif key in held_out:
            reason = "in a benchmark"
        elif prompt_length(row["problem"]) > spec.max_prompt_tokens:
            reason = "prompt too long"
        else:
            staying.append(row)
            seen.add(key)
            continue
        left[reason].append(row["id"])
    return staying, left
