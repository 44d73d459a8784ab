"""The crate: what it holds and what not, that its tables and report can be made again, that every change is seen."""

import json
import os
import shutil
import socket
import zipfile
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from synthetic_study import ROOT, make_study

from ngrpo.cli import main
from ngrpo.crate import export, verify
from ngrpo.crate.verify import other_version, same_file
from ngrpo.errors import UserError
from ngrpo.files import file_sha256, read_json, write_json
from ngrpo.report.page import write_report
from ngrpo.report.tables import analyze
from ngrpo.study.expand import Study, load_study
from ngrpo.study.layout import Results

METADATA, REPORT = "ro-crate-metadata.json", "results/toy/report"
EVALUATION = "ngrpo-toy/standard/toy-held-out"
Made = tuple[Study, Path, Results]
Spoil = Callable[[Path], None]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A synthetic study with its table and report, and a project folder around its configuration."""
    folder = tmp_path_factory.mktemp("study")
    made, results = make_study(folder, problems=8), Results(folder / "toy")
    run = results.run("ngrpo-toy")
    lease = {"host": socket.gethostname(), "pid": os.getpid()}
    paths = {"path": str(results.root / "models" / "toy"), "home": str(Path.home() / "x"), "host": lease["host"]}
    write_json(run.verl_settings, read_json(run.verl_settings) | {"lease": lease, "data": paths, "elsewhere": "/opt/x"})
    for table in made.cells:
        analyze(table, made, results, results.table(table))
    write_report(made, results, results.report.page)
    notebook = {"cells": [], "metadata": {"papermill": {"output_path": str(folder)}, "x": f"{folder}/toy/analysis"}}
    results.report.notebook("results").write_text(json.dumps(notebook))
    project = folder / "project"
    shutil.copytree(made.folder, project / "config")
    (project / "config" / "passwords.yaml").write_text("secret: 1\n")
    (results.report.folder / "notes.txt").write_text("private")
    shutil.copy2(ROOT / "Snakefile", project / "Snakefile")
    return made, project, results


@pytest.fixture(scope="module")
def packed(study: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made, project, results = study
    folder = tmp_path_factory.mktemp("crate")
    assert export(made, project, results, folder / "made.zip") == []
    with zipfile.ZipFile(folder / "made.zip") as archive:
        archive.extractall(folder / "crate")
    return folder / "crate"


@pytest.fixture
def crate(packed: Path, tmp_path: Path) -> Path:
    """A crate, unpacked somewhere else."""
    return shutil.copytree(packed, tmp_path / "elsewhere")


def entities(crate: Path) -> dict[str, dict]:
    graph = json.loads((crate / METADATA).read_text())["@graph"]
    return {entity["@id"]: entity for entity in graph}


def rewrite(crate: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Write the metadata's entities anew."""
    metadata = json.loads((crate / METADATA).read_text())
    (crate / METADATA).write_text(json.dumps({**metadata, "@graph": change(metadata["@graph"])}))


def sign_again(crate: Path) -> None:
    """What a forger does last: list every file with its new sha256."""

    def renewed(graph: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [e | {"sha256": file_sha256(crate / e["@id"])} if "sha256" in e else e for e in graph]

    rewrite(crate, renewed)


def sign_again_without(crate: Path, gone: str) -> None:
    rewrite(crate, lambda graph: [e for e in graph if e["@id"] != gone])
    sign_again(crate)


def test_every_run_and_evaluation_is_an_action_that_links_its_files(study: Made, packed: Path) -> None:
    made, *_ = study
    by_id = entities(packed)
    assert by_id["./"]["mainEntity"] == {"@id": "Snakefile"}
    assert "ComputationalWorkflow" in by_id["Snakefile"]["@type"]
    assert len(by_id["./"]["conformsTo"]) == 3
    actions = {name: e for name, e in by_id.items() if e["@type"] == "CreateAction"}
    assert {f"#train-{run}" for run in made.runs} <= set(actions)
    assert {f"#evaluate-{name.replace('/', '-')}" for name in made.evaluations} <= set(actions)
    for action in actions.values():
        for file in (*action["object"], *action["result"]):
            assert (packed / file["@id"]).is_file()
    assert not list(packed.rglob("*.safetensors"))


def test_nothing_says_on_which_machine_it_was_made_and_nothing_unasked_goes_in(study: Made, packed: Path) -> None:
    _, project, results = study
    names = [str(Path.home()), str(Path.cwd()), str(project), str(results.root), str(os.getpid()), "/opt"]
    for path in sorted(p for p in packed.rglob("*") if p.is_file() and p.suffix != ".parquet"):
        text = path.read_text(encoding="utf-8")
        named = [name for name in names[:4] if name in text]
        assert not named, (path, named)
        if path.name == "verl.json":
            assert not [name for name in (*names, "lease") if name in text]
            assert socket.gethostname() not in json.loads(text).get("data", {}).values()
    settings = read_json(packed / "results" / "toy" / "runs" / "ngrpo-toy" / "verl.json")
    assert settings["data"] == {"path": "results/toy/models/toy", "home": "~/x"}
    assert settings["elsewhere"] == "x"
    assert not {p.name for p in packed.rglob("*")} & {"passwords.yaml", "notes.txt"}
    assert str(results.root) in results.run("ngrpo-toy").verl_settings.read_text(), "the study itself is untouched"


def test_an_untouched_crate_has_no_difference(crate: Path) -> None:
    ended = CliRunner().invoke(main, ["verify", str(crate)])
    said = ended.output.splitlines()
    assert ended.exit_code == 0, said
    assert {"checked 1 tables recomputed from grades", "not checked: notebooks (1)"} <= set(said)
    assert any("files of the report made again" in line for line in said)
    assert said[-2] == "no difference"
    assert said[-1].startswith("unsigned: ")


def change_text(name: str, old: str, new: str) -> Spoil:
    def spoil(crate: Path) -> None:
        text = (crate / name).read_text()
        assert old in text
        (crate / name).write_text(text.replace(old, new, 1))
        sign_again(crate)

    return spoil


def change_grades(change: Callable[[pd.DataFrame], pd.DataFrame], *, again: bool = True) -> Spoil:
    """Other grades, and all that follows from them made again by the forger."""

    def spoil(crate: Path) -> None:
        path = crate / "results" / "toy" / "evaluations" / f"{EVALUATION}.grades.parquet"
        change(pd.read_parquet(path)).to_parquet(path, index=False)
        if again:
            with chdir(crate):
                made, results = load_study(Path("config"), "toy"), Results(Path("results/toy"))
                analyze("main", made, results, results.table("main"))
            sign_again(crate)

    return spoil


def without_the_hardest(frame: pd.DataFrame) -> pd.DataFrame:
    right = (frame["grade"] == "correct").groupby(frame["problem_id"]).sum()
    return frame[~frame["problem_id"].isin(right.nsmallest(4).index)]


def flipped(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.replace({"grade": {"wrong": "correct"}})


def a_changed_number(crate: Path) -> None:
    path = crate / "results" / "toy" / "analysis" / "main.parquet"
    frame = pd.read_parquet(path)
    frame.loc[0, "value"] += 1e-6
    frame.to_parquet(path)


def nothing_listed(crate: Path) -> None:
    rewrite(crate, lambda graph: [])


def delisted(*names: str) -> Spoil:
    def spoil(crate: Path) -> None:
        rewrite(crate, lambda graph: [e for e in graph if not any(name in e["@id"] for name in names)])

    return spoil


def without_tables(crate: Path) -> None:
    shutil.rmtree(crate / "results" / "toy" / "analysis")
    rewrite(crate, lambda graph: [e for e in graph if "analysis/" not in e["@id"]])


def without_a_file(name: str) -> Spoil:
    def spoil(crate: Path) -> None:
        (crate / name).unlink()
        rewrite(crate, lambda graph: [e for e in graph if e["@id"] != name])

    return spoil


def a_file(name: str, *, listed: bool) -> Spoil:
    def spoil(crate: Path) -> None:
        (crate / name).parent.mkdir(parents=True, exist_ok=True)
        (crate / name).write_text("x")
        entity = {"@id": name, "@type": "File", "sha256": file_sha256(crate / name)}
        if listed:
            rewrite(crate, lambda graph: [*graph, entity])

    return spoil


def an_entity(identifier: str) -> Spoil:
    return lambda crate: rewrite(crate, lambda graph: [*graph, {"@id": identifier, "@type": "File", "sha256": "0"}])


def a_link(name: str) -> Spoil:
    def spoil(crate: Path) -> None:
        outside = crate.parent / "outside"
        shutil.move(crate / name, outside)
        (crate / name).symlink_to(outside)

    return spoil


SPOILT: dict[str, tuple[Spoil, str]] = {
    "a changed number": (a_changed_number, "value is"),
    "a changed number's file": (a_changed_number, "(sha256)"),
    "changed grades": (change_grades(flipped, again=False), "table main: "),
    "problems dropped, tables made again": (change_grades(without_the_hardest), "4 problems are graded, 8 were"),
    "another configuration": (change_text("config/study.yaml", "seed: 1", "seed: 2"), "isn't what the configuration"),
    "nothing listed": (nothing_listed, "nothing is listed"),
    "tables and report delisted": (delisted("analysis/", "report/"), "main.parquet: nothing lists this file"),
    "no tables": (without_tables, "nothing was recomputed"),
    "a file that nobody lists": (a_file("results/toy/extra.txt", listed=False), "extra.txt: nothing lists this file"),
    "a file of another kind": (a_file("results/toy/extra.txt", listed=True), "no crate of this study has such a file"),
    "a card that is gone": (without_a_file("results/toy/data/toy-held-out.card.json"), "problems can't be counted"),
    "a way out": (an_entity("../../../etc/hostname"), "leads out of the crate"),
    "an absolute way": (an_entity("/etc/hostname"), "leads out of the crate"),
    "an encoded way out": (an_entity("%2e%2e/%2e%2e/etc/hostname"), "leads out of the crate"),
    "a file twice": (an_entity("Snakefile"), "Snakefile: listed 2 times"),
    "a link": (a_link("results/toy/analysis/main.parquet"), "main.parquet: a link, and not followed"),
    "a linked folder": (a_link("results/toy/report"), "report: a link, and not followed"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_every_change_is_seen(name: str, crate: Path) -> None:
    spoil, said = SPOILT[name]
    spoil(crate)
    _, differences = verify(crate)
    assert any(said in line for line in differences), differences
    assert not any("hostname" in line and "sha256" in line for line in differences)


def test_a_removed_file_is_seen(crate: Path) -> None:
    gone = next((crate / "results").rglob("metrics.jsonl"))
    gone.unlink()
    _, differences = verify(crate)
    assert differences[0] == f"{gone.relative_to(crate)}: the file is missing"


def test_a_forged_report_is_seen_file_by_file(crate: Path) -> None:
    """Also where nothing but the report was changed, and all is listed with its new sha256."""
    for name, old, new in (
        ("index.html", "<h1>", "<h1>Not "),
        ("claims.json", '"verdict"', '"verdikt"'),
        ("compliance.csv", ",ok", ",off"),
        ("tables/main.csv", "N-GRPO", "N-GRP0"),
        ("tables/main.html", "N-GRPO", "N-GRP0"),
    ):
        change_text(f"{REPORT}/{name}", old, new)(crate)
    picture, other = sorted((crate / REPORT / "figures").glob("*.svg"))[:2]
    shutil.copyfile(other, picture)
    (crate / REPORT / "tables" / "main.tex").unlink()
    sign_again_without(crate, f"{REPORT}/tables/main.tex")
    a_file(f"{REPORT}/figures/x.svg", listed=True)(crate)
    _, differences = verify(crate)
    names = ["claims.json", "compliance.csv", f"figures/{picture.name}", "index.html", "tables/main.csv"]
    assert differences == [
        *(f"{REPORT}/{name}: isn't what the grades and logs give" for name in (*names, "tables/main.html")),
        f"{REPORT}/tables/main.tex: the report's file is missing",
        f"{REPORT}/figures/x.svg: the report has no such file",
    ]


def test_other_versions_are_named_since_their_page_is_another_one(crate: Path) -> None:
    assert other_version(crate) == ""
    versions = read_json(crate / "versions.json")
    rows = [["matplotlib", "1.0"] if row[0] == "matplotlib" else row for row in versions[0]["rows"]]
    write_json(crate / "versions.json", [{**versions[0], "rows": rows}, *versions[1:]])
    assert other_version(crate).startswith("made with matplotlib 1.0, here it is ")
    (crate / "versions.json").unlink()
    assert other_version(crate) == "made with versions that aren't recorded"


def test_numbers_that_differ_in_their_last_digit_are_the_same(tmp_path: Path) -> None:
    one, other = tmp_path / "a.csv", tmp_path / "b.csv"
    one.write_text("x,0.123456789012\nspec 12345678\n")
    other.write_text("x,0.123456789013\nspec 12345678\n")
    assert same_file(one, other)
    for text in ("x,0.1235\nspec 12345678\n", "x,0.123456789012\nspec 12345679\n", "y,0.123456789012\nspec 12345678\n"):
        other.write_text(text)
        assert not same_file(one, other)


def test_an_unfinished_study_says_what_it_lacks(study: Made, tmp_path: Path) -> None:
    made, project, results = study
    part = Results(tmp_path / "toy")
    shutil.copytree(results.root, part.root)
    shutil.rmtree(part.report.folder)
    name = next(iter(made.evaluations))
    part.evaluation(name).grades.unlink()
    assert export(made, project, part, tmp_path / "crate") == [f"evaluation {name}"]
    with pytest.raises(UserError, match="no results to export"):
        export(made, project, tmp_path / "nothing", tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["data/toy-held-out.card.json", "runs/ngrpo-toy", "report/results.ipynb"])
def test_links_do_not_go_into_a_crate(name: str, study: Made, tmp_path: Path) -> None:
    made, project, results = study
    part = Results(tmp_path / "toy")
    shutil.copytree(results.root, part.root)
    shutil.move(part.root / name, tmp_path / "outside")
    (part.root / name).symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="this is a link"):
        export(made, project, part, tmp_path / "crate")
    assert not (tmp_path / "crate").exists()


def test_the_configuration_that_was_used_goes_in_wherever_it_lies(study: Made, tmp_path: Path) -> None:
    _, project, results = study
    part = Results(tmp_path / "results" / "toy")
    shutil.copytree(results.root, part.root)
    shutil.rmtree(part.report.folder)
    mine = shutil.copytree(project / "config", tmp_path / "config mine")
    (mine / "study.yaml").write_text("# mine\n" + (mine / "study.yaml").read_text())
    with chdir(project):
        words = ["crate", "--config", mine, "--results", part.root.parent, "--out", tmp_path / "crate"]
        ended = CliRunner().invoke(main, [str(word) for word in words])
    assert ended.exit_code == 0, ended.output
    assert (tmp_path / "crate" / "config" / "study.yaml").read_text().startswith("# mine\n")
    checked, differences = verify(tmp_path / "crate")
    assert differences == []
    assert "not checked: a report, which isn't in it" in checked


def test_a_folder_that_is_no_crate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this is no crate"):
        verify(tmp_path)
    for text in ("[]", "{}", '{"@graph": [1]}', '{"@graph": [{"@id": 1}]}', "null"):
        (tmp_path / METADATA).write_text(text)
        with pytest.raises(UserError, match=METADATA):
            verify(tmp_path)
