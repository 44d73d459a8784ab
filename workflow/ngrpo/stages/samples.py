"""The sampling stage: n samples a problem, in shards that survive a kill.

A shard is a whole parquet file of some problems' samples in a folder beside the output; a restarted job keeps the
shards that are there and draws the rest. One start of the engine serves all benchmarks of a policy and decoding. Every
sample's seed comes from its problem's id and its number, so shards, batches, order and restarts change nothing.
"""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ngrpo.data.datasets import read_problems
from ngrpo.data.prompts import open_tokenizer, prompt_ids
from ngrpo.engines import open_engine
from ngrpo.engines.contract import Engine, Request, Sample, Sampling
from ngrpo.engines.model_folder import engine_dtype
from ngrpo.errors import UserError
from ngrpo.files import read_json, whole_file, write_json
from ngrpo.hardware import hardware
from ngrpo.method.mixers import Mixer, mixer_from
from ngrpo.method.rng import derive_seed
from ngrpo.progress import steps
from ngrpo.stages.sample_files import SCHEMA, write_samples
from ngrpo.study.mixing import settings
from ngrpo.study.sources import Model
from ngrpo.study.specs import EvaluationSpec
from ngrpo.study.versions import VERSIONS
from ngrpo.terminal import echo

CLOCK = "time.json"


@dataclass(frozen=True)
class _Task:
    """One evaluation: its prompts (problem id → token ids) and its shards, each a file with its problems' ids."""

    spec: EvaluationSpec
    out: Path
    problems: int
    prompts: dict[str, list[int]]
    overlong: dict[str, int]
    shards: Path
    parts: list[tuple[Path, list[str]]]


def sample(
    specs: Sequence[EvaluationSpec],
    *,
    model: Path,
    data: Path,
    neighbors: Path | None,
    out: Path,
    shard_samples: int = 512,
    **machine: object,
) -> None:
    """Draw the evaluations' samples with one engine: out/{benchmark}.samples.parquet (SCHEMA), a card and its time.

    specs: of one policy, decoding and engine. data: folder with {benchmark}.parquet. shard_samples: about how many
    samples a shard holds (changes what a kill loses, never a sample). Prompts above the token limit are not sampled;
    the card names them. An evaluation whose samples are there, of this spec and newer than all that they are made of,
    is left as it is. Raises UserError for specs that no one engine serves, and where no problem is left.
    """
    first = specs[0]
    for spec in specs:
        if (spec.policy, spec.decoding, spec.engine) != (first.policy, first.decoding, first.engine):
            raise UserError(
                "these evaluations are of different policies, decodings or engines",
                where=f"{first.policy.id}/{first.decoding_id} and {spec.policy.id}/{spec.decoding_id}",
                do="sample them one after the other",
            )
    label = f"[sample {first.policy.id}/{first.decoding_id}/{'+'.join(s.benchmark.id for s in specs)}]"
    made_of = [p for p in (*model.rglob("*"), neighbors) if p is not None and p.is_file()]
    files = [(s, data / f"{s.benchmark.id}.parquet", out / f"{s.benchmark.id}.samples.parquet") for s in specs]
    wanted = [each for each in files if not _is_there(each[0], each[2], [*made_of, each[1]])]
    if there := [spec.benchmark.id for spec, *_ in files if spec not in [s for s, *_ in wanted]]:
        echo(f"{label} already there: {', '.join(there)}", err=True)
    tokenizer = open_tokenizer(model) if wanted else None
    tasks = [_task(spec, tokenizer, problems, file, shard_samples) for spec, problems, file in wanted]
    parts = [(task, path, part) for task in tasks for path, part in task.parts]
    todo = [each for each in parts if not each[1].exists()]
    if len(todo) < len(parts):
        echo(f"{label} {len(parts) - len(todo)} of {len(parts)} shards are already there", err=True)
    if todo:
        mixer = mixer_from(settings(first.decoding.mixer, tokenizer.get_vocab()))
        machine.setdefault("dtype", engine_dtype(_source(first).dtype, on_cpu=not torch.cuda.is_available()))
        with open_engine(first.engine, model, neighbors, [mixer], **machine) as engine:
            for task, path, part in steps(todo, label, "shards"):
                began = time.monotonic()
                drawn = list(_draw(task.spec, engine, mixer, tokenizer, {i: task.prompts[i] for i in part}))
                with whole_file(path) as temporary:
                    pq.write_table(pa.Table.from_pylist(drawn, SCHEMA), temporary)
                _add_time(task.shards / CLOCK, time.monotonic() - began)
    for task in tasks:
        _gather(task)
    for spec, _, file in files:  # shards go last: until here, whatever ends the job, all of them stay
        shards = _shards(spec, file)
        if (shards / CLOCK).exists():
            os.replace(shards / CLOCK, file.with_suffix(".time.json"))
        shutil.rmtree(shards, ignore_errors=True)


def _is_there(spec: EvaluationSpec, out: Path, made_of: list[Path]) -> bool:
    """Whether an evaluation's samples are whole, of this spec and code, and newer than all that they are made of."""
    card = out.with_suffix(".card.json")
    if not (out.exists() and card.exists()):
        return False
    made = read_json(card)
    newest = max(path.stat().st_mtime for path in made_of)
    same = made["spec"] == spec.digest and made.get("version") == VERSIONS["sample"]
    return same and out.stat().st_mtime >= newest


def _source(spec: EvaluationSpec) -> Model:
    """The base model that the policy is or was trained from."""
    assert spec.base is not None, "samples from elsewhere aren't drawn"
    return spec.base.model


def _shards(spec: EvaluationSpec, out: Path) -> Path:
    return out.with_name(f".{out.name}.shards-{spec.digest}")


def _task(spec: EvaluationSpec, tokenizer, problems: Path, out: Path, shard_samples: int) -> _Task:
    """An evaluation's prompts and shards. Raises UserError where no problem is left."""
    source = _source(spec)
    rows = read_problems(problems)[: spec.benchmark.dataset.limit]
    prompts = {r["id"]: prompt_ids(tokenizer, source, spec.benchmark.dataset, r["problem"]) for r in rows}
    overlong = {i: len(p) for i, p in prompts.items() if len(p) > spec.max_prompt_tokens}
    ids = [i for i in prompts if i not in overlong]
    if not ids:
        raise UserError(
            f"every prompt is longer than {spec.max_prompt_tokens} tokens", where=problems, do="raise max_prompt_tokens"
        )
    shards, size = _shards(spec, out), max(1, shard_samples // spec.samples)
    shards.mkdir(parents=True, exist_ok=True)
    # a shard's name says which problems it holds: shards of another size aren't taken for these
    starts = range(0, len(ids), size)
    parts = [(shards / f"{start:06d}-{size}.parquet", ids[start : start + size]) for start in starts]
    return _Task(spec, out, len(rows), prompts, overlong, shards, parts)


def _gather(task: _Task) -> None:
    """Write an evaluation's samples, then its card, which makes them whole."""
    table = pa.concat_tables([pq.read_table(path) for path, _ in task.parts])
    write_samples(
        task.spec, table, task.out, version=VERSIONS["sample"], problems=task.problems, overlong=task.overlong
    )


def _add_time(clock: Path, seconds: float) -> None:
    """Note what a shard took; shards that a killed job was drawing aren't in it."""
    before = read_json(clock)["seconds"] if clock.exists() else 0.0
    time_used = {"seconds": round(before + seconds, 3), "devices": 1, "gpu": torch.cuda.is_available()}
    write_json(clock, {**time_used, "hardware": hardware()})


def _draw(
    spec: EvaluationSpec, engine: Engine, mixer: Mixer, tokenizer, prompts: dict[str, list[int]]
) -> Iterator[dict]:
    """One shard's rows."""
    decoding = spec.decoding
    keys = [(i, n) for i in prompts for n in range(spec.samples)]
    seeds = [derive_seed(spec.seed, "evaluation", spec.benchmark.id, i, n) for i, n in keys]
    requests = [Request(tuple(prompts[i]), seed, mixer) for (i, _), seed in zip(keys, seeds, strict=True)]
    sampling = Sampling(decoding.temperature, decoding.max_new_tokens, decoding.top_p)
    answers: list[Sample] = engine.generate(requests, sampling)
    for (problem, n), seed, answer in zip(keys, seeds, answers, strict=True):
        yield {
            "problem_id": problem,
            "sample": n,
            "text": tokenizer.decode(answer.tokens, skip_special_tokens=True),
            "finish_reason": answer.finish_reason,
            "tokens": len(answer.tokens),
            "mixed": len(answer.record.index),
            "seed": seed,
            "decoding": spec.decoding_id,
            "spec": spec.digest,
        }
