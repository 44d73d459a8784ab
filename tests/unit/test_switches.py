"""Each switch between paper and release, set alone, changes what it should and nothing else, where it takes effect.

A switch of an exploration changes fields of a mixer's step, the record, or what the engine looks neighbors up in; one
of an objective or of training changes settings that verl is given. What a changed setting then does is tested where it
is done: losses in test_objectives.py, engines in tests/contract.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from ngrpo.method.mixers import Step, measured, mixer_from
from ngrpo.method.records import FedStep, Origin, Record
from ngrpo.study import mixing
from ngrpo.study.base import Config
from ngrpo.study.expand import load_study
from ngrpo.study.layout import RunFiles
from ngrpo.study.reading import parse
from ngrpo.study.specs import RunSpec
from ngrpo.study.switches import SWITCHES, Switch
from ngrpo.training.verl.recipe import Ranks, RunInputs, Saving, own_settings, science

pytestmark = pytest.mark.train

CONFIG = Path(__file__).resolve().parents[2] / "config"
B, V, D, END = 48, 30, 12, 7
STEP_FIELDS = ("token", "on", "ids", "weights", "sigma", "state")
OF_A_STEP = {
    "mixing weights": {"weights"},
    "text at a mixed step": {"token"},
    "neighbor space": set(),  # which table is looked up: below
    "neighbors found": set(),  # by whom: below
    "where mixing stops": {"on", "state"},
    "STHT noise in training": set(),  # the record: below
    "STHT noise scale": {"sigma"},
    "STHT noise is added to": {"ids", "weights"},
    "STHT mixture's temperature": {"weights"},
    "STHT mixing rate": {"on"},
    "Gumbel weights": {"weights"},
    "Gumbel text": {"token"},
}
BESIDE = {"neighbor space": "space", "neighbors found": "refresh", "STHT noise in training": "record"}
OF_VERL = {
    "rollout temperature": {"actor_rollout_ref.rollout.temperature"},
    "updates a rollout": {"actor_rollout_ref.actor.ppo_mini_batch_size"},
    "loss aggregation": {"actor_rollout_ref.actor.loss_agg_mode"},
    "validation, steps between": {"trainer.test_freq"},
    "validation, of equal scores": {"trainer.ngrpo.validation_ties"},
    "GSPO clip, below": {"actor_rollout_ref.actor.clip_ratio_low"},
    "GSPO clip, above": {"actor_rollout_ref.actor.clip_ratio_high"},
    "GSPO policy term": {"actor_rollout_ref.actor.ngrpo.policy_aggregation"},
    "GSPO dual clip": {"actor_rollout_ref.actor.ngrpo.dual_clip"},
}
NEEDS: dict[str, dict[str, Any]] = {"STHT mixture's temperature": {"k": 3}}
"""What a switch needs beside itself to have an effect."""


def switches(part: str) -> list[Any]:
    """Every switch of a part with each kind that it concerns."""
    pairs = [(s, kind) for s in SWITCHES if s.part == part for kind in s.kinds or (None,)]
    return [pytest.param(s, kind, id=f"{s.name}, {kind}") for s, kind in pairs]


def test_every_switch_says_what_it_changes() -> None:
    assert {s.name for s in SWITCHES} == OF_A_STEP.keys() | OF_VERL.keys()


def exploration(kind: str, **settings: Any) -> Any:
    holder = {"kind": kind, **({"rho": 0.5} if kind == "neighbors" else {}), **settings}
    model = {"neighbors": mixing.NeighborMixer, "gaussian": mixing.GaussianMixer, "gumbel": mixing.GumbelMixer}[kind]
    return parse(model, holder, "test")


def effects(configured: mixing.MixerConfig) -> dict[str, Any]:
    """What an exploration does at one step: the step's fields, and what its record and its table are."""
    g = torch.Generator().manual_seed(3)
    z, token = torch.randn(B, V, generator=g) * 2, torch.randint(V, (B,), generator=g)
    E = torch.randn(V, D, generator=g) * torch.rand(V, 1, generator=g)
    z[:6], token[:6] = z[:6].index_fill(1, torch.tensor([END]), 40.0), END  # some write the end whatever is mixed
    seed, position = torch.arange(B), torch.full((B,), 5)
    mixer = mixer_from(mixing.settings(configured, {"</think>": END}))
    table = (torch.arange(V)[:, None] + torch.arange(3)) % V
    start = torch.zeros(B, dtype=torch.int32)
    step: Step = mixer.step(z, token, seed, position, table, rms=E.square().mean(-1).sqrt(), state=start)
    step = measured(step, E.__getitem__)
    value = {name: getattr(step, name) for name in STEP_FIELDS}
    state = start if step.state is None else step.state
    fed = [FedStep(0, [4], [1 << 16], 0.5)] if step.sigma is not None else []
    record = Record.of_steps([4, 4], fed, mixer, Origin(11, 2))
    return value | {
        "state": state,
        "record": record.pack(),
        "space": getattr(configured, "space", None),
        "refresh": getattr(configured, "refresh", None),
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    return type(a) is type(b) and bool(a == b)


@pytest.mark.parametrize(("switch", "kind"), switches("exploration"))
def test_a_switch_of_the_exploration_changes_its_part_of_a_step_alone(switch: Switch, kind: str) -> None:
    beside = NEEDS.get(switch.name, {})
    before, after = (effects(exploration(kind, **beside, **own)) for own in ({}, {switch.field: switch.release}))
    changed = {name for name in before if not same(before[name], after[name])}
    assert changed == OF_A_STEP[switch.name] | {BESIDE[name] for name in [switch.name] if name in BESIDE}
    if "on" in changed:
        assert not (after["on"] & ~before["on"]).any()  # a stop and a gate only close


def verl_given(run: RunSpec, tmp_path: Path) -> dict[str, Any]:
    """All that verl and our parts in it are told of a run, as dotted keys."""
    inputs = RunInputs(tmp_path, tmp_path, tmp_path, tmp_path)
    own = own_settings(
        run, inputs, RunFiles(tmp_path), ranks=Ranks(), saving=Saving(10, 30.0, None), steps=9, lease={}, vocabulary={}
    )
    given = {**science(run, 9), **own}
    flat = {}
    for key, value in given.items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        flat |= {f"{key}.{name}" if name else key: part for name, part in parts}
    return {key: value for key, value in flat.items() if not key.endswith("spec_digest")}


def with_part(run: RunSpec, part: str, value: Config) -> RunSpec:
    return run.model_copy(update={part: value})


@pytest.mark.parametrize(("switch", "kind"), [*switches("objective"), *switches("training")])
def test_a_switch_of_objective_or_training_changes_its_settings_of_verl_alone(
    switch: Switch, kind: str | None, tmp_path: Path
) -> None:
    run = load_study(CONFIG, "paper").runs["gspo-r1-qwen-1.5b" if kind == "gspo" else "ngrpo-r1-qwen-1.5b"]
    if switch.name == "updates a rollout":  # the scale holds the release's reading: start at the other one
        run = with_part(run, "training", run.training.model_copy(update={"mini_batch_prompts": 64}))
    part = getattr(run, switch.part)
    value = parse(type(part), {**part.model_dump(), switch.field: switch.released(part)}, "test")
    before, after = (verl_given(r, tmp_path) for r in (run, with_part(run, switch.part, value)))
    assert {key for key in before if before[key] != after[key]} == OF_VERL[switch.name]
