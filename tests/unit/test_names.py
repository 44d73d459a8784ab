"""No two things of a study have one name or one place; what is made keeps its name when it is asked for by another."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from synthetic_study import ROOT

from ngrpo.errors import UserError
from ngrpo.study.batches import Batch, batches
from ngrpo.study.expand import Study, load_study
from ngrpo.study.layout import Results
from ngrpo.study.naming import STAGES, TARGETS, check_files
from ngrpo.study.specs import keep_spec

TOY = {"source": {"kind": "toy"}}
SUMS = {"source": {"kind": "toy", "count": 4, "held_out": True, "seed": 5}, "instruction": ""}


class Configuration:
    """A small toy study whose files a test edits."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "scales").mkdir(parents=True)
        self.study: dict[str, Any] = yaml.safe_load((ROOT / "config" / "study.yaml").read_text())
        self.scale: dict[str, Any] = yaml.safe_load((ROOT / "config" / "scales" / "toy.yaml").read_text())
        self.scale.update(tables=["main"], demo=None)

    def load(self, results: Path | None = None) -> Study:
        """Write the files and read them."""
        (self.folder / "study.yaml").write_text(yaml.safe_dump(self.study, sort_keys=False))
        (self.folder / "scales" / "toy.yaml").write_text(yaml.safe_dump(self.scale, sort_keys=False))
        return load_study(self.folder, "toy", results)

    def rename(self, kind: str, old: str, new: str) -> None:
        """Another id for a method or decoding, in the tables too."""
        self.study[kind] = {new if name == old else name: value for name, value in self.study[kind].items()}
        for table in self.study["tables"].values():
            for row in table["rows"]:
                if row.get(kind[:-1]) == old:
                    row[kind[:-1]] = new


@pytest.fixture
def config(tmp_path: Path) -> Configuration:
    return Configuration(tmp_path / "config")


def refused(config: Configuration) -> str:
    with pytest.raises(UserError) as error:
        config.load()
    return str(error.value)


def test_two_runs_of_one_id_are_refused_with_both_named(config: Configuration) -> None:
    config.scale["models"]["l1-toy"] = TOY
    config.scale["tables"] = ["ablation-metric"]
    message = refused(config)
    assert "'ngrpo-l1-toy' would be the name of" in message
    assert "method 'ngrpo' on model 'l1-toy'" in message
    assert "method 'ngrpo-l1' on model 'toy'" in message


def test_a_model_that_reads_like_a_further_seed_is_refused(config: Configuration) -> None:
    config.scale["models"]["toy-seed2"] = TOY
    config.scale["seeds"] = 2
    assert "'grpo-toy-seed2' would be the name of" in refused(config)


@pytest.mark.parametrize("name", [*(n for n in (*STAGES, *TARGETS) if "_" not in n), "sample-toy-held-out", "toy"])
def test_a_table_of_a_taken_name_is_refused(config: Configuration, name: str) -> None:
    config.study["tables"][name] = config.study["tables"]["main"]
    config.scale["tables"] = [name]
    assert f"'{name}' would be the name of" in refused(config)


def test_the_targets_of_claims_are_no_other_names(config: Configuration) -> None:
    config.scale["targets"] = {"claim-main": ["main"]}
    assert "'claim-…' are the targets of claims" in refused(config)


@pytest.mark.parametrize("kind", ["models", "targets", "run"])
def test_models_targets_and_runs_of_a_taken_name_are_refused(config: Configuration, kind: str) -> None:
    if kind == "models":
        config.scale["models"]["main"] = TOY
    elif kind == "targets":
        config.scale["targets"] = {"grpo-toy": ["main"]}
    else:
        config.scale["models"]["grpo-toy"] = TOY
    assert "would be the name of" in refused(config)


@pytest.mark.parametrize(
    ("key", "name", "value", "place"),
    [
        ("datasets", "toy-train.toy", SUMS, "data/toy-train.toy.parquet"),
        ("models", "toy.spec.json", TOY, "models/toy.spec.json"),
        ("models", "batches.json", TOY, "evaluations/batches.json"),
    ],
)
def test_things_that_would_share_a_file_are_refused(config: Configuration, key, name, value, place) -> None:
    config.scale[key][name] = value
    message = refused(config)
    assert f"would both be at {place}" in message or f"{place.removesuffix('.parquet')}.spec.json" in message
    assert name in message


def test_files_that_lie_apart_are_none(config: Configuration) -> None:
    """The control of the one above."""
    config.scale["datasets"]["toy-train.other"] = SUMS
    config.load()
    check_files({"a": [Path("x/y")], "b": [Path("x/z")]}, "here")
    with pytest.raises(UserError, match="a and b would both be at x/y"):
        check_files({"a": [Path("x/y")], "b": [Path("x/y/z")]}, "here")


def test_batches_of_other_benchmarks_have_other_rules(config: Configuration) -> None:
    assert Batch("s", ("a", "b")).rule != Batch("s", ("a-b",)).rule
    config.scale["datasets"].update({"a": SUMS, "b": SUMS, "a-b": SUMS})
    config.scale["benchmarks"] = ["a", "b", "a-b"]
    for name, benchmarks in (("main", ["a", "b"]), ("objective", ["a-b"])):
        config.study["tables"][name]["benchmarks"] = benchmarks
    config.scale["tables"] = ["main", "objective"]
    made = batches(config.load(), {})
    assert len({b.rule for b in made}) == len({b.benchmarks for b in made}) == 2


def test_rows_of_one_label_are_refused_where_they_share_a_model(config: Configuration) -> None:
    rows = config.study["tables"]["main"]["rows"]
    rows[1]["label"] = "N-GRPO "
    assert "two rows are labeled 'N-GRPO'" in refused(config)
    config.scale["models"]["other"] = TOY
    rows[1]["models"], rows[2]["models"] = ["toy"], ["other"]
    config.load()


@pytest.mark.parametrize("key", ["benchmarks", "tables", "pass_at", "models", "own benchmarks"])
def test_a_list_with_something_twice_is_refused(config: Configuration, key: str) -> None:
    if key == "pass_at":
        config.scale["evaluation"]["pass_at"] = [8, 16, 8]
    elif key in ("models", "own benchmarks"):
        name = {"models": "toy", "own benchmarks": "toy-held-out"}[key]
        config.study["tables"]["main"][key.removeprefix("own ")] = [name, name]
    else:
        config.scale[key] *= 2
    assert "is listed twice" in refused(config)


# --- what is made keeps its name ---


def make(study: Study, results: Path) -> None:
    """The specs beside everything, as jobs leave them."""
    for name, spec in study.specs().items():
        keep_spec(spec, results / name)


def test_a_renamed_method_or_decoding_keeps_what_is_made(config: Configuration, tmp_path: Path) -> None:
    config.scale["tables"] = ["main", "ablation-inference"]
    first = config.load()
    make(first, tmp_path / "toy")
    config.rename("methods", "ngrpo", "neighbor-grpo")
    config.rename("decodings", "mixing", "neighbor-mixing")
    again = config.load(tmp_path / "toy")
    assert again.specs() == first.specs()
    assert [c.evaluation for cells in again.cells.values() for c in cells] == [
        c.evaluation for cells in first.cells.values() for c in cells
    ]
    assert again.run_id("neighbor-grpo", "toy") == "ngrpo-toy"
    assert again.products["neighbor-grpo-toy"] == again.products["ngrpo-toy"]
    # the control: where nothing is made, the new name is the run's
    assert "neighbor-grpo-toy" in config.load(tmp_path / "empty").runs


def test_another_order_of_tables_keeps_what_is_made(config: Configuration, tmp_path: Path) -> None:
    config.study["methods"]["twin"] = {**config.study["methods"]["ngrpo"], "title": "twin"}
    config.study["tables"]["twins"] = {"title": "twins", "rows": [{"label": "twin", "method": "twin"}]}
    config.scale["tables"] = ["main", "twins"]
    first = config.load()
    make(first, tmp_path / "toy")
    config.scale["tables"] = ["twins", "main"]
    assert config.load(tmp_path / "toy").specs() == first.specs()
    assert "twin-toy" in config.load().runs


def test_two_methods_that_swap_names_keep_what_is_made(config: Configuration, tmp_path: Path) -> None:
    config.scale["tables"] = ["ablation-rho"]
    first = config.load()
    make(first, tmp_path / "toy")
    for old, new in (("ngrpo", "x"), ("ngrpo-rho0.2", "ngrpo"), ("x", "ngrpo-rho0.2")):
        config.rename("methods", old, new)
    again = config.load(tmp_path / "toy")
    assert again.specs() == first.specs()
    assert again.run_id("ngrpo", "toy") == "ngrpo-rho0.2-toy"


def test_a_new_method_may_not_take_the_name_of_what_is_made_for_a_renamed_one(
    config: Configuration, tmp_path: Path
) -> None:
    make(config.load(), tmp_path / "toy")
    config.rename("methods", "ngrpo", "old")
    config.study["methods"]["ngrpo"] = {"title": "new", "exploration": {"kind": "neighbors", "rho": 0.3}}
    config.study["tables"]["main"]["rows"].append({"label": "new", "method": "ngrpo"})
    with pytest.raises(UserError, match="'ngrpo-toy' would be the name of the run of method 'old'"):
        config.load(tmp_path / "toy")


def test_a_changed_value_is_another_run_under_the_same_name(config: Configuration, tmp_path: Path) -> None:
    first = config.load()
    make(first, tmp_path / "toy")
    config.study["methods"]["ngrpo"]["exploration"]["rho"] = 0.3
    changed = config.load(tmp_path / "toy")
    assert changed.runs.keys() == first.runs.keys()
    assert changed.runs["ngrpo-toy"].digest != first.runs["ngrpo-toy"].digest


def test_broken_records_answer_to_no_name(config: Configuration, tmp_path: Path) -> None:
    files = Results(tmp_path / "toy")
    for name, text in (("a", "[1]"), ("b", "{"), ("c", "{}")):
        files.run(name).spec.parent.mkdir(parents=True)
        files.run(name).spec.write_text(text)
    assert config.load(tmp_path / "toy").specs() == config.load().specs()
