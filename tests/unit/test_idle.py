"""A run that can't learn says so, and one in which something is no finite number says which, at which step."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ngrpo.errors import UserError
from ngrpo.study.layout import RunFiles
from ngrpo.study.run_log import read_metrics
from ngrpo.training.idle import GRADIENT, IDENTICAL, ZERO_STD, IdleSteps, same_weights, warning

pytestmark = pytest.mark.train


def idle(limit: int, norms: list[float | None]) -> IdleSteps:
    return IdleSteps(limit, [{} if norm is None else {GRADIENT: norm} for norm in norms])


def test_a_run_ends_after_so_many_steps_in_a_row_without_any_gradient() -> None:
    assert not idle(3, [0.0, 0.0]).over
    assert idle(3, [0.0, 0.0, 0.0]).over
    assert idle(3, [0.5, 0.0, 0.0, 0.0]).why == "no policy gradient in 3 steps in a row"
    assert not idle(3, [0.0, 0.0, 1e-12, 0.0]).over  # the least gradient is one
    assert not idle(3, [0.0, None, 0.0, 0.0]).over
    assert not idle(0, [0.0] * 99).over


def test_a_step_without_any_advantage_has_no_policy_gradient_whatever_the_kl_terms_rounding_gives() -> None:
    rounding = {ZERO_STD: 1.0, GRADIENT: 1e-8}
    assert IdleSteps(3, [rounding] * 3).over
    assert not IdleSteps(3, [{**rounding, ZERO_STD: 0.98}] * 3).over


def test_the_first_step_from_which_nothing_can_be_learned_is_warned_of() -> None:
    assert warning({ZERO_STD: 0.9, IDENTICAL: 1.0}) == ""
    assert warning({}) == ""  # a log of before
    assert "each group got one reward" in warning({ZERO_STD: 1.0, IDENTICAL: 0.5})
    assert "all responses to each prompt are identical" in warning({ZERO_STD: 1.0, IDENTICAL: 1.0})


def saved(folder: Path, **tensors: torch.Tensor) -> Path:
    from safetensors.torch import save_file

    folder.mkdir()
    names = list(tensors)
    for number, part in enumerate((names[::2], names[1::2])):  # in two files, as large models are
        save_file({name: tensors[name] for name in part}, folder / f"model-{number}.safetensors")
    return folder


def test_weights_are_the_bases_to_the_last_bit_or_they_are_not(tmp_path: Path) -> None:
    a, b = torch.randn(5, 3), torch.randn(4)
    base = saved(tmp_path / "base", a=a, b=b)
    assert same_weights(saved(tmp_path / "same", a=a, b=b), base)
    assert same_weights(saved(tmp_path / "tied", a=a), base)
    assert not same_weights(saved(tmp_path / "moved", a=a, b=torch.nextafter(b, b + 1)), base)
    assert not same_weights(saved(tmp_path / "nan", a=a, b=b * math.nan), base)
    assert not same_weights(saved(tmp_path / "other", c=a), base)


def batch(rewards: list[float], texts: list[list[int]], group: int = 2):
    """A batch as verl's trainer has it: padded responses, their rewards at the last token, a uid a prompt."""
    width = max(map(len, texts))
    mask = torch.tensor([[i < len(t) for i in range(width)] for t in texts])
    responses = torch.tensor([t + [0] * (width - len(t)) for t in texts])
    scores = torch.zeros(len(texts), width)
    scores[:, 0] = torch.tensor(rewards)
    uid = np.array([f"uid-{i // group}" for i in range(len(texts))], dtype=object)
    order = np.random.default_rng(1).permutation(len(texts))  # verl sorts responses by length: groups are scattered
    tensors = {"responses": responses, "response_mask": mask.long(), "token_level_rewards": scores}
    return SimpleNamespace(batch={k: v[order] for k, v in tensors.items()}, non_tensor_batch={"uid": uid[order]})


def test_groups_of_one_reward_and_repeated_responses_are_counted_within_their_group() -> None:
    from ngrpo.training.verl.monitor import group_metrics

    one = group_metrics(batch([1, 1, 0, 1, 0, 0], [[5, 6], [5, 6], [5, 6], [7], [8, 9], [8, 9, 4]]))
    assert one["reward/frac_reward_zero_std"] == pytest.approx(2 / 3)
    assert one["response/frac_identical"] == pytest.approx(2 / 6)  # the third repeats another prompt's
    same = group_metrics(batch([1, 1, 0, 0], [[5], [5], [6, 7], [6, 7]]))
    assert same == {"reward/frac_reward_zero_std": 1.0, "response/frac_identical": 1.0}


def log_probs(rollout: list[float], old: list[float]):
    tensors = {"rollout_log_probs": torch.tensor([rollout]), "old_log_probs": torch.tensor([old])}
    mask = torch.tensor([[1, 1, 0]])
    return SimpleNamespace(batch={**tensors, "response_mask": mask})


def test_what_is_no_finite_number_is_called_by_its_name() -> None:
    from ngrpo.training.verl.monitor import log_probs_not_finite, update_not_finite

    assert log_probs_not_finite(log_probs([-1.0, -2.0, math.nan], [-1.0, -2.0, math.nan])) == ""  # padding
    assert (
        log_probs_not_finite(log_probs([-1.0, math.nan, 0], [0.0, 0, 0])) == "the rollout's log-prob of a token is NaN"
    )
    assert (
        log_probs_not_finite(log_probs([0.0, 0, 0], [-math.inf, 0, 0])) == "the trainer's log-prob of a token is -inf"
    )
    fine = {"actor/pg_loss": [0.1, -0.2], "actor/grad_norm": [0.0, 3.0], "actor/lr": 1e-6, "perf/max": "of no interest"}
    assert update_not_finite(fine) == ""
    assert update_not_finite({**fine, "actor/pg_loss": [0.1, math.nan]}) == "policy/loss of an update is NaN"
    assert update_not_finite({**fine, "actor/grad_norm": [math.inf]}) == "policy/gradient_norm of an update is inf"


def test_a_value_that_is_no_finite_number_is_not_left_out_of_the_log(tmp_path: Path) -> None:
    from ngrpo.training.verl.monitor import MetricsFile

    file = MetricsFile(RunFiles(tmp_path), {})
    file.log({"actor/kl_loss": 0.5}, step=1)
    with pytest.raises(UserError, match=r"(?s)policy/kl is NaN.*step 2"):
        file.log({"actor/kl_loss": math.nan}, step=2)
    assert [row["step"] for row in read_metrics(RunFiles(tmp_path).metrics)] == [1]


def test_the_same_command_says_again_what_happened_and_another_spec_forgets_it(tmp_path: Path) -> None:
    from ngrpo.files import write_json
    from ngrpo.training.launch import refuse_after_failure

    run = RunFiles(tmp_path)
    write_json(run.failure, {"spec": "one", "step": 7, "what": "policy/loss of an update is NaN"})
    with pytest.raises(UserError, match=r"(?s)step 7: policy/loss of an update is NaN.*step 4.*delete this file"):
        refuse_after_failure(run, SimpleNamespace(digest="one"), 4)
    assert run.failure.exists()
    refuse_after_failure(run, SimpleNamespace(digest="two"), 4)
    assert not run.failure.exists()
