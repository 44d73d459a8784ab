"""The configuration that `ngrpo evaluate` writes: who is asked what, as the scale that knows the benchmark asks it."""

import json
from pathlib import Path

import pytest
from synthetic_study import ROOT

from ngrpo.errors import UserError
from ngrpo.evaluating import SCALE, TABLE, EvaluationRequest, write_configuration
from ngrpo.study.elsewhere import ADAPTER
from ngrpo.study.expand import Study, load_study
from ngrpo.study.specs import PolicySpec, PredictedSpec

CONFIG = ROOT / "config"
COMMIT = "c" * 40


def model_at(path: Path) -> str:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"name": path.name}))
    return str(path)


def written(folder: Path, asked: EvaluationRequest) -> Study:
    write_configuration(asked, folder / "config", config=CONFIG, cores=2)
    return load_study(folder / "config", SCALE)


def test_a_model_is_asked_as_the_scale_of_its_benchmark_asks(tmp_path: Path) -> None:
    asked = EvaluationRequest([model_at(tmp_path / "run" / "model")], "aime24", 8)
    (evaluation,) = written(tmp_path, asked).evaluations.values()
    paper = load_study(CONFIG, "paper")
    like = next(e for e in paper.evaluations.values() if e.benchmark.id == "aime24" and e.decoding_id == "standard")
    assert evaluation.policy.id == "run-model"
    assert (evaluation.decoding, evaluation.max_prompt_tokens) == (like.decoding, like.max_prompt_tokens)
    assert evaluation.benchmark.digest == like.benchmark.digest  # so every sample has the same random numbers
    assert (evaluation.samples, evaluation.seed) == (8, 1)
    # what options say goes before
    again = EvaluationRequest(
        asked.models, "aime24", 8, decoding={"temperature": 1.0}, template="plain", seed=3, limit=5
    )
    (other,) = written(tmp_path, again).evaluations.values()
    assert (other.decoding.temperature, other.decoding.top_p) == (1.0, like.decoding.top_p)
    assert other.base is not None
    assert (other.base.model.template, other.seed, other.benchmark.dataset.limit) == ("plain", 3, 5)


def test_answers_are_cut_where_a_models_context_ends_unless_a_limit_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, large = (model_at(tmp_path / name) for name in ("small", "large"))
    for model, context in ((small, 8192), (large, 131072)):
        (Path(model) / "config.json").write_text(json.dumps({"max_position_embeddings": context}))

    def limit(*models: str, **decoding: float) -> int:
        evaluations = written(tmp_path, EvaluationRequest(models, "aime24", 1, decoding=decoding)).evaluations
        (tokens,) = {spec.decoding.max_new_tokens for spec in evaluations.values()}
        return tokens

    assert limit(large) == 8192
    assert capsys.readouterr().err == ""
    prompt = load_study(CONFIG, "paper").size.training.max_prompt_tokens
    assert limit(small) == limit(large, small) == 8192 - 1 - prompt
    assert "small has room for 8192" in capsys.readouterr().err
    assert limit(small, max_new_tokens=8192) == 8192  # asked for: the engine says what doesn't fit


def test_a_reference_that_is_none_stays_none(tmp_path: Path) -> None:
    """GPQA's answer is the first of its choices: `answer: null` says so."""
    (evaluation,) = written(
        tmp_path, EvaluationRequest([model_at(tmp_path / "m")], "gpqa-diamond", 1)
    ).evaluations.values()
    assert evaluation.benchmark.digest == load_study(CONFIG, "paper").datasets["gpqa-diamond"].digest
    assert evaluation.benchmark.dataset.fields.answer is None


def test_two_policies_have_their_own_tokenizers_unless_a_base_is_named(tmp_path: Path) -> None:
    one, two, base = (model_at(tmp_path / name) for name in ("one", "two", "base"))
    second, first = written(tmp_path, EvaluationRequest([one, two], "toy", 4)).evaluations.values()
    assert first.policy.type == "model"
    assert isinstance(second.policy, PolicySpec)
    assert second.policy.own_tokenizer
    policies = [
        e.policy for e in written(tmp_path, EvaluationRequest([one, two], "toy", 4, base=base)).evaluations.values()
    ]
    assert all(isinstance(p, PolicySpec) and p.merge and not p.own_tokenizer for p in policies)


def test_predictions_need_no_model(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    (tmp_path / "b.jsonl").write_text("{ }")
    study = written(tmp_path, EvaluationRequest([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")], "toy", 4))
    assert [type(e) for e in study.evaluations.values()] == [PredictedSpec, PredictedSpec]
    assert [cell.label for cell in study.cells[TABLE]] == ["b.jsonl", "a.jsonl"]
    hub = written(tmp_path, EvaluationRequest([str(tmp_path / "a.jsonl"), f"a/b@{COMMIT}"], "toy", 4))
    assert [e.policy.type for e in hub.evaluations.values()] == ["model", "predictions"]


def test_what_cant_be_evaluated_is_said(tmp_path: Path) -> None:
    folder = model_at(tmp_path / "lora")
    with pytest.raises(UserError, match="no benchmark 'aime42'"):
        written(tmp_path, EvaluationRequest([folder], "aime42", 4))
    for name in ("nowhere.jsonl", "not there", "/no/such/folder"):
        with pytest.raises(UserError, match="no such folder or file"):
            written(tmp_path, EvaluationRequest([name], "toy", 4))
    (tmp_path / "lora" / ADAPTER).write_text("{}")
    for models in ([folder], [model_at(tmp_path / "one"), folder]):
        with pytest.raises(UserError, match=r"(?s)this is an adapter.*--base MODEL"):
            written(tmp_path, EvaluationRequest(models, "toy", 4))
