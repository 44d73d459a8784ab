"""One spelling (American, as the paper's) and names in the field's terms, in every file of the project."""

import ast
import re
from pathlib import Path

from source_tree import ROOT, assigned_names, python_files, text_files, tree_of

HERE = Path(__file__).resolve()

_IZE = (
    "normal", "optim", "organ", "recogn", "summar", "initial", "serial", "token", "vector", "parallel", "random",
    "minim", "maxim", "general", "special", "util", "visual", "synchron", "categor", "character", "emphas", "capital",
    "custom", "final", "formal", "penal", "real", "standard", "stabil", "quant", "regular", "factor", "local",
    "material",
)  # fmt: skip
_DOUBLED = ("label", "model", "cancel", "travel", "signal", "level", "total", "channel", "tunnel", "fuel", "marshal")
BRITISH = re.compile(
    r"\b(?:un|re|mis)?(?:"
    rf"(?:{'|'.join(_IZE)})is(?:e|ed|es|er|ers|ing|ation|ations)|"
    rf"(?:{'|'.join(_DOUBLED)})l(?:ed|ing|er|ers)|"
    r"(?:neighb|col|behavi|fav|flav|hon|lab|rum|endeav|hum|harb|rig)our\w*|"
    r"(?:analy|paraly|cataly)s(?:e|ed|er|ers|ing)|"
    r"artefacts?|licen[c]e[sd]?|cent(?:re|res|red)|met(?:re|res)|fib(?:re|res)|catalogues?|grey\w*|programmes?|"
    r"spelt|learnt|burnt|dreamt|whilst|amongst|maths|per cent|judgement\w*|ageing|sceptic\w*|defence|offence|pretence|"
    r"fulfil|fulfils|skilful|enrol|instalments?|moulds?|practis(?:e|ed|ing)|acknowledgements?"
    r")\b",
    re.IGNORECASE,
)
ALLOWED = {
    "CANCELLED": "a state as SLURM writes it",
    "grey": "a color as Snakemake names it in a graph of rules",
}
"""Words that another program spells so."""

VALUES = {"told", "found", "kept"}  # say nothing about what a value is
METAPHOR = re.compile(r"\b(?:houses?|farewells?|tickets?|mechanics)\b")


def british(text: str) -> list[str]:
    """The words of a text that Americans spell otherwise."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", text)  # in names, too
    return [m.group() for m in BRITISH.finditer(words) if m.group() not in ALLOWED]


def unclear(tree: ast.AST) -> list[tuple[int, str]]:
    """Names that say nothing, or say it in a private metaphor."""
    return [
        (line, name)
        for name, line in assigned_names(tree)
        if name in VALUES or METAPHOR.search(name.lower().replace("_", " "))
    ]


def test_american_spelling_throughout():
    words = [
        f"{path.relative_to(ROOT)}:{number}: {', '.join(words)}"
        for path in text_files()
        if path not in (HERE, ROOT / "CHANGELOG.md")  # which names what there was
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (words := british(line))
    ]
    assert not words, "\n".join(words)


def test_british_spelling_would_be_seen():
    text = "The behaviour of neighbours_found, analysed and normalised per cent; Labelled colourMap; CANCELLED"
    assert british(text) == ["behaviour", "neighbours", "analysed", "normalised", "per cent", "Labelled", "colour"]
    assert british("our analyses, analysis, size, tire, color, four hours, promise, exercise, percent, license") == []


def test_names_say_what_they_name():
    names = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in python_files("workflow", "tests", "benchmarks", "envs")
        for line, name in unclear(tree_of(path))
    ]
    assert not names, "\n".join(names)


def test_no_module_is_named_by_a_metaphor():
    assert [path for path in text_files() if METAPHOR.search(path.stem.replace("_", " "))] == []


def test_an_unclear_name_would_be_seen():
    source = "told = 1\ndef f(kept): self.found = [0 for found in x]\nclass A: tickets = 2\ndef my_house(): pass\n"
    assert sorted({name for _, name in unclear(ast.parse(source))}) == ["found", "kept", "my_house", "tickets", "told"]
    assert unclear(ast.parse("neighbors_found = 1\nprint(found)\n")) == []
