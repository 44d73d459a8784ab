"""The sampling stage: n samples a problem, in shards that survive a kill.

A shard is a whole parquet file of some problems' samples in a folder beside the output; a restarted job keeps the
shards that are there and draws the rest. Every sample's seed comes from its problem's id and its number, so shards,
order and restarts change nothing.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ngrpo.data.datasets import read_problems
from ngrpo.data.prompts import open_tokenizer, prompt_ids
from ngrpo.engines.contract import Request, Sample, Sampling, open_engine
from ngrpo.errors import UserError
from ngrpo.files import read_json, whole_file, write_json
from ngrpo.method.mixers import Mixer, mixer_from
from ngrpo.method.rng import derive_seed
from ngrpo.progress import steps
from ngrpo.study.mixers import settings
from ngrpo.study.specs import EvaluationSpec

CLOCK = "time.json"
SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("sample", pa.int32()),  # 0 … n−1
        ("text", pa.string()),
        ("finish_reason", pa.string()),  # stop | length
        ("tokens", pa.int32()),  # generated, the ending token included
        ("mixed", pa.int32()),  # of these, how many fed a mixture
        ("seed", pa.int64()),
        ("decoding", pa.string()),
        ("spec", pa.string()),  # digest of the evaluation's spec
    ]
)


def sample(
    spec: EvaluationSpec,
    *,
    model: Path,
    problems: Path,
    neighbours: Path | None,
    out: Path,
    shard_samples: int = 512,
    **machine: object,
) -> None:
    """Draw spec.samples answers to every problem and write them to `out` (SCHEMA), beside it a card and its time.

    shard_samples: about how many samples a shard holds (changes what a kill loses, never a sample). Prompts above the
    token limit are not sampled; the card names them. Raises UserError where no problem is left.
    """
    tokenizer = open_tokenizer(model)
    source = spec.policy.model.model if spec.policy.type == "run" else spec.policy.model
    rows = read_problems(problems)[: spec.benchmark.dataset.limit]
    prompts = {r["id"]: prompt_ids(tokenizer, source, spec.benchmark.dataset, r["problem"]) for r in rows}
    overlong = {i: len(p) for i, p in prompts.items() if len(p) > spec.max_prompt_tokens}
    ids = [i for i in prompts if i not in overlong]
    if not ids:
        raise UserError(
            f"every prompt is longer than {spec.max_prompt_tokens} tokens", where=problems, do="raise max_prompt_tokens"
        )
    shards = out.with_name(f".{out.name}.shards-{spec.digest}")
    shards.mkdir(parents=True, exist_ok=True)
    per_shard = max(1, shard_samples // spec.samples)
    # a shard's name says which problems it holds: shards of another size aren't taken for these
    parts = [
        (shards / f"{start:06d}-{per_shard}.parquet", ids[start : start + per_shard])
        for start in range(0, len(ids), per_shard)
    ]
    todo = [(path, part) for path, part in parts if not path.exists()]
    label = f"[sample {spec.policy.id}/{spec.decoding_id}/{spec.benchmark.id}]"
    if len(todo) < len(parts):
        print(f"{label} {len(parts) - len(todo)} of {len(parts)} shards are already there", file=sys.stderr)
    if todo:
        mixer = mixer_from(settings(spec.decoding.mixer, tokenizer.get_vocab()))
        with open_engine(spec.engine, model, neighbours, [mixer], **machine) as engine:
            for path, part in steps(todo, label, "shards"):
                began = time.monotonic()
                drawn = list(_draw(spec, engine, mixer, tokenizer, {i: prompts[i] for i in part}))
                with whole_file(path) as temporary:
                    pq.write_table(pa.Table.from_pylist(drawn, SCHEMA), temporary)
                _add_time(shards / CLOCK, time.monotonic() - began)
    table = pa.concat_tables([pq.read_table(path) for path, _ in parts])
    with whole_file(out) as temporary:
        pq.write_table(table, temporary)
    write_json(
        out.with_suffix(".card.json"),
        {
            "spec": spec.digest,
            "problems": len(rows),
            "sampled": len(ids),
            "overlong_prompts": overlong,
            "samples": table.num_rows,
            "tokens": sum(table["tokens"].to_pylist()),
            "truncated": table["finish_reason"].to_pylist().count("length"),
        },
    )
    if (shards / CLOCK).exists():  # it is gone where a job was killed right here
        os.replace(shards / CLOCK, out.with_suffix(".time.json"))
    shutil.rmtree(shards)


def _add_time(clock: Path, seconds: float) -> None:
    """Note what a shard took; shards that a killed job was drawing aren't in it."""
    import torch

    before = read_json(clock)["seconds"] if clock.exists() else 0.0
    write_json(clock, {"seconds": round(before + seconds, 3), "devices": 1, "gpu": torch.cuda.is_available()})


def _draw(spec: EvaluationSpec, engine, mixer: Mixer, tokenizer, prompts: dict[str, list[int]]) -> Iterator[dict]:
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
