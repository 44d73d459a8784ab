"""The crate: what it holds, that its tables recompute, and that every change in it is found."""

import json
import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from synthetic_study import ROOT, make_study

from ngrpo.crate import export, verify
from ngrpo.errors import UserError
from ngrpo.report.tables import analyze
from ngrpo.study.layout import Results


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory):
    """A synthetic study with its tables, and a project folder around its configuration."""
    folder = tmp_path_factory.mktemp("study")
    made, results = make_study(folder, "paper", problems=8), Results(folder / "paper")
    for table in made.cells:
        analyze(table, made, results, results.table(table))
    project = folder / "project"
    shutil.copytree(made.folder, project / "config")
    shutil.copy2(ROOT / "Snakefile", project / "Snakefile")
    return made, project, results


@pytest.fixture
def crate(study, tmp_path: Path) -> Path:
    """A crate, unpacked somewhere else."""
    made, project, results = study
    assert export(made, project, results, tmp_path / "made.zip") == []
    with zipfile.ZipFile(tmp_path / "made.zip") as packed:
        packed.extractall(tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


def entities(crate: Path) -> dict[str, dict]:
    graph = json.loads((crate / "ro-crate-metadata.json").read_text())["@graph"]
    return {entity["@id"]: entity for entity in graph}


def test_every_run_and_evaluation_is_an_action_that_links_its_files(study, crate: Path) -> None:
    made, *_ = study
    by_id = entities(crate)
    assert by_id["./"]["mainEntity"] == {"@id": "Snakefile"}
    assert "ComputationalWorkflow" in by_id["Snakefile"]["@type"]
    assert len(by_id["./"]["conformsTo"]) == 3
    actions = {name: e for name, e in by_id.items() if e["@type"] == "CreateAction"}
    assert {f"#train-{run}" for run in made.runs} <= set(actions)
    assert {f"#evaluate-{name.replace('/', '-')}" for name in made.evaluations} <= set(actions)
    for action in actions.values():
        for file in (*action["object"], *action["result"]):
            assert (crate / file["@id"]).is_file()
    assert not list(crate.rglob("*.safetensors"))


def test_an_untouched_crate_has_no_difference(crate: Path) -> None:
    checked, differences = verify(crate)
    assert differences == []
    assert "1 tables recomputed from grades" in checked


def test_a_changed_number_is_found(crate: Path) -> None:
    path = next((crate / "results").rglob("analysis/main.parquet"))
    frame = pd.read_parquet(path)
    frame.loc[0, "value"] += 1e-6
    frame.to_parquet(path)
    _, differences = verify(crate)
    assert any("sha256" in line for line in differences)
    assert any("value is" in line and "recomputed" in line for line in differences)


def test_a_changed_grade_is_found(crate: Path) -> None:
    path = next((crate / "results").rglob("*.grades.parquet"))
    frame = pd.read_parquet(path)
    frame.loc[0, "grade"] = "wrong" if frame.loc[0, "grade"] == "correct" else "correct"
    frame.to_parquet(path)
    _, differences = verify(crate)
    assert any(line.startswith("table main: ") for line in differences)


def test_a_removed_file_is_found(crate: Path) -> None:
    gone = next((crate / "results").rglob("metrics.jsonl"))
    gone.unlink()
    _, differences = verify(crate)
    assert differences == [f"{gone.relative_to(crate)}: the file is missing"]


def test_an_unfinished_study_says_what_it_lacks(study, tmp_path: Path) -> None:
    made, project, results = study
    part = Results(tmp_path / "paper")
    shutil.copytree(results.root, part.root)
    name = next(iter(made.evaluations))
    part.evaluation(name).grades.unlink()
    assert export(made, project, part, tmp_path / "crate") == [f"evaluation {name}"]
    with pytest.raises(UserError, match="no results to export"):
        export(made, project, tmp_path / "nothing", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_folder_that_is_no_crate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this is no crate"):
        verify(tmp_path)
