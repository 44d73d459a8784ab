"""Each switch between paper and release changes what it should and nothing else."""

from pathlib import Path

import pytest

from ngrpo.errors import UserError
from ngrpo.study.config import Method
from ngrpo.study.expand import load_study
from ngrpo.study.mixing import GaussianMixer, GumbelMixer, NeighborMixer, NoMixer
from ngrpo.study.objective import Objective
from ngrpo.study.specs import Training
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
    assert changed == expected
    for switch in SWITCHES:
        if (switch.part, switch.field) in changed and (switch.kinds is None or kind in switch.kinds):
            assert getattr(after[switch.part], switch.field) == switch.release


def test_what_a_method_sets_itself_stays() -> None:
    given = {"exploration": {"weights": "logits"}, "training": {"temperature": 0.9}}
    _, after = _release("neighbors", given)
    assert after["exploration"].weights is None
    assert after["training"].temperature == 0.7
    assert after["exploration"].text == "sampled"


@pytest.mark.parametrize(
    "switch", [s for s in SWITCHES if s.part == "exploration" and s.field != "stop_after"], ids=lambda s: s.name
)
def test_the_papers_value_said_aloud_is_the_same_spec_as_silence(switch) -> None:
    """So a method can hold one switch at the paper's value under `fidelity: release`, and equal runs stay one job."""
    (kind,) = switch.kinds
    spoken = {
        "weights": "noisy" if kind == "gumbel" else "logits", "text": "anchor", "space": "embedding", "refresh": None,
        "replay": True, "scope": "matrix",
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
    assert held("neighbors found", exploration={"refresh": 1}) == "release"
    assert held("where mixing stops", exploration={"stop_after": "</think>"}) == "release"
    for end, own in (("low", 3e-4), ("high", 4e-4)):
        switch = {"low": "GSPO clip, below", "high": "GSPO clip, above"}[end]
        for value, held_by in ((None, "paper"), (own, "paper"), (0.2, "release"), (0.1, "other: 0.1")):
            assert held(switch, objective={"kind": "gspo", f"clip_{end}": value}) == held_by


def test_a_script_that_names_no_field_is_refused() -> None:
    with pytest.raises(UserError, match="learning_rat"):
        _release("none", scripts={"training": {"learning_rat": 1}})


def test_a_methods_own_fields_are_those_it_names() -> None:
    method = Method.model_validate(
        {"title": "x", "exploration": {"kind": "neighbors", "rho": 0.3}, "fidelity": "release"}
    )
    assert method.exploration.model_fields_set == {"kind", "rho"}
