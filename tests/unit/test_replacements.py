"""Every replacement in verl takes, and one that doesn't is named: the table's, and those of the running trainer.

tests/workflow/test_training.py shows the same in real trainings: without the plugin, and with one part undone.
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from ngrpo.errors import UserError
from ngrpo.files import read_json, write_json
from ngrpo.study.layout import RunFiles
from ngrpo.training.lease import Lease
from ngrpo.training.save_schedule import SaveSchedule
from ngrpo.training.verl import accelerator, plugin
from ngrpo.training.verl.replacing import Replacement, check_built, replaced

pytestmark = pytest.mark.train

ALL = (*accelerator.replacements(), *plugin.REPLACEMENTS, plugin.TASK_RUNNER)


@pytest.fixture(scope="module")
def stock() -> Iterator[dict[Replacement, object]]:
    """The plugin installed in this process; yields what stock code would find, which is put back in the end."""
    before = {one: getattr(import_module(one.owner), one.name) for one in ALL if one is not plugin.TASK_RUNNER}
    plugin.install()
    before[plugin.TASK_RUNNER] = import_module("verl.trainer.ppo.ray_trainer").RayPPOTrainer.__base__
    yield before
    for one, value in before.items():
        setattr(import_module(one.owner), one.name, value)


def test_every_replacement_takes_and_a_second_time_too(stock: dict[Replacement, object]) -> None:
    plugin.check_task_runner()
    ours = {one: getattr(import_module(one.owner), one.name) for one in ALL}
    plugin.install()
    assert all(getattr(import_module(one.owner), one.name) is ours[one] for one in ALL)
    assert all(ours[one] is not value for one, value in stock.items())


@pytest.mark.parametrize("one", ALL, ids=str)
def test_one_that_does_not_take_is_named(
    stock: dict[Replacement, object], one: Replacement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module(one.owner), one.name, stock[one])
    with pytest.raises(UserError) as error:
        plugin.check_task_runner()
    assert error.value.what == f"these are stock, not ours, in a training process: {one}"


def test_a_name_that_verl_does_not_know_is_not_replaced() -> None:
    import verl.workers.actor

    absent = Replacement("verl.workers.actor", "NoSuchActor", plugin.REPLACEMENTS[0].ours)
    with pytest.raises(UserError, match=r"verl\.workers\.actor has no NoSuchActor"):
        absent.install()
    with pytest.raises(UserError, match="has no NoSuchActor"), replaced(verl.workers.actor, "NoSuchActor", int):
        pass
    assert not hasattr(verl.workers.actor, "NoSuchActor")


def test_a_replacement_for_a_block_ends_with_it() -> None:
    import verl.utils.tracking as owner

    before = owner.Tracking
    with replaced(owner, "Tracking", int):
        assert owner.Tracking is int
    assert owner.Tracking is before
    with pytest.raises(ZeroDivisionError), replaced(owner, "Tracking", int):
        raise ZeroDivisionError
    assert owner.Tracking is before


def test_a_stock_part_that_verl_built_is_named() -> None:
    check_built(True, int, "flag")
    with pytest.raises(UserError, match="verl built str in place of int, as its flag"):
        check_built("x", int, "flag")


@pytest.fixture
def trainer(tmp_path: Path):
    """Our trainer as far as logging goes; verl's constructor needs a Ray."""
    from omegaconf import OmegaConf

    from ngrpo.training.checkpoints import Checkpoints
    from ngrpo.training.idle import IdleSteps
    from ngrpo.training.verl.trainer import Trainer

    trainer = object.__new__(Trainer)
    trainer.idle, trainer.ended, trainer.validated, trainer.no_advantage = IdleSteps(2), None, (0, {}), False
    trainer.global_steps, trainer.total_training_steps = 1, 9
    trainer.files, trainer.last_called, trainer.written = RunFiles(tmp_path), {}, 0
    trainer.checkpoints, trainer.schedule = Checkpoints(trainer.files, "x"), SaveSchedule(60.0, None)
    with Lease(trainer.files) as lease:
        trainer.run = OmegaConf.create({"lease": lease.holder, "parity_limit": 1e-3, "spec_digest": "x"})
        yield trainer


def test_a_loop_that_does_not_log_to_us_ends_before_its_first_step(trainer) -> None:
    with pytest.raises(UserError, match="didn't call our Tracking"):
        trainer._load_checkpoint()


def test_a_step_that_went_past_one_of_our_parts_is_not_logged(trainer) -> None:
    metrics = trainer.tracking("ngrpo", "run", ["console"], {"a": 1})
    trainer.global_steps = 1
    with pytest.raises(UserError, match="didn't call our compute_advantage in step 1"):
        metrics.log({"actor/lr": 1.0}, step=1)
    trainer.last_called["compute_advantage"] = 1
    with pytest.raises(UserError, match="didn't call our reduce_metrics in step 1"):
        metrics.log({"actor/lr": 1.0}, step=1)
    assert trainer.checked_update({"actor/grad_norm": [1.0, 2.0], "actor/lr": 0.1})["actor/grad_norm"] == 1.5
    with pytest.raises(UserError, match="didn't call our should_save_ckpt_esi in step 1"):
        metrics.log({"actor/lr": 1.0}, step=1)
    assert not trainer.files.metrics.exists()
    assert not trainer.saves_now(max_steps_duration=1.0, redundant_time=0)
    metrics.log({"actor/lr": 1.0}, step=1)  # the control: a step that passed all of them is
    assert trainer.files.metrics.read_text().count("\n") == 1


def test_another_trainers_folder_is_not_written_to(trainer) -> None:
    metrics = trainer.tracking("ngrpo", "run", ["console"], {"a": 1})
    trainer.last_called.update(compute_advantage=1, reduce_metrics=1, should_save_ckpt_esi=1)
    holder = {**trainer.run.lease, "pid": 1}
    write_json(trainer.files.lease, {**holder, "heartbeat": 0})
    with pytest.raises(UserError, match="no longer holds"):
        metrics.log({"actor/lr": 1.0}, step=1)
    assert not trainer.files.metrics.exists()


def saved_at(trainer, step: int) -> None:
    """verl's files of a step, committed."""
    (trainer.files.checkpoints / f"global_step_{step}").mkdir(parents=True)
    (trainer.files.checkpoints / f"global_step_{step}" / "model.pt").write_text(str(step))
    trainer.checkpoints.commit(step)


def test_an_update_of_nan_ends_the_run_by_name_and_keeps_the_last_good_checkpoint(trainer) -> None:
    saved_at(trainer, 2)
    trainer.global_steps = 3
    said = r"(?s)policy/loss of an update is NaN at step 3; nothing of it is saved, .* that of step 2"
    with pytest.raises(UserError, match=said):
        trainer.checked_update({"actor/grad_norm": [1.0], "actor/pg_loss": [0.5, float("nan")]})
    assert read_json(trainer.files.failure)["step"] == 3
    assert trainer.checkpoints.step == 2


def test_log_probs_of_nan_reject_the_checkpoint_whose_weights_gave_them(trainer) -> None:
    import torch

    for step in (2, 4):
        saved_at(trainer, step)
    bad = {"response_mask": torch.ones(1, 2), "rollout_log_probs": torch.tensor([[-1.0, float("nan")]])}
    trainer.global_steps = 5
    with pytest.raises(UserError, match=r"the rollout's log-prob of a token is NaN at step 5; .* that of step 2"):
        trainer.checked_advantage(SimpleNamespace(batch={**bad, "old_log_probs": torch.zeros(1, 2)}))
    assert trainer.checkpoints.step == 2


def test_weights_of_nan_are_neither_saved_nor_exported(trainer) -> None:
    trainer.actor_rollout_wg = SimpleNamespace(not_finite=lambda: ["", "model.embed_tokens.weight"])
    for make in (trainer._save_checkpoint, trainer._validate):
        with pytest.raises(UserError, match=r"model\.embed_tokens\.weight holds NaN or infinity at step 1"):
            make()
    trainer.actor_rollout_wg = SimpleNamespace(not_finite=lambda: ["", ""])
    trainer.check_weights()  # the control


def test_a_run_without_any_gradient_makes_its_step_the_last_and_says_so_in_its_checkpoint(trainer) -> None:
    trainer.train_dataloader = SimpleNamespace(sampler=SimpleNamespace(steps=9))
    trainer.validated = (4, {"validation/score": 0.5})
    metrics = trainer.tracking("ngrpo", "run", ["console"], {})
    for step, last in ((3, False), (4, True)):
        trainer.global_steps = step
        trainer.checked_update({"actor/grad_norm": [0.0, 0.0], "actor/lr": 0.1})  # as verl has them
        assert trainer.saves_now(max_steps_duration=1.0, redundant_time=0) == last
    assert trainer.train_dataloader.sampler.steps == 4
    (trainer.files.checkpoints / "global_step_4").mkdir(parents=True)
    trainer.written = trainer.last_called["compute_advantage"] = 4
    metrics.log({"actor/lr": 1.0}, step=4)
    card = read_json(trainer.files.checkpoints / "checkpoint.json")
    assert card["ended"] == "no policy gradient in 2 steps in a row"
    assert '"validation/score": 0.5' in trainer.files.metrics.read_text()


def test_the_data_end_where_a_run_does() -> None:
    from ngrpo.training.verl.problems import Order

    config = SimpleNamespace(train_batch_size=2, ngrpo=SimpleNamespace(seed=1, steps=5))
    whole = list(Order(range(6), config))
    assert len(whole) == 10
    order = Order(range(6), config)
    drawn = []
    for index in order:
        drawn.append(index)
        if len(drawn) == 3:
            order.steps = 2
    assert drawn == whole[:4]
