"""The study as configuration: strict files, specs as identity, each run and evaluation once."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ngrpo.errors import UserError
from ngrpo.files import digest
from ngrpo.study.expand import load_study
from ngrpo.study.layout import Results
from ngrpo.study.reading import read_yaml
from ngrpo.study.schema import schema_texts
from ngrpo.study.settings import Environments, read_settings
from ngrpo.study.specs import RunSpec, Spec, Training, read_spec

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config"


@pytest.fixture
def config(tmp_path: Path):
    """A copy of the configuration that a test may change: config("toy", training={...}) returns the folder."""

    def change(study: dict | None = None, toy: dict | None = None) -> Path:
        (tmp_path / "scales").mkdir(exist_ok=True)
        for name, source, changes in (
            ("study.yaml", CONFIG / "study.yaml", study),
            ("scales/toy.yaml", CONFIG / "scales" / "toy.yaml", toy),
        ):
            value = yaml.safe_load(source.read_text())
            if "tables" in value and "demo" in value:
                value.update(tables=["main"], demo=None, table_seeds={})
            for key, new in (changes or {}).items():
                at, *rest = key.split("/")
                target = value
                for part in (at, *rest)[:-1]:
                    target = target[part]
                target[(at, *rest)[-1]] = new
            (tmp_path / name).write_text(yaml.safe_dump(value, sort_keys=False))
        return tmp_path

    return change


def test_importing_the_study_imports_no_torch() -> None:
    code = "import sys, ngrpo.study.expand, ngrpo.study.settings, ngrpo.cli; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


@pytest.mark.parametrize("scale", ["toy", "smoke", "paper"])
def test_every_scale_loads(scale: str) -> None:
    study = load_study(CONFIG, scale)
    assert study.runs
    assert all(e in study.evaluations for cells in study.cells.values() for e in (c.evaluation for c in cells))


def test_equal_specs_are_one_run_and_one_evaluation(config) -> None:
    study = yaml.safe_load((CONFIG / "study.yaml").read_text())
    twin = {**study["methods"]["ngrpo"], "title": "again"}
    rows = [*study["tables"]["main"]["rows"], {"label": "again", "method": "twin"}]
    folder = config({"methods/twin": twin, "tables/main/rows": rows})
    study = load_study(folder, "toy")
    assert set(study.runs) == {"grpo-toy", "ngrpo-toy"}
    assert len(study.evaluations) == 3
    assert [c.evaluation for c in study.cells["main"] if c.label == "again"] == ["ngrpo-toy/standard/toy-held-out"]
    # the control: one changed value is another run
    twin["exploration"] = {**twin["exploration"], "rho": 0.2}
    assert set(load_study(config({"methods/twin": twin, "tables/main/rows": rows}), "toy").runs) == {
        "grpo-toy",
        "ngrpo-toy",
        "twin-toy",
    }


def made_twice(specs: dict[str, Spec], own_name: str) -> list[list[str]]:
    """The ids of specs that differ in nothing but their own name, grouped."""
    same: dict[str, list[str]] = {}
    for name, spec in specs.items():
        same.setdefault(digest({**spec.json_value(), own_name: ""}), []).append(name)
    return [names for names in same.values() if len(names) > 1]


def test_the_papers_tables_train_each_distinct_spec_exactly_once(tmp_path: Path) -> None:
    study = load_study(CONFIG, "paper")
    asked = [cell.evaluation for cells in study.cells.values() for cell in cells]
    policies = {name.split("/")[0] for name in asked}
    # GRPO, STHT and N-GRPO on four models; eleven ablation points; two released methods on two models
    assert len(study.runs) == 3 * 4 + 11 + 2 * 2
    assert set(study.runs) == policies - set(study.models)
    assert set(study.evaluations) == set(asked)
    assert len(asked) > len(study.evaluations)
    assert made_twice(study.runs, "id") == made_twice(study.evaluations, "decoding_id") == []

    # the control: the same run under two ids is found, and a value of its own makes another run
    again = RunSpec(**{**dict(study.runs["ngrpo-r1-qwen-7b"]), "id": "again"})
    assert made_twice({**study.runs, "again": again}, "id") == [["ngrpo-r1-qwen-7b", "again"]]
    (tmp_path / "scales").mkdir()
    (tmp_path / "scales" / "paper.yaml").write_text((CONFIG / "scales" / "paper.yaml").read_text())
    value = yaml.safe_load((CONFIG / "study.yaml").read_text())
    value["tables"]["table12"]["rows"].append({"label": "twin", "method": "twin"})
    for rho, more in ((0.1, 0), (0.3, 1)):
        value["methods"]["twin"] = {
            "title": "twin",
            "exploration": {**value["methods"]["ngrpo"]["exploration"], "rho": rho},
        }
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
        assert len(load_study(tmp_path, "paper").runs) == len(study.runs) + more


def test_repeats_are_the_same_runs_with_other_seeds_and_change_no_first_one(config) -> None:
    once, twice = load_study(config(), "toy"), load_study(config(None, {"seeds": 3}), "toy")
    assert {name: spec for name, spec in twice.runs.items() if "-seed" not in name} == once.runs
    assert len(twice.runs) == 3 * len(once.runs)
    first, again = twice.runs["ngrpo-toy"], twice.runs["ngrpo-toy-seed3"]
    assert (again.seed, again.model_copy(update={"id": first.id, "seed": first.seed})) == (3, first)
    name = "ngrpo-toy/standard/toy-held-out"
    assert twice.extra_seeds[name] == [f"ngrpo-toy-seed{seed}/standard/toy-held-out" for seed in (2, 3)]
    assert twice.evaluations[twice.extra_seeds[name][0]].seed == 2
    assert not [e for e in twice.extra_seeds if e.startswith("toy/")]
    assert twice.cells == once.cells
    assert twice.evaluation_id("ngrpo", "standard", "toy", "toy-held-out") == name
    assert twice.evaluation_id("ngrpo", "standard", "toy", "toy-held-out", 2) == twice.extra_seeds[name][0]
    assert twice.evaluation_id("ngrpo-release", "standard", "toy", "toy-held-out") is None


def test_titles_are_not_identity_and_values_are(config) -> None:
    before = load_study(config(), "toy").runs["ngrpo-toy"]
    renamed = load_study(config(toy={"models/toy/title": "another name"}), "toy").runs["ngrpo-toy"]
    changed = load_study(config(toy={"training/learning_rate": 2e-4}), "toy").runs["ngrpo-toy"]
    assert renamed.digest == before.digest
    assert changed.digest != before.digest


def test_commits_are_taken_everywhere_and_branches_where_no_verdicts_are_given(config) -> None:
    source = {"kind": "hub", "repo": "a/b", "revision": "main"}
    assert load_study(config(toy={"models/toy/source": source}), "toy").models["toy"].model.source.revision == "main"
    pinned = {"verdicts": True, "models/toy/source": {**source, "revision": "0" * 40}}
    assert load_study(config(toy=pinned), "toy").size.verdicts


def test_near_duplicates_are_another_training_set_where_they_are_left_out(config) -> None:
    before, after = (load_study(config(toy=toy), "toy") for toy in ({}, {"near_duplicates": 0.7}))
    assert after.training_data["toy"].near_duplicates == 0.7
    assert before.runs["ngrpo-toy"].digest != after.runs["ngrpo-toy"].digest
    assert before.datasets == after.datasets


def test_changing_one_method_leaves_the_other_specs_alone(config) -> None:
    before = load_study(config(), "toy").specs()
    after = load_study(config({"methods/ngrpo/exploration": {"kind": "neighbors", "rho": 0.3}}), "toy").specs()
    changed = {name for name in before if before[name].text() != after[name].text()}
    assert changed == {"runs/ngrpo-toy/spec.json", "evaluations/ngrpo-toy/standard/toy-held-out.spec.json"}


def test_spec_files_round_trip_and_unchanged_ones_are_not_touched(config, tmp_path: Path) -> None:
    study = load_study(config(), "toy")
    results = Results(tmp_path / "r")
    study.store_specs(results)
    path = results.spec(study.runs["ngrpo-toy"].digest)
    assert read_spec(path, RunSpec).digest == study.runs["ngrpo-toy"].digest
    stamp = path.stat().st_mtime_ns
    study.store_specs(results)
    assert path.stat().st_mtime_ns == stamp
    assert "null" not in path.read_text()


@pytest.mark.parametrize(
    ("study", "toy", "words"),
    [
        ({}, {"training/learnin_rate": 1}, ["learnin_rate", "toy.yaml", "did you mean 'learning_rate'"]),
        ({"methods/ngrpo": {"titel": "N-GRPO"}}, {}, ["'titel'", "methods.ngrpo", "did you mean 'title'"]),
        ({"tables/main/rows": [{"lable": "x"}]}, {}, ["'lable'", "did you mean 'label'"]),
        ({}, {"datasets/toy-train/feilds": {}}, ["'feilds'", "did you mean 'fields'"]),
        ({}, {"validation": "toy-validaton"}, ["toy-validaton", "did you mean 'toy-validation'"]),
        ({}, {"tables": ["mian"]}, ["no table 'mian'", "did you mean 'main'"]),
        ({"tables/main/rows": [{"label": "x", "method": "ngrop"}]}, {}, ["'ngrop'", "did you mean 'ngrpo'"]),
        ({"tables/main/rows": [{"label": "x", "decoding": "standart"}]}, {}, ["did you mean 'standard'"]),
        ({"methods/ngrpo/exploration": {"kind": "neighbors", "rho": 1.5}}, {}, ["less than or equal to 1", "rho"]),
        ({"methods/ngrpo/exploration": {"kind": "nieghbors"}}, {}, ["neighbors", "study.yaml"]),
        ({}, {"evaluation/pass_at": [64]}, ["Pass@64", "32"]),
        ({}, {"models/Toy_1": {"source": {"kind": "toy"}}}, ["Toy_1"]),
        ({}, {"seeds": [2, 2]}, ["toy.yaml: seeds", "seeds are a number: 3 means the study's own seed"]),
        ({}, {"seeds": 0}, ["toy.yaml: seeds", "greater than or equal to 1"]),
        ({}, {"seeds": 30}, ["toy.yaml: seeds", "30 training seeds are asked for", "max_seeds is 20"]),
        ({}, {"table_seeds": {"mian": 2}}, ["no table 'mian'", "table_seeds", "did you mean 'main'"]),
        ({}, {"table_seeds": {"main": 21}}, ["toy.yaml: table_seeds.main", "max_seeds is 20"]),
        ({"tables/main/seeds": 0}, {}, ["study.yaml: tables.main.seeds", "greater than or equal to 1"]),
        ({"tables/main/seeds": 21}, {}, ["study.yaml: tables.main.seeds", "max_seeds is 20"]),
        ({"methods/ngrpo/exploration": {"kind": "neighbors", "roh": 1}}, {}, ["'roh'", "did you mean 'rho'"]),
        ({}, {"near_duplicates": 2}, ["near_duplicates", "less than or equal to 1"]),
        (
            {"methods/ngrpo/exploration": {"kind": "neighbors", "rho": True}},
            {},
            ["exploration.neighbors.rho", "number"],
        ),
        ({"seed": True}, {}, ["study.yaml: seed", "not true or false"]),
        ({}, {"evaluation/pass_at": [True]}, ["evaluation.pass_at", "not true or false"]),
        ({}, {"evaluation/pass_at": [0]}, ["evaluation.pass_at", "greater than or equal to 1"]),
        ({}, {"training/learning_rate": float("inf")}, ["training.learning_rate", "finite"]),
        ({}, {"training/learning_rate": float("nan")}, ["training.learning_rate", "finite"]),
        ({}, {"training/mini_batch_prompts": 32}, ["toy.yaml: training", "don't divide into updates of 32"]),
        ({}, {"training/mini_batch_prompts": 7}, ["toy.yaml: training", "don't divide into updates of 7"]),
        ({}, {"training/max_response_tokens": 0}, ["training.max_response_tokens", "greater than or equal to 1"]),
        ({}, {"validation": "toy-train"}, ["toy.yaml: training_data", "trained on and asked (validation)"]),
        ({}, {"benchmarks": ["toy-train"]}, ["toy.yaml: training_data", "trained on and asked (benchmarks)"]),
        ({"tables/main/benchmarks": ["toy-train"]}, {}, ["trained on and asked (main.benchmarks)"]),
        ({"tables/main/rows": [{"label": " "}]}, {}, ["tables.main.rows.0.label", "nothing would be shown"]),
        ({"methods/ngrpo/title": ""}, {}, ["methods.ngrpo.title", "nothing would be shown"]),
        ({}, {"models/toy/source": {"kind": "folder", "path": ""}}, ["source.folder.path", "an empty path"]),
        ({}, {"models/toy/source": {"kind": "folder", "path": "a\0b"}}, ["source.folder.path", "null character"]),
        ({}, {"models/toy/source": {"kind": "toy", "heads": 0}}, ["source.toy.heads", "greater than or equal to 1"]),
        (
            {},
            {"models/toy/source": {"kind": "hub", "repo": "../../x", "revision": "0" * 40}},
            ["models.toy.source.hub.repo", "pattern"],
        ),
        (
            {"methods/" + "a" * 200: {"title": "x"}, "tables/main/rows": [{"label": "x", "method": "a" * 200}]},
            {},
            ["a name of 204 characters", "choose shorter ids"],
        ),
        (
            {},
            {"verdicts": True, "models/toy/source": {"kind": "hub", "repo": "a/b", "revision": "main"}},
            ["'main' isn't a commit", "models.toy.source.revision", "40 hexadecimal"],
        ),
        (
            {},
            {
                "verdicts": True,
                "datasets/toy-train/source": {"kind": "hub", "repo": "a/b", "revision": "0" * 39, "split": "train"},
            },
            ["isn't a commit", "datasets.toy-train.source.revision"],
        ),
    ],
)
def test_mistakes_are_named_with_file_key_and_nearest_name(config, study, toy, words) -> None:
    with pytest.raises(UserError) as error:
        load_study(config(study, toy), "toy")
    for word in words:
        assert word in str(error.value)


def test_an_unknown_scale_and_a_missing_or_broken_file_are_named(config, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'toy'"):
        load_study(config(), "toi")
    (tmp_path / "study.yaml").write_text("methods: [")
    with pytest.raises(UserError, match="not readable as YAML"):
        load_study(tmp_path, "toy")
    (tmp_path / "study.yaml").write_text("seed: 1\nseed: 2\n")
    with pytest.raises(UserError, match="given twice"):
        load_study(tmp_path, "toy")
    (tmp_path / "study.yaml").unlink()
    with pytest.raises(UserError, match="no such configuration file"):
        load_study(tmp_path, "toy")


@pytest.mark.parametrize(("written", "read"), [("010", "8"), ("-017", "-15"), ("1:30", "90"), ("1:30.5", "90.5")])
def test_a_number_that_yaml_reads_as_another_is_refused(tmp_path: Path, written: str, read: str) -> None:
    """YAML 1.1: a leading zero makes base 8, colons base 60."""
    (tmp_path / "training.yaml").write_text(f"# warm-up\nwarmup_steps: {written}\n")
    with pytest.raises(UserError, match=f"{written} is {read} in YAML") as error:
        read_yaml(Training, tmp_path / "training.yaml")
    assert "training.yaml: line 2" in str(error.value)


@pytest.mark.parametrize(("written", "read"), [("0", 0), ("10", 10), ("0x10", 16), ("1_000", 1000), ("08", 8)])
def test_other_numbers_are_read(tmp_path: Path, written: str, read: int) -> None:
    (tmp_path / "training.yaml").write_text(f"steps: 1\nwarmup_steps: {written}\n")
    assert read_yaml(Training, tmp_path / "training.yaml").warmup_steps == read


def test_settings_refuse_unknown_keys_and_missing_folders() -> None:
    with pytest.raises(UserError, match="did you mean 'scale'"):
        read_settings({"scal": "toy"})
    with pytest.raises(UserError, match="no such data folder"):
        read_settings({"data_folder": "nowhere"})


def test_environments_are_folders_or_deployed(tmp_path: Path) -> None:
    (tmp_path / "a b" / "bin").mkdir(parents=True)
    program = tmp_path / "a b" / "bin" / "hello"
    program.write_text('#!/bin/sh\necho "from the folder: $1|$2"\n')
    program.chmod(0o755)
    functions = Environments(train=str(tmp_path / "a b"), workflow="deployed").shell_functions()
    run = ["bash", "-c", functions + "train_env hello 'x y' z; workflow_env echo from PATH"]
    assert subprocess.check_output(run, text=True) == "from the folder: x y|z\nfrom PATH\n"


def test_stored_schemas_equal_the_models() -> None:
    for name, text in schema_texts().items():
        assert (CONFIG / "schema" / name).read_text() == text, f"run `ngrpo schema`: {name} is stale"
