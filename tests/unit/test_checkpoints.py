"""Checkpoints count only when they are whole and named; one trainer at a time holds a run folder. No torch needed."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ngrpo.errors import UserError
from ngrpo.files import write_json
from ngrpo.training import checkpoints
from ngrpo.training.checkpoints import Checkpoints, Lease, check_lease
from ngrpo.training.save_schedule import Clock
from ngrpo.training.verl.monitor import cut_metrics, read_metrics


def _save(kept: Checkpoints, step: int) -> None:
    """What verl leaves on disk at a step, before anything is committed."""
    folder = kept.folder / f"global_step_{step}" / "actor"
    folder.mkdir(parents=True)
    (folder / "model.pt").write_text(str(step))
    (kept.folder / "latest_checkpointed_iteration.txt").write_text(str(step))


def _export(kept: Checkpoints, step: int, score: float) -> None:
    kept.best_model(step).mkdir()
    (kept.best_model(step) / "model.safetensors").write_text(str(step))
    kept.declare_best(score, step)


def _names(kept: Checkpoints) -> set[str]:
    return {path.name for path in kept.folder.iterdir()}


def _committed(run_dir: Path, spec: str = "one") -> Checkpoints:
    """A run whose step 4 is committed, with the best policy at step 2."""
    kept = Checkpoints(run_dir, spec)
    kept.prepare()
    for step, score in ((2, 0.5), (4, 0.4)):
        _save(kept, step)
        if kept.is_better(score):
            _export(kept, step, score)
        kept.commit(step)
    return kept


def test_only_the_last_two_checkpoints_and_their_best_policies_stay(tmp_path: Path) -> None:
    kept = _committed(tmp_path)
    marker = "latest_checkpointed_iteration.txt"
    assert _names(kept) == {"checkpoint.json", "global_step_2", "global_step_4", "best_2", marker}
    _save(kept, 6)
    _export(kept, 6, 0.6)
    kept.commit(6)
    assert _names(kept) == {"checkpoint.json", "global_step_4", "global_step_6", "best_2", "best_6", marker}
    _save(kept, 8)
    kept.commit(8)
    assert _names(kept) == {"checkpoint.json", "global_step_6", "global_step_8", "best_6", marker}


def test_a_new_trainer_starts_from_the_last_checkpoint(tmp_path: Path) -> None:
    kept = _committed(tmp_path)
    marker = "latest_checkpointed_iteration.txt"
    again = Checkpoints(tmp_path, "one")
    assert (again.prepare(), again.best) == (4, {"step": 2, "score": 0.5})
    assert (kept.folder / marker).read_text() == "4"


def test_what_was_not_committed_was_never_there(tmp_path: Path) -> None:
    """A kill between saving and committing: neither the newer checkpoint nor the newer best policy counts."""
    kept = _committed(tmp_path)
    _save(kept, 6)
    _export(kept, 6, 0.9)
    assert kept.best_model(2).exists()
    again = Checkpoints(tmp_path, "one")
    assert again.prepare() == 4
    assert again.best == {"step": 2, "score": 0.5}
    left = {"checkpoint.json", "global_step_2", "global_step_4", "best_2", "latest_checkpointed_iteration.txt"}
    assert _names(again) == left
    assert (again.folder / "latest_checkpointed_iteration.txt").read_text() == "4"


def test_a_checkpoint_cut_short_is_seen_and_the_one_before_it_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = _committed(tmp_path)
    _save(kept, 6)
    _export(kept, 6, 0.9)
    kept.commit(6)
    assert Checkpoints(tmp_path, "one").prepare() == 6  # whole, it is used
    (kept.folder / "global_step_6" / "actor" / "model.pt").write_text("")
    again = Checkpoints(tmp_path, "one")
    assert again.prepare() == 4
    assert again.best == {"step": 2, "score": 0.5}
    assert "step 6 is not whole" in capsys.readouterr().out
    assert _names(again) == {"checkpoint.json", "global_step_4", "best_2", "latest_checkpointed_iteration.txt"}
    assert Checkpoints(tmp_path, "one").step == 4


def test_a_run_without_a_whole_checkpoint_does_not_silently_start_anew(tmp_path: Path) -> None:
    kept = _committed(tmp_path)
    (kept.folder / "best_2" / "model.safetensors").unlink()  # the best policy of both
    with pytest.raises(UserError, match="no checkpoint of this run is whole; the last was made at step 4"):
        Checkpoints(tmp_path, "one").prepare()
    assert (kept.folder / "global_step_4").exists()


def test_a_full_disk_does_not_end_the_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "LEASE_SECONDS", 0.3)
    write = checkpoints.write_json

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with Lease(tmp_path) as lease:
        before = json.loads(lease.path.read_text())["heartbeat"]
        monkeypatch.setattr(checkpoints, "write_json", full)
        time.sleep(0.2)
        monkeypatch.setattr(checkpoints, "write_json", write)
        time.sleep(0.2)
        assert json.loads(lease.path.read_text())["heartbeat"] > before
        assert not lease.lost


def test_a_run_is_saved_so_often_and_before_its_time_is_over() -> None:
    clock = Clock(every=100, ends=1000, now=0)
    clock.stepped(10)
    assert not clock.due(99)
    assert clock.due(100)
    clock.saved(100, 105)
    assert not clock.due(204)
    clock.stepped(110)  # the longest step took 100 s, a save takes 5
    latest = 1000 - 1.5 * 100 - 2 * 5 - Clock.SPARE
    clock.stepped(latest - 1)
    assert clock.longest_step > 100
    clock.longest_step = 100
    assert not clock.runs_out(latest - 1)
    assert clock.runs_out(latest + 1)
    assert not Clock(every=100, ends=None, now=0).runs_out(1e9)


def test_a_tie_goes_to_the_earlier_step(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, "one")
    assert kept.is_better(0.0)
    kept.declare_best(0.5, 2)
    assert not kept.is_better(0.5)
    assert kept.is_better(0.6)


def test_another_specs_run_is_moved_aside_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        _committed(tmp_path, "old")
        (tmp_path / "metrics.jsonl").write_text("{}\n")
        new = Checkpoints(tmp_path, "new")
        assert (new.prepare(), new.best) == (0, None)
        assert not (tmp_path / "metrics.jsonl").exists()
        assert "another spec's run (at step 4)" in capsys.readouterr().out
        aside = tmp_path / "superseded" / ("old" if number == 0 else "old.2")
        assert (aside / "checkpoints" / "global_step_4").exists()
        assert (aside / "metrics.jsonl").exists()


def test_metrics_of_later_steps_and_half_lines_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3)) + '{"step": 4, "rew')
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]
    cut_metrics(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def _claim(tmp_path: Path, **changes: object) -> None:
    with Lease(tmp_path) as lease:
        held = json.loads(lease.path.read_text())
    write_json(lease.path, {**held, **changes})


def test_a_living_trainer_keeps_others_out(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from ngrpo.training.checkpoints import Lease\n"
        "with Lease(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"another trainer .* process {other.pid}"), Lease(tmp_path):
            pass
        other.kill()
        other.wait()
        with Lease(tmp_path) as lease:  # killed: its lease is there and counts no more
            assert json.loads(lease.path.read_text())["pid"] == os.getpid()
    assert not lease.path.exists()


def _beating(path: Path, stop: threading.Event) -> None:
    while not stop.wait(0.02):
        write_json(path, {**json.loads(path.read_text()), "heartbeat": time.time()})


def test_another_hosts_lease_holds_while_it_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "LEASE_SECONDS", 0.6)
    _claim(tmp_path, host="elsewhere", heartbeat=time.time())
    stop = threading.Event()
    beating = threading.Thread(target=_beating, args=(tmp_path / "lease.json", stop))
    beating.start()
    try:
        with pytest.raises(UserError, match="on elsewhere"), Lease(tmp_path):
            pass
    finally:
        stop.set()
        beating.join()
    began = time.monotonic()
    with Lease(tmp_path):  # now it stands still: its host was lost
        assert 0.3 < time.monotonic() - began < 5


def test_another_hosts_old_lease_is_taken_at_once(tmp_path: Path) -> None:
    _claim(tmp_path, host="elsewhere", heartbeat=time.time() - checkpoints.LEASE_SECONDS - 1)
    began = time.monotonic()
    with Lease(tmp_path):
        assert time.monotonic() - began < 1


def test_a_process_that_got_a_dead_trainers_number_is_not_the_trainer(tmp_path: Path) -> None:
    _claim(tmp_path, pid=os.getppid(), started="1")
    with Lease(tmp_path):
        pass


def test_a_trainer_whose_lease_was_taken_ends_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr(checkpoints, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(checkpoints.os, "kill", lambda *sent: signals.append(sent))
    with Lease(tmp_path) as lease:
        time.sleep(0.2)
        assert not lease.lost
        write_json(lease.path, {**lease.me, "job": "another", "heartbeat": time.time()})
        time.sleep(0.2)
        assert lease.lost
    assert [pid for pid, _ in signals] == [os.getpid()]
    assert lease.path.exists()  # it is the other's now


def test_who_no_longer_holds_the_folder_writes_nothing(tmp_path: Path) -> None:
    with Lease(tmp_path) as lease:
        check_lease(tmp_path, lease.me)
        for other in ({"pid": lease.me["pid"] + 1}, {"host": "elsewhere"}, {"job": "77"}):
            with pytest.raises(UserError, match="no longer holds"):
                check_lease(tmp_path, {**lease.me, **other})
    with pytest.raises(UserError, match="no longer holds"):
        check_lease(tmp_path, lease.me)


def test_what_outlives_its_trainer_writes_nothing(tmp_path: Path) -> None:
    program = (
        "import sys, os, json; from pathlib import Path; from ngrpo.training.checkpoints import Lease;"
        "lease = Lease(Path(sys.argv[1])).__enter__(); print(json.dumps(lease.me), flush=True); os._exit(1)"
    )
    said = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    with pytest.raises(UserError, match=r"process \d+, is gone"):
        check_lease(tmp_path, json.loads(said.stdout))
