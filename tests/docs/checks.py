"""What must be true of a page: links lead somewhere, words in backticks name something, blocks are what they say.

Everything is refused that nothing recognizes, with a message that says what to do: a page can't rot where no checker
looks.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from commands import Asked, Unknown, check
from names import MODELS, Names, layout
from pages import GENERATED, Block, Page
from pydantic import BaseModel, create_model

from ngrpo.errors import UserError
from ngrpo.study.reading import parse

HISTORY = ("CHANGELOG.md",)  # names what there was, too: only its links are checked
PROGRAMS = ("make", "ngrpo", "snakemake", "git", "kill", "scancel", "sinfo", "squeue", "sacctmgr", "pytest", "python3")
BY_HAND = ("file", "edit")  # markers of a worked example's blocks


def problems(page: Page, names: Names, others: dict[str, Page]) -> tuple[list[str], list[Asked]]:
    """What is wrong with a page, one line each; and what its commands ask of Snakemake. others: all pages by name."""
    messages = [f"{page.at(line)}: {text}" for line, text in _links(page, names, others)]
    asked: list[Asked] = []
    if page.name in HISTORY:
        return messages, asked
    example = any(b.marker.split(":")[0] in BY_HAND for b in page.blocks)
    if page.name != GENERATED:
        for line, span in page.spans:
            problem, wants = _span(span, page, names)
            messages += [f"{page.at(line)}: {problem}"] if problem else []
            asked += [wants] if wants and not example else []
    for block in page.blocks:
        wrong, wants = _block(block, names)
        messages += [f"{page.at(block.line)}: {problem}" for problem in wrong]
        asked += [] if example else wants  # an example's targets exist in its copy alone, where they are asked for
    return messages, asked


def _links(page: Page, names: Names, others: dict[str, Page]) -> Iterator[tuple[int, str]]:
    for line, target in page.links:
        if re.match(r"(https?|mailto):", target):
            continue
        place, _, anchor = target.partition("#")
        path = (Path(page.name).parent / place).as_posix() if place else page.name
        parts: list[str] = []
        for part in path.split("/"):
            parts = parts[:-1] if part == ".." else parts + [part] * (part not in ("", "."))
        path = "/".join(parts)
        if path not in names.files and path not in names.folders:
            yield line, f"the link {target} leads nowhere: mend it, or add the file"
        elif anchor and anchor not in others[path].anchors:
            near = ", ".join(sorted(others[path].anchors))
            yield line, f"{path} has no heading #{anchor}; it has {near}"


def _span(span: str, page: Page, names: Names) -> tuple[str | None, Asked | None]:
    """What is wrong with a word in backticks, and what it asks of Snakemake where it is a command."""
    first = span.split()[0].rpartition("/")[2]
    if span in names.outside or any(span in f"{block.marker}\n{block.text}" for block in page.blocks):
        return None, None  # another program's, or the page's own: it is in a block that is checked or followed
    if len(span.split()) > 1 and (first in PROGRAMS or re.match(r"[A-Z]+=\S+ ", span)):
        try:
            return None, check(span, names)
        except Unknown as e:
            return f"`{span}`: {e}", None
    return (None if _named(span, page, names) else _unknown(span)), None


def _unknown(span: str) -> str:
    return (
        f"`{span}` names no symbol, path, configuration key, id or option of this project: correct it, or write it "
        "without backticks; if it belongs to another program, add it to OUTSIDE in tests/docs/names.py"
    )


def _named(span: str, page: Page, names: Names) -> bool:
    if re.fullmatch(r"--?[a-z][\w-]*( \S+)?", span):
        return span.split()[0] in _options(names)
    if setting := re.fullmatch(r"([A-Z_]+)=\S*", span):
        return f"$({setting[1]})" in _makefile(names) or f"$(or $({setting[1]})" in _makefile(names)
    if place := re.fullmatch(r"(\S+\.yaml): ([\w.-]+)", span):
        return names.path(place[1], page.name) and names.key(place[2])
    if re.match(r"\{?[\w.-]+:( |$)", span) or span.startswith("{"):
        return _yaml_keys(span, names)
    if "/" in span and " " not in span and (names.path(span, page.name) or _logged(span, names)):
        return True
    if span.endswith("/") and span[:-1] in names.words:  # a folder that a module names
        return True
    word = re.sub(r"\(.*\)$|\[.*\]$", "", span)  # a call's arguments, or a test's parameters
    if "." in word and (names.path(word, page.name) or names.symbol(word) or names.key(word)):
        return True
    return span in names.words or word in names.words or names.symbol(word) or _logged(word, names)


def _logged(span: str, names: Names) -> bool:
    """Whether the code has the word, such as a logged metric, or with … at its end one that begins so."""
    start = span.removesuffix("…")
    return span in names.words or (span != start and any(w.startswith(start) and w != start for w in names.words))


def _yaml_keys(span: str, names: Names) -> bool:
    """Whether each key of `key: value` is a configuration key, or an id."""
    try:
        content = yaml.safe_load(span)
    except yaml.YAMLError:
        return False

    def good(value: object) -> bool:
        if isinstance(value, dict):
            return all((k in names.ids or names.key(str(k))) and good(v) for k, v in value.items())
        return True

    return isinstance(content, dict) and good(content)


@cache
def _makefile(names: Names) -> str:
    return (names.root / "Makefile").read_text(encoding="utf-8")


@cache
def _options(names: Names) -> set[str]:
    """Every option of `ngrpo`, `ngrpo doctor` and `snakemake`."""
    from snakemake.cli import get_argument_parser

    from ngrpo.cli import main
    from ngrpo.doctor import parser

    options = {o for command in main.commands.values() for p in command.params for o in (*p.opts, *p.secondary_opts)}
    options |= {o for p in main.params for o in p.opts}
    return options | {o for p in (parser(), get_argument_parser()) for a in p._actions for o in a.option_strings}


def _block(block: Block, names: Names) -> tuple[list[str], list[Asked]]:
    """What is wrong with a block, and what its commands ask of Snakemake."""
    kind, _, value = block.marker.partition(": ")
    wrong: list[str] = []
    asked: list[Asked] = []
    if block.language in ("bash", "console"):
        if block.language == "console" and kind not in ("output of", "pasted from"):
            wrong.append("a console block needs the line `<!-- output of: COMMAND -->` before it (see CONTRIBUTING.md)")
        if kind != "run":
            for command in block.commands:
                try:
                    wants = check(command, names)
                except Unknown as e:
                    wrong.append(f"{command}: {e}")
                else:
                    asked += [wants] if wants else []
    elif block.language == "python":
        wrong += [] if kind in BY_HAND else list(_python(block, names))
    elif block.language == "yaml":
        wrong += [] if kind in BY_HAND else list(_yaml(block))
    elif block.language == "text":
        checker = TEXTS.get(kind)
        if checker is None:
            wrong.append(
                "a text block needs a marker before it (layout, tree, verdicts, message of: MODULE, …): CONTRIBUTING.md"
            )
        else:
            wrong += list(checker(block, value, names))
    else:
        wrong.append(f"a block in '{block.language}': write bash, console, python, yaml or text after its ```")
    return wrong, asked


def _nothing(block: Block, value: str, names: Names) -> Iterator[str]:
    return iter(())  # compared where the example or the command runs


def _python(block: Block, names: Names) -> Iterator[str]:
    try:
        tree = ast.parse(block.text.replace("…", "...").replace(", ...}", "}"))
    except SyntaxError as e:
        yield f"not Python: {e}"
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ngrpo"):
            for alias in node.names:
                if not names.symbol(f"{node.module}.{alias.name}"):
                    yield f"there is no {node.module}.{alias.name}"


def _yaml(block: Block) -> Iterator[str]:
    """A snippet is a part of some configuration file: the keys of one, with values that its model takes."""
    content = yaml.safe_load(block.text)
    fits = [model for model in MODELS if isinstance(content, dict) and set(content) <= set(model.model_fields)]
    if not fits:
        yield f"its keys ({', '.join(content)}) are together in no configuration file"
    refused = []
    for model in fits:
        try:
            parse(_partial(model), content, "the snippet")
        except UserError as e:
            refused.append(str(e))
    if fits and len(refused) == len(fits):
        yield refused[0]


def _partial(model: type[BaseModel]) -> type[BaseModel]:
    """The model with no field required, so that a part of a file can be read."""
    fields: dict[str, Any] = {name: (f.annotation, None) for name, f in model.model_fields.items() if f.is_required()}
    return create_model(model.__name__, __base__=model, **fields)


def _layout(block: Block, value: str, names: Names) -> Iterator[str]:
    """A listing of the results: each line begins with paths, below its root (the first line)."""
    root, *lines = block.lines
    for line in lines:
        for path in re.split(r"\s{2,}", line.strip())[0].split():
            if not names.result(path) and f"{root}{path}".strip("/") not in layout():
                yield f"{path} is no file of a study's results (ngrpo.study.layout)"


def _tree(block: Block, value: str, names: Names) -> Iterator[str]:
    """A listing of the repository: a line is paths, two spaces, and what is there; deeper lines lie in it."""
    above: list[tuple[int, str]] = []
    for line in block.lines:
        entry = re.match(r"( *)(\S+(?: \S+)*?)(?:  +.*)?$", line)
        indent = len(entry[1])
        if indent > 30:  # a continued description
            continue
        above = [(i, p) for i, p in above if i < indent]
        folder = above[-1][1] if above else ""
        for name in entry[2].split(", "):
            path = f"{folder}{name}"
            if path.rstrip("/") not in names.files and path.rstrip("/") not in names.folders:
                yield f"there is no {path}"
            if name.endswith("/"):
                above.append((indent, path))


def _message(block: Block, value: str, names: Names) -> Iterator[str]:
    """A message that a module writes: each of its lines is one of the module's texts, with values filled in."""
    path = value if value in names.files else f"workflow/{value.replace('.', '/')}.py"
    if path not in names.files:
        yield f"there is no module {value}"
        return
    texts = _texts((names.root / path).read_text(encoding="utf-8"))
    for line in block.lines:
        if place := re.fullmatch(r"  where: (\S+\.yaml): ([\w.]+)", line):
            if not (names.path(place[1]) and names.key(place[2])):
                yield f"there is no {place[1]}: {place[2]}"
            continue
        if line.startswith("  where: "):  # somewhere on the user's machine
            continue
        said = re.sub(r"^(error: |  where: |  do:    )", "", line)
        if not any(text.fullmatch(said) for text in texts):
            yield f"{value} says no such thing as: {said}"


TEXTS = {
    "layout": _layout,
    "tree": _tree,
    "message of": _message,
    "prints": _nothing,
    "output of": _nothing,
    "verdicts": _nothing,  # tests/unit/test_second_grader.py holds them to the graders
}


@cache
def _texts(source: str) -> list[re.Pattern]:
    """A module's texts as patterns; what is filled in matches anything, but a text has eight letters of its own."""
    patterns = []
    for node in ast.walk(ast.parse(source)):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node] if isinstance(node, ast.Constant) else []
        plain = [p.value if isinstance(p, ast.Constant) else None for p in parts]
        if sum(len(re.findall(r"\w", p)) for p in plain if isinstance(p, str)) >= 8:
            patterns.append(re.compile("".join(".*" if p is None else re.escape(str(p)) for p in plain)))
    return patterns
