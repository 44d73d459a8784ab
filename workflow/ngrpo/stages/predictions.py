"""Samples that were drawn elsewhere, taken as an evaluation: a .jsonl file with one row a sample.

A row: `problem_id` (or `id`), `response`, and where known `sample` (0 …; else rows of a problem are counted as they
stand), `finish_reason` ("stop", "length") and `tokens`. Of each problem the first n samples are taken, the study's
number: a system that has more of them is measured as all others are.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa

from ngrpo.data.datasets import read_problems
from ngrpo.errors import UserError, unknown_name
from ngrpo.files import file_sha256
from ngrpo.foreign import stream_json_lines
from ngrpo.grading.graded_files import storable
from ngrpo.grading.response_files import finish_reason
from ngrpo.stages.sample_files import SCHEMA, write_samples
from ngrpo.study.specs import PredictedSpec
from ngrpo.study.versions import VERSIONS
from ngrpo.terminal import echo, quoted

DO = "each row needs problem_id, response and, where there are several, sample"


def take_predictions(spec: PredictedSpec, out: Path, *, source: Path, problems: Path) -> None:
    """Write a file's samples of a benchmark's problems as an evaluation's: `out` (SCHEMA) and its card.

    Raises UserError where the file is another one than the spec's, has a row that can't be used, names a problem that
    the benchmark doesn't have, or lacks one or some of its n samples.
    """
    if not source.is_file():
        raise UserError("there is no such file of predictions", where=source, do="correct its path")
    if file_sha256(source) != spec.policy.sha256:
        raise UserError("the predictions changed since the study was read", where=source, do="start it again")
    ids = [str(row["id"]) for row in read_problems(problems)]
    asked = ids[: spec.benchmark.dataset.limit]
    samples = _read(source, set(ids), spec)
    rows: list[dict[str, Any]] = []
    for problem in asked:
        own = samples.get(problem, {})
        missing = [number for number in range(spec.samples) if number not in own]
        if missing:
            raise UserError(
                f"problem '{quoted(problem)}' of {spec.benchmark.id} has {len(own)} samples here, and"
                f" {spec.samples} are compared (the first that is missing: {missing[0]})",
                where=source,
                do="draw the missing ones, or lower `evaluation.samples` of the scale",
            )
        rows += [own[number] for number in range(spec.samples)]
    table = pa.Table.from_pylist(rows, SCHEMA)
    write_samples(spec, table, out, version=VERSIONS["predictions"], problems=len(asked), overlong={})
    left = sum(map(len, samples.values())) - len(rows)
    more = f"; {left:,} more in the file aren't compared" if left else ""
    echo(f"[predictions {spec.policy.id}/{spec.benchmark.id}] {len(rows):,} samples of {len(asked)} problems{more}")


def _read(source: Path, known: set[str], spec: PredictedSpec) -> dict[str, dict[int, dict[str, Any]]]:
    """Rows of samples by problem and number."""
    samples: dict[str, dict[int, dict[str, Any]]] = {}
    for where, value in stream_json_lines(source):
        if not isinstance(value, dict):
            raise UserError("a row must be a JSON object", where=where, do=DO)
        problem = value.get("problem_id", value.get("id"))
        if not isinstance(problem, str | int) or isinstance(problem, bool):
            raise UserError("the field 'problem_id' must be a string or a number", where=where, do=DO)
        if str(problem) not in known:
            raise unknown_name("problem", str(problem), known, where=f"{where} (benchmark {spec.benchmark.id})")
        if not isinstance(value.get("response"), str):
            raise UserError("the field 'response' must be a string", where=where, do=DO)
        own = samples.setdefault(str(problem), {})
        number, tokens = value.get("sample", len(own)), value.get("tokens")
        for name, count in (("sample", number), ("tokens", 0 if tokens is None else tokens)):
            if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count < 2**31:
                raise UserError(f"the field '{name}' must be a whole number from 0", where=where, do=DO)
        if number in own:
            raise UserError(f"sample {number} of problem '{quoted(str(problem))}' is there twice", where=where, do=DO)
        own[number] = {
            "problem_id": str(problem),
            "sample": number,
            "text": storable(value["response"]),
            "finish_reason": finish_reason(value.get("finish_reason"), where),
            "tokens": tokens,
            "decoding": spec.decoding_id,
            "spec": spec.digest,
        }
    return samples
