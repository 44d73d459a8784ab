"""Worked examples, followed literally: a page's blocks are applied to a copy of the repository, its commands run there.

A block's marker says what it is:

- `file: PATH`: the content of a new file;
- `edit: PATH before: LINE` (or `after:`, `replace:`): lines for a file, beside or in place of the only line that begins
  with LINE; `before first: LINE` and the like take the first such line;
- `run`: a `bash` block that is run; a `prints` block that follows is what it prints.

The page must name the file and the line in its text, so that a reader who sees no markers can do the same.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from pages import ROOT, Block, Page, tracked

EDIT = re.compile(r"edit: (?P<path>\S+) (?P<where>before|after|replace)(?P<first> first)?: (?P<line>.+)")


class NotFollowed(Exception):
    """A page that can't be followed, or doesn't give what it promises."""


def is_example(page: Page) -> bool:
    """Whether a page has blocks to apply."""
    return any(block.marker.startswith(("file: ", "edit: ")) for block in page.blocks)


def touched(page: Page) -> set[str]:
    """The files that a page makes or changes."""
    return {block.marker.split()[1] for block in page.blocks if block.marker.startswith(("file: ", "edit: "))}


def copy_of_repository(folder: Path) -> Path:
    """The repository's files, and its environments as links."""
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    for environment in (".venv", ".venv-train"):
        (folder / environment).symlink_to((ROOT / environment).resolve())
    return folder


def follow(page: Page, root: Path) -> list[str]:
    """Apply a page's blocks in order and run its commands in `root`; what each printed. Raises NotFollowed."""
    printed: list[str] = []
    for block in page.blocks:
        where = page.at(block.line)
        kind = block.marker.split(":")[0]
        if kind in ("file", "edit"):
            _apply(page, block, root)
        elif kind == "run":
            printed.append(_run(block, root, where))
        elif kind == "prints" and (not printed or printed[-1].strip() != block.text.strip()):
            raise NotFollowed(f"{where}: it printed\n{printed[-1] if printed else 'nothing'}")
    return printed


def _apply(page: Page, block: Block, root: Path) -> None:
    where, edit = page.at(block.line), EDIT.fullmatch(block.marker)
    path = edit["path"] if edit else block.marker.removeprefix("file: ")
    for name in (path, edit["line"]) if edit else (path,):
        if f"`{name}`" not in page.text.replace("\n", " "):
            raise NotFollowed(f"{where}: the text doesn't name `{name}`, which only the marker says")
    file = root / path
    if edit is None:
        if file.exists():
            raise NotFollowed(f"{where}: {path} is there already")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text + "\n", encoding="utf-8")
        return
    lines = file.read_text(encoding="utf-8").splitlines()
    at = [i for i, line in enumerate(lines) if line.strip().startswith(edit["line"])]
    if not at or (len(at) > 1 and not edit["first"]):
        raise NotFollowed(f"{where}: {len(at)} lines of {path} begin with {edit['line']}")
    start, end = {"before": (at[0], at[0]), "after": (at[0] + 1,) * 2, "replace": (at[0], at[0] + 1)}[edit["where"]]
    file.write_text("\n".join([*lines[:start], *block.lines, *lines[end:]]) + "\n", encoding="utf-8")


def _run(block: Block, root: Path, where: str) -> str:
    env = {**os.environ, "PYTHONPATH": f"{root}/workflow", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=root, capture_output=True, text=True, env=env, timeout=600, check=False,
    )  # fmt: skip
    if done.returncode:
        raise NotFollowed(f"{where}: it ended with {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout
