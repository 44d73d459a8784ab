"""The shape of the code: which package may import which, what is imported where, one name a thing, no giants."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping

import pytest
from source_tree import (
    ROOT,
    STUBS,
    Modules,
    area,
    circle,
    functions,
    imported_at_once,
    modules_of,
    package_modules,
    python_files,
    text_files,
    tree_of,
)

LAYERS = (
    {
        "ngrpo",
        "errors",
        "files",
        "foreign",
        "formatting",
        "gpu_memory",
        "grades",
        "hardware",
        "hub",
        "background",
        "progress",
        "scratch",
        "terminal",
    },
    {"study", "method"},
    {"data", "grading", "slurm", "statistics"},
    {"audit", "claims", "engines"},
    {"cleaning", "crate", "doctor", "evaluating", "planning", "report", "stages", "training"},
    {"cli"},
    {"__main__"},
)
"""Packages and single modules of ngrpo, lowest first; each imports from its own layer, without a circle, and below."""

ONLY_IN = {"verl": ("ngrpo.training.verl",), "sglang": ("ngrpo.engines.sglang", "ngrpo.training.verl")}
TORCH_FREE = ("audit", "claims", "cli", "grading", "planning", "report", "statistics", "study")
BRINGS_TORCH = {"torch", "transformers", "tensordict", "verl", "sglang", "ray"}

SAME_MODULE_NAME = {
    "__init__": "Python's name",
    "__main__": "Python's name",
    "engine": "each engine's folder has one",
}
SHADOWS_THE_STANDARD_LIBRARY = {
    "statistics": "the field's word, a package inside ngrpo: absolute imports can't meet the other one",
}
MIXER = "a mixer's configuration (study) and its arithmetic (method) bear the mixer's name"
SAME_CLASS_NAME = dict.fromkeys(
    ("NoMixer", "NeighborMixer", "GaussianMixer", "GumbelMixer", "SoftThinkingMixer", "MultiplexMixer", "MinPMixer"),
    MIXER,
)

MOST_LINES, MOST_FUNCTION_LINES = 400, 60
LONG_FILES: dict[str, str] = {
    "docs/configuration.md": "generated from the models",
    "config/claims.yaml": "one claim after another: data, in the report's order",
}
LONG_FUNCTIONS: dict[str, str] = {}
"""Path or path::function → why it is longer."""


@pytest.fixture(scope="module")
def modules() -> Modules:
    """The package's modules."""
    return package_modules()


# --- (a) import direction ---


def wrong_arrows(modules: Modules) -> Iterator[str]:
    """Imports from a higher layer, and packages that belong to none."""
    layer = {name: height for height, names in enumerate(LAYERS) for name in names}
    for module in modules.values():
        here = area(module.name)
        if here not in layer:
            yield f"{module.name} is in no layer"
        for target in module.imports:
            there = area(target.name)
            if target.name.split(".")[0] == "ngrpo" and layer.get(there, 0) > layer.get(here, 99):
                yield f"{module.name} → {target.name}"


def module_graph(modules: Modules) -> dict[str, set[str]]:
    """Imports among the package's modules."""
    return {name: {t.name for t in m.imports if t.name in modules} for name, m in modules.items()}


def package_graph(modules: Modules) -> dict[str, set[str]]:
    """Imports among the package's packages."""
    graph: dict[str, set[str]] = defaultdict(set)
    for name, targets in module_graph(modules).items():
        graph[area(name)] |= {area(target) for target in targets} - {area(name)}
    return graph


def test_arrows_never_run_up(modules):
    wrong = sorted(wrong_arrows(modules))
    assert not wrong, "\n".join(wrong)


def test_no_circle_between_packages(modules):
    assert circle(package_graph(modules)) == []


def test_no_circle_between_modules(modules):
    assert circle(module_graph(modules)) == []


def test_an_arrow_up_and_a_new_package_would_be_seen():
    spoiled = modules_of(
        {
            "ngrpo/study/expand.py": "def f():\n    from ngrpo.report import page\n",
            "ngrpo/report/page.py": "from ngrpo.study import expand\n",
            "ngrpo/attic/box.py": "",
        }
    )
    assert sorted(wrong_arrows(spoiled)) == ["ngrpo.attic.box is in no layer", "ngrpo.study.expand → ngrpo.report.page"]
    assert circle(package_graph(spoiled)) == ["report", "study", "report"]


def test_a_circle_through_a_relative_import_would_be_seen():
    spoiled = modules_of(
        {
            "ngrpo/study/__init__.py": "",
            "ngrpo/study/a.py": "from . import b\n",
            "ngrpo/study/b.py": "from .c import x\n",
            "ngrpo/study/c.py": "import ngrpo.study.a\n",
        }
    )
    assert circle(module_graph(spoiled)) == ["ngrpo.study.a", "ngrpo.study.b", "ngrpo.study.c", "ngrpo.study.a"]
    assert circle(package_graph(spoiled)) == []


# --- (b) what is imported where ---


def out_of_place(modules: Modules) -> Iterator[str]:
    """Imports of verl and sglang outside of their folders."""
    for module in modules.values():
        for target in module.imports:
            homes = ONLY_IN.get(target.name.split(".")[0])
            if homes and not any(module.name == home or module.name.startswith(f"{home}.") for home in homes):
                yield f"{module.name} → {target.name}"


def ways_to_torch(modules: Modules) -> Iterator[str]:
    """How importing a module of a torch-free package imports torch."""
    for name in modules:
        if area(name) in TORCH_FREE:
            for target, way in imported_at_once(name, modules).items():
                if target.split(".")[0] in BRINGS_TORCH:
                    yield " → ".join(way)


def test_verl_and_sglang_are_imported_in_their_folders_alone(modules):
    assert sorted(out_of_place(modules)) == []


def test_orchestration_and_analysis_import_no_torch(modules):
    assert sorted(ways_to_torch(modules)) == []


def test_foreign_imports_out_of_place_would_be_seen():
    spoiled = modules_of(
        {
            "ngrpo/__init__.py": "",
            "ngrpo/study/a.py": "import ngrpo.data.b\n",
            "ngrpo/study/lazy.py": "def f():\n    import torch\n",
            "ngrpo/data/b.py": "try:\n    from torch import nn\nexcept ImportError:\n    pass\n",
            "ngrpo/training/launch.py": "def f():\n    import verl.trainer\n",
            "ngrpo/training/verl/actor.py": "import verl, sglang\n",
        }
    )
    assert list(out_of_place(spoiled)) == ["ngrpo.training.launch → verl.trainer"]
    assert list(ways_to_torch(spoiled)) == ["ngrpo.study.a → ngrpo.data.b → torch"]


# --- (c) one name a thing ---


def twice(names: Iterator[tuple[str, str]], exempt: Mapping[str, str]) -> dict[str, list[str]]:
    """(name, place) pairs whose name has several places, by name."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, place in names:
        places[name].append(place)
    return {name: at for name, at in places.items() if len(at) > 1 and name not in exempt}


def module_names(modules: Modules) -> Iterator[tuple[str, str]]:
    """The base name of each module that isn't a package, and where it is."""
    return ((name.rpartition(".")[2], name) for name, module in modules.items() if not module.package)


def class_names(modules: Modules) -> Iterator[tuple[str, str]]:
    """Each class's name and module."""
    for name, module in modules.items():
        yield from ((node.name, name) for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef))


def shadowing(modules: Modules) -> list[str]:
    """Modules and packages with the name of a module of the standard library."""
    names = {name.rpartition(".")[2] for name in modules} - SHADOWS_THE_STANDARD_LIBRARY.keys()
    return sorted(names & sys.stdlib_module_names - {"__main__"})


def test_no_two_modules_share_a_name(modules):
    shared = twice(module_names(modules), SAME_MODULE_NAME)
    assert not shared, shared


def test_no_two_classes_share_a_name(modules):
    shared = twice(class_names(modules), SAME_CLASS_NAME)
    assert not shared, shared


def test_no_module_shadows_the_standard_library(modules):
    assert shadowing(modules) == []


def test_no_helper_of_the_tests_can_be_taken_for_another_module():
    """pytest puts their folders on the path: names must be unique, and none is imported from a conftest."""
    paths = [path for path in python_files("tests") if path.name != "conftest.py"]
    assert twice(((path.stem, str(path)) for path in paths), {}) == {}
    assert {path.stem for path in paths} & sys.stdlib_module_names == set()
    for path in paths:
        (module,) = modules_of({path.name: path.read_text(encoding="utf-8")}).values()
        assert "conftest" not in {target.name for target in module.imports}, path


def test_conftest_files_hold_fixtures_and_hooks_alone():
    for path in python_files("tests"):
        if path.name == "conftest.py":
            assert helpers(tree_of(path)) == [], path


def helpers(tree: ast.Module) -> list[str]:
    """Public functions and classes of a conftest that are neither a fixture nor a hook."""
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        and not node.name.startswith(("pytest_", "_"))
        and not any("fixture" in ast.unparse(decorator) for decorator in node.decorator_list)
    ]


def test_shared_names_and_helpers_would_be_seen():
    spoiled = modules_of(
        {
            "ngrpo/study/plan.py": "class Plan: ...",
            "ngrpo/planning/plan.py": "def f():\n    class Plan: ...",
            "ngrpo/study/json.py": "",
            "ngrpo/statistics/__init__.py": "",
        }
    )
    assert twice(module_names(spoiled), SAME_MODULE_NAME) == {"plan": ["ngrpo.study.plan", "ngrpo.planning.plan"]}
    assert twice(class_names(spoiled), {}) == {"Plan": ["ngrpo.study.plan", "ngrpo.planning.plan"]}
    assert shadowing(spoiled) == ["json"]
    assert helpers(ast.parse("@pytest.fixture\ndef a(): ...\ndef tiny(): ...\ndef pytest_x(): ...")) == ["tiny"]


# --- (d) no giants ---


def long_functions(trees: Mapping[str, ast.Module]) -> dict[str, int]:
    """path::function → lines, of those over the limit."""
    lengths = {f"{path}::{name}": lines for path, tree in trees.items() for name, lines in functions(tree)}
    return {place: lines for place, lines in lengths.items() if lines > MOST_FUNCTION_LINES}


def test_no_file_is_too_long_without_a_reason():
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in text_files()
        if path.suffix not in (".ipynb", ".svg")
    }
    assert {place for place, lines in lengths.items() if lines > MOST_LINES} == set(LONG_FILES)


def test_no_function_is_too_long_without_a_reason():
    ours = (
        path for path in python_files("workflow", "tests", "benchmarks", "envs", "gpu_kit") if STUBS not in path.parents
    )
    lengths = long_functions({str(path.relative_to(ROOT)): tree_of(path) for path in ours})
    assert set(lengths) == set(LONG_FUNCTIONS), lengths


def test_a_long_function_would_be_seen():
    source = "class A:\n    @decorator\n    def f(self):\n" + "        x = 1\n" * MOST_FUNCTION_LINES
    assert long_functions({"a.py": ast.parse(source)}) == {"a.py::f": MOST_FUNCTION_LINES + 1}
    assert long_functions({"a.py": ast.parse(source.removesuffix("        x = 1\n"))}) == {}


# --- (e) rules are thin ---

IN_NO_RULE = re.compile(r"\blambda\b|\bif\b[^\n:]*\bconfig\b")


def logic(text: str) -> list[str]:
    """Lines of a rule file with a lambda or a branch on the configuration."""
    code = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in code if IN_NO_RULE.search(line)]


def test_rules_hold_no_lambda_and_no_branch_on_the_configuration():
    files = (ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk")))
    lines = [f"{path.name}: {line}" for path in files for line in logic(path.read_text(encoding="utf-8"))]
    assert not lines, "\n".join(lines)


def test_logic_in_a_rule_would_be_seen():
    assert logic("rule a:\n    params: lambda w: w.x\n    # if config\nif config['x']:\n") == [
        "params: lambda w: w.x",
        "if config['x']:",
    ]


FOLDERS = {
    ".ci", "benchmarks", "config", "docs", "envs", "gpu_kit", "notebooks", "papers", "resources", "rules", "slurm",
    "tests", "workflow",
}  # fmt: skip


def test_no_results_are_tracked() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert {name.split("/")[0] for name in listed.splitlines() if "/" in name} == FOLDERS
