"""A checkpoint of somewhere else, a merged adapter and a file of predictions in one table, by Snakemake and sglang."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ngrpo.data.datasets import make_dataset
from ngrpo.files import write_json
from ngrpo.study.expand import load_study
from ngrpo.study.layout import Results
from ngrpo.study.sources import Model, ToyModel
from ngrpo.study.specs import ModelSpec

pytestmark = pytest.mark.toy

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / ".venv-train" / "bin"
SAMPLES, PROBLEMS = 4, 8
MAKE_ADAPTER = """
import sys
import torch
from transformers import AutoModelForCausalLM
from ngrpo.stages.policies import open_peft
peft, (base, out) = open_peft(), sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base)
model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
torch.manual_seed(1)
for name, weight in model.named_parameters():
    if "lora_B" in name:
        weight.data.normal_(0, 0.05)
model.save_pretrained(out)
"""


def run(*command: object) -> str:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run([str(word) for word in command], cwd=ROOT, check=False, **streams)
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


class Study:
    """A toy study of policies that it doesn't train."""

    def __init__(self, folder: Path):
        self.config, self.results = folder / "config", folder / "results"
        (self.config / "scales").mkdir(parents=True)
        scale = yaml.safe_load((ROOT / "config" / "scales" / "toy.yaml").read_text())
        scale["models"]["toy"]["source"]["steps"] = 60
        scale["datasets"]["toy-held-out"]["source"]["count"] = PROBLEMS
        scale |= {
            "evaluation": {"samples": SAMPLES, "pass_at": [2, 4]},
            "tables": ["theirs"],
            "on_request": [],
            "demo": None,
        }
        scale.pop("table_seeds")
        (self.config / "scales" / "toy.yaml").write_text(yaml.safe_dump(scale))
        rows: list[dict] = [{"label": "Base"}]
        self.predicted = folder / "theirs.jsonl"
        rows.append({"label": "checkpoint", "policy": {"folder": str(folder / "other" / "model")}})
        rows.append({"label": "adapter", "policy": {"folder": str(folder / "lora"), "base": "toy"}})
        rows.append({"label": "predictions", "predictions": str(self.predicted)})
        table = {"title": "Theirs", "rows": rows}
        study = {"methods": {}, "decodings": {"standard": {"title": "s"}}, "tables": {"theirs": table}}
        (self.config / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
        claim = {"where": "theirs", "family": "theirs", "scale": "toy", "says": "Their answers are better than Base's."}
        test = {"kind": "higher", "model": "toy", "than": [{}], "benchmarks": ["toy-held-out"], "metric": "mean"}
        claims = {
            f"{label}-over-base": {**claim, "test": {**test, "system": {"row": label}, "paper": [10.0]}}
            for label in ("checkpoint", "predictions")
        }
        (self.config / "claims.yaml").write_text(yaml.safe_dump({"claims": claims}, sort_keys=False))

    def snakemake(self, *arguments: str) -> str:
        command = [Path(sys.executable).parent / "snakemake", "--cores", "2", "--nolock", *arguments]
        return run(*command, "--config", f"config={self.config}", f"results={self.results}")

    def planned(self) -> set[str]:
        """The rules that a dry run would run."""
        words = [line.split() for line in self.snakemake("-n").splitlines()]
        return {w[0] for w in words if len(w) == 2 and w[1].isdigit() and not w[0].endswith(":")} - {"total"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study, run to its report: its base model is there first, since the adapter is one of it."""
    folder = tmp_path_factory.mktemp("theirs")
    study = Study(folder)
    other = ModelSpec(id="other", model=Model(source=ToyModel(kind="toy", steps=60, seed=2), dtype="float32"))
    write_json(folder / "other.json", other.json_value())
    run(TRAIN / "ngrpo", "model", folder / "other.json", "--out", folder / "other" / "model")
    toy = yaml.safe_load((study.config / "scales" / "toy.yaml").read_text())["models"]["toy"]
    write_json(folder / "toy.json", ModelSpec(id="toy", model=Model(**toy)).json_value())
    run(TRAIN / "ngrpo", "model", folder / "toy.json", "--out", folder / "toy")
    run(TRAIN / "python", "-c", MAKE_ADAPTER, folder / "toy", folder / "lora")
    study.predicted.write_text("{}")
    benchmark = load_study(study.config, "toy").datasets["toy-held-out"]
    make_dataset(benchmark, folder / "problems.parquet", data_folder=None)
    study.predicted.write_text(
        "".join(
            json.dumps({"problem_id": row["id"], "sample": n, "response": f"\\boxed{{{row['answer']}}}"}) + "\n"
            for row in pd.read_parquet(folder / "problems.parquet").to_dict("records")
            for n in range(SAMPLES)
        )
    )
    study.snakemake()
    return study


def test_all_stand_in_one_table_with_intervals_and_paired_differences(study: Study) -> None:
    table = pd.read_parquet(Results(study.results / "toy").table("theirs"))
    mean = table[table["metric"] == f"Mean@{SAMPLES}"]
    own = mean[mean["against"].isna()].set_index("label")
    assert list(own.index) == ["Base", "checkpoint", "adapter", "predictions"]
    assert (own["status"] == "ok").all()
    assert (own["problems_low"] <= own["value"]).all()
    assert (own["value"] <= own["problems_high"]).all()
    assert own.loc["predictions", "value"] == 1
    pairs = mean[mean["against"].notna()].set_index(["label", "against"])
    assert len(pairs) == 6
    for (label, against), row in pairs.iterrows():
        assert row["value"] == pytest.approx(own.loc[label, "value"] - own.loc[against, "value"])
        assert row["sampling_low"] <= row["value"] <= row["sampling_high"]
    page = Results(study.results / "toy").report.page.read_text()
    assert all(label in page for label in own.index)


def test_claims_about_them_are_judged_by_the_same_numbers(study: Study) -> None:
    results = Results(study.results / "toy")
    claims = {claim["id"]: claim for claim in json.loads(results.report.claims.read_text())}
    table = pd.read_parquet(results.table("theirs"))
    pairs = table[table["metric"] == f"Mean@{SAMPLES}"].set_index(["label", "against"])
    for label in ("checkpoint", "predictions"):
        (part,) = claims[f"{label}-over-base"]["parts"]
        pair = pairs.loc[(label, "Base")]
        assert (part["estimate"], part["low"], part["high"]) == (
            pytest.approx(pair["value"]), pytest.approx(pair["sampling_low"]), pytest.approx(pair["sampling_high"])
        )  # fmt: skip
        assert "comes from elsewhere" in part["note"]
        assert claims[f"{label}-over-base"]["verdict"] is not None


def test_the_policies_answer_differently(study: Study) -> None:
    """The control: these are other weights, asked with the same random numbers."""
    results, read = Results(study.results / "toy"), load_study(study.config, "toy", study.results / "toy")
    cells = {cell.label: cell.evaluation for cell in read.cells["theirs"]}
    texts = {label: list(pd.read_parquet(results.evaluation(e).samples)["text"]) for label, e in cells.items()}
    assert len({tuple(text) for text in texts.values()}) == len(texts)


def test_a_changed_file_of_predictions_reruns_what_depends_on_it_alone(study: Study) -> None:
    before = study.predicted.read_text()
    assert study.planned() == set()
    study.predicted.write_text(before + "\n")
    try:
        assert study.planned() == {"all", "predictions", "grade", "analyze", "notebook", "report"}
    finally:
        study.predicted.write_text(before)
    assert study.planned() == set()


def rows_of(shown: str) -> list[str]:
    """The rows of the tables that `evaluate` prints, between what Snakemake says."""
    return [line for line in shown.splitlines() if line.startswith(("theirs.jsonl ", "other-model "))]


def test_one_command_gives_the_workflows_numbers(study: Study) -> None:
    """Without a configuration, by the same engine and random numbers: every text and grade, and the difference."""
    folder, out = study.config.parent, study.config.parent / "evaluated"
    model, ngrpo = folder / "other" / "model", Path(sys.executable).parent / "ngrpo"
    command = [ngrpo, "evaluate", study.predicted, "--against", model, "--benchmark", "toy", "-n", SAMPLES]
    command += ["--config", study.config, "--out", out, "--cores", 1]
    shown = run(*command)
    alone = Results(out / "evaluation")
    workflow = Results(study.results / "toy")
    read = load_study(study.config, "toy", study.results / "toy")
    cells = {cell.label: cell.evaluation for cell in read.cells["theirs"]}
    own = alone.evaluation("other-model/standard/toy-held-out")
    for kind, columns in (("samples", ["problem_id", "sample", "text", "seed"]), ("grades", ["grade", "extracted"])):
        files = [own, *(workflow.evaluation(cells[label]) for label in ("checkpoint", "Base"))]
        ours, theirs, others = (pd.read_parquet(getattr(each, kind))[columns] for each in files)
        pd.testing.assert_frame_equal(ours, theirs)
        assert not ours.equals(others), f"the control: {kind} of another policy"
    numbers = {}
    for name, results, table in (("alone", alone, "evaluation"), ("workflow", workflow, "theirs")):
        frame = pd.read_parquet(results.table(table))
        pair = frame[frame["against"].notna() & (frame["metric"] == f"Mean@{SAMPLES}")]
        by = pair.set_index(["label", "against"])[["value", "sampling_low", "problems_high", "p"]]
        labels = {"alone": ("theirs.jsonl", "other-model"), "workflow": ("predictions", "checkpoint")}[name]
        numbers[name] = by.loc[labels].tolist()
    assert numbers["alone"] == numbers["workflow"]
    assert "theirs.jsonl − other-model" in shown
    # what is there isn't made again
    before = own.samples.stat().st_mtime_ns
    again = rows_of(run(*command))
    assert again
    assert rows_of(shown)[-len(again) :] == again  # a job that makes a table prints it, too
    assert own.samples.stat().st_mtime_ns == before


def test_a_folder_that_is_no_model_ends_in_one_message(study: Study) -> None:
    empty = study.config.parent / "empty"
    empty.mkdir()
    (empty / "config.json").write_text("{}")
    command = [Path(sys.executable).parent / "ngrpo", "evaluate", empty, "--benchmark", "toy"]
    command += ["--config", study.config, "--out", study.config.parent / "failed"]
    done = subprocess.run([*map(str, command)], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "the model has no tokenizer" in done.stdout + done.stderr
    assert "the evaluation didn't come to its end" in done.stderr
