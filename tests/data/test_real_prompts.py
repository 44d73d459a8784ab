"""Real problems through a real tokenizer: filtered and rendered (`make test-data DATA=PATH`)."""

import json
import os
from pathlib import Path

import pytest

from ngrpo.data.datasets import card_path, make_dataset, read_problems
from ngrpo.data.prompts import open_tokenizer, prompt_ids
from ngrpo.stages.base_models import make_model
from ngrpo.stages.training_data import make_training_data
from ngrpo.study.expand import load_study

pytestmark = pytest.mark.train

STUDY = load_study(Path(__file__).resolve().parents[2] / "config", "smoke")
MODEL = STUDY.models["smollm2-135m"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 from its package, and every data set of the smoke scale."""
    folder = os.environ.get("NGRPO_REAL_DATA")
    if not folder:
        pytest.exit("these tests need real problems: make test-data DATA=PATH", returncode=3)
    out = tmp_path_factory.mktemp("files")
    make_model(MODEL, out / "model")
    for name, spec in STUDY.datasets.items():
        make_dataset(spec, out / f"{name}.parquet", data_folder=Path(folder))
    return out


def test_benchmarks_render_through_the_chat_template(files: Path) -> None:
    tokenizer = open_tokenizer(files / "model")
    for name in ("aime24", "amc23"):
        dataset = STUDY.datasets[name].dataset
        for row in read_problems(files / f"{name}.parquet"):
            text = tokenizer.decode(prompt_ids(tokenizer, MODEL.model, dataset, row["problem"]))
            assert f"<|im_start|>user\n{row['problem'].strip()} {dataset.instruction}<|im_end|>" in text
            assert text.endswith("<|im_start|>assistant\n")


def test_training_problems_are_filtered_and_each_that_leaves_is_named(files: Path) -> None:
    spec = STUDY.training_data["smollm2-135m"]
    out = files / "remaining.parquet"
    benchmarks = [files / f"{b.id}.parquet" for b in spec.benchmarks]
    make_training_data(
        spec, problems=files / "train-sample.parquet", benchmarks=benchmarks, model=files / "model", out=out
    )
    card, remaining = json.loads(card_path(out).read_text()), read_problems(out)
    assert card["rows_in"] == 975
    assert card["rows_out"] == len(remaining) == 975 - sum(card["left"].values())
    assert card["left"]["prompt too long"] == 100
    tokenizer = open_tokenizer(files / "model")
    longest = max(len(prompt_ids(tokenizer, MODEL.model, spec.dataset.dataset, row["problem"])) for row in remaining)
    assert longest <= spec.max_prompt_tokens
