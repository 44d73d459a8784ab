"""What engines read of a model's folder: its type of numbers, its ends, and a neighbor table with a mixer's columns.

The table's columns are in order of distance, so a mixer with a smaller k uses the first ones: that is exactly its own
table. A larger k, another metric or another vocabulary is refused.
"""

from pathlib import Path

from torch import Tensor

from ngrpo.errors import UserError, unknown_name
from ngrpo.files import read_json
from ngrpo.method.mixers import Mixer
from ngrpo.method.neighbor_table import Table

DTYPES = ("float32", "bfloat16", "float16")


def model_config(model: Path) -> dict:
    """A Hugging Face folder's config.json. Raises UserError where there is none."""
    path = Path(model) / "config.json"
    if not path.exists():
        raise UserError("there is no model here (no config.json)", where=model, do="name a Hugging Face model folder")
    return read_json(path)


def engine_dtype(configured: str | None, model: Path | None = None, *, on_cpu: bool) -> str:
    """The type that an engine computes in: one of DTYPES, never a guess of the engine's.

    configured: `dtype` of the study's model, or None ("auto") for what the folder `model` says. A CPU computes in
    float32 whatever they say. Raises UserError for an unknown type, and where neither says one.

    sglang's own "auto" makes float16 of float32 folders, in which large activations are infinite.
    """
    where = "model: dtype"
    if on_cpu:
        return "float32"
    if configured in (None, "auto"):
        if model is None:
            raise UserError("no type is configured, and there is no model folder to read it from", where=where)
        config = model_config(model)
        configured, where = config.get("torch_dtype") or config.get("dtype"), str(Path(model) / "config.json")
        if configured is None:
            raise UserError(
                "the model doesn't say its torch_dtype", where=where, do=f"write one of {', '.join(DTYPES)}"
            )
    name = str(configured).removeprefix("torch.")
    if name not in DTYPES:
        raise unknown_name("type of numbers", name, DTYPES, where=where)
    return name


def open_table(path: Path | None, model: Path) -> Table | None:
    """The table in this file, checked against the model's vocabulary; None without a file."""
    if path is None:
        return None
    table = Table.load(path)
    table.check(model_config(model)["vocab_size"], table.k, table.metric)
    return table


def check_mixer(mixer: Mixer, *, metric: str | None, k: int | None) -> None:
    """Raise UserError unless a table of this metric and k (None: no table) serves the mixer."""
    if not mixer.needs_table:
        return
    where = f"mixer {mixer.kind}"
    if metric is None or k is None:
        raise UserError(
            "neighbor mixing without a neighbor table", where=where, do="start the engine with the table's file"
        )
    if mixer.metric != metric:
        raise UserError(
            f"metric is {mixer.metric}, but the engine's table is {metric}",
            where=f"{where}: metric",
            do="start the engine with a table of this metric",
        )
    if mixer.width > k:
        raise UserError(
            f"k is {mixer.width}, but the engine's table has {k} columns",
            where=f"{where}: k",
            do="start the engine with a table of this k",
        )


def columns(mixer: Mixer, ids: Tensor | None) -> Tensor | None:
    """The part of a table's ids (V, K) that this mixer reads: (V, k), or None if it reads none."""
    return ids[:, : mixer.width] if ids is not None and mixer.needs_table else None


def end_tokens(model: Path) -> tuple[int, ...]:
    """The model's end-of-sequence tokens: those of its config, its generation config and its tokenizer."""
    from transformers import AutoTokenizer

    tokens: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        path = Path(model) / name
        ids = read_json(path).get("eos_token_id") if path.exists() else None
        tokens.update(ids if isinstance(ids, list) else [] if ids is None else [ids])
    if (Path(model) / "tokenizer_config.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        if tokenizer.eos_token_id is not None:
            tokens.add(tokenizer.eos_token_id)
    return tuple(sorted(tokens))
