"""Docs that can't rot: what pages name exists, what they quote runs, what is generated is what is committed."""

import difflib
from pathlib import Path

import pytest
from checks import problems
from commands import Asked, Unknown, check, dry_runs
from names import MODELS, Names, layout
from outputs import (
    CLAIMS,
    FILES,
    GENERATED,
    MARKER,
    MEND,
    SyntheticStudy,
    fresh,
    reference,
    regenerated,
    strange_lines,
)
from pages import ROOT, Block, Page, pages
from pydantic import BaseModel, Field

from ngrpo.study.base import Config
from ngrpo.study.predicate_text import claims_page
from ngrpo.study.reference import reference_text, undocumented

PAGES = {page.name: page for page in pages()}


@pytest.fixture(scope="session")
def names() -> Names:
    return Names()


def problems_of(names: Names, text: str, name: str = "docs/page.md") -> list[str]:
    """The problems of a page of this text."""
    page = Page(name, text)
    return problems(page, names, {**PAGES, name: page})[0]


def differences(committed: str, made: str, name: str) -> str:
    """A diff, and what mends it; empty where there is none."""
    lines = difflib.unified_diff(
        committed.splitlines(), made.splitlines(), f"{name} (committed)", "made now", lineterm=""
    )
    shown = "\n".join(lines)
    return f"{shown}\n{MEND}" if shown else ""


@pytest.mark.parametrize("name", PAGES)
def test_everything_a_page_names_exists_and_every_command_has_a_known_form(name: str, names: Names) -> None:
    wrong, _ = problems(PAGES[name], names, PAGES)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[x](no-such-page.md)", "leads nowhere"),
        ("[x](method.md#no-such-heading)", "has no heading #no-such-heading"),
        ("`ngrpo.method.rng.unifrom`", "names no symbol"),
        ("`ngrpo.nothing`", "names no symbol"),
        ("`NeighborMixer.stepp`", "names no symbol"),
        ("`docs/no-such-page.md`", "names no symbol, path"),
        ("`runs/{run}/metrix.jsonl`", "names no symbol, path"),
        ("`exploration.roh`", "names no symbol, path, configuration key"),
        ("`config/study.yaml: seats`", "configuration key"),
        ("`kind_of: neighbors`", "configuration key"),
        ("`repeats: [2, 3]`", "configuration key"),
        ("`--no-such-option`", "option"),
        ("`make no-such-target`", "make has no target"),
        ("`make test-slurm NOTHING=1`", "uses no variable NOTHING"),
        ("`ngrpo neighbor x`", "ngrpo has no command"),
        ("`ngrpo plan all --rat 2`", "No such option"),
        ("`ngrpo doctor --scales paper`", "unrecognized arguments"),
        ("`snakemake --coers 2`", "snakemake: "),
        ("`ngrpo.study` and `wibble`", "`wibble` names no symbol"),
        ("```bash\nwibble --now\n```", "write a checker in tests/docs/commands.py"),
        ("```bash\n.venv/bin/pytest tests/no_such_test.py\n```", "there is no file"),
        ("```bash\npython3 -m ngrpo.nothing\n```", "there is no module"),
        ("```\nngrpo plan\n```", "write bash, console, python, yaml or text"),
        ("```console\n$ ngrpo plan\n```", "output of: COMMAND"),
        ("```text\nsome/path\n```", "needs a marker"),
        ("```python\nfrom ngrpo.method.rng import nothing\n```", "there is no ngrpo.method.rng.nothing"),
        ("```yaml\nmethods:\n  a: {titel: A}\n```", "unknown key 'titel'"),
        ("```yaml\nmethods: {}\nwalltime: 3\n```", "in no configuration file"),
        ("<!-- layout -->\n```text\nresults/{scale}/\n  runs/{run}/metrix.jsonl   steps\n```", "no file of a study's"),
        ("<!-- tree -->\n```text\nrules/          rules\n  wibble.smk   more\n```", "there is no rules/wibble.smk"),
        ("<!-- message of: ngrpo.files -->\n```text\nerror: no such words are there\n```", "says no such thing"),
    ],
)
def test_what_is_wrong_is_found_and_the_message_says_where_and_what_to_do(names: Names, text: str, said: str) -> None:
    wrong = problems_of(names, f"# A page\n\n{text}\n")
    assert len(wrong) == 1
    assert wrong[0].startswith("docs/page.md:")
    assert said in wrong[0]


def test_what_is_right_is_left_alone(names: Names) -> None:
    text = """# A page
[method](method.md#departures-from-the-paper-and-why), `ngrpo.method.rng.uniform(seed, position, GATE)`,
`exploration.rho`,
`config/study.yaml: methods`, `seeds: 3`, `runs/{run}/metrics.jsonl`, `tests/gpu/`, `make test FAULTS=x`,
`parity/max`, `mixing/cosine_…`, `ngrpo plan [TARGET]`, `--profile`, `KillWait`, `ngrpo-l2`

```yaml
methods:
  twin: {title: Twin, exploration: {kind: neighbors}}
```
"""
    assert problems_of(names, text) == []


def test_snakemake_can_make_what_pages_ask_for(tmp_path: Path, names: Names) -> None:
    asked = [wants for page in PAGES.values() for wants in problems(page, names, PAGES)[1]]
    assert {a.profile for a in asked} == {None, "slurm"}
    refused = dry_runs([*asked, Asked(None, ("tables=main",), ("no-such-target",))], ROOT, tmp_path)
    # the last one is the control
    assert len(refused) == 1, "\n".join(refused[:-1])
    assert "no-such-target" in refused[0]


def test_a_command_without_a_checker_is_refused(names: Names) -> None:
    with pytest.raises(Unknown, match="FOREIGN"):
        check("curl https://example.org", names)
    assert check("snakemake --profile slurm table1", names) == Asked("slurm", (), ("table1",))


# --- what is generated


def test_the_configuration_reference_is_what_the_models_say() -> None:
    assert not differences((ROOT / GENERATED).read_text(encoding="utf-8"), reference(), GENERATED)


def test_the_page_of_claims_is_what_the_configuration_says(tmp_path: Path) -> None:
    committed = (ROOT / CLAIMS).read_text(encoding="utf-8")
    assert not differences(committed, claims_page(ROOT / "config"), CLAIMS)
    claims = (ROOT / "config" / "claims.yaml").read_text(encoding="utf-8")
    (tmp_path / "claims.yaml").write_text(claims.replace("on Llama-3.2-1B.", "on some model.", 1), encoding="utf-8")
    assert differences(committed, claims_page(tmp_path), CLAIMS)


def test_another_default_or_description_shows_in_the_reference() -> None:
    class Old(Config):
        """A file."""

        rho: float = Field(0.1, ge=0)
        """How often."""

    class New(Config):
        """A file."""

        rho: float = Field(0.2, ge=0)
        """How often."""
        k: int

    def text(model: type[BaseModel]) -> str:
        return reference_text({"`x.yaml`": ("A file.", model)})

    assert "| `rho` | number, ≥ 0 | `0.1` | How often. |" in text(Old)
    said = differences(text(Old), text(New), "page")
    assert "-| `rho` | number, ≥ 0 | `0.1` | How often. |" in said
    assert said.endswith(MEND)
    assert (undocumented(Old), undocumented(New)) == ([], ["New.k"])


def test_every_configuration_key_is_described() -> None:
    assert {model for _, model in FILES.values()} == set(MODELS)
    assert [field for model in MODELS for field in undocumented(model)] == []


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> SyntheticStudy:
    return SyntheticStudy(tmp_path_factory.mktemp("study"))


QUOTED = [
    pytest.param(page, block, id=f"{page.name}:{block.line}")
    for page in PAGES.values()
    for block in page.blocks
    if MARKER.match(block.marker)
]


@pytest.mark.parametrize(("page", "block"), QUOTED)
def test_quoted_outputs_are_what_commands_print(
    page: Page, block: Block, synthetic: SyntheticStudy, tmp_path: Path
) -> None:
    marker = MARKER.match(block.marker)
    if block.language == "console":
        assert block.lines[0] == f"$ {marker['command']}"
    if marker["form"]:
        printed = synthetic.print_of(marker["command"])
        strange = strange_lines(block, printed)
        assert not strange, f"{page.at(block.line)}: not what is printed now:\n" + "\n".join(
            [*strange, "now:", printed]
        )
    else:
        one = Page(page.name, "\n".join([f"<!-- {block.marker} -->", f"```{block.language}", *block.lines, "```", ""]))
        made = regenerated(one, lambda command: fresh(command, tmp_path))
        assert not differences(one.text, made, page.at(block.line))


def test_an_old_output_is_found_and_mended() -> None:
    old = "<!-- output of: ngrpo plan -->\n```console\n$ ngrpo plan\njobs 3\n…\n```\nafter\n"
    page = Page("docs/page.md", old)
    assert regenerated(page, lambda _: "jobs 3\ncosts 5") == old  # … stands for what is left out
    assert regenerated(page, lambda _: "jobs 4\ncosts 5") == old.replace("jobs 3\n…", "jobs 4\ncosts 5")
    block = Block(1, "console", "", ("$ ngrpo table", "GRPO   81.8 [78.3, 84.8]", "---- ---", "Report: x"))
    assert strange_lines(block, "GRPO 7 [3, 4.25]\n--------- -----\n") == ["Report: x"]


def test_the_layout_lists_what_the_module_says_of_itself() -> None:
    assert "results/{scale}/runs/{name}/metrics.jsonl" in layout()
    assert "results/{scale}/evaluations/{policy}/{decoding}/{benchmark}.grades.parquet" in layout()
