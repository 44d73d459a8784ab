"""The neighbor stage: a model folder's embedding matrix in, its neighbor table out (Eq. 7-8)."""

import time
from pathlib import Path

from torch import Tensor

from ngrpo.data.prompts import open_tokenizer
from ngrpo.errors import UserError
from ngrpo.files import read_json
from ngrpo.method.neighbor_table import build
from ngrpo.study.specs import NeighborSpec
from ngrpo.terminal import echo

# names of the two matrices in Qwen2, Qwen3 and Llama alike; a tied model stores one
_NAMES = {
    "embedding": ("model.embed_tokens.weight",),
    "lm_head": ("lm_head.weight", "model.embed_tokens.weight"),
}


def embedding(model: Path, space: str = "embedding") -> Tensor:
    """E (V, d) of a Hugging Face folder, or its output layer's rows, as stored, without loading the model."""
    from safetensors import safe_open

    index = model / "model.safetensors.index.json"
    places = read_json(index)["weight_map"] if index.exists() else None
    for name in _NAMES[space]:
        if places is not None and name not in places:
            continue
        path = model / (places[name] if places else "model.safetensors")
        if not path.exists():
            raise UserError("the model has no safetensors weights here", where=path)
        with safe_open(path, framework="pt") as f:
            if name in f.keys():  # noqa: SIM118 (not a dict)
                return f.get_tensor(name)
    raise UserError(f"none of these is among the weights: {', '.join(_NAMES[space])}", where=model)


def make_table(spec: NeighborSpec, *, model: Path, out: Path) -> None:
    """Build the table that `spec` describes and write it, whole or not at all."""
    E, tokenizer = embedding(model, spec.space or "embedding"), open_tokenizer(model)
    label = f"[neighbors {spec.model.id}]"
    echo(f"{label} {spec.metric}, k={spec.k}, over {E.shape[0]} × {E.shape[1]}")
    start = time.monotonic()
    table = build(
        E,
        spec.k,
        spec.metric,
        vocabulary_size=min(len(tokenizer), E.shape[0]),
        special_ids=tokenizer.all_special_ids,
        special_tokens=spec.special_tokens,
    )
    table.save(out)
    echo(f"{label} {int(table.excluded.sum())} rows without a token; {time.monotonic() - start:.1f} s; {out}")
