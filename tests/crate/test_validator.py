"""A crate before a judge that isn't ours: roc-validator, as `make validate-crate` calls it (`make test-crate`)."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic_study import ROOT, make_study

from ngrpo.crate import export
from ngrpo.report.page import report
from ngrpo.report.tables import analyze
from ngrpo.study.layout import Results


def validate(crate: Path) -> subprocess.CompletedProcess:
    """`make validate-crate CRATE=…`, with what it said in stdout. A proxy that answers nobody: no network is asked."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    env |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    command = ["make", "--no-print-directory", "validate-crate", f"CRATE={crate}"]
    return subprocess.run(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The crate of a synthetic study with its table and report, as a .zip."""
    folder = tmp_path_factory.mktemp("study")
    made, results = make_study(folder, "paper", problems=8), Results(folder / "paper")
    project = folder / "project"
    for table in made.cells:
        analyze(table, made, results, results.table(table))
    report(made, results, results.report.page)
    shutil.copytree(made.folder, project / "config")
    shutil.copytree(ROOT / "rules", project / "rules")
    shutil.copy2(ROOT / "Snakefile", project / "Snakefile")
    assert export(made, project, results, folder / "crate.zip") == []
    return folder / "crate.zip"


def graph_of(metadata: dict) -> dict[str, dict]:
    return {entity["@id"]: entity for entity in metadata["@graph"]}


def without_main_entity(metadata: dict) -> None:
    del graph_of(metadata)["./"]["mainEntity"]


def without_profiles(metadata: dict) -> None:
    del graph_of(metadata)["./"]["conformsTo"]


def with_an_undefined_word(metadata: dict) -> None:
    graph_of(metadata)["Snakefile"]["checksum of ours"] = "0"


def with_a_missing_file(metadata: dict) -> None:
    metadata["@graph"].append({"@id": "gone.txt", "@type": "File", "name": "gone"})
    graph_of(metadata)["./"]["hasPart"].append({"@id": "gone.txt"})


def test_a_crate_passes_every_required_check(packed: Path) -> None:
    judged = validate(packed)
    assert judged.returncode == 0, judged.stdout
    assert "is a valid" in judged.stdout


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without_main_entity, "through a `mainEntity` property"),
        (without_profiles, "permalink of the Workflow Run Crate profile"),
        (with_an_undefined_word, '"checksum of ours" is not allowed'),
        (with_a_missing_file, "does not include the Data Entity 'gone.txt'"),
    ],
)
def test_a_spoilt_crate_is_refused(packed: Path, tmp_path: Path, spoil: Callable[[dict], None], said: str) -> None:
    shutil.unpack_archive(packed, tmp_path)
    path = tmp_path / "ro-crate-metadata.json"
    metadata = json.loads(path.read_text())
    spoil(metadata)
    path.write_text(json.dumps(metadata))
    judged = validate(tmp_path)
    assert judged.returncode != 0
    assert said in " ".join(judged.stdout.split())


def test_a_context_that_no_package_has_is_named(packed: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(packed, tmp_path)
    path = tmp_path / "ro-crate-metadata.json"
    path.write_text(path.read_text().replace("https://w3id.org/ro/crate/1.1/context", "https://example.org/other"))
    judged = validate(tmp_path)
    assert judged.returncode != 0
    assert "no installed package has https://example.org/other" in judged.stdout
