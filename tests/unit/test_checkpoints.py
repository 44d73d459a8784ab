"""Checkpoints count only when they are whole and named; one trainer at a time holds a run folder. No torch needed."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ngrpo.errors import UserError
from ngrpo.files import write_json
from ngrpo.study.layout import RunFiles
from ngrpo.study.run_log import read_metrics
from ngrpo.training import lease as lease_module
from ngrpo.training.checkpoints import Checkpoints, cut_metrics
from ngrpo.training.lease import LEASE_SECONDS, Lease, check_lease
from ngrpo.training.save_schedule import SaveSchedule


def _save(checkpoints: Checkpoints, step: int) -> None:
    """What verl leaves on disk at a step, before anything is committed."""
    folder = checkpoints.folder / f"global_step_{step}" / "actor"
    folder.mkdir(parents=True)
    (folder / "model.pt").write_text(str(step))
    (checkpoints.folder / "latest_checkpointed_iteration.txt").write_text(str(step))


def _export(checkpoints: Checkpoints, step: int, score: float) -> None:
    checkpoints.best_model(step).mkdir()
    (checkpoints.best_model(step) / "model.safetensors").write_text(str(step))
    checkpoints.declare_best(score, step)


def _names(checkpoints: Checkpoints) -> set[str]:
    return {path.name for path in checkpoints.folder.iterdir()}


def _committed(run_dir: Path, spec: str = "one") -> Checkpoints:
    """A run whose step 4 is committed, with the best policy at step 2."""
    checkpoints = Checkpoints(RunFiles(run_dir), spec)
    checkpoints.prepare()
    for step, score in ((2, 0.5), (4, 0.4)):
        _save(checkpoints, step)
        if checkpoints.is_better(score):
            _export(checkpoints, step, score)
        checkpoints.commit(step)
    return checkpoints


def test_a_run_that_ended_early_stays_ended_and_a_broken_last_checkpoint_ends_it_again(tmp_path: Path) -> None:
    checkpoints = _committed(tmp_path)
    assert checkpoints.ended is None
    _save(checkpoints, 6)
    checkpoints.commit(6, ended="no gradient in 3 steps in a row")
    again = Checkpoints(RunFiles(tmp_path), "one")
    assert (again.prepare(), again.ended) == (6, "no gradient in 3 steps in a row")
    (checkpoints.folder / "global_step_6" / "actor" / "model.pt").unlink()
    broken = Checkpoints(RunFiles(tmp_path), "one")
    assert (broken.prepare(), broken.ended) == (4, None)
    assert Checkpoints(RunFiles(tmp_path), "one").ended is None


def test_a_checkpoint_whose_weights_are_no_good_is_forgotten_and_the_one_before_stays(tmp_path: Path) -> None:
    checkpoints = _committed(tmp_path)
    checkpoints.reject(3)
    assert checkpoints.step == 4  # the control: it was of another step
    checkpoints.reject(4)
    again = Checkpoints(RunFiles(tmp_path), "one")
    assert (again.prepare(), again.best) == (2, {"step": 2, "score": 0.5})
    again.reject(2)
    assert (again.step, again.best) == (0, None)
    assert Checkpoints(RunFiles(tmp_path), "one").prepare() == 0


def test_of_equal_scores_the_earlier_step_is_better_or_the_later(tmp_path: Path) -> None:
    checkpoints = _committed(tmp_path)  # the best has 0.5
    assert [checkpoints.is_better(0.5), checkpoints.is_better(0.5, "later")] == [False, True]
    assert [checkpoints.is_better(0.4, "later"), checkpoints.is_better(0.6)] == [False, True]


def test_only_the_last_two_checkpoints_and_their_best_policies_stay(tmp_path: Path) -> None:
    checkpoints = _committed(tmp_path)
    marker = "latest_checkpointed_iteration.txt"
    assert _names(checkpoints) == {"checkpoint.json", "global_step_2", "global_step_4", "best_2", marker}
    _save(checkpoints, 6)
    _export(checkpoints, 6, 0.6)
    checkpoints.commit(6)
    assert _names(checkpoints) == {"checkpoint.json", "global_step_4", "global_step_6", "best_2", "best_6", marker}
    _save(checkpoints, 8)
    checkpoints.commit(8)
    assert _names(checkpoints) == {"checkpoint.json", "global_step_6", "global_step_8", "best_6", marker}


def test_a_new_trainer_starts_from_the_last_checkpoint(tmp_path: Path) -> None:
    checkpoints = _committed(tmp_path)
    marker = "latest_checkpointed_iteration.txt"
    again = Checkpoints(RunFiles(tmp_path), "one")
    assert (again.prepare(), again.best) == (4, {"step": 2, "score": 0.5})
    assert (checkpoints.folder / marker).read_text() == "4"


def test_what_was_not_committed_was_never_there(tmp_path: Path) -> None:
    """A kill between saving and committing: neither the newer checkpoint nor the newer best policy counts."""
    checkpoints = _committed(tmp_path)
    _save(checkpoints, 6)
    _export(checkpoints, 6, 0.9)
    assert checkpoints.best_model(2).exists()
    again = Checkpoints(RunFiles(tmp_path), "one")
    assert again.prepare() == 4
    assert again.best == {"step": 2, "score": 0.5}
    left = {"checkpoint.json", "global_step_2", "global_step_4", "best_2", "latest_checkpointed_iteration.txt"}
    assert _names(again) == left
    assert (again.folder / "latest_checkpointed_iteration.txt").read_text() == "4"


def test_a_checkpoint_cut_short_is_seen_and_the_one_before_it_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = _committed(tmp_path)
    _save(checkpoints, 6)
    _export(checkpoints, 6, 0.9)
    checkpoints.commit(6)
    assert Checkpoints(RunFiles(tmp_path), "one").prepare() == 6  # whole, it is used
    (checkpoints.folder / "global_step_6" / "actor" / "model.pt").write_text("")
    again = Checkpoints(RunFiles(tmp_path), "one")
    assert again.prepare() == 4
    assert again.best == {"step": 2, "score": 0.5}
    assert "step 6 is not whole" in capsys.readouterr().out
    assert _names(again) == {"checkpoint.json", "global_step_4", "best_2", "latest_checkpointed_iteration.txt"}
    assert Checkpoints(RunFiles(tmp_path), "one").step == 4


def test_a_run_without_a_whole_checkpoint_does_not_silently_start_anew(tmp_path: Path) -> None:
    checkpoints = _committed(tmp_path)
    (checkpoints.folder / "best_2" / "model.safetensors").unlink()  # the best policy of both
    with pytest.raises(UserError, match="no checkpoint of this run is whole; the last was made at step 4"):
        Checkpoints(RunFiles(tmp_path), "one").prepare()
    assert (checkpoints.folder / "global_step_4").exists()


def test_a_full_disk_does_not_end_the_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 0.3)
    write = lease_module.write_json

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with Lease(RunFiles(tmp_path)) as lease:
        before = json.loads(lease.path.read_text())["heartbeat"]
        monkeypatch.setattr(lease_module, "write_json", full)
        time.sleep(0.2)
        monkeypatch.setattr(lease_module, "write_json", write)
        deadline = time.monotonic() + 60
        while json.loads(lease.path.read_text())["heartbeat"] <= before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert json.loads(lease.path.read_text())["heartbeat"] > before
        assert not lease.lost


def test_a_run_is_saved_so_often_and_before_its_time_is_over() -> None:
    schedule = SaveSchedule(every=100, ends=1000, now=0)
    schedule.stepped(10)
    assert not schedule.due(99)
    assert schedule.due(100)
    schedule.saved(100, 105)
    assert not schedule.due(204)
    schedule.stepped(110)  # the longest step took 100 s, a save takes 5
    latest = 1000 - 1.5 * 100 - 2 * 5 - SaveSchedule.SPARE
    schedule.stepped(latest - 1)
    assert schedule.longest_step > 100
    schedule.longest_step = 100
    assert not schedule.runs_out(latest - 1)
    assert schedule.runs_out(latest + 1)
    assert not SaveSchedule(every=100, ends=None, now=0).runs_out(1e9)


def test_a_tie_goes_to_the_earlier_step(tmp_path: Path) -> None:
    checkpoints = Checkpoints(RunFiles(tmp_path), "one")
    assert checkpoints.is_better(0.0)
    checkpoints.declare_best(0.5, 2)
    assert not checkpoints.is_better(0.5)
    assert checkpoints.is_better(0.6)


def test_another_specs_run_is_moved_aside_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        _committed(tmp_path, "old")
        (tmp_path / "metrics.jsonl").write_text("{}\n")
        new = Checkpoints(RunFiles(tmp_path), "new")
        assert (new.prepare(), new.best) == (0, None)
        assert not (tmp_path / "metrics.jsonl").exists()
        assert "another spec's run (at step 4)" in capsys.readouterr().out
        aside = tmp_path / "superseded" / ("old" if number == 0 else "old.2")
        assert (aside / "checkpoints" / "global_step_4").exists()
        assert (aside / "metrics.jsonl").exists()


def _exported(checkpoints: Checkpoints) -> Path:
    """The best policy, as a finished run exports it."""
    policy = checkpoints.run.model
    shutil.copytree(checkpoints.best_model(checkpoints.best["step"]), policy)
    (policy / "ngrpo.json").write_text("{}")
    return policy


def test_a_finished_runs_checkpoints_go_and_its_policy_stays(tmp_path: Path) -> None:
    checkpoints = _committed(tmp_path)
    policy = _exported(checkpoints)
    checkpoints.finish(policy)
    assert _names(checkpoints) == {"checkpoint.json", "best_2", "latest_checkpointed_iteration.txt"}
    best = checkpoints.best_model(2) / "model.safetensors"
    assert best.samefile(policy / "model.safetensors")  # no room beside the policy
    shutil.rmtree(policy)  # the export is lost: no step is done again for it
    again = Checkpoints(RunFiles(tmp_path), "one")
    assert (again.prepare(), again.best) == (4, {"step": 2, "score": 0.5})
    assert best.read_text() == "2"
    again.finish(_exported(again))  # and once more
    assert best.samefile(policy / "model.safetensors")


def test_checkpoints_stay_until_the_exported_policy_is_whole(tmp_path: Path) -> None:
    checkpoints = _committed(tmp_path)
    policy, before = _exported(checkpoints), _names(checkpoints)
    (policy / "model.safetensors").write_text("")
    with pytest.raises(UserError, match=r"isn't whole: model\.safetensors has 0 of 1 bytes"):
        checkpoints.finish(policy)
    assert _names(checkpoints) == before
    assert Checkpoints(RunFiles(tmp_path), "one").prepare() == 4


def test_without_hard_links_the_policy_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = _committed(tmp_path)

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    checkpoints.finish(_exported(checkpoints))
    assert _names(checkpoints) == {"checkpoint.json", "best_2", "latest_checkpointed_iteration.txt"}
    assert (checkpoints.best_model(2) / "model.safetensors").read_text() == "2"


def test_a_run_on_other_data_or_another_base_model_is_moved_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = {"base model": "a", "training data": "b"}
    _committed(tmp_path)  # as before inputs were written down: it goes on
    assert Checkpoints(RunFiles(tmp_path), "one").prepare(inputs) == 4
    assert Checkpoints(RunFiles(tmp_path), "one").prepare(inputs) == 4
    again = Checkpoints(RunFiles(tmp_path), "one")
    assert (again.prepare({**inputs, "base model": "c"}), again.step, again.best) == (0, 0, None)
    assert "a run with another base model (at step 4)" in capsys.readouterr().out
    assert (tmp_path / "superseded/one/checkpoints/global_step_4").exists()


def test_metrics_of_later_steps_and_half_lines_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3)) + '{"step": 4, "rew')
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]
    cut_metrics(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_resumed_run_shows_no_step_after_its_last_checkpoint_from_its_start_on(tmp_path: Path) -> None:
    run = _committed(tmp_path).run
    run.metrics.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(1, 7)))
    assert Checkpoints(run, "one").prepare() == 4
    assert [row["step"] for row in read_metrics(run.metrics)] == [1, 2, 3, 4]


def _claim(tmp_path: Path, **changes: object) -> None:
    with Lease(RunFiles(tmp_path)) as lease:
        held = json.loads(lease.path.read_text())
    write_json(lease.path, {**held, **changes})


def test_a_living_trainer_keeps_others_out(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from ngrpo.study.layout import RunFiles\n"
        "from ngrpo.training.lease import Lease\n"
        "with Lease(RunFiles(Path(sys.argv[1]))): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"another trainer .* process {other.pid}"), Lease(RunFiles(tmp_path)):
            pass
        other.kill()
        other.wait()
        with Lease(RunFiles(tmp_path)) as lease:  # killed: its lease is there and counts no more
            assert json.loads(lease.path.read_text())["pid"] == os.getpid()
    assert not lease.path.exists()


def test_a_folder_without_hard_links_is_held_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*names: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(lease_module.os, "link", refused)
    monkeypatch.setattr(lease_module, "HALF_WRITTEN", 0.2)
    with Lease(RunFiles(tmp_path)) as lease:
        check_lease(RunFiles(tmp_path), lease.holder)
        with pytest.raises(UserError, match=f"another trainer .* process {os.getpid()}"), Lease(RunFiles(tmp_path)):
            pass
    assert not lease.path.exists()
    lease.path.touch()  # a trainer that died while it wrote its lease
    with Lease(RunFiles(tmp_path)):
        assert json.loads(lease.path.read_text())["pid"] == os.getpid()
    _claim(tmp_path, pid=os.getppid(), started="1")
    with Lease(RunFiles(tmp_path)):
        assert json.loads(lease.path.read_text())["pid"] == os.getpid()


def _beating(path: Path, stop: threading.Event) -> None:
    while not stop.wait(0.02):
        write_json(path, {**json.loads(path.read_text()), "heartbeat": time.time()})


def test_another_hosts_lease_holds_while_it_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 3.0)
    _claim(tmp_path, host="elsewhere", heartbeat=time.time())
    stop = threading.Event()
    beating = threading.Thread(target=_beating, args=(RunFiles(tmp_path).lease, stop))
    beating.start()
    try:
        with pytest.raises(UserError, match="on elsewhere"), Lease(RunFiles(tmp_path)):
            pass
    finally:
        stop.set()
        beating.join()
    began = time.monotonic()
    with Lease(RunFiles(tmp_path)):  # now it stands still: its host was lost
        assert 1.5 < time.monotonic() - began < 60


def test_another_hosts_old_lease_is_taken_at_once(tmp_path: Path) -> None:
    _claim(tmp_path, host="elsewhere", heartbeat=time.time() - LEASE_SECONDS - 1)
    began = time.monotonic()
    with Lease(RunFiles(tmp_path)):
        assert time.monotonic() - began < 1


def test_a_process_that_got_a_dead_trainers_number_is_not_the_trainer(tmp_path: Path) -> None:
    _claim(tmp_path, pid=os.getppid(), started="1")
    with Lease(RunFiles(tmp_path)):
        pass


def test_a_trainer_whose_lease_was_taken_ends_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(lease_module.os, "kill", lambda *sent: signals.append(sent))
    with Lease(RunFiles(tmp_path)) as lease:
        time.sleep(0.2)
        assert not lease.lost
        deadline = time.monotonic() + 60
        while not lease.lost and time.monotonic() < deadline:  # a heartbeat may fall on the very moment
            write_json(lease.path, {**lease.holder, "job": "another", "heartbeat": time.time()})
            time.sleep(0.2)
        assert lease.lost
    assert [sent for sent in signals if sent[1] != 0] == [(os.getpid(), signal.SIGTERM)]  # 0: whether one lives
    assert lease.path.exists()  # it is the other's now


def test_who_no_longer_holds_the_folder_writes_nothing(tmp_path: Path) -> None:
    with Lease(RunFiles(tmp_path)) as lease:
        check_lease(RunFiles(tmp_path), lease.holder)
        for other in ({"pid": lease.holder["pid"] + 1}, {"host": "elsewhere"}, {"job": "77"}):
            with pytest.raises(UserError, match="no longer holds"):
                check_lease(RunFiles(tmp_path), {**lease.holder, **other})
    with pytest.raises(UserError, match="no longer holds"):
        check_lease(RunFiles(tmp_path), lease.holder)


def test_what_outlives_its_trainer_writes_nothing(tmp_path: Path) -> None:
    program = (
        "import sys, os, json; from pathlib import Path; from ngrpo.study.layout import RunFiles\n"
        "from ngrpo.training.lease import Lease\n"
        "lease = Lease(RunFiles(Path(sys.argv[1]))).__enter__()\n"
        "print(json.dumps(lease.holder), flush=True); os._exit(1)"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    with pytest.raises(UserError, match=r"process \d+, is gone"):
        check_lease(RunFiles(tmp_path), json.loads(ended.stdout))
