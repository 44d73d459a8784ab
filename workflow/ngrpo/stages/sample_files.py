"""Files of samples, drawn here or elsewhere: a parquet with one row a sample, and a card that makes it whole."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ngrpo.files import whole_file, write_json
from ngrpo.study.specs import EvaluationSpec

SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("sample", pa.int32()),  # 0 … n−1
        ("text", pa.string()),
        ("finish_reason", pa.string()),  # stop | length; null: nobody says
        ("tokens", pa.int32()),  # generated, the ending token included; null: nobody says
        ("mixed", pa.int32()),  # of these, how many fed a mixture; null: nobody says
        ("seed", pa.int64()),  # null: drawn elsewhere
        ("decoding", pa.string()),
        ("spec", pa.string()),  # digest of the evaluation's spec
    ]
)


def write_samples(
    spec: EvaluationSpec, table: pa.Table, out: Path, *, version: int, problems: int, overlong: Mapping[str, int]
) -> None:
    """Write an evaluation's samples (SCHEMA), then their card. problems: asked; overlong: those that were not, with
    their prompts' tokens."""
    with whole_file(out) as temporary:
        pq.write_table(table, temporary)
    write_json(
        out.with_suffix(".card.json"),
        {
            "spec": spec.digest,
            "version": version,
            "problems": problems,
            "sampled": problems - len(overlong),
            "overlong_prompts": dict(overlong),
            "samples": table.num_rows,
            "tokens": sum(tokens or 0 for tokens in table["tokens"].to_pylist()),
            "truncated": table["finish_reason"].to_pylist().count("length"),
        },
    )
