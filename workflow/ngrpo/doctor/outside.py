"""What lies outside the node: SLURM, the Hugging Face hub and its cache, the user's data folder."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ngrpo.doctor.checks import Diagnosis, scales_of
from ngrpo.doctor.machine import run
from ngrpo.hub import Kind, cache_folder, cached_snapshot, is_offline

WAIT = 5  # seconds for the hub's answer
SHOWN = 3


def slurm() -> tuple[Diagnosis, bool]:
    """The cluster's partitions with GPUs, and whether there are any."""
    output = run("sinfo", "--noheader", "--format=%P|%G|%D|%l")
    if output is None:
        return Diagnosis("SLURM", "none (no sinfo, or it doesn't answer)"), False
    rows = [line.split("|") for line in output.splitlines() if line.count("|") == 3]
    gpu = [f"{p.rstrip('*')} ({n} nodes, {g}, up to {t})" for p, g, n, t in rows if "gpu" in g]
    if not gpu:
        return Diagnosis("SLURM", f"{len({r[0] for r in rows})} partitions, no GPUs"), False
    return Diagnosis("SLURM", f"GPUs in {'; '.join(sorted(gpu))}"), True


def sources(config: Path, scale: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(models | datasets, id, source) of everything that a scale starts from, none where the configuration doesn't have
    the scale. Raises ImportError without yaml."""
    import yaml

    if not (config / "scales" / f"{scale}.yaml").exists():
        return
    content = yaml.safe_load((config / "scales" / f"{scale}.yaml").read_text(encoding="utf-8"))
    for kind in ("models", "datasets"):
        for name, entry in (content.get(kind) or {}).items():
            yield kind, name, entry.get("source") or {}


def _made(results: Path, scale: str, kind: str, name: str) -> bool:
    """Whether the workflow has fetched it already."""
    made = {"models": f"models/{name}/config.json", "datasets": f"data/{name}.parquet"}
    return (results / scale / made[kind]).exists()


def reachable(endpoint: str) -> bool:
    """Whether the hub answers."""
    if is_offline():
        return False
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=WAIT).close()
    except urllib.error.HTTPError as e:
        return e.code < 500
    except OSError:
        return False
    return True


def hub(config: Path, results: Path) -> Diagnosis:
    """Whether what comes from the hub can be fetched, lies in its cache, or is in results already."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if reachable(endpoint):
        return Diagnosis("hub", f"{endpoint} answers")
    state = "offline (HF_HUB_OFFLINE)" if is_offline() else f"{endpoint} doesn't answer"
    lacking: dict[str, list[str]] = {}
    for scale in scales_of(config):
        for kind, name, source in sources(config, scale):
            if source.get("kind") == "hub" and not _made(results, scale, kind, name):
                what: Kind = "model" if kind == "models" else "dataset"
                repo, revision = source.get("repo", ""), source.get("revision", "")
                if not cached_snapshot(what, repo, revision):
                    lacking.setdefault(scale, []).append(repo)
    if not lacking:
        return Diagnosis("hub", f"{state}; all that is needed is in {cache_folder()} or in results")
    missing = sorted({repo for repos in lacking.values() for repo in repos})
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    return Diagnosis(
        "hub",
        f"{state}; not, or not whole, in {cache_folder()}: {', '.join(missing[:SHOWN])}{more}",
        "where there is network run `snakemake fetch`, or `huggingface-cli download REPO --revision COMMIT` with"
        " HF_HOME on a disk that both see",
        tuple(lacking),
    )


def data_folder(config: Path, results: Path, folder: Path | None) -> Diagnosis:
    """Whether the files that scales read from the user's folder are there."""
    lacking: dict[str, list[str]] = {}
    for scale in scales_of(config):
        for kind, name, source in sources(config, scale):
            if source.get("kind") == "folder" and "file" in source and not _made(results, scale, kind, name):
                path = source["file"]
                if folder is None or not (folder / path).is_file():
                    lacking.setdefault(scale, []).append(path)
    place = "none named" if folder is None else str(folder)
    if not lacking:
        return Diagnosis("data folder", place if folder else "not needed")
    files = ", ".join(sorted({path for paths in lacking.values() for path in paths}))
    return Diagnosis(
        "data folder", f"{place}; missing: {files}", "--data-folder FOLDER with these files", tuple(lacking)
    )
