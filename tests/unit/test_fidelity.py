"""Each switch between paper and release changes what it should and nothing else."""

from pathlib import Path

import pytest

from ngrpo.errors import UserError
from ngrpo.files import write_json
from ngrpo.study.config import DecodingMethod, Method
from ngrpo.study.expand import load_study
from ngrpo.study.mixing import GaussianMixer, GumbelMixer, NeighborMixer, NoMixer
from ngrpo.study.objective import Objective
from ngrpo.study.reading import parse
from ngrpo.study.specs import EvaluationSpec, Training, read_spec
from ngrpo.study.switches import SWITCHES, release, switch_rows

CONFIG = Path(__file__).resolve().parents[2] / "config"
KINDS = {
    "neighbors": {"exploration": NeighborMixer(kind="neighbors"), "objective": Objective()},
    "gaussian": {"exploration": GaussianMixer(kind="gaussian"), "objective": Objective()},
    "gumbel": {"exploration": GumbelMixer(kind="gumbel"), "objective": Objective()},
    "none": {"exploration": NoMixer(), "objective": Objective()},
    "gspo": {"exploration": NoMixer(), "objective": Objective(kind="gspo")},
}


def _release(kind: str, given: dict | None = None, scripts: dict | None = None):
    parts = {**KINDS[kind], "training": Training()}
    return parts, release(
        parts, {"exploration": {}, "objective": {}, "training": {}, **(given or {})}, scripts or {}, "x"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_release_changes_exactly_its_switches(kind: str) -> None:
    before, after = _release(kind)
    changed = {
        (part, field)
        for part in before
        for field, value in before[part].model_dump().items()
        if getattr(after[part], field) != value
    }
    expected = {
        (s.part, s.field) for s in SWITCHES if s.kinds is None or {kind, before["objective"].kind} & set(s.kinds)
    }
    assert changed == expected - {("training", "mini_batch_prompts")}  # four updates, as the default has
    for switch in SWITCHES:
        if (switch.part, switch.field) in changed and (switch.kinds is None or kind in switch.kinds):
            assert getattr(after[switch.part], switch.field) == switch.release


@pytest.mark.parametrize("kind", KINDS)
def test_the_release_preset_is_what_the_released_code_does(kind: str) -> None:
    """Written down a second time, method by method, so that a switch that is lost or misdirected is found."""
    _, after = _release(kind)
    exploration, objective, training = after["exploration"], after["objective"], after["training"]
    stopping = {
        "neighbors": {"weights": "probabilities", "text": "sampled", "space": "lm_head", "refresh": 1},
        "gaussian": {"replay": False, "scope": "row", "k": 3, "temperature": 0.7, "rho": 0.1},
        "gumbel": {"weights": "clean", "text": "sampled"},
    }
    for field, value in stopping.get(kind, {}).items():
        assert getattr(exploration, field) == value
    assert getattr(exploration, "stop_after", None) == ("</think>" if kind in stopping else None)
    assert (objective.aggregation, objective.clip) == ("token-mean", (0.2, 0.2))
    assert objective.dual == 3.0  # verl's for GRPO, the release's for GSPO
    assert objective.policy_aggregation == ("seq-mean-token-mean" if kind == "gspo" else None)
    assert (training.temperature, training.batch_prompts, training.mini_batch_prompts) == (1.0, 64, 16)
    assert (training.validate_every, training.validation_ties) == (1, "later")


def test_one_update_a_rollout_or_four_are_both_the_papers_and_the_release_has_four() -> None:
    def said(**training) -> str:
        run = load_study(CONFIG, "paper").runs["ngrpo-r1-qwen-1.5b"]
        changed = run.model_copy(update={"training": run.training.model_copy(update=training)})
        return {row["switch"]: row["run"] for row in switch_rows(changed)}["updates a rollout"]

    assert said(mini_batch_prompts=64) == "paper, read as one update a rollout"
    assert said() == "paper, read as four updates a rollout; also the release"
    assert said(mini_batch_prompts=32) == "other: 2 updates a rollout"
    parts = {**KINDS["none"], "training": Training(mini_batch_prompts=64)}
    after = release(parts, {"exploration": {}, "objective": {}, "training": {}}, {}, "x")
    assert after["training"].mini_batch_prompts == 16


def test_the_released_n_grpo_scripts_are_for_methods_that_look_neighbors_up_alone() -> None:
    """Released GRPO keeps the paper's learning rate and β on the 1.5B model; N-GRPO's script doesn't."""
    paper = load_study(CONFIG, "paper")
    grpo, ngrpo = (paper.runs[f"{name}-release-r1-qwen-1.5b"] for name in ("grpo", "ngrpo"))
    assert (grpo.training.learning_rate, grpo.objective.kl_coefficient) == (1e-6, 0.001)
    assert (ngrpo.training.learning_rate, ngrpo.objective.kl_coefficient) == (5e-7, 0.01)
    scripts = {"training": {"learning_rate": 5e-7}, "objective": {"kl_coefficient": 0.01}}
    for kind in KINDS:
        _, after = _release(kind, scripts=scripts)
        assert (after["training"].learning_rate == 5e-7) == (kind == "neighbors")


def test_what_a_method_sets_itself_stays() -> None:
    given = {"exploration": {"weights": "logits"}, "training": {"temperature": 0.9}}
    _, after = _release("neighbors", given)
    assert after["exploration"].weights is None
    assert after["training"].temperature == 0.7
    assert after["exploration"].text == "sampled"


@pytest.mark.parametrize(
    "switch",
    [s for s in SWITCHES if s.part == "exploration" and s.field not in ("stop_after", "k")],
    ids=lambda s: s.name,
)
def test_the_papers_value_said_aloud_is_the_same_spec_as_silence(switch) -> None:
    """So a method can hold one switch at the paper's value under `fidelity: release`, and equal runs stay one job."""
    (kind,) = switch.kinds
    spoken = {
        "weights": "noisy" if kind == "gumbel" else "logits", "text": "candidate" if kind == "gumbel" else "anchor",
        "space": "embedding", "refresh": None, "replay": True, "scope": "matrix", "temperature": 1.0, "rho": 1.0,
    }  # fmt: skip
    silent = KINDS[kind]["exploration"]
    aloud = type(silent).model_validate({"kind": kind, switch.field: spoken[switch.field]})
    assert aloud.model_dump(mode="json") == silent.model_dump(mode="json")
    _, after = _release(kind, {"exploration": aloud})
    assert getattr(after["exploration"], switch.field) is None
    _, control = _release(kind, {"exploration": silent})
    assert getattr(control["exploration"], switch.field) == switch.release


def test_the_scripts_values_of_a_model_are_used() -> None:
    scripts = {"exploration": {"k": 2}, "training": {"learning_rate": 5e-7}, "objective": {"kl_coefficient": 0.01}}
    _, after = _release("neighbors", scripts=scripts)
    assert after["exploration"].k == 2
    assert after["training"].learning_rate == 5e-7
    assert after["objective"].kl_coefficient == 0.01
    _, other = _release("gumbel", scripts=scripts)
    assert other["exploration"].k == 5


def test_the_report_can_say_what_a_run_follows() -> None:
    run = load_study(CONFIG, "toy").runs["ngrpo-toy"]
    rows = {row["switch"]: row["run"] for row in switch_rows(run)}
    assert rows["mixing weights"] == "paper"
    assert rows["rollout temperature"] == "release"  # the toy samples at 1.0
    assert "Gumbel weights" not in rows


def test_rows_say_paper_release_or_what_else() -> None:
    run = load_study(CONFIG, "toy").runs["ngrpo-toy"]

    def held(switch: str, **changes) -> str:
        changed = run.model_copy(update={p: getattr(run, p).model_copy(update=v) for p, v in changes.items()})
        return {row["switch"]: row["run"] for row in switch_rows(changed)}[switch]

    assert held("rollout temperature", training={"temperature": 0.7}) == "paper"
    assert held("rollout temperature", training={"temperature": 0.9}) == "other: 0.9"
    assert held("neighbors found") == "paper, read as one table of the base model"
    iteration = "paper, read as one table an iteration (Appendix G); also the release"
    assert held("neighbors found", exploration={"refresh": 1}) == iteration
    assert held("validation, steps between") == "paper (it doesn't say)"
    assert held("validation, steps between", training={"validate_every": 1}) == "release"
    assert held("where mixing stops", exploration={"stop_after": "</think>"}) == "release"
    for end, own in (("low", 3e-4), ("high", 4e-4)):
        switch = {"low": "GSPO clip, below", "high": "GSPO clip, above"}[end]
        for value, held_by in ((None, "paper"), (own, "paper"), (0.2, "release"), (0.1, "other: 0.1")):
            assert held(switch, objective={"kind": "gspo", f"clip_{end}": value}) == held_by


REFUSED = [
    (DecodingMethod, "mixer", {"kind": "neighbors", "refresh": 1}, "refresh can't be followed here"),
    (DecodingMethod, "mixer", {"kind": "gaussian", "replay": False}, "replay can't be followed here"),
    (Method, "exploration", {"kind": "soft-thinking"}, "which no training can replay: set keep"),
    (Method, "exploration", {"kind": "gaussian", "temperature": 0.7}, "set k, or leave it out"),
    (DecodingMethod, "mixer", {"kind": "soft-thinking", "top_k": 9}, "top_k has no effect without keep"),
    (
        DecodingMethod,
        "mixer",
        {"kind": "soft-thinking", "keep": 9, "stop_after": None, "cold_steps": 9},
        "cold_steps has",
    ),
]
ACCEPTED = [
    (Method, "exploration", {"kind": "neighbors", "refresh": 1}),
    (Method, "exploration", {"kind": "gaussian", "replay": False}),
    (Method, "exploration", {"kind": "soft-thinking", "keep": 9, "top_k": 9}),
    (Method, "exploration", {"kind": "gaussian", "temperature": 0.7, "k": 3}),
    (DecodingMethod, "mixer", {"kind": "soft-thinking"}),
    (DecodingMethod, "mixer", {"kind": "soft-thinking", "keep": 9, "cold_steps": 9}),
]


@pytest.mark.parametrize(("model", "key", "value", "words"), REFUSED)
def test_a_setting_that_nothing_would_follow_is_refused_with_its_key(model, key, value, words) -> None:
    with pytest.raises(UserError, match=words) as error:
        parse(model, {"title": "x", key: value}, "study.yaml")
    assert f"study.yaml: {key}" in str(error.value)


@pytest.mark.parametrize(("model", "key", "value"), ACCEPTED)
def test_the_same_setting_is_accepted_where_it_has_an_effect(model, key, value) -> None:
    assert parse(model, {"title": "x", key: value}, "study.yaml")


def test_a_spec_file_of_a_decoding_that_would_refresh_is_refused_too(tmp_path: Path) -> None:
    study = load_study(CONFIG, "toy")
    spec = study.evaluations["ngrpo-toy/mixing/toy-held-out"]
    assert read_spec(write_spec(tmp_path, spec.json_value()), EvaluationSpec).digest == spec.digest
    changed = {**spec.json_value()}
    changed["decoding"] = {**changed["decoding"], "mixer": {**changed["decoding"]["mixer"], "refresh": 1}}
    with pytest.raises(UserError, match="refresh can't be followed here"):
        read_spec(write_spec(tmp_path, changed), EvaluationSpec)


def write_spec(folder: Path, value: dict) -> Path:
    write_json(folder / "spec.json", value)
    return folder / "spec.json"


def test_a_script_that_names_no_field_is_refused() -> None:
    with pytest.raises(UserError, match="learning_rat"):
        _release("none", scripts={"training": {"learning_rat": 1}})


def test_a_methods_own_fields_are_those_it_names() -> None:
    method = Method.model_validate(
        {"title": "x", "exploration": {"kind": "neighbors", "rho": 0.3}, "fidelity": "release"}
    )
    assert method.exploration.model_fields_set == {"kind", "rho"}
