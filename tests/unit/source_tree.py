"""Python sources as trees, read and never imported: which modules import which, how long functions are, their names."""

import ast
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "workflow" / "ngrpo"
STUBS = PACKAGE / "engines" / "sglang" / "stubs"  # stands for foreign packages, whose names it must bear
FOLDERS = (
    ".ci", "benchmarks", "config", "docs", "envs", "gpu_kit", "notebooks", "resources", "rules", "slurm", "tests",
    "workflow",
)  # fmt: skip
TEXT = {"", ".cff", ".css", ".def", ".ipynb", ".j2", ".md", ".py", ".rst", ".sh", ".smk", ".svg", ".toml", ".yaml"}


class Import(NamedTuple):
    """One import statement's target; at_once: executed when the module is imported, not in a function."""

    name: str
    at_once: bool


class Module(NamedTuple):
    """One module: its dotted name, whether it is a package's __init__, its tree, and what it imports."""

    name: str
    package: bool
    tree: ast.Module
    imports: list[Import]


Modules = Mapping[str, Module]


def modules_of(sources: Mapping[str, str]) -> dict[str, Module]:
    """Modules by dotted name, from texts by path below the folder that holds the package ("ngrpo/study/base.py")."""
    trees: dict[str, tuple[bool, ast.Module]] = {}
    for path, text in sources.items():
        parts = Path(path).with_suffix("").parts
        package = parts[-1] == "__init__"
        trees[".".join(parts[:-1] if package else parts)] = package, ast.parse(text)
    return {
        name: Module(name, is_package, tree, _imports(name, is_package, tree, trees.keys()))
        for name, (is_package, tree) in trees.items()
    }


def package_modules() -> dict[str, Module]:
    """The package's modules, without the stubs of foreign packages."""
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if STUBS not in path.parents]
    return modules_of({str(path.relative_to(PACKAGE.parent)): path.read_text(encoding="utf-8") for path in paths})


def python_files(*folders: str) -> Iterator[Path]:
    """The project's Python files in these folders."""
    for folder in folders:
        yield from sorted(path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


@cache
def tree_of(path: Path) -> ast.Module:
    """A file's tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def text_files() -> Iterator[Path]:
    """Every file that people wrote as text; no generated locks and schemas, no license."""
    top = [path for path in sorted(ROOT.iterdir()) if path.is_file() and path.name not in ("LICENSE", ".git")]
    inside = (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.is_file())
    for path in (*top, *inside):
        hidden = any(part == "__pycache__" or part.endswith(".egg-info") for part in path.parts)
        if path.suffix in TEXT and not hidden:
            yield path


def _at_once(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported: all but functions' bodies and `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from _at_once(node)


def _imports(name: str, package: bool, tree: ast.Module, modules: Container[str]) -> list[Import]:
    """What a module imports, in and out of functions; `from package import module` names the module."""
    at_once = set(map(id, _at_once(tree)))
    targets = []
    for node in ast.walk(tree):
        now = id(node) in at_once
        if isinstance(node, ast.Import):
            targets += [Import(alias.name, now) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                up = parts[: len(parts) - node.level + package]
                base = ".".join([*up, base] if base else up)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                targets.append(Import(inner if inner in modules else base, now))
    return targets


def area(name: str) -> str:
    """The package below ngrpo (or the single module there) that a module belongs to; "ngrpo" for ngrpo itself."""
    return name.split(".")[1] if "." in name else name


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """One circle of a directed graph, its start repeated at the end; empty where there is none."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for target in sorted(graph.get(node, ())):
            if around := visit(target, [*path, node]):
                return around
        done.add(node)
        return []

    return next((around for node in sorted(graph) if (around := visit(node, []))), [])


def imported_at_once(name: str, modules: Modules) -> dict[str, list[str]]:
    """Everything that importing a module imports, foreign packages too, each with the way to it."""
    ways: dict[str, list[str]] = {}
    todo = [(name, [name])]
    while todo:
        current, way = todo.pop()
        parents = [current.rpartition(".")[0]] if "." in current and current in modules else []
        targets = [t.name for t in modules[current].imports if t.at_once] if current in modules else []
        for target in (*parents, *targets):
            if target not in ways:
                ways[target] = [*way, target]
                todo.append((target, ways[target]))
    return ways


def functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Each function's name and its lines, decorators not counted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def assigned_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that a source gives to something, and its line: values, attributes, parameters, functions, classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield (node.id if isinstance(node, ast.Name) else node.attr), node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, node.lineno
