"""Which training problems stay: short enough, gradable, each once, and in no benchmark. The card says why each left.

Problems that are nearly a benchmark's stay, as in the paper's training set, and are counted and named in the card; with
`near_duplicates` set they leave. How both are told: `ngrpo.data.similarity`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ngrpo.data.datasets import card_path, read_problems, write_problems
from ngrpo.data.gradable import ungradable
from ngrpo.data.prompts import open_tokenizer, prompt_ids
from ngrpo.data.similarity import NEAR, Overlap, fingerprint
from ngrpo.errors import UserError
from ngrpo.files import file_sha256, write_json
from ngrpo.progress import steps
from ngrpo.study.specs import TrainingDataSpec
from ngrpo.terminal import echo

REASONS = (
    *("no answer", "unparsable answer", "duplicate", "in a benchmark"),
    *("prompt too long", "nearly in a benchmark"),
)


def make_training_data(
    spec: TrainingDataSpec, *, problems: Path, benchmarks: list[Path], model: Path, out: Path, workers: int = 2
) -> None:
    """Filter `problems` and write the rest to `out`, with a card that names every row that left and why.

    benchmarks: problem files that training must not see. model: the folder whose tokenizer and template count tokens.
    Raises UserError where nothing is left.
    """
    rows = read_problems(problems)
    label = f"[training-data {spec.dataset.id}.{spec.model.id}]"
    sorting = _Sorting(spec, open_tokenizer(model), _Benchmarks(benchmarks), ungradable(rows, workers))
    for row in steps(rows, label, "problems"):
        sorting.sort(row)
    staying, left = sorting.staying, sorting.left
    if not staying:
        raise UserError(
            f"no training problem is left of {len(rows)}: {', '.join(f'{len(v)} {k}' for k, v in left.items() if v)}",
            where=problems,
            do="look at max_prompt_tokens and at the data set's fields",
        )
    beyond = [row["id"] for row in staying[spec.dataset.dataset.limit :]] if spec.dataset.dataset.limit else []
    if beyond:
        staying, left["beyond the limit"] = staying[: spec.dataset.dataset.limit], beyond
    ids = {row["id"] for row in staying}
    near = [pair for pair in sorting.near if pair["id"] in ids]
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
            "near_duplicates": len(near),
            "near_duplicate_similarity": spec.near_duplicates or NEAR,
            "near_duplicate_pairs": near,
            "max_prompt_tokens": spec.max_prompt_tokens,
            "kept_out_of": sorted(path.stem for path in benchmarks),
            "sha256": file_sha256(out),
        },
    )
    gone = ", ".join(f"{len(ids)} {reason}" for reason, ids in left.items() if ids)
    echo(f"{label} {len(staying)} of {len(rows)} problems stay" + (f"; left out: {gone}" if gone else ""))
    if near:
        echo(f"{label} {len(near)} of them are nearly a benchmark's problem (see {card_path(out).name})")


class _Benchmarks:
    """What training mustn't see."""

    def __init__(self, files: Sequence[Path]):
        problems = {f"{path.stem}/{row['id']}": row["problem"] for path in files for row in read_problems(path)}
        self.fingerprints = {fingerprint(problem) for problem in problems.values()}
        self.overlap = Overlap(problems)


@dataclass
class _Sorting:
    """Sorts rows into those that stay and those that leave, by the first reason that applies."""

    spec: TrainingDataSpec
    tokenizer: Any
    benchmarks: _Benchmarks
    ungradable: set[str]
    """Ids of rows whose answer can't be graded."""
    staying: list[dict] = field(default_factory=list)
    left: dict[str, list[str]] = field(default_factory=lambda: {reason: [] for reason in REASONS})
    near: list[dict] = field(default_factory=list)
    """Of each row that stays and is nearly a benchmark's problem: id, of which, similarity."""
    seen: set[str] = field(default_factory=set)

    def sort(self, row: dict) -> None:
        """Put a row where it belongs."""
        key = fingerprint(row["problem"])
        reason = self._reason(row, key) or self._nearly(row)
        if reason:
            self.left[reason].append(row["id"])
        else:
            self.staying.append(row)
            self.seen.add(key)

    def _reason(self, row: dict, key: str) -> str | None:
        if not row["answer"]:
            return "no answer"
        if row["id"] in self.ungradable:
            return "unparsable answer"
        if key in self.seen:
            return "duplicate"
        if key in self.benchmarks.fingerprints:
            return "in a benchmark"
        spec = self.spec
        tokens = prompt_ids(self.tokenizer, spec.model.model, spec.dataset.dataset, row["problem"])
        return "prompt too long" if len(tokens) > spec.max_prompt_tokens else None

    def _nearly(self, row: dict) -> str | None:
        similar = self.benchmarks.overlap.most_similar(row["problem"])
        if similar is None or similar[1] < (self.spec.near_duplicates or NEAR):
            return None
        if self.spec.near_duplicates:
            return "nearly in a benchmark"
        self.near.append({"id": row["id"], "of": similar[0], "similarity": round(similar[1], 3)})
        return None
