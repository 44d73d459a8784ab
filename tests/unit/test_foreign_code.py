"""No code of others runs: nothing is loaded with code that a model's or data set's folder brings, or unpickled."""

import ast
from collections.abc import Iterator

from source_tree import Modules, modules_of, package_modules

LOADERS = ("from_pretrained", "load_dataset", "from_config")
UNPICKLES = (
    "pickle.load",
    "pickle.loads",
    "torch.load",
    "joblib.load",
    "dill.load",
    "cloudpickle.load",
    "marshal.loads",
)
EVALUATES = ("eval", "exec", "compile", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen")


def trusting(modules: Modules) -> Iterator[str]:
    """Calls that load a model, tokenizer, configuration or data set and don't refuse its own code."""
    for name, module in modules.items():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in LOADERS:
                given = {k.arg: ast.unparse(k.value) for k in node.keywords}
                if given.get("trust_remote_code") != "False":
                    yield f"{name}:{node.lineno}"


def running(modules: Modules) -> Iterator[str]:
    """Calls that run what a file says."""
    for name, module in modules.items():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                shell = any(k.arg == "shell" and ast.unparse(k.value) == "True" for k in node.keywords)
                unsafe = called in UNPICKLES and "weights_only=True" not in ast.unparse(node)
                if called in EVALUATES or unsafe or shell:
                    yield f"{name}:{node.lineno}"


def test_nothing_is_loaded_with_its_own_code() -> None:
    assert sorted(trusting(package_modules())) == []


def test_nothing_is_evaluated_or_unpickled() -> None:
    assert sorted(running(package_modules())) == []


def test_such_calls_would_be_seen() -> None:
    source = """
AutoTokenizer.from_pretrained(folder)
AutoConfig.from_pretrained(folder, trust_remote_code=True)
AutoModel.from_pretrained(folder, trust_remote_code=False)
load_dataset(name, **how)
pickle.load(file)
torch.load(path)
torch.load(path, weights_only=True)
eval(text)
subprocess.run(words, shell=True)
"""
    spoiled = modules_of({"ngrpo/a.py": source})
    assert list(trusting(spoiled)) == ["ngrpo.a:2", "ngrpo.a:3", "ngrpo.a:5"]
    assert list(running(spoiled)) == ["ngrpo.a:6", "ngrpo.a:7", "ngrpo.a:9", "ngrpo.a:10"]
