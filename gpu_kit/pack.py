"""`make gpu-kit`: environment, project and a toy model as parts, in one folder that a GPU node needs nothing beside.

Packages are those of a GPU lock without torch and what belongs to it, which the node has; each download's hash is the
lock's. Left out of them is what neither engine nor training use: Java, web pages and libraries of ray's, tests.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from gpu_kit.parts import FORMAT, LARGEST, MANIFEST, sha256, split

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "envs" / "train-gpu-current.lock"
NODES_OWN = re.compile(r"(torch|triton|nvidia-(?!ml-py$).*|cuda-.*)")
"""Packages that come with the node's torch."""
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_26", "manylinux_2_24", "manylinux_2_17", "manylinux2014",
             "manylinux_2_5", "manylinux1")  # fmt: skip
USELESS = (
    "bin", "tests", "ray/jars", "ray/rllib", "ray/serve", "ray/llm", "ray/cpp", "ray/dashboard/client/build",
    "ray/core/libjemalloc.so", "wandb/bin", "pyarrow/include", "pyarrow/tests", "pandas/tests", "numba/tests",
    "sympy/**/tests", "numpy/**/tests", "networkx/**/tests",
)  # fmt: skip
PROJECT = ("workflow", "tests/conftest.py", "tests/contract", "tests/gpu", "tests/unit", "tests/workflow", "gpu_kit",
           "pyproject.toml", "config", "LICENSE")  # fmt: skip
"""What of the project travels: the package, what tests need, and the kit itself."""
BOOTSTRAP = ("__init__.py", "parts.py", "unpack.py")


def pins(lock: Path) -> dict[str, str]:
    """A lock's packages, each with its whole entry: version and hashes."""
    text = "\n" + "".join(line for line in lock.read_text().splitlines(True) if not line.lstrip().startswith("#"))
    return {entry.partition("==")[0]: entry for entry in re.split(r"\n(?=[\w.-]+==)", text) if "==" in entry}


def carried(lock: Path) -> dict[str, str]:
    """Those of them that the kit brings."""
    return {name: entry for name, entry in pins(lock).items() if not NODES_OWN.fullmatch(name)}


def version_of(lock: Path, package: str) -> str:
    """The version that a lock pins."""
    return pins(lock)[package].partition("==")[2].split()[0]


def download(lock: Path, python: str, wheels: Path) -> None:
    """The wheels of a lock's packages; what has only a source package is built (it is Python alone)."""
    wheels.mkdir(parents=True)
    entries = carried(lock)
    sources = {"antlr4-python3-runtime"} & entries.keys()
    wanted = wheels.parent / "wanted.txt"
    wanted.write_text("\n".join(entry for name, entry in entries.items() if name not in sources))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    hashes = ["--no-deps", "--require-hashes"]
    target = ["--only-binary=:all:", *_target(python)]
    subprocess.run([*pip, "download", *hashes, *target, "-d", wheels, "-r", wanted], check=True)
    for name in sources:
        wanted.write_text(entries[name])
        subprocess.run([*pip, "wheel", *hashes, "-w", wheels, "-r", wanted], check=True)


def _target(python: str) -> list[str]:
    platforms = [part for name in PLATFORMS for part in ("--platform", f"{name}_x86_64")]
    return ["--python-version", python, "--implementation", "cp", *platforms]


def install(wheels: Path, python: str, site: Path) -> None:
    """The wheels unpacked as a site-packages folder, without what is useless on a node."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-index", "--no-deps"]
    files = sorted(wheels.glob("*.whl"))
    subprocess.run(
        [*pip, "--no-compile", "--only-binary=:all:", *_target(python), "--target", site, *files], check=True
    )
    for pattern in USELESS:
        for path in list(site.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def project(folder: Path) -> None:
    """The project's own files, as git knows them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *PROJECT],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)


def pack(folder: Path, archive: Path, preset: int = 6) -> None:
    """A folder as .tar.xz, the same bytes each time."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(archive, "w:xz", preset=preset) as out:
        for path in sorted(folder.iterdir()):
            out.add(path, path.name, filter=plain)


def readme(manifest: dict, lock: str) -> str:
    """The kit's README, with its own versions and parts."""
    parts = [part for facts in manifest["archives"].values() for part in facts]
    rows = "\n".join(f"| `parts/{p['name']}` | {p['bytes'] / 2**20:.1f} MiB |" for p in parts)
    text = (Path(__file__).parent / "README.in").read_text(encoding="utf-8")
    for word, value in (("PYTHON", manifest["python"]), ("TORCH", manifest["torch"]), ("LOCK", lock), ("PARTS", rows)):
        text = text.replace(f"@{word}@", value)
    return text


def commit() -> str:
    """The project's commit, with a mark where files have been changed since; empty where git doesn't know it."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def finish(out: Path, archives: Iterable[Path], python: str, torch: str, lock: Path, largest: int = LARGEST) -> dict:
    """Archives into parts, and the small files beside them; the manifest."""
    manifest = {
        "format": FORMAT,
        "made": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit(),
        "python": python,
        "torch": torch,
        "lock": {"name": lock.name, "sha256": sha256(lock)},
        "archives": {path.name.partition(".")[0]: split(path, out / "parts", largest) for path in archives},
    }
    (out / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    (out / "gpu_kit").mkdir(exist_ok=True)
    for name in BOOTSTRAP:
        shutil.copyfile(Path(__file__).parent / name, out / "gpu_kit" / name)
    shutil.copy(Path(__file__).parent / "run", out / "run")
    (out / "README.md").write_text(readme(manifest, lock.name), encoding="utf-8")
    return manifest


def main(arguments: Sequence[str] | None = None) -> None:
    """Pack a kit."""
    options = argparse.ArgumentParser(prog="make gpu-kit", description=__doc__.splitlines()[0])
    options.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-kit")
    options.add_argument(
        "--lock", type=Path, default=LOCK, help="of its packages (default: envs/train-gpu-current.lock)"
    )
    options.add_argument("--python", default="3.12", help="of the node (default: 3.12)")
    options.add_argument("--torch", help="of the node (default: the lock's)")
    options.add_argument(
        "--train", type=Path, default=ROOT / ".venv-train", help="environment that makes the toy model"
    )
    given = options.parse_args(arguments)
    torch = given.torch or version_of(given.lock, "torch")
    out = given.out.resolve()
    with tempfile.TemporaryDirectory(prefix="gpu-kit.") as home:
        work, new = Path(home), Path(home) / "gpu-kit"
        new.mkdir()
        print(f"[kit] for Python {given.python} and torch {torch}: packages of {given.lock.name}", flush=True)
        download(given.lock, given.python, work / "wheels")
        install(work / "wheels", given.python, work / "packages")
        print("[kit] the toy model", flush=True)
        project(work / "project")
        environment = os.environ | {"PYTHONPATH": f"{ROOT / 'workflow'}:{ROOT}"}
        command = [given.train / "bin" / "python", "-W", "ignore", "-m", "gpu_kit.toy", work / "project" / "toy"]
        subprocess.run(command, env=environment, check=True)
        print("[kit] archives", flush=True)
        for name in ("packages", "project"):
            pack(work / name, work / f"{name}.tar.xz")
        manifest = finish(new, [work / "packages.tar.xz", work / "project.tar.xz"], given.python, torch, given.lock)
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(new, out)
    sizes = [part["bytes"] for facts in manifest["archives"].values() for part in facts]
    print(f"[kit] {out}: {len(sizes)} parts, {sum(sizes) / 2**20:.0f} MiB; its README says what to do", flush=True)


if __name__ == "__main__":
    main()
