"""First half of `gpu-kit/run`: does the kit fit this node; parts into a virtual environment over the node's own torch.

Runs with the node's Python, standard library alone, and then starts `gpu_kit.runner` in that environment.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gpu_kit.parts import KitError, collect, extract, read_manifest, sha256

KIT = Path(__file__).resolve().parents[1]
_TORCH = (
    "import json, torch; from pathlib import Path; print(json.dumps({'version': torch.__version__, 'cuda': "
    "str(torch.version.cuda), 'usable': torch.cuda.is_available(), 'site': str(Path(torch.__file__).parents[1])}))"
)


def parser() -> argparse.ArgumentParser:
    """The command line of `gpu-kit/run`."""
    options = argparse.ArgumentParser(prog="gpu-kit/run", description="Prove on this node what the kit can.")
    options.add_argument("--out", type=Path, default=Path("gpu-report"), help="folder of report, page and logs")
    options.add_argument("--minutes", type=float, help="stop before a step that wouldn't end in so many minutes")
    options.add_argument("--only", default="", help="these steps alone, separated by commas")
    options.add_argument("--steps", action="store_true", help="list the steps and end")
    work = Path(tempfile.gettempdir()) / "ngrpo-gpu-kit"
    options.add_argument("--work", type=Path, default=work, help="folder to unpack in (2 GB; kept for later calls)")
    return options


def check_python(manifest: dict, version: tuple[int, int] = sys.version_info[:2]) -> None:
    """Raise KitError where this Python isn't the kit's."""
    wanted, found = manifest["python"], ".".join(map(str, version))
    if found != wanted:
        raise KitError(
            f"the kit is for Python {wanted}, and {sys.executable} is {found}. Name one that has torch: "
            f"PYTHON=/path/to/python{wanted} gpu-kit/run; or pack a kit for this one (make gpu-kit)"
        )


def found_torch() -> dict | None:
    """The node's torch: version, the CUDA it is built for, whether a card is usable, its site-packages; None: none."""
    done = subprocess.run([sys.executable, "-c", _TORCH], capture_output=True, text=True, check=False)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def found_cards() -> list[list[str]]:
    """Name and driver of each card that nvidia-smi lists."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines()]
    return [row for row in rows if len(row) == 2] if done.returncode == 0 else []


def check_torch(manifest: dict, torch: dict | None, cards: list[list[str]]) -> None:
    """Raise KitError where the node's torch isn't the kit's, or can't use the card that is there."""
    wanted = manifest["torch"].split(".")[:2]
    if torch is None:
        raise KitError(
            f"{sys.executable} has no torch, and the kit brings none: it runs over the node's own. It needs torch "
            f"{manifest['torch']}; name another Python with PYTHON=/path/to/python gpu-kit/run"
        )
    if torch["version"].split("+")[0].split(".")[:2] != wanted:
        raise KitError(
            f"the kit is for torch {'.'.join(wanted)}, and {sys.executable} has {torch['version']}. Name another "
            "Python, or pack a kit for that torch (make gpu-kit TORCH=…; its other packages may not fit it)"
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if cards and not torch["usable"] and not hidden:
        name, driver = cards[0]
        raise KitError(
            f"there is a card ({name}, driver {driver}), and torch {torch['version']}, built for CUDA {torch['cuda']}, "
            "can't use it: the driver is too old for that CUDA, or the card is another job's. For the CPU half: "
            "CUDA_VISIBLE_DEVICES= gpu-kit/run"
        )


def environment(manifest: dict, kit: Path, work: Path, torch_site: str) -> Path:
    """The environment's Python; made where it isn't yet. Raises KitError for parts that are missing or damaged."""
    home = work / sha256(kit / "manifest.json")[:12]
    for name in ("project", "packages"):
        if not (home / name).is_dir():
            began = time.monotonic()
            extract(collect(manifest["archives"][name], kit, work / "parts"), home / name)
            print(f"[kit] {name} unpacked in {time.monotonic() - began:.0f} s", flush=True)
    venv = home / "venv"
    python = venv / "bin" / "python"
    if not (venv / "ready").exists():
        command = [sys.executable, "-m", "venv", "--clear", "--without-pip", "--system-site-packages", str(venv)]
        subprocess.run(command, check=True)
        site = next(venv.glob("lib/python3.*/site-packages"))
        # before the node's own packages, whose newer numpy the engine doesn't run with; torch may be in another venv
        paths = [home / "packages", home / "project" / "workflow", home / "project", torch_site]
        (site / "kit.pth").write_text("".join(f"{path}\n" for path in paths))
        (venv / "ready").touch()
    return python


def main() -> int:
    """Check, unpack, and hand over to the runner; its exit code, or 2 where the kit doesn't fit."""
    options = parser().parse_args()
    began = time.monotonic()
    try:
        manifest = read_manifest(KIT)
        check_python(manifest)
        torch, cards = found_torch(), found_cards()
        check_torch(manifest, torch, cards)
        assert torch is not None
        python = environment(manifest, KIT, options.work.resolve(), torch["site"])
    except KitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    out = options.out.resolve()
    home = python.parents[2]
    command = [str(python), "-m", "gpu_kit.runner", str(KIT), str(out), "--began", str(began), "--only", options.only]
    command += ["--minutes", str(options.minutes)] if options.minutes is not None else []
    command += ["--steps"] if options.steps else []
    # the caller's own modules, and the few of the kit that this process is made of, would come before the kit's
    environment_of_steps = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, cwd=home / "project", env=environment_of_steps, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
