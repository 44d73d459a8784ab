"""Parts of pages that are made: outputs of commands, the configuration reference, the picture of the stages.

`python tests/docs/outputs.py` (`make docs`) writes them; a test compares them with what is committed. A block after
`<!-- output of: COMMAND -->` is what the command prints on a fresh checkout, byte for byte. Where the marker goes on
with `(numbers: one machine's)`, the block was pasted from a finished study: only its form is compared, with what the
command prints on a synthetic study whose numbers are made up.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from pages import GENERATED, ROOT, Block, Page, pages

from ngrpo.files import whole_file
from ngrpo.study.config import ScaleFile, StudyFile
from ngrpo.study.declared_costs import CostsFile
from ngrpo.study.predicate_text import claims_page
from ngrpo.study.predicates import ClaimsFile
from ngrpo.study.reference import reference_text
from ngrpo.study.schema import schema_texts
from ngrpo.study.settings import Settings

MARKER = re.compile(r"output of: (?P<command>.*?)(?P<form> \(numbers: one machine's\))?$")
CLAIMS = "docs/claims.md"
STAGES = "docs/pictures/stages.svg"
MEND = "run `make docs`, look at the difference, and commit it"
FILES = {
    "`config/study.yaml`": ("What is compared, at any scale.", StudyFile),
    "`config/scales/*.yaml`": ("One file a scale: models, data and sizes.", ScaleFile),
    "`config/costs.yaml`": (
        "What work costs until it has been measured: see [plan-and-cost.md](plan-and-cost.md).",
        CostsFile,
    ),
    "`config/claims.yaml`": (
        "The paper's sentences as predicates: see [method.md](method.md#how-a-verdict-is-given).",
        ClaimsFile,
    ),
    "`--config` and `slurm/site.yaml`": (
        "Keys of the command line's `--config KEY=VALUE …` and of any file after `--configfile`. `slurm/site.yaml` is\n"
        "such a file, which `--profile slurm` reads first: see [cluster.md](cluster.md).",
        Settings,
    ),
}


def reference() -> str:
    """The text of docs/configuration.md."""
    return reference_text(FILES)


def run(command: list[str], folder: Path = ROOT, root: Path = ROOT) -> str:
    """What a command prints; raises where it fails."""
    env = {**os.environ, "PYTHONPATH": f"{root}/workflow", "COLUMNS": "120"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env, timeout=600, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout.rstrip()


def fresh(command: str, empty: Path) -> str:
    """What an `ngrpo` command prints where nothing has been made. empty: a folder, where its results would be."""
    words = shlex.split(command)
    if words[0] != "ngrpo":
        raise RuntimeError(f"{command}: `make docs` makes ngrpo's outputs alone; write a case for it in {__file__}")
    return run([sys.executable, "-m", *words, "--results", str(empty)])


def elided(output: str, shown: str) -> str:
    """An output with … where the block leaves lines out: between … the block's lines must be the output's."""
    return output if "…" not in shown.splitlines() else shown if _within(output, shown) else output


def _within(output: str, shown: str) -> bool:
    return set(shown.splitlines()) - {"…"} <= set(output.splitlines())


def regenerated(page: Page, print_of: Callable[[str], str]) -> str:
    """A page's text with the outputs of its exact blocks. print_of: what a command prints."""
    lines = page.text.splitlines()
    for block in reversed(page.blocks):
        marker = MARKER.match(block.marker)
        if marker and not marker["form"]:
            indent = re.match(" *", lines[block.line - 1])[0]
            made = elided(print_of(marker["command"]), block.output).splitlines()
            new = [f"$ {marker['command']}", *made] if block.language == "console" else made
            lines[block.line : block.line + len(block.lines)] = [f"{indent}{line}".rstrip() for line in new]
    return "\n".join(lines) + "\n"


def form(line: str) -> str:
    """A line without its numbers, rules and widths."""
    return " ".join(re.sub(r"-{2,}", "-", re.sub(r"\d[\d,.]*", "0", line)).split())


def strange_lines(block: Block, output: str) -> list[str]:
    """The block's lines whose form no line of the output has."""
    known = {form(line) for line in output.splitlines()}
    return [line for line in block.output.splitlines() if line.strip() not in ("", "…") and form(line) not in known]


class SyntheticStudy:
    """A finished study with made-up numbers, on which commands print what they print on a real one."""

    def __init__(self, folder: Path):
        from synthetic_study import make_study

        self.folder = folder
        self.study = make_study(folder, "toy", problems=8, tables=("main",))
        self.options = ["--config", str(folder / "config"), "--results", str(folder)]
        self._ngrpo("analyze", "main", "--out", str(folder / "toy" / "analysis" / "main.parquet"))

    def _ngrpo(self, *words: str) -> str:
        return run([sys.executable, "-m", "ngrpo", *words, *self.options])

    def print_of(self, command: str) -> str:
        """What a quoted command prints here."""
        words = shlex.split(command)
        if words[0] == "ngrpo":
            return self._ngrpo(*words[1:])
        if words[:2] == ["make", "verify"]:
            crate = self.folder / "crate"
            if not crate.exists():
                shutil.copy2(ROOT / "Snakefile", self.folder)
                self._ngrpo("crate", "--out", str(self.folder / "crate.zip"))
                with zipfile.ZipFile(self.folder / "crate.zip") as packed:
                    packed.extractall(crate)
            return run([sys.executable, "-m", "ngrpo", "verify", str(crate)])
        raise RuntimeError(f"{command}: write a case for it in {__file__}")


def stages() -> bytes | None:
    """The picture of the toy study's rules, or None where Graphviz isn't installed."""
    if shutil.which("dot") is None:
        return None
    graph = run([sys.executable, "-m", "snakemake", "--rulegraph", "--nolock", "--quiet", "all"])
    graph = graph[graph.index("digraph") :]
    return subprocess.run(["dot", "-Tsvg"], input=graph.encode(), capture_output=True, check=True).stdout


def write(path: str, content: str | bytes) -> None:
    """Write a file of the repository where it differs, and say so."""
    content = content.encode() if isinstance(content, str) else content
    if (ROOT / path).exists() and (ROOT / path).read_bytes() == content:
        return
    with whole_file(ROOT / path) as part:
        part.write_bytes(content)
    print(f"written: {path}")


def main() -> None:
    """Write everything that is made."""
    import tempfile

    write(GENERATED, reference())
    write(CLAIMS, claims_page(ROOT / "config"))
    for name, text in schema_texts().items():
        write(f"config/schema/{name}", text)
    with tempfile.TemporaryDirectory() as empty:
        for page in pages():
            if any(MARKER.match(b.marker) for b in page.blocks):
                write(page.name, regenerated(page, lambda command: fresh(command, Path(empty))))
    picture = stages()
    if picture is None:
        print(f"left as it is: {STAGES} (there is no `dot` here: install Graphviz)")
    else:
        write(STAGES, picture)


if __name__ == "__main__":
    main()
