"""Policies that were trained elsewhere, as Hugging Face folders: fetched or copied, checked, an adapter merged.

A policy that is asked as its base model is, gets the base model's tokenizer, chat template and ends: prompts are then
the same tokens, and answers end at the same ones. It has to have the same tokens itself, and as many rows of
embeddings.
"""

import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ngrpo.data.prompts import open_tokenizer
from ngrpo.engines.model_folder import model_config
from ngrpo.errors import UserError
from ngrpo.files import read_json, whole_folder, write_json
from ngrpo.hub import fetch
from ngrpo.stages.base_models import add_stop_token, check_model, copy_model
from ngrpo.study.contents import policy_digest
from ngrpo.study.elsewhere import ADAPTER, adapter_alone
from ngrpo.study.layout import MODEL_CARD
from ngrpo.study.specs import PolicySpec
from ngrpo.terminal import echo, quoted

ADAPTER_WEIGHTS = "adapter_model.safetensors"
SPOKEN_WITH = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model", "*.jinja"),
    *("chat_template*", "generation_config.json"),
)
"""The files of a model folder that say how it is spoken to: tokens, template, ends."""


def make_policy(spec: PolicySpec, out: Path, *, base: Path, source: Path | None) -> None:
    """Make the folder of the policy that `spec` describes; `out` is whole or not there.

    base: its base model's folder. source: the user's folder; None: it is on the hub. Raises UserError where it can't be
    had, changed since the spec was made, is an adapter whose base isn't named or doesn't fit, or has another tokenizer
    or vocabulary than its base model.
    """
    label = f"[policy {spec.id}]"
    with whole_folder(out) as part:
        taken = part / "taken"
        taken.mkdir()
        shown, origin = _take(spec, source, taken, label)
        if (taken / ADAPTER).exists():
            if spec.merge is None:
                raise adapter_alone(shown)
            origin += f", an adapter merged with {spec.model.id}"
            _merge(taken, base, part, spec.model.model.dtype, shown)
        else:
            _check_tokens(taken, base, spec, shown)
            copy_model(taken, part)
        shutil.rmtree(taken)
        if spec.own_tokenizer is None:
            _speak_like(base, part)
        elif spec.model.model.stop is not None:
            add_stop_token(part, spec.model.model.stop)
        check_model(part, spec.model.model, shown=shown)
        _check_vocabulary(part, None if spec.own_tokenizer else base, shown)
        write_json(part / MODEL_CARD, {"spec": spec.digest, "origin": origin})
    echo(f"{label} {origin}; in {out}")


def _take(spec: PolicySpec, source: Path | None, out: Path, label: str) -> tuple[str, str]:
    """Fill a folder with what the spec names; returns how messages call it, and where it comes from."""
    if spec.hub is not None:
        echo(f"{label} fetching {spec.hub} at {spec.revision}")
        folder, commit = fetch("model", spec.hub, str(spec.revision), into=out)
        if folder.resolve() != out.resolve():
            copy_model(folder, out)
        shutil.rmtree(out / ".cache", ignore_errors=True)
        return spec.hub, f"{spec.hub} at {commit}"
    if source is None or not source.expanduser().is_dir():
        raise UserError("there is no such policy folder", where=source or spec.id, do="correct the row's `folder`")
    copy_model(source.expanduser(), out)
    if policy_digest(out) != spec.content:
        raise UserError("the policy's files changed since the study was read", where=source, do="start it again")
    return str(source), f"folder {source.name}"


def _tokens(folder: Path, shown: object) -> dict[str, int]:
    try:
        tokens: dict[str, int] = open_tokenizer(folder).get_vocab()
    except (OSError, ValueError) as e:
        what = f"the tokenizer can't be loaded: {quoted(e)}"
        raise UserError(what, where=shown, do="fetch or export it again") from None
    return tokens


def _check_tokens(folder: Path, base: Path, spec: PolicySpec, shown: str) -> None:
    """Raise UserError for a tokenizer with other tokens than the base model's; none at all is the base model's."""
    if spec.own_tokenizer is not None or not (folder / "tokenizer_config.json").exists():
        return
    own, other = _tokens(folder, shown), _tokens(base, base)
    if own != other:
        apart = sorted(token for token in own.keys() | other.keys() if own.get(token) != other.get(token))
        raise UserError(
            f"its tokenizer isn't that of {spec.model.id}: {len(apart):,} tokens differ, such as '{quoted(apart[0])}'",
            where=shown,
            do="name the base model that it was trained from, or ask it with its own: `tokenizer: own`",
        )


def _speak_like(base: Path, out: Path) -> None:
    """Give a policy its base model's tokenizer, template and ends, and nothing of its own."""
    for path in _spoken_with(out):
        path.unlink()
    for path in _spoken_with(base):
        shutil.copyfile(path, out / path.name)


def _spoken_with(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if any(fnmatch(path.name, pattern) for pattern in SPOKEN_WITH)]


def _check_vocabulary(folder: Path, base: Path | None, shown: str) -> None:
    """Raise UserError for more tokens than embeddings, or another number of these than the base model has."""
    rows, tokens = model_config(folder).get("vocab_size", 0), max(_tokens(folder, shown).values()) + 1
    if tokens > rows:
        raise UserError(
            f"its tokenizer has {tokens:,} tokens, its vocabulary {rows:,} rows", where=shown, do="export it again"
        )
    if base is not None and rows != (expected := model_config(base)["vocab_size"]):
        raise UserError(
            f"its vocabulary has {rows:,} rows, the base model's {expected:,}",
            where=shown,
            do="name the base model that it was trained from, or ask it with its own tokenizer: `tokenizer: own`",
        )


def open_peft() -> Any:
    """PEFT, which looks for torchao's quantized layers in any model and ends in an ImportError where torchao is older
    than it wants, as the one that sglang pins is. A model folder here holds none: it is told that there is no torchao.
    """
    import peft
    from peft.tuners.lora import torchao

    torchao.is_torchao_available = bool
    return peft


def _merge(adapter: Path, base: Path, out: Path, dtype: str, shown: str) -> None:
    """Save the base model with an adapter's changes added to its weights. Raises UserError where they don't fit."""
    import torch
    from transformers import AutoModelForCausalLM

    if not (adapter / ADAPTER_WEIGHTS).exists():
        raise UserError(
            f"the adapter has no {ADAPTER_WEIGHTS}",
            where=shown,
            do="save it as safetensors: pickled weights (.bin) can run code, and aren't read",
        )
    settings: Any = read_json(adapter / ADAPTER)
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        kind = settings.get("peft_type") if isinstance(settings, dict) else None
        raise UserError(f"an adapter of kind {quoted(kind)} can't be merged here", where=shown, do="merge it yourself")
    plain = AutoModelForCausalLM.from_pretrained(base, torch_dtype=getattr(torch, dtype), trust_remote_code=False)
    names = set(plain.state_dict())
    try:
        adapted = open_peft().PeftModel.from_pretrained(plain, str(adapter), trust_remote_code=False)
        merged = adapted.merge_and_unload(safe_merge=True)
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as e:
        what = f"the adapter doesn't fit its base model: {quoted(str(e).splitlines()[0])}"
        raise UserError(what, where=shown, do="name the base model that it was trained from") from None
    if set(merged.state_dict()) != names:
        raise UserError(
            "the adapter adds weights that the base model doesn't have", where=shown, do="merge it yourself"
        )
    merged.save_pretrained(out)
