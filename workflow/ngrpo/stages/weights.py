"""Weights that are whole: every tensor that the configuration asks for, of its shape, each value finite.

What a configuration asks for is the state of the architecture that transformers makes of it, on torch's meta device,
where nothing takes memory. Tensors that the architecture ties (an output layer that is the embedding) may be there
once.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ngrpo.errors import UserError
from ngrpo.files import read_json

CHUNK = 2**25  # values that are looked at at once
SPARE = re.compile(r"rotary_emb\.inv_freq$|\.masked_bias$|\.attn\.bias$")
"""Tensors that older checkpoints hold and models compute."""
SHOWN = 3
DO = "fetch or copy it again"


def check_weights(folder: Path, shown: object) -> None:
    """Raise UserError unless a model folder's weights are whole. shown: what messages name in the folder's place."""
    from safetensors import SafetensorError, safe_open

    there: dict[str, tuple[int, ...]] = {}
    for path in _files(folder, shown):
        try:
            with safe_open(path, framework="pt") as weights:
                there.update({name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()})  # noqa: SIM118
        except SafetensorError as e:
            raise UserError(f"the weights aren't whole: {e}", where=f"{shown}: {path.name}", do=DO) from None
    _compare(there, folder, shown)
    for path in _files(folder, shown):
        for name in _not_finite(path):
            raise UserError(
                f"the weights of {name} aren't finite: they hold NaN or infinity",
                where=f"{shown}: {path.name}",
                do="export the model again; no training or sampling can start from these",
            )


def _files(folder: Path, shown: object) -> list[Path]:
    """The files of weights: those that an index names, or all there are."""
    there = {path.name for path in folder.glob("*.safetensors")}
    if not there:
        raise UserError(
            "the model has no safetensors weights",
            where=shown,
            do="convert its weights to safetensors: pickled ones (.bin, .pt) can run code, and aren't read",
        )
    named: set[str] = set()
    for index in sorted(folder.glob("*.safetensors.index.json")):
        places = read_json(index)
        named |= set(places.get("weight_map", {}).values()) if isinstance(places, dict) else set()
        if not named or not all(isinstance(name, str) and Path(name).name == name for name in named):
            raise UserError("this is no index of weights", where=f"{shown}: {index.name}", do=DO)
    if absent := sorted(named - there):
        raise UserError(f"the weight file {absent[0]} is missing", where=shown, do=DO)
    return [folder / name for name in sorted(named or there)]


def _compare(there: dict[str, tuple[int, ...]], folder: Path, shown: object) -> None:
    """Raise UserError where names or shapes aren't the configuration's."""
    asked, groups, spare = _asked(folder, shown)
    missing = [name for name in asked if name not in there and not groups[name] & there.keys()]
    unknown = [name for name in there if name not in asked and not SPARE.search(name) and not spare(name)]
    for what, names in (("lack {} tensors that the configuration asks for", missing),
                        ("hold {} tensors that the configuration doesn't ask for", unknown)):  # fmt: skip
        if names:
            some = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
            do = f"{DO}; is this its config.json?"
            raise UserError(f"the weights {what.format(len(names))}: {some}", where=shown, do=do)
    for name, shape in there.items():
        if name in asked and asked[name] != shape:
            raise UserError(
                f"the tensor {name} is {_by(shape)}, the configuration asks for {_by(asked[name])}",
                where=shown,
                do=f"{DO}; is this its config.json?",
            )


def _by(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "a number"


def _asked(folder: Path, shown: object) -> tuple[dict[str, tuple[int, ...]], dict[str, set[str]], Any]:
    """Of the configuration: names and shapes; for each name those tied to it; which further names it passes over."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if getattr(config, "quantization_config", None):
            raise UserError(
                "the weights are quantized, and can't be trained", where=f"{shown}: config.json", do="use plain weights"
            )
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ZeroDivisionError) as e:
        raise UserError(
            f"no model can be made of the configuration: {e}", where=f"{shown}: config.json", do="export it again"
        ) from None
    model.tie_weights()
    state = model.state_dict(keep_vars=True)
    same: dict[int, set[str]] = {}
    for name, tensor in state.items():
        same.setdefault(id(tensor), set()).add(name)
    passed_over = [re.compile(pattern) for pattern in model._keys_to_ignore_on_load_unexpected or []]
    return (
        {name: tuple(tensor.shape) for name, tensor in state.items()},
        {name: same[id(tensor)] for name, tensor in state.items()},
        lambda name: any(pattern.search(name) for pattern in passed_over),
    )


def _not_finite(path: Path) -> Iterator[str]:
    """Names of tensors with a value that isn't finite; a part of a tensor at a time."""
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as weights:
        for name in weights.keys():  # noqa: SIM118
            part = weights.get_slice(name)
            shape = part.get_shape()
            rows = max(1, CHUNK // max(1, torch.Size(shape[1:]).numel()))
            parts = (part[i : i + rows] for i in range(0, shape[0], rows)) if shape else [weights.get_tensor(name)]
            for values in parts:
                if values.is_floating_point() and not torch.isfinite(values.float()).all():
                    yield name
                    break
