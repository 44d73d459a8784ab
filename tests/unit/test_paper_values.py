"""The paper's values are those of the paper, and a broken file says where."""

import json
import os
from pathlib import Path

import pytest
import yaml
from synthetic_study import ROOT

from ngrpo.errors import UserError
from ngrpo.study.paper_values import metric_id, read_paper_values

CONFIG = ROOT / "config"
MODELS = {
    "DeepSeek-R1-Distill-Qwen-1.5B": "r1-qwen-1.5b",
    "1.5B": "r1-qwen-1.5b",
    "DeepSeek-R1-Distill-Qwen-7B": "r1-qwen-7b",
    "7B": "r1-qwen-7b",
    "Llama-3.2-1B": "llama3.2-1b",
    "Qwen3-1.7B-Base": "qwen3-1.7b-base",
}
LABELS = {
    "SoftThinking": "Soft Thinking",
    "GRPO+SoftThinking": "GRPO + Soft Thinking",
    "GumbelSoftThinking": "Gumbel Soft-Thinking",
    "N-GRPO_w/o_rate": "N-GRPO w/o rate",
    **{rho: f"ρ = {rho}" for rho in ("0.1", "0.15", "0.2")},
}
METRICS = {"1": "mean", "16": "pass@16", "32": "pass@32", "Mean@32": "mean"}


def benchmark_of(name: str) -> str:
    return name if name == "Avg" else name.lower()


def transcribed(facts: dict) -> dict[tuple, float]:
    """The facts as (table, model, label, benchmark, metric) → percent."""
    printed = {}
    shapes = {
        "table1": facts["table1"],
        "table10": facts["table10_rho"],
        "table11": {"1.5B": facts["table11_strategy_1.5B"]},
        "table12": {"1.5B": facts["table12_metric_1.5B"]},
        "table13": {model: {"N-GRPO + mixing": row} for model, row in facts["table13_infer_mixing"].items()},
    }
    for table, models in shapes.items():
        for model, rows in models.items():
            for label, row in rows.items():
                for key, value in row.items():
                    name, k = key.split("@")
                    place = (table, MODELS[model], LABELS.get(label, label), benchmark_of(name), METRICS[k])
                    printed[place] = value
    for model, rows in facts["table2_gpqa_diamond"].items():
        for label, row in rows.items():
            for key, value in row.items():
                metric = METRICS.get(key, key.lower())
                printed["table2", MODELS[model], LABELS.get(label, label), "gpqa-diamond", metric] = value
    for label, row in facts["table8_gspo_pass32"].items():
        for name, value in row.items():
            printed["table8", "r1-qwen-1.5b", label, benchmark_of(name), "pass@32"] = value
    return printed


@pytest.mark.skipif("NGRPO_FACTS" not in os.environ, reason="NGRPO_FACTS names no transcription to compare with")
def test_every_number_is_that_of_the_transcription_and_none_is_missing() -> None:
    facts = json.loads(Path(os.environ["NGRPO_FACTS"]).read_text())
    raw = yaml.safe_load((CONFIG / "paper_values.yaml").read_text())
    ours = {
        (table, model, label, benchmark, metric): value
        for table, part in raw["tables"].items()
        for model, rows in part["values"].items()
        for label, row in rows.items()
        if label != "N-GRPO w/o rate, sampled text"  # the paper's one row again, for the other reading of it
        for benchmark, metrics in row.items()
        for metric, value in metrics.items()
    }
    assert ours == transcribed(facts)
    known = {
        "tau": "temperature",
        "global_batch": "batch_prompts",
        "grad_accum": "gradient_accumulation",
        "lr": "learning_rate",
        "max_prompt": "max_prompt_tokens",
        "max_response": "max_response_tokens",
        "kl_beta": "kl_coefficient",
    }
    assert raw["hyperparameters"] == {known.get(k, k): v for k, v in facts["table6_hparams"].items()}
    assert raw["sizes"] == {k.lower(): v for k, v in facts["table7_sizes"].items()}
    paired = facts["table9_aime24_paired"]
    assert list(raw["paired"].values()) == [
        paired[f"std_{a}&mix_{b}"]
        for a, b in (("correct", "correct"), ("correct", "wrong"), ("wrong", "correct"), ("wrong", "wrong"))
    ]
    for model, row in facts["table14_throughput"].items():
        assert list(raw["throughput"][MODELS[model]].values()) == [row["std"], row["mix"], row["slowdown%"]]


def test_a_value_is_a_share_with_the_table_that_prints_it() -> None:
    values = read_paper_values(CONFIG)
    assert values.value("table1", "r1-qwen-1.5b", "N-GRPO", "Avg", "pass@32") == (pytest.approx(0.7917), "table1")
    assert values.value("table4", "r1-qwen-1.5b", "L1", "Avg", "pass@32") == (pytest.approx(0.7516), "table12")
    assert values.value("table11", "r1-qwen-1.5b", "N-GRPO", "Avg", "mean") == (pytest.approx(0.5411), "table1")
    assert values.value("table1", "toy", "N-GRPO", "Avg", "pass@32") is None
    assert values.value("table1", "r1-qwen-1.5b", "N-GRPO", "Avg", "pass@8") is None
    assert [metric_id(m) for m in ("Mean@32", "Pass@16")] == ["mean", "pass@16"]
    with pytest.raises(UserError, match="no metric"):
        metric_id("Recall@3")


def test_ids_are_those_of_the_papers_scale() -> None:
    values = read_paper_values(CONFIG)
    size = yaml.safe_load((CONFIG / "scales" / "paper.yaml").read_text())
    assert values.models == set(size["models"])
    assert set(values.throughput) <= set(size["models"])
    assert set(size["benchmarks"]) | {size["validation"]} <= values.benchmarks
    for name, source in size["datasets"].items():
        assert source.get("rows", values.sizes.get(name)) == values.sizes.get(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["tables"]["table1"]["values"]["r1-qwen-1.5b"]["GRPO"]["Avg"].update(mean=53.0), "isn't the mean"),
        (lambda v: v["tables"]["table1"]["values"]["r1-qwen-1.5b"]["GRPO"]["amc23"].update(mean=163), "less than or"),
        (lambda v: v["averages"].update(table3="table22"), "no table 'table22'"),
        (lambda v: v.update(sourse=v.pop("source")), "did you mean 'source'"),
    ],
)
def test_a_broken_file_is_named_with_its_place(tmp_path: Path, change, message: str) -> None:
    raw = yaml.safe_load((CONFIG / "paper_values.yaml").read_text())
    change(raw)
    (tmp_path / "paper_values.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(UserError, match=message) as error:
        read_paper_values(tmp_path)
    assert "paper_values.yaml" in str(error.value)


def test_a_configuration_without_the_file_has_no_values(tmp_path: Path) -> None:
    assert read_paper_values(tmp_path) is None
