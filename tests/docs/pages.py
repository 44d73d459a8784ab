"""The project's pages as what they hold: headings, links, words in backticks, and fenced blocks with their markers."""

import re
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = "docs/configuration.md"
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>\S*)\s*$")
MARKER = re.compile(r"^\s*<!-- (?P<text>.*?) -->\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block. marker: the comment on the line before it, which says what the block is; empty: none."""

    line: int
    language: str
    marker: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """Its lines."""
        return "\n".join(self.lines)

    @property
    def commands(self) -> list[str]:
        """The commands of a `bash` block, or those after the prompts of a `console` block; comments dropped."""
        lines = [line[2:] for line in self.lines if line.startswith("$ ")]
        if self.language == "bash":
            lines = self.text.replace("\\\n", " ").splitlines()
        stripped = (re.sub(r"\s+#\s.*|^#.*", "", line).strip() for line in lines)
        return [line for line in stripped if line]

    @property
    def output(self) -> str:
        """What follows the first prompt of a `console` block, or all of another block."""
        return "\n".join(self.lines[1:] if self.lines[:1] and self.lines[0].startswith("$ ") else self.lines)


@dataclass(frozen=True)
class Page:
    """A Markdown page; name: its path in the repository."""

    name: str
    text: str

    def at(self, line: int) -> str:
        """How a message names a line."""
        return f"{self.name}:{line}"

    @cached_property
    def blocks(self) -> list[Block]:
        """Its fenced blocks."""
        return self._split[0]

    @cached_property
    def _split(self) -> tuple[list[Block], list[str]]:
        """The blocks, and the page's lines with those of the blocks emptied."""
        blocks: list[Block] = []
        prose: list[str] = []
        inside: list[str] | None = None
        start, language, marker, indent = 0, "", "", ""
        for number, line in enumerate(self.text.splitlines(), 1):
            fence = FENCE.match(line)
            if inside is None and fence:
                before = MARKER.match(prose[-1]) if prose else None
                start, language, indent, inside = number, fence["info"], fence["indent"], []
                marker = before["text"] if before else ""
            elif inside is not None and fence and not fence["info"]:
                blocks.append(Block(start, language, marker, tuple(inside)))
                inside = None
            elif inside is not None:
                inside.append(line.removeprefix(indent))
            else:
                prose.append(line)
                continue
            prose.append("")
        return blocks, prose

    @cached_property
    def prose(self) -> str:
        """The page without its blocks, line by line."""
        return "\n".join(self._split[1])

    @property
    def spans(self) -> list[tuple[int, str]]:
        """Line and text of everything in backticks outside of blocks."""
        matches = re.finditer(r"(?<!`)`([^`]+)`(?!`)", self.prose)
        return [(self.prose.count("\n", 0, m.start()) + 1, " ".join(m[1].split())) for m in matches]

    @property
    def links(self) -> list[tuple[int, str]]:
        """Line and target of every link and picture."""
        bare = re.sub(r"`[^`]*`", "", self.prose)
        matches = re.finditer(r"\]\(([^()\s]+)\)", self.prose) if "](" in bare else ()
        return [(self.prose.count("\n", 0, m.start()) + 1, m[1]) for m in matches]

    @cached_property
    def anchors(self) -> set[str]:
        """The anchors of its headings, as GitHub makes them."""
        anchors: list[str] = []
        for line in self._split[1]:
            if heading := re.match(r"#+ (.*)", line):
                plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).replace("`", "").strip().lower()
                anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
                anchors.append(anchor if anchor not in anchors else f"{anchor}-{anchors.count(anchor)}")
        return set(anchors)


def tracked(root: Path = ROOT) -> list[str]:
    """Every file of the repository that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split("\0")
    return sorted({name for name in names if name and (root / name).is_file()})


def pages(root: Path = ROOT) -> list[Page]:
    """Every Markdown page of the repository."""
    return [Page(name, (root / name).read_text(encoding="utf-8")) for name in tracked(root) if name.endswith(".md")]
