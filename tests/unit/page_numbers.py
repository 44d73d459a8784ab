"""Every number that the report says of something, by what it is of: for tests that it says the same everywhere."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

from ngrpo.claims.quantities import value_of
from ngrpo.formatting import percent
from ngrpo.report.section_problems import page_of
from ngrpo.study.expand import Study

VOID = {"meta", "link", "br", "hr", "img", "input"}
NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:e-?\d+)?")


@dataclass
class Node:
    """An element."""

    tag: str
    attributes: dict[str, str]
    parent: "Node | None"
    children: list["Node | str"] = field(default_factory=list)

    def text(self) -> str:
        """All text in it, white space folded."""
        words = (child if isinstance(child, str) else child.text() for child in self.children)
        return re.sub(r"\s+", " ", "".join(words)).strip()

    def all(self, wanted: Callable[["Node"], object]) -> Iterator["Node"]:
        """It and what it holds, in the page's order, where `wanted` says so."""
        if wanted(self):
            yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child.all(wanted)

    def up(self, wanted: Callable[["Node"], object]) -> "Node | None":
        """It or the nearest element around it of which `wanted` says so."""
        node: Node | None = self
        while node is not None and not wanted(node):
            node = node.parent
        return node


class Tree(HTMLParser):
    """A page as elements."""

    def __init__(self, html: str):
        super().__init__()
        self.root = self.at = Node("", {}, None)
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        node = Node(tag, {key: value or "" for key, value in attrs}, self.at)
        self.at.children.append(node)
        if tag not in VOID:
            self.at = node

    def handle_startendtag(self, tag, attrs):
        self.at.children.append(Node(tag, {key: value or "" for key, value in attrs}, self.at))

    def handle_endtag(self, tag):
        if tag not in VOID:
            self.at = self.at.parent

    def handle_data(self, data):
        self.at.children.append(data)


@dataclass(frozen=True)
class Said:
    """One part (value, here, beyond, p, size …) of a quantity, as a place of the page says it."""

    quantity: str
    part: str
    text: str
    where: str


def said_on_page(html: str) -> list[Said]:
    """Of the one page: its tables, claims, forest plot, sentences and figures' descriptions."""
    root = Tree(html).root
    marked = []
    for node in root.all(lambda n: "data-is" in n.attributes):
        cell = node.up(lambda n: n.attributes.get("data-cell"))
        if cell is not None and (text := node.text()) not in ("", "–"):
            marked.append(Said(cell.attributes["data-cell"], node.attributes["data-is"], text, _where(node)))
    return [*marked, *_lede(root), *_forest(root), *_sizes(root), *_descriptions(root, marked)]


def said_on_problem_pages(study: Study, folder: Path) -> list[Said]:
    """Of the pages of problems: what their right answers add up to."""
    said = []
    for name, spec in study.evaluations.items():
        path = folder / page_of(name)
        counts = re.findall(r'<td class="number">(\d+) of (\d+)</td>', path.read_text()) if path.exists() else []
        if counts:
            share = sum(int(right) for right, _ in counts) / sum(int(n) for _, n in counts)
            quantity = value_of([name], f"Mean@{spec.samples}", "mean")
            said += [Said(quantity, "value", percent(share), "problems"),
                     Said(quantity, "size", f"{len(counts)} problems × {counts[0][1]}", "problems")]  # fmt: skip
    return said


def differing(said: list[Said]) -> list[str]:
    """What is said in two ways, a line each pair."""
    places: dict[tuple[str, str], dict[str, str]] = {}
    for one in said:
        places.setdefault((one.quantity, one.part), {}).setdefault(one.text, one.where)
    return [
        f"{quantity}, {part}: {a!r} in {texts[a]}, {b!r} in {texts[b]}"
        for (quantity, part), texts in places.items()
        for a, b in combinations(texts, 2)
        if not _same(a, b)
    ]


def repeated(said: list[Said]) -> dict[str, set[str]]:
    """Part → the places between which it was compared."""
    places: dict[tuple[str, str], set[str]] = {}
    for one in said:
        places.setdefault((one.quantity, one.part), set()).add(one.where)
    compared: dict[str, set[str]] = {}
    for (_, part), where in places.items():
        if len(where) > 1:
            compared.setdefault(part, set()).update(where)
    return compared


def _same(a: str, b: str) -> bool:
    """Whether two texts say the same numbers, each as far as it is written."""
    one, other = (NUMBER.findall(text.replace("−", "-")) for text in (a, b))
    if len(one) != len(other) or a.startswith("<") != b.startswith("<"):
        return False
    return all(_rounds(Decimal(x), Decimal(y)) for x, y in zip(one, other, strict=True))


def _rounds(x: Decimal, y: Decimal) -> bool:
    steps = [Decimal(1).scaleb(int(number.as_tuple().exponent)) for number in (x, y)]
    return x == y if steps[0] == steps[1] else abs(x - y) <= max(steps) / 2


def _where(node: Node) -> str:
    """The section of the page, or its head; in the section of results, sentence or table."""
    section = node.up(lambda n: n.tag in ("section", "header"))
    name = section.attributes.get("aria-labelledby", "head") if section else "page"
    return f"{name} {'sentence' if node.up(lambda n: n.tag == 'p') else 'table'}"


VALUE = r"([+−]?\d+(?:\.\d+)?) points"
RANGE = r"([+−]?\d+(?:\.\d+)? to [+−]?\d+(?:\.\d+)?)"


def _lede(root: Node) -> Iterator[Said]:
    for node in root.all(lambda n: "answer-sentence" in n.attributes.get("class", "") and "data-cell" in n.attributes):
        text = node.text()
        patterns = {
            "value": rf": {VALUE} \(",
            "here": rf"{RANGE} on these",
            "beyond": rf"{RANGE} on problems like these",
        }
        for part, pattern in patterns.items():
            if match := re.search(pattern, text):
                yield Said(node.attributes["data-cell"], part, match[1], "lead sentence")


def _forest(root: Node) -> Iterator[Said]:
    for node in root.all(lambda n: n.tag == "svg" and "on these benchmarks" in n.attributes.get("aria-label", "")):
        row, text = node.up(lambda n: "data-cell" in n.attributes), node.attributes["aria-label"]
        patterns = {
            "value": VALUE,
            "here": rf"on these benchmarks {RANGE}",
            "beyond": rf"on problems like these {RANGE}",
        }
        for part, pattern in patterns.items():
            if row is not None and (match := re.search(pattern, text)):
                yield Said(row.attributes["data-cell"], part, match[1], "forest plot")


def _groups(root: Node) -> Iterator[tuple[str, list[Node]]]:
    """Each model and benchmark of the results' tables: its id, and its regions of tables."""
    for section in root.all(lambda n: n.tag == "section" and n.attributes.get("aria-labelledby") == "results"):
        name = ""
        regions: list[Node] = []
        for child in section.children:
            if isinstance(child, Node) and child.tag == "h4":
                if name:
                    yield name, regions
                name, regions = child.attributes["id"], []
            elif isinstance(child, Node) and child.attributes.get("class") == "scroll":
                regions.append(child)
        if name:
            yield name, regions


def _sizes(root: Node) -> Iterator[Said]:
    for _, regions in _groups(root):
        captions = [re.findall(r"(\d+) problems × (\d+) samples", region.text()[:200]) for region in regions[:1]]
        if captions and len(captions[0]) == 1:
            for node in (n for region in regions for n in region.all(lambda n: "data-cell" in n.attributes)):
                text = "{} problems × {}".format(*captions[0][0])
                yield Said(node.attributes["data-cell"], "size", text, "results caption")


def _descriptions(root: Node, marked: list[Said]) -> Iterator[Said]:
    """Values and intervals in the descriptions of a group's figures: LABEL 85.1 % (80.1 to 89.2)."""
    texts = {n.attributes["id"]: n.text() for n in root.all(lambda n: n.tag == "desc" and "id" in n.attributes)}
    for name, regions in _groups(root):
        rows = regions[0].all(lambda n: n.tag == "tr" and any("data-cell" in c.attributes for c in n.all(bool)))
        for row in rows:
            head = next(row.all(lambda n: n.tag == "th"))
            label = next((child.strip() for child in head.children if isinstance(child, str) and child.strip()), "")
            for cell in row.all(lambda n: "data-cell" in n.attributes):
                quantity = cell.attributes["data-cell"]
                metric, estimator = quantity.split("|")[-2:]
                about = f"{name}-{metric.lower().replace('@', '-')}-about"
                text = texts.get(about, "") if estimator != "bootstrap" else ""
                pattern = rf"(?:^|; ){re.escape(label)} (\d+\.\d) % \((\d+\.\d to \d+\.\d)\)"
                if match := re.search(pattern, text):
                    yield Said(quantity, "value", match[1], "figure")
                    yield Said(quantity, "problems", match[2], "figure")
