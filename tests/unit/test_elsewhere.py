"""Policies and predictions from elsewhere, as rows of a table: what they are, what reruns, what is refused."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from synthetic_study import make_study

from ngrpo.claims.needs import claim_files
from ngrpo.claims.printed import printed_differences
from ngrpo.claims.verdicts import judge_claims
from ngrpo.crate import export, verify
from ngrpo.errors import UserError
from ngrpo.files import read_json, write_json
from ngrpo.report.page import report
from ngrpo.report.tables import analyze, read_table
from ngrpo.study.batches import batches
from ngrpo.study.elsewhere import ADAPTER
from ngrpo.study.expand import Study, load_study
from ngrpo.study.layout import Results
from ngrpo.study.paper_values import read_paper_values
from ngrpo.study.products import BELOW
from ngrpo.study.snapshot import Snapshot
from ngrpo.study.specs import EvaluationSpec, PredictedSpec, keep_spec, read_spec

ROOT = Path(__file__).parents[2]
BENCHMARK = "toy-held-out"
COMMIT = "c" * 40


def folder_of(path: Path, weights: bytes = b"weights") -> Path:
    """A folder that looks like a model: enough to say what it is."""
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(weights)
    return path


class Written:
    """A synthetic finished toy study whose table `main` has further rows."""

    def __init__(self, folder: Path, *rows: dict[str, Any]):
        self.results = folder / "results"
        make_study(self.results, problems=12)
        self.config, self.root = self.results / "config", self.results / "toy"
        self.rows(*rows)

    def rows(self, *rows: dict[str, Any]) -> None:
        """Put rows after the first three."""
        plain = yaml.safe_load((self.config / "study.yaml").read_text())
        plain["tables"]["main"]["rows"] = [*plain["tables"]["main"]["rows"][:3], *rows]
        (self.config / "study.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))

    def load(self) -> Study:
        """The study as its files are now."""
        return load_study(self.config, "toy", self.root)


def digests(study: Study) -> dict[str, str]:
    return {name: spec.digest for name, spec in study.specs().items()}


def write_all_grades(study: Study, results: Results) -> None:
    """The grades of GRPO as those of what comes from elsewhere."""
    cells = {cell.label: cell.evaluation for cell in study.cells["main"]}
    like = results.evaluation(cells["GRPO"])
    grades, card = pd.read_parquet(like.grades), read_json(like.samples_card)
    for label in ("theirs", "on the hub", "predicted"):
        files, spec = results.evaluation(cells[label]), study.evaluations[cells[label]]
        files.grades.parent.mkdir(parents=True)
        grades.assign(spec=spec.digest).to_parquet(files.grades)
        write_json(files.samples_card, {**card, "spec": spec.digest})
        keep_spec(spec, files.spec)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "theirs" / "run-1" / "model")


@pytest.fixture
def predicted(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.jsonl"
    path.write_text(json.dumps({"problem_id": "a", "sample": 0, "response": "b"}) + "\n")
    return path


@pytest.fixture
def written(tmp_path: Path, checkpoint: Path, predicted: Path) -> Written:
    return Written(
        tmp_path,
        {"label": "theirs", "policy": {"folder": str(checkpoint)}},
        {"label": "on the hub", "policy": {"hub": "a/b", "revision": COMMIT, "base": "toy"}},
        {"label": "predicted", "predictions": str(predicted)},
    )


def test_rows_from_elsewhere_are_evaluations_like_all_others(written: Written) -> None:
    study = written.load()
    cells = {cell.label: cell.evaluation for cell in study.cells["main"]}
    folder, hub, drawn = (study.evaluations[cells[label]] for label in ("theirs", "on the hub", "predicted"))
    assert [p.id for p in (folder.policy, hub.policy)] == list(study.policies)
    assert folder.policy.id.startswith("run-1-model-")
    assert hub.policy.id.startswith("a-b-")
    assert folder.seed == study.evaluations[cells["Base"]].seed  # the same random numbers as the base model
    assert isinstance(drawn, PredictedSpec)
    assert drawn.base is None
    assert cells["predicted"].split("/")[1] == "given"
    # they are drawn in batches, and predictions aren't drawn
    asked = {name for batch in batches(study, {}) for name in batch.evaluations}
    assert cells["theirs"] in asked
    assert cells["on the hub"] in asked
    assert cells["predicted"] not in asked


def test_a_spec_holds_what_is_there_and_no_path(written: Written, checkpoint: Path, predicted: Path) -> None:
    before = digests(written.load())
    shutil.copytree(checkpoint.parent, checkpoint.parents[2] / "elsewhere" / "run-1")
    moved = checkpoint.parents[2] / "elsewhere" / "run-1" / "model"
    copy = predicted.parent / "copies" / predicted.name
    copy.parent.mkdir()
    shutil.copy(predicted, copy)
    written.rows(
        {"label": "theirs", "policy": {"folder": str(moved)}},
        {"label": "on the hub", "policy": {"hub": "a/b", "revision": COMMIT, "base": "toy"}},
        {"label": "predicted", "predictions": str(copy)},
    )
    assert digests(written.load()) == before
    study = written.load()
    for name, spec in study.evaluations.items():
        keep_spec(spec, written.root / "kept.json")
        assert read_spec(written.root / "kept.json", EvaluationSpec).digest == spec.digest, name
        assert str(moved.parent) not in spec.text()
        assert str(predicted.parent) not in spec.text()


@pytest.mark.parametrize("which", ["policy", "predictions"])
def test_a_changed_file_changes_what_depends_on_it_and_nothing_else(
    written: Written, checkpoint: Path, predicted: Path, which: str
) -> None:
    before = digests(written.load())
    if which == "policy":
        (checkpoint / "model.safetensors").write_bytes(b"Weights")
    else:
        predicted.write_text(predicted.read_text() + "\n")
    after = digests(written.load())
    gone = {name for name in before if name not in after}
    assert {name: d for name, d in after.items() if name in before} == {
        name: d for name, d in before.items() if name not in gone
    }
    study = written.load()
    new = {name for name in after if name not in before}
    own = {"policy": "run-1-model-", "predictions": "theirs-"}[which]
    assert len(new) == len(gone) == (2 if which == "policy" else 1)
    assert all(own in name for name in new)
    assert len(study.policies) == 2


def test_what_was_read_is_read_again_only_where_it_changed(
    written: Written, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ngrpo.study import contents

    written.load()
    read: list[Path] = []
    plain = contents.file_sha256
    monkeypatch.setattr(contents, "file_sha256", lambda path: read.append(Path(path)) or plain(path))
    written.load()
    assert read == []
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(b"more weights")
    written.load()
    assert weights in read
    # files that are gone since: what was read of them stays, and what is made of them
    before = digests(written.load())
    shutil.rmtree(checkpoint)
    assert digests(written.load()) == before
    Results(written.root).contents.unlink()
    with pytest.raises(UserError, match="there is nothing at"):
        written.load()


def test_a_job_goes_by_what_was_there_when_it_was_submitted(written: Written, checkpoint: Path) -> None:
    study = written.load()
    taken = Snapshot.take({"scale": "toy"}, study, batches(study, {}), {})
    taken.write(written.results / "snapshot")
    (checkpoint / "model.safetensors").write_bytes(b"edited since")
    assert digests(load_study(written.results / "snapshot", "toy")) == digests(study)
    assert digests(written.load()) != digests(study)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"policy": {}}, "either `hub`"),
        ({"policy": {"hub": "a/b"}}, "go together"),
        ({"policy": {"hub": "a/b", "revision": "main"}}, "revision"),
        ({"policy": {"hub": "a/b", "revision": COMMIT, "base": "tiy"}}, "no model 'tiy'"),
        ({"policy": {"folder": "nowhere"}}, "there is nothing at 'nowhere'"),
        ({"policy": {"hub": "a/b", "revision": COMMIT}, "method": "grpo"}, "method and policy are two"),
        ({"predictions": "nowhere.jsonl"}, "there is nothing at 'nowhere.jsonl'"),
        ({"predictions": "a.jsonl", "decoding": "mixing"}, "leave `decoding` out"),
        ({"predictions": {"toy-hold-out": "a.jsonl"}}, "no data set 'toy-hold-out'"),
        (
            {"policy": {"hub": "a/b", "revision": COMMIT, "tokenizer": "own"}, "decoding": "mixing"},
            "mixes neighbors among the base model's tokens",
        ),
    ],
)
def test_a_row_that_says_too_little_or_too_much_is_refused(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    written = Written(tmp_path, {"label": "theirs", **row})
    with pytest.raises(UserError, match=message) as error:
        written.load()
    assert "theirs" in str(error.value) or "rows" in str(error.value)


def test_an_adapter_needs_its_base(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "adapter")
    (folder / ADAPTER).write_text("{}")
    written = Written(tmp_path, {"label": "theirs", "policy": {"folder": str(folder)}})
    with pytest.raises(UserError, match=r"(?s)this is an adapter .*`base: MODEL`"):
        written.load()
    written.rows({"label": "theirs", "policy": {"folder": str(folder), "base": "toy"}})
    assert next(iter(written.load().policies.values())).merge is True


def test_a_policy_of_several_models_names_its_own(tmp_path: Path, checkpoint: Path, predicted: Path) -> None:
    written = Written(tmp_path, {"label": "theirs", "policy": {"folder": str(checkpoint)}})
    scale = yaml.safe_load((written.config / "scales" / "toy.yaml").read_text())
    scale["models"]["other"] = {"source": {"kind": "toy", "seed": 2}, "dtype": "float32"}
    (written.config / "scales" / "toy.yaml").write_text(yaml.safe_dump(scale, sort_keys=False))
    with pytest.raises(UserError, match=r"(?s)this row stands for 2.*`base: toy`"):
        written.load()
    written.rows({"label": "theirs", "policy": {"folder": str(checkpoint), "base": "other"}})
    assert [c.model for c in written.load().cells["main"] if c.label == "theirs"] == ["other"]
    # and several benchmarks take a file each
    scale["benchmarks"] = [BENCHMARK, "toy-validation"]
    (written.config / "scales" / "toy.yaml").write_text(yaml.safe_dump(scale, sort_keys=False))
    written.rows({"label": "predicted", "predictions": str(predicted)})
    with pytest.raises(UserError, match=r"(?s)`predictions: \{toy-held-out: FILE, toy-validation: FILE\}`"):
        written.load()


def test_one_table_has_intervals_and_paired_differences_of_all_and_a_page(written: Written, tmp_path: Path) -> None:
    study, results = written.load(), Results(written.root)
    write_all_grades(study, results)
    analyze("main", study, results, results.table("main"), results.exploration("main"), results.excerpts("main"))
    table = read_table(results.table("main"))
    for label in ("theirs", "on the hub", "predicted"):
        own = table[(table["label"] == label) & table["against"].isna()]
        assert (own["status"] == "ok").all(), label
        assert own["sampling_low"].notna().all(), label
        pairs = table[(table["label"] == label) & (table["against"] == "GRPO") & (table["metric"] == "Mean@32")]
        assert pairs["value"].item() == 0
        assert pairs["sampling_low"].notna().all()
    report(study, results.root, results.report.page)
    assert all(label in results.report.page.read_text() for label in ("theirs", "on the hub", "predicted"))


def test_a_crate_is_checked_where_these_files_arent(written: Written, checkpoint: Path, predicted: Path) -> None:
    study, results = written.load(), Results(written.root)
    write_all_grades(study, results)
    analyze("main", study, results, results.table("main"), results.exploration("main"), results.excerpts("main"))
    report(study, results.root, results.report.page)
    export(study, None, results, written.results / "crate")
    shutil.rmtree(checkpoint)
    os.unlink(predicted)
    _, differences = verify(written.results / "crate")
    assert differences == []


def claiming(written: Written, system: dict[str, Any], **other: Any) -> None:
    """Write a claim of the toy's own: that a system is better than the base model."""
    test = {"kind": "higher", "model": "toy", "system": system, "than": [{}], "benchmarks": [BENCHMARK]}
    claim = {"where": "w", "family": "f", "scale": "toy", "says": "s"}
    claims = {"theirs": {**claim, "test": {**test, "metric": "mean", "paper": [10.0], **other}}}
    (written.config / "claims.yaml").write_text(yaml.safe_dump({"claims": claims}))


def test_a_claim_compares_them_as_it_compares_all_others(written: Written) -> None:
    """They have GRPO's grades: the difference from the base model is GRPO's, of one training that is seen once."""
    study, results = written.load(), Results(written.root)
    write_all_grades(study, results)
    shown = []
    for system in ({"row": "theirs"}, {"row": "predicted"}, {"method": "grpo"}):
        claiming(written, system)
        (claim,) = judge_claims(written.load(), results)
        shown.append(claim)
    theirs, predicted, grpo = (claim.parts[0] for claim in shown)
    assert (theirs.estimate, theirs.low, theirs.p) == (predicted.estimate, predicted.low, predicted.p)
    assert theirs.estimate == grpo.estimate  # of one seed, too
    assert theirs.what.startswith("theirs − Base: Mean@32")
    assert "theirs comes from elsewhere" in theirs.note
    assert "elsewhere" not in grpo.note


def test_a_claims_target_needs_their_grades(written: Written) -> None:
    claiming(written, {"row": "theirs"})
    study = written.load()
    cells = {cell.label: cell.evaluation for cell in study.cells["main"]}
    assert claim_files("theirs", study) == [BELOW.evaluation(cells[label]).grades for label in ("theirs", "Base")]


@pytest.mark.parametrize(
    ("system", "says"),
    [({"row": "their"}, "did you mean 'theirs'"), ({"row": "theirs", "method": "grpo"}, "name a `row` alone")],
)
def test_a_claim_about_no_such_row_says_so(written: Written, system: dict[str, Any], says: str) -> None:
    claiming(written, system)
    with pytest.raises(UserError) as raised:
        claim_files("theirs", written.load())
    assert says in str(raised.value)


def test_what_the_paper_prints_of_the_base_model_is_never_theirs(written: Written, predicted: Path) -> None:
    """A row from elsewhere has no method, as the base model has none; its label may be one that the paper has."""
    shutil.copy(ROOT / "config" / "claims.yaml", written.config)
    before = list(printed_differences(written.load(), read_paper_values(written.config)))
    plain = yaml.safe_load((written.config / "study.yaml").read_text())
    table = {"title": "Theirs", "rows": [{"label": "GRPO", "predictions": str(predicted)}]}
    plain["tables"] = {"theirs": table, **plain["tables"]}
    (written.config / "study.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    assert list(printed_differences(written.load(), read_paper_values(written.config))) == before
    assert len(before) > 20
