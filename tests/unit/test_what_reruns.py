"""Every key of the configuration, changed to another value: exactly these stages make something anew.

A job's key is what Snakemake sees of it beside the files that other jobs make: its spec, and what it shows of the
configuration. A spec nests those that it depends on, so a changed key is all that a stage reruns for.
"""

from pathlib import Path
from typing import Any

import pytest
from other_values import changed, is_free, other_value, walk

from ngrpo.study import config
from ngrpo.study.config import Grading, Row, ScaleFile, StudyFile
from ngrpo.study.elsewhere import Policy
from ngrpo.study.expand import Study, load_study
from ngrpo.study.products import Cell
from ngrpo.study.reading import parse
from ngrpo.study.reference import models_in
from ngrpo.study.shown import page_digest, table_digest
from ngrpo.study.sources import ToyModel

NOTHING: frozenset[str] = frozenset()
PAGE = frozenset({"notebook", "report"})
TABLE = PAGE | {"analyze"}
EVALUATION = TABLE | {"sample", "grade"}
GIVEN = TABLE | {"predictions", "grade"}
RUN = EVALUATION | {"train"}
MIXING = RUN | {"diagnostics"}
"""Of a run whose diagnostics are shown, too."""
BASE = MIXING | {"training_data"}
EVERYTHING = BASE | {"dataset", "model", "neighbors"}

MIXER = {"run": MIXING, "decoding": EVALUATION, "other run": RUN}
TABLE_OF_NEIGHBORS = {"run": MIXING | {"neighbors"}, "decoding": EVALUATION | {"neighbors"}}
DATA = {
    "training": BASE | {"dataset"},
    "validation": BASE | {"dataset"},  # it is kept out of training
    "benchmark": BASE | {"dataset", "predictions"},
    "unused": PAGE | {"dataset"},  # made by the target `fetch` alone; the page lists it
}
MODEL = {"model": BASE | {"model", "neighbors", "policy"}, "unused": PAGE | {"model", "training_data"}}
"""What makes the value's part of a study: which stages make something anew, where the value stands there."""

DATA_FIELDS = ("source", "kind", "fields")
OBJECTIVE = ("kind", "clip_low", "clip_high", "aggregation", "dual_clip", "policy_aggregation", "norm_adv_by_std")
OURS = ("kl_coefficient", "rollout_is_threshold", "entropy_coefficient", "reward", "overlong_share", "equal_groups")
IDLE = ("on_request", "demo", "targets", "threads", "checkpoint_every", "shard_samples", "keep_checkpoints")
STAGES: dict[str, dict[str, Any]] = {
    "Paper": dict.fromkeys(("name", "title", "arxiv"), PAGE),
    "StudyFile": {"paper": PAGE, "seed": MIXING, "methods": RUN, "decodings": EVALUATION, "tables": TABLE},
    "Method": {
        "title": PAGE,
        **dict.fromkeys(("objective", "training"), MIXER),
        "exploration": RUN,
        "fidelity": {"run": MIXING | {"neighbors"}, "other run": RUN},  # the release's neighbors are another table's
    },
    "DecodingMethod": {"title": PAGE, "mixer": EVALUATION},
    "Row": {
        **{"label": TABLE, "method": RUN, "decoding": EVALUATION, "models": TABLE},
        **{"policy": EVALUATION | {"policy"}, "predictions": GIVEN},
    },
    "Policy": dict.fromkeys(("hub", "revision", "folder", "base", "tokenizer"), EVALUATION | {"policy"}),
    "ResultTable": dict(
        title=PAGE, rows=TABLE, models=MIXING | {"neighbors"}, benchmarks=EVALUATION | {"predictions"}, seeds=RUN
    ),
    "Objective": dict.fromkeys((*OBJECTIVE, *OURS), MIXER),
    "NoMixer": {},
    "NeighborMixer": {
        **dict.fromkeys(("rho", "weights", "text", "fed", "stop_after", "refresh"), MIXER),
        **dict.fromkeys(("k", "metric", "space"), TABLE_OF_NEIGHBORS),
    },
    "GaussianMixer": dict.fromkeys(("factor", "scope", "replay", "k", "rho", "stop_after", "temperature"), MIXER),
    "GumbelMixer": dict.fromkeys(
        ("k", "temperature", "low", "high", "weights", "chosen_by", "text", "log_prob", "stop_after"), MIXER
    ),
    "SoftThinkingMixer": dict.fromkeys(
        ("keep", "top_k", "top_p", "min_p", "cold_entropy", "cold_steps", "stop_after"), MIXER
    ),
    "MinPMixer": dict.fromkeys(("min_p", "top_p"), MIXER),
    "MultiplexMixer": dict.fromkeys(("k", "weights", "top_p", "stop_after"), MIXER),
    "ScaleFile": {
        **dict.fromkeys(("title",), PAGE),
        "verdicts": TABLE,
        "models": BASE | {"model", "neighbors", "policy"},
        "datasets": BASE | {"dataset"},
        **dict.fromkeys(("training_data", "validation", "near_duplicates"), BASE),
        "benchmarks": BASE | {"predictions"},
        "training": BASE,
        "decoding": MIXING,
        "evaluation": EVALUATION | {"predictions"},
        "tables": RUN,
        "grading": TABLE | {"grade"},
        "release": PAGE,
        **dict.fromkeys(("seeds", "table_seeds"), RUN),
        **dict.fromkeys((*IDLE, "max_seeds"), NOTHING),
    },
    "Model": {"source": MODEL, "title": PAGE, "template": MODEL, "stop": MODEL, "dtype": MODEL},
    "Dataset": {**dict.fromkeys((*DATA_FIELDS, "rows", "limit", "instruction", "examples"), DATA), "title": PAGE},
    "Fields": dict.fromkeys(("problem", "answer", "answer_after", "solution", "choices", "id", "boxes"), DATA),
    "ToyModel": dict.fromkeys((name for name in ToyModel.model_fields if name != "kind"), MODEL),
    "HubModel": dict.fromkeys(("repo", "revision"), MODEL),
    "PackageModel": dict.fromkeys(("package", "version", "file"), MODEL),
    "FolderModel": dict.fromkeys(("path",), MODEL),
    "ToyProblems": dict.fromkeys(("count", "terms", *(GENERATED := ("held_out", "seed", "validation"))), DATA),
    "ArithmeticProblems": dict.fromkeys(("count", "operations", "largest", *GENERATED), DATA),
    "HubDataset": dict.fromkeys(("repo", "revision", "split", "subset"), DATA) | {"mirror": NOTHING, "sha256": NOTHING},
    "FolderDataset": dict.fromkeys(("file",), DATA),
    "Training": {
        **dict.fromkeys(
            (
                *("steps", "epochs", "batch_prompts", "group", "mini_batch_prompts", "learning_rate", "warmup_steps"),
                *("weight_decay", "temperature", "max_response_tokens", "validate_every", "validation_samples"),
                *("parity_limit", "stop_without_gradient", "validation_ties"),
            ),
            MIXING,
        ),
        "max_prompt_tokens": BASE,
    },
    "Limits": dict.fromkeys(("temperature", "top_p", "max_new_tokens"), MIXING),
    "Grading": dict.fromkeys(Grading.model_fields, TABLE | {"grade"}),
    "Evaluation": {"samples": EVALUATION | {"predictions"}, "pass_at": TABLE, "engine": EVALUATION},
}
"""Model: field: the stages that make something anew when it changes, by the place of the value where that matters."""

COMMIT = "c" * 40
TOY = {"kind": "toy", "count": 10, "held_out": True, "seed": 3}
STUDY: dict[str, Any] = {
    "paper": {"name": "N", "title": "T", "arxiv": "2606.10768"},
    "methods": {
        "mixed": {"title": "A", "exploration": {"kind": "neighbors"}, "objective": {"kind": "grpo"}},
        "other": {"title": "B", "exploration": {"kind": "gaussian", "k": 4}},
        "third": {"title": "C", "exploration": {"kind": "gumbel"}},
    },
    "decodings": {
        "standard": {"title": "s"},
        "mixing": {"title": "m", "mixer": {"kind": "neighbors", "metric": "l2"}},
        "soft": {"title": "t", "mixer": {"kind": "soft-thinking", "keep": 9}},
        "unused": {"title": "u", "mixer": {"kind": "gaussian"}},
    },
    "tables": {
        "main": {
            "title": "T",
            "rows": [
                *({"label": m, "method": m} for m in ("mixed", "other", "third")),
                *({"label": d, "decoding": d} for d in ("mixing", "soft")),
                {"label": "hub", "policy": {"hub": "a/b", "revision": COMMIT, "base": "base"}},
                {"label": "folder", "policy": {"folder": "one", "base": "base"}},
                {"label": "given", "predictions": {"bench": "one.jsonl", "hub": "one.jsonl"}},
            ],
        },
        "later": {"title": "U", "rows": [{"label": "x", "method": "later"}], "models": ["base"]},
    },
}
STUDY["methods"]["later"] = {"title": "D", "exploration": {"kind": "gumbel", "k": 9}}
SCALE: dict[str, Any] = {
    "title": "mine",
    "verdicts": False,
    "models": {
        "base": {"source": {"kind": "toy"}},
        "hub": {"source": {"kind": "hub", "repo": "a/b", "revision": COMMIT}},
        "package": {"source": {"kind": "package", "package": "a", "version": "1", "file": "b"}},
        "folder": {"source": {"kind": "folder", "path": "/somewhere"}},
    },
    "datasets": {
        "train": {"source": TOY, "instruction": "", "fields": {}},
        "valid": {"source": TOY, "instruction": "", "fields": {}},
        "bench": {"source": TOY, "instruction": "", "fields": {}},
        "hub": {"source": {"kind": "hub", "repo": "a/b", "revision": COMMIT, "split": "d"}, "instruction": ""},
        "folder": {"source": {"kind": "folder", "file": "a.jsonl"}, "instruction": ""},
    },
    "training_data": "train",
    "validation": "valid",
    "benchmarks": ["bench"],
    "training": {},
    "decoding": {},
    "evaluation": {},
    "grading": {"bench": {"seconds": 9.0}},
    "tables": ["main"],
}
STUDY["tables"]["main"]["models"] = ["base"]
ROLES = {
    ("methods", "mixed"): "run",
    ("methods",): "other run",
    ("decodings",): "decoding",
    ("models", "base"): "model",
    ("models",): "unused",
    ("datasets", "train"): "training",
    ("datasets", "valid"): "validation",
    ("datasets", "bench"): "benchmark",
    ("datasets",): "unused",
}
"""What stands at the start of a value's path: its place in the study."""
UNASKED = (("tables", "later"), ("methods", "later"), ("decodings", "unused"))
"""Of no table that the scale makes."""
KINDS = ("Objective", "Dataset")
"""Models whose `kind` is a value of their own."""
REFUSED = {("NeighborMixer", "refresh", "decoding")}
"""Keys that can't be set at a place."""
OTHER: dict[tuple[str, str], Any] = {
    ("StudyFile", "paper"): {"name": "X", "title": "Y", "arxiv": "2601.08808"},
    ("Paper", "arxiv"): "2601.08808",
    ("GumbelMixer", "chosen_by"): "probability",
    ("StudyFile", "methods"): {**STUDY["methods"], "third": {"title": "C", "training": {"group": 6}}},
    ("StudyFile", "decodings"): {**STUDY["decodings"], "soft": {"title": "t", "mixer": {"kind": "none"}}},
    ("StudyFile", "tables"): {"main": {**STUDY["tables"]["main"], "rows": STUDY["tables"]["main"]["rows"][1:]}},
    ("Method", "objective"): {"kind": "gspo"},
    ("Method", "exploration"): {"kind": "gumbel", "k": 7},
    ("Method", "training"): {"group": 8},
    ("DecodingMethod", "mixer"): {"kind": "gumbel"},
    ("Row", "method"): "later",
    ("Row", "decoding"): "unused",
    ("Row", "models"): [],
    ("ResultTable", "rows"): STUDY["tables"]["main"]["rows"][::-1],
    ("ResultTable", "models"): ["base", "hub"],
    ("ResultTable", "benchmarks"): ["bench", "hub"],
    ("Objective", "kind"): "gspo",
    ("Objective", "rollout_is_threshold"): 2.0,
    ("Objective", "dual_clip"): 3.0,
    ("Objective", "norm_adv_by_std"): False,
    ("Objective", "reward"): "shuffled",
    ("Training", "validation_ties"): "later",
    ("Training", "batch_prompts"): 128,
    ("Training", "mini_batch_prompts"): 8,
    **dict.fromkeys((("GaussianMixer", "rho"), ("GaussianMixer", "temperature"), ("Grading", "tolerance")), 0.5),
    **dict.fromkeys((("GumbelMixer", "text"), ("NeighborMixer", "text")), "sampled"),
    ("NeighborMixer", "metric"): "l1",
    ("NeighborMixer", "weights"): "probabilities",
    ("NeighborMixer", "fed"): "random",
    ("NeighborMixer", "space"): "lm_head",
    ("GaussianMixer", "scope"): "row",
    ("GaussianMixer", "replay"): False,
    ("GumbelMixer", "weights"): "clean",
    ("ScaleFile", "models"): {**SCALE["models"], "base": {"source": {"kind": "toy", "steps": 7}}},
    ("ScaleFile", "datasets"): {**SCALE["datasets"], "train": {"source": {**TOY, "count": 9}, "instruction": ""}},
    ("ScaleFile", "training_data"): "hub",
    ("ScaleFile", "validation"): "hub",
    ("ScaleFile", "benchmarks"): ["bench", "hub"],
    ("ScaleFile", "training"): {"max_prompt_tokens": 9},
    ("ScaleFile", "decoding"): {"top_p": 0.5},
    ("ScaleFile", "evaluation"): {"samples": 40},
    ("ScaleFile", "tables"): ["main", "later"],
    ("ScaleFile", "near_duplicates"): 0.5,
    ("ScaleFile", "grading"): {},
    ("Grading", "convention"): "release-math500",
    ("Grading", "letters"): "ABCDE",
    ("ScaleFile", "on_request"): ["main"],
    ("ScaleFile", "demo"): ["main"],
    ("ScaleFile", "targets"): {"again": ["main"]},
    ("ScaleFile", "release"): {"base": {"exploration": {"k": 2}}},
    ("ScaleFile", "table_seeds"): {"main": 2},
    ("Model", "source"): {"kind": "toy", "steps": 7},
    ("Dataset", "source"): {**TOY, "count": 9},
    ("Dataset", "fields"): {"id": "n"},
    ("Fields", "answer"): None,
    ("Fields", "choices"): "c",
    ("Row", "policy"): {"hub": "c/d", "revision": COMMIT, "base": "base"},
    ("Row", "predictions"): {"bench": "two.jsonl"},
    ("Policy", "revision"): "d" * 40,
    ("Policy", "folder"): "two",
    ("Policy", "base"): None,
    ("HubModel", "revision"): "d" * 40,
    ("HubDataset", "revision"): "d" * 40,
    ("HubDataset", "mirror"): "https://example.org/a.parquet",
    ("HubDataset", "sha256"): "0" * 64,
    ("ToyProblems", "terms"): [2, 4],
    ("Evaluation", "samples"): 40,
    ("Evaluation", "pass_at"): [4, 8],
    ("Evaluation", "engine"): "transformers",
}
"""Another valid value, where it can't be made up from the type."""


def jobs(study: Study) -> dict[tuple[str, str], object]:
    """Every job of a study and its key."""
    graded = {name: part.options() for name, part in study.size.grading.items()}
    evaluations = study.evaluations.items()
    grades = {i: (spec.digest, spec.benchmark.digest, graded.get(spec.benchmark.id)) for i, spec in evaluations}

    def of_seeds(cells: list[Cell]) -> list[tuple[str, str, str | None]]:
        return [grades[e] for cell in cells for e in (cell.evaluation, *study.extra_seeds.get(cell.evaluation, ()))]

    return {
        **{("dataset", i): spec.digest for i, spec in study.datasets.items()},
        **{("model", i): spec.digest for i, spec in study.models.items()},
        **{("training_data", i): spec.digest for i, spec in study.training_data.items()},
        **{("neighbors", i): spec.digest for i, spec in study.neighbors.items()},
        **{("train", i): spec.digest for i, spec in study.runs.items()},
        **{("diagnostics", i): study.runs[i].digest for i in study.mixing_runs},
        **{("policy", i): spec.digest for i, spec in study.policies.items()},
        **{("sample" if spec.base else "predictions", i): spec.digest for i, spec in evaluations},
        **{("grade", i): key for i, key in grades.items()},
        **{("analyze", t): (table_digest(study, t), of_seeds(cells)) for t, cells in study.cells.items()},
        ("notebook", ""): page_digest(study),
        ("report", ""): page_digest(study),
    }


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """load(study, scale): these files as an expanded study, without the way through YAML."""
    plain = {"study.yaml": STUDY, "mine.yaml": SCALE}
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(name)
        (tmp_path / f"{name}.jsonl").write_text(name)
    (tmp_path / "scales").mkdir()
    (tmp_path / "scales" / "mine.yaml").touch()
    monkeypatch.setattr(config, "read_yaml", lambda model, path: parse(model, plain[path.name], path))

    def get(study: dict[str, Any] = STUDY, scale: dict[str, Any] = SCALE) -> Study:
        plain.update({"study.yaml": study, "mine.yaml": scale})
        return load_study(tmp_path, "mine")

    return get


def expected(model: str, name: str, path: tuple[str | int, ...]) -> frozenset[str]:
    """What STAGES says of a field at this place."""
    stages = STAGES[model][name]
    if isinstance(stages, frozenset):
        return stages
    return stages[role_of(path)]


def role_of(path: tuple[str | int, ...]) -> str:
    """The place in the study of a value at this path."""
    return next((r for start, r in ROLES.items() if path[: len(start)] == start), "")


def surprises(load, *start: str) -> list[str]:
    """The keys (whose path starts so) that make other stages run than STAGES says."""
    first = load()
    before, wrong = jobs(first), []
    for file, whole in (("study", STUDY), ("scale", SCALE)):
        for path, part, name in walk(first.study if file == "study" else first.size):
            model = type(part).__name__
            if path[: len(start)] != start or path[:2] in UNASKED or (model, name, role_of(path)) in REFUSED:
                continue
            if isinstance(part, Row | Policy) and not is_free(part, name):
                continue
            if name == "kind" and model not in KINDS:
                continue  # it says which model the value is: another one is another value of the field that holds it
            value = OTHER.get((model, name), ...)
            if value is ...:
                value = other_value(type(part).model_fields[name].annotation, getattr(part, name))
            after = jobs(load(**{file: changed(whole, path, value)}))
            anew = {stage for (stage, job), key in after.items() if before.get((stage, job)) != key}
            if anew != expected(model, name, path):
                wrong.append(f"{'.'.join(map(str, path))}: {sorted(anew)}, not {sorted(expected(model, name, path))}")
    return wrong


def test_every_key_reruns_what_depends_on_it_and_nothing_else(load) -> None:
    assert not surprises(load)


def test_a_key_that_is_forgotten_is_seen(load, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: tables and pages that don't look at it would not be made anew."""
    monkeypatch.setitem(globals(), "table_digest", lambda study, table: "")
    monkeypatch.setitem(globals(), "page_digest", lambda study: "")
    drawn, page = ["analyze", "grade", "sample"], ["notebook", "report"]
    given = sorted([*drawn, "predictions"])
    assert surprises(load, "evaluation") == [
        f"evaluation: {given}, not {sorted([*given, *page])}",
        f"evaluation.samples: {given}, not {sorted([*given, *page])}",
        "evaluation.pass_at: [], not ['analyze', 'notebook', 'report']",
        f"evaluation.engine: {drawn}, not {sorted([*drawn, *page])}",
    ]


def test_no_key_is_left_out() -> None:
    fields = {
        (model.__name__, name)
        for file in (StudyFile, ScaleFile)
        for model in (file, *models_in(file))
        for name in model.model_fields
        if name != "kind" or model.__name__ in KINDS
    }
    listed = {(model, name) for model, names in STAGES.items() for name in names}
    assert fields - listed == set(), "say in STAGES which stages make something anew when they change"
    assert listed - fields == set()


def test_a_method_of_no_table_changes_nothing_but_its_title(load) -> None:
    before = jobs(load())
    assert jobs(load(changed(STUDY, ("methods", "later", "training"), {"group": 8}))) == before
    assert jobs(load(changed(STUDY, ("tables", "later", "title"), "V"))) == before
