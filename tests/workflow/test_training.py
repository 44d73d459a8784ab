"""Training through real verl, Ray and sglang: parity and its controls, stock equality, kill and resume, every mixer.

All runs are made once, two at a time; each test looks at some of them. Six steps of eight prompts × four responses on
a tiny model with peaked outputs.
"""

import json
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import training_runs
from tiny_runs import LIMIT, MIXING, STEPS, Run, finish, make_files, make_run, tiny_spec

from ngrpo.method.rewards import rewards
from ngrpo.method.rng import derive_seed
from ngrpo.study.layout import Results, RunFiles
from ngrpo.study.mixing import GaussianMixer, GumbelMixer, MinPMixer, MultiplexMixer, NeighborMixer, NoMixer
from ngrpo.study.specs import RunSpec
from ngrpo.training.watching import watched_run

pytestmark = [pytest.mark.train, pytest.mark.verl]


def with_training(spec: RunSpec, **changes: object) -> RunSpec:
    """The run with other hyperparameters."""
    return spec.model_copy(update={"training": spec.training.model_copy(update=changes)})


RELEASED_NOISE = GaussianMixer(
    kind="gaussian", replay=False, scope="row", k=3, temperature=0.7, rho=0.5, stop_after="</think>"
)
RELEASED_GSPO = {"kind": "gspo", "dual_clip": 3.0, "clip_low": 0.2, "clip_high": 0.2, "aggregation": "token-mean"}
DAPO = {"kl_coefficient": 0, "dual_clip": 10.0, "overlong_share": 0.5, "equal_groups": "drop"}
PLANS = {
    "mixed": (tiny_spec(MIXING), "recording_requests"),
    "killed": (tiny_spec(MIXING), "whole"),
    "forgetful": (tiny_spec(MIXING, 2), "without_records"),
    "unsynced": (tiny_spec(MIXING, 3), "without_weight_sync"),
    "rho-zero": (tiny_spec(NeighborMixer(kind="neighbors", rho=0.0), 4), "whole"),
    "stock": (tiny_spec(NoMixer(), 4), "stock_actor"),
    "gaussian-gspo": (tiny_spec(GaussianMixer(kind="gaussian"), 3, kind="gspo"), "whole"),
    "unplugged": (tiny_spec(MIXING, 1), "without_plugin"),
    "actorless": (tiny_spec(MIXING, 1), "without_actor"),
    "gumbel": (tiny_spec(GumbelMixer(kind="gumbel", weights="clean", text="sampled"), 3, reward="random"), "whole"),
    "dapo": (tiny_spec(NoMixer(), 2, clip_high=0.28, aggregation="token-mean", **DAPO), "whole"),
    "min-p": (tiny_spec(MinPMixer(kind="min-p", min_p=0.2), 2), "whole"),
    "multiplex": (tiny_spec(MultiplexMixer(kind="multiplex"), 3), "whole"),
    "single": (tiny_spec(MultiplexMixer(kind="multiplex"), 2), "without_likelihood"),
    "soft-grpo": (tiny_spec(GumbelMixer(kind="gumbel", chosen_by="probability", log_prob="noise"), 3), "whole"),
    "unscored": (
        tiny_spec(GumbelMixer(kind="gumbel", chosen_by="probability", log_prob="noise"), 2),
        "without_likelihood",
    ),
    "released": (tiny_spec(RELEASED_NOISE, 2, **RELEASED_GSPO, policy_aggregation="seq-mean-token-mean"), "whole"),
    "idle": (
        with_training(tiny_spec(NeighborMixer(kind="neighbors", rho=1.0)), stop_without_gradient=3),
        "recording_requests",
    ),
    "bfloat16": (tiny_spec(MIXING, limit=None), "faults.healthy"),
    "unmixed": (tiny_spec(MIXING, 3, limit=None), "faults.unmixed"),
    "nan": (with_training(tiny_spec(MIXING), learning_rate=1e12), "whole"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model, table and problems of all runs."""
    return make_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def runs(files: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Every planned run, made two at a time."""
    root = tmp_path_factory.mktemp("study") / "runs"

    def make(name: str) -> Run:
        spec, plugin = PLANS[name]
        return make_run(root / name, spec, files, plugin=plugin, kill=name == "killed")

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(PLANS, pool.map(make, PLANS), strict=True))


@pytest.mark.parametrize(
    "name", ["mixed", "killed", "rho-zero", "stock", "gaussian-gspo", "gumbel", "multiplex", "soft-grpo", "min-p"]
)
def test_rollout_and_trainer_agree_at_every_step(runs: dict[str, Run], name: str) -> None:
    assert runs[name].code == 0, runs[name].said
    metrics = runs[name].metrics
    assert [row["step"] for row in metrics] == list(range(1, PLANS[name][0].training.steps + 1))
    assert max(row["parity/max"] for row in metrics) <= 1e-4
    assert max(row["parity/mean"] for row in metrics) <= 5e-6


def test_runs_leave_no_shared_memory(runs: dict[str, Run]) -> None:
    """On a CPU torch hands weights on there by name; killed and failed runs are among these."""
    logs = {name: RunFiles(run.folder).train_log.read_text(errors="replace") for name, run in runs.items()}
    workers = {name: re.findall(r"^==> worker-\S+-(\d+)\.", log, re.MULTILINE) for name, log in logs.items()}
    assert all(workers.values()), workers
    assert [path for pids in workers.values() for pid in pids for path in Path("/dev/shm").glob(f"torch_{pid}_*")] == []


def test_as_many_steps_are_mixed_as_asked(runs: dict[str, Run]) -> None:
    def share(name: str) -> float:
        return sum(row["mixing/share"] for row in runs[name].metrics) / len(runs[name].metrics)

    assert share("mixed") == pytest.approx(0.5, abs=0.04)
    assert share("rho-zero") == share("stock") == 0
    assert share("gaussian-gspo") == share("gumbel") == 1


def test_rewards_vary_so_that_updates_do_something(runs: dict[str, Run]) -> None:
    for name in ("mixed", "rho-zero", "gaussian-gspo"):
        assert 0 < sum(row["reward/mean"] for row in runs[name].metrics) < len(runs[name].metrics)
        assert max(abs(row["policy/loss"]) for row in runs[name].metrics) > 0


def test_a_control_is_rewarded_as_it_says(runs: dict[str, Run]) -> None:
    spec = PLANS["gumbel"][0]
    rows = torch.arange(spec.training.batch_prompts * spec.training.group)
    for row in runs["gumbel"].metrics:
        seed = torch.tensor([derive_seed(spec.seed, "rollout", row["step"], number) for number in rows.tolist()])
        assert row["reward/control"] == pytest.approx(float(rewards("random", rows, rows, seed).mean()))
        assert row["reward/control"] != row["reward/mean"]
    assert all("reward/control" not in row for row in runs["mixed"].metrics)


def test_mixing_cosines_are_logged(runs: dict[str, Run]) -> None:
    for row in runs["mixed"].metrics:
        assert 0 < row["mixing/cosine_min"] <= row["mixing/cosine_mean"] <= 1
        assert 0 <= row["mixing/cosine_below_0.95"] <= 1


def _difference(run: Run) -> float:
    words = run.said.split("the largest difference of a log-prob is ")[1]
    return float(words.split()[0])


def test_dropped_records_stop_the_run_at_its_first_step(runs: dict[str, Run]) -> None:
    run = runs["forgetful"]
    assert run.code == 1
    assert "step 1" in run.said
    assert "rollout and trainer disagree" in run.said
    assert "Traceback" not in run.said
    assert _difference(run) > 0.1
    assert run.metrics == []


@pytest.mark.parametrize("name", ["single", "unscored"])
def test_a_likelihood_of_the_written_tokens_alone_stops_the_run(runs: dict[str, Run], name: str) -> None:
    assert runs[name].code != 0
    assert "rollout and trainer disagree" in runs[name].said
    assert not runs[name].metrics


def test_a_dropped_weight_sync_stops_the_run_at_its_second_step(runs: dict[str, Run]) -> None:
    run = runs["unsynced"]
    assert run.code == 1
    assert "step 2" in run.said
    assert "the engine missed an update" in run.said
    assert [row["step"] for row in run.metrics] == [1]


def test_bfloat16s_rounding_stops_no_run_and_a_graph_that_does_not_mix_does(runs: dict[str, Run]) -> None:
    """The other faults in bfloat16: tests/workflow/test_guards.py."""
    assert runs["bfloat16"].code == 0, runs["bfloat16"].said
    assert max(row["parity/max"] for row in runs["bfloat16"].metrics) > LIMIT
    assert runs["unmixed"].code == 1
    assert "rollout and trainer disagree" in runs["unmixed"].said
    assert [row["step"] for row in runs["unmixed"].metrics] == [1]


def test_a_replacement_that_does_not_take_stops_the_run_before_its_first_step(runs: dict[str, Run]) -> None:
    """All of them in verl's task runner, or one in its workers: nothing is silently stock."""
    for name, stock in (("unplugged", "ray_trainer.RayPPOTrainer"), ("actorless", "actor.DataParallelPPOActor")):
        assert runs[name].code == 1
        assert "these are stock, not ours" in runs[name].said
        assert stock in runs[name].said
        assert runs[name].metrics == []


def test_validation_never_mixes(runs: dict[str, Run]) -> None:
    """Every request that reached sglang says by what it is mixed; the control: the rollouts of the same run are."""
    kinds = {"rollout": set(), "validation": set()}
    for line in (runs["mixed"].folder / "requests.jsonl").read_text().splitlines():
        (request,) = json.loads(line).values()
        kinds[request["batch"][0].split("-")[0]].add(request["mixer"]["kind"])
    assert kinds == {"rollout": {"neighbors"}, "validation": {"none"}}


def test_a_run_on_one_node_listens_on_its_loopback_address_alone(runs: dict[str, Run]) -> None:
    addresses = json.loads((runs["mixed"].folder / "listening.json").read_text())
    assert addresses
    assert {address.removeprefix("::ffff:") for address in addresses} <= {"127.0.0.1", "::1"}


def test_rho_zero_is_stock_verl_bit_for_bit(runs: dict[str, Run]) -> None:
    """Stock: verl's own actor, no mixer; both with the accelerator module's shims and seeded draws."""
    assert runs["rho-zero"].weights == runs["stock"].weights
    assert runs["mixed"].weights != runs["stock"].weights


def test_a_killed_run_resumes_to_the_same_bytes(runs: dict[str, Run]) -> None:
    undisturbed, killed = runs["mixed"], runs["killed"]
    assert "resuming after step" in killed.said
    assert killed.weights == undisturbed.weights

    def science(run: Run) -> list[dict]:
        return [{k: v for k, v in row.items() if not k.startswith("seconds/")} for row in run.metrics]

    assert science(killed) == science(undisturbed)


def test_a_killed_and_resumed_run_is_watched_truly(runs: dict[str, Run]) -> None:
    killed = runs["killed"]
    assert killed.after_kill is not None
    assert (killed.after_kill.state, killed.after_kill.ends) == ("killed", None)
    assert 2 <= killed.after_kill.done < STEPS
    now = watched_run(Results(killed.folder.parent.parent), "killed", PLANS["killed"][0])
    assert (now.state, now.done, now.steps) == ("finished", STEPS, STEPS)
    assert {"rollout", "update"} <= dict(now.phases).keys()
    page = Results(killed.folder.parent.parent).report.live.read_text()
    assert '<th scope="row">killed</th><td>finished</td><td>6 of 6</td>' in page
    assert '<th scope="row">nan</th><td>failed' in page


def test_the_best_checkpoint_is_the_one_with_the_best_validation_score(runs: dict[str, Run]) -> None:
    run = runs["mixed"]
    scores = {row["step"]: row["validation/score"] for row in run.metrics if "validation/score" in row}
    assert set(scores) == {2, 4, 6}
    card = json.loads((run.folder / "model" / "ngrpo.json").read_text())
    assert card["score"] == max(scores.values())
    assert card["step"] == min(step for step, score in scores.items() if score == card["score"])


def test_a_run_that_cannot_learn_warns_and_ends_early(runs: dict[str, Run], files: Path) -> None:
    """At ρ = 1 with the anchor as text; the control: the run beside it at ρ = 0.5 learns."""
    idle, mixed = runs["idle"], runs["mixed"]
    assert idle.code == 0, idle.said
    assert "WARNING, step 1: nothing can be learned" in idle.said
    assert "all responses to each prompt are identical" in idle.said
    for row in idle.metrics:
        assert row["reward/frac_reward_zero_std"] == row["response/frac_identical"] == 1
    assert [row["step"] for row in idle.metrics] == [1, 2, 3]  # of 6; 3 is no step that is validated otherwise
    assert "validation/score" in idle.metrics[-1]
    card = json.loads((idle.folder / "model" / "ngrpo.json").read_text())
    assert card["ended"] == "no policy gradient in 3 steps in a row"
    assert min(row["response/frac_identical"] for row in mixed.metrics) < 1
    card = json.loads((mixed.folder / "model" / "ngrpo.json").read_text())
    assert (card.get("ended"), card["equals_base"]) == (None, False)
    again = finish(training_runs.start(idle.folder / "spec.json", files, idle.folder / "model"), idle.folder)
    assert again.code == 0
    assert len(again.metrics) == 3


def test_nan_is_called_nan_is_not_saved_and_is_said_again(runs: dict[str, Run], files: Path) -> None:
    nan = runs["nan"]
    assert nan.code == 1
    failure = json.loads((nan.folder / "failure.json").read_text())
    assert f"{failure['what']} at step {failure['step']}; nothing of it is saved" in nan.said
    assert any(word in failure["what"] for word in ("NaN", "inf"))
    assert "Traceback" not in nan.said
    assert len(nan.metrics) < failure["step"]
    marker = nan.folder / "checkpoints" / "checkpoint.json"
    assert not marker.exists() or json.loads(marker.read_text())["step"] < failure["step"]
    again = finish(training_runs.start(nan.folder / "spec.json", files, nan.folder / "model"), nan.folder)
    assert again.code == 1
    assert f"this run was stopped at step {failure['step']}: {failure['what']}" in again.said


def test_released_noise_is_drawn_anew_and_asks_for_no_parity(runs: dict[str, Run]) -> None:
    run = runs["released"]
    assert run.code == 0, run.said
    assert max(row["parity/max"] for row in run.metrics) > 100 * LIMIT
    share = sum(row["mixing/share"] for row in run.metrics) / 2
    assert share == pytest.approx(0.2, abs=0.1)  # half of the steps before `</think>`


def test_gspo_clips_with_its_own_narrow_range(runs: dict[str, Run]) -> None:
    assert max(row["policy/clipped"] for row in runs["gaussian-gspo"].metrics) > 0


def test_a_finished_run_is_not_trained_again(runs: dict[str, Run], files: Path) -> None:
    """Nor though its checkpoints are gone and its policy is lost: the best one stays, and takes no room of its own."""
    folder = runs["mixed"].folder
    assert not list((folder / "checkpoints").glob("global_step_*"))
    (best,) = (folder / "checkpoints").glob("best_*/model.safetensors")
    assert best.samefile(folder / "model" / "model.safetensors")
    weights = best.read_bytes()
    shutil.rmtree(folder / "model")
    before = (folder / "metrics.jsonl").read_bytes()
    began = time.monotonic()
    again = finish(training_runs.start(folder / "spec.json", files, folder / "model"), folder)
    assert again.code == 0
    assert (folder / "metrics.jsonl").read_bytes() == before
    assert again.weights == weights
    assert time.monotonic() - began < 60
