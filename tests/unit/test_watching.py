"""What `ngrpo watch` and the live page say of a run is what its folder says: running, killed, resumed, finished."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from synthetic_study import make_study

from ngrpo.files import write_json
from ngrpo.study.layout import Results
from ngrpo.training import live_page
from ngrpo.training.lease import LEASE_SECONDS, Lease
from ngrpo.training.watching import RECENT, phases, watch_text, watched, watched_run

RUN = "ngrpo-toy"


@pytest.fixture
def study(tmp_path: Path):
    """A toy study; its run RUN is at step 40 of 100 and nobody trains it."""
    made, results = make_study(tmp_path, problems=1), Results(tmp_path / "toy")
    files = results.run(RUN)
    files.model_card.unlink()
    rows = [json.loads(line) for line in files.metrics.read_text().splitlines()[:40]]
    timed = [{**row, "seconds/step": 2.0, "seconds/rollout": 0.5, "seconds/update": 1.2} for row in rows]
    files.metrics.write_text("".join(json.dumps(row) + "\n" for row in timed))
    return made, results


def state(study, results: Results):
    return watched_run(results, RUN, study.runs[RUN])


def test_a_run_goes_from_running_over_killed_and_resumed_to_finished(study) -> None:
    made, results = study
    files = results.run(RUN)
    assert state(*study).state == "stopped"
    with Lease(files) as lease:
        running = state(*study)
        left = json.loads(lease.path.read_text())
    assert (running.state, running.done, running.steps, running.seconds) == ("running", 40, 100, 2.0)
    assert running.ends == pytest.approx(time.time() + 120, abs=20)
    write_json(files.lease, {**left, "pid": os.getppid(), "started": "1", "heartbeat": time.time() - 30})
    killed = state(*study)
    assert (killed.state, killed.ends, killed.done) == ("killed", None, 40)
    assert "no sign of life for 30" in killed.note
    lines = files.metrics.read_text().splitlines(keepends=True)
    files.metrics.write_text("".join(lines[:20]) + lines[20][:30])  # resumed at its checkpoint; a line is being written
    with Lease(files):
        resumed = state(*study)
    assert (resumed.state, resumed.done, len(resumed.reward)) == ("running", 20, 20)
    write_json(files.model_card, {"spec": made.runs[RUN].digest, "step": 20, "score": 0.5, "steps": 100})
    assert state(*study).state == "finished"


def test_another_hosts_trainer_lives_while_its_lease_beats(study) -> None:
    files = study[1].run(RUN)
    held = {"host": "elsewhere", "pid": 1, "started": "1", "job": "7"}
    write_json(files.lease, {**held, "heartbeat": time.time() - LEASE_SECONDS / 2})
    assert state(*study).state == "running"
    write_json(files.lease, {**held, "heartbeat": time.time() - LEASE_SECONDS - 1})
    assert state(*study).state == "killed"


def test_a_failed_and_a_strange_run_are_named(study) -> None:
    made, results = study
    files = results.run(RUN)
    write_json(files.failure, {"spec": made.runs[RUN].digest, "step": 41, "what": "policy/loss is NaN"})
    assert (state(*study).state, state(*study).note) == ("failed", "policy/loss is NaN at step 41")
    files.metrics.write_text('{"step": "x"}\n')
    assert state(*study).state == "unreadable"
    files.spec.write_text("{}")
    assert [run.state for run in watched(results) if run.id == RUN] == ["unreadable"]
    assert RUN in watch_text(watched(results))


def test_phases_are_means_of_a_step_and_add_up_to_it(study) -> None:
    parts = dict(state(*study).phases)
    assert parts == pytest.approx({"rollout": 0.5, "update": 1.2, "other": 0.3})
    assert phases([]) == ()
    rows = [{"seconds/step": 1.0 + (i >= RECENT)} for i in range(2 * RECENT)]
    assert dict(phases(rows)) == {"other": 1.5}


def test_the_terminal_has_state_step_reward_mismatch_seconds_and_end(study) -> None:
    made, results = study
    with Lease(results.run(RUN)):
        said = watch_text(watched(results, made.runs))
    head, _, *lines = said.splitlines()
    for word in ("run", "state", "step", "reward", "mismatch", "s/step", "ends about"):
        assert word in head
    (line,) = [line for line in lines if line.startswith(f"{RUN} ")]
    for word in ("running", "40/100", "2.0e-07", "2.0"):
        assert word in line
    assert f"{RUN}: a step is rollout 25%, update 60%, other 15%" in said


def test_runs_that_have_not_begun_are_counted(study, tmp_path: Path) -> None:
    made, results = study
    others = Results(tmp_path / "elsewhere")
    assert watch_text(watched(others, made.runs)) == f"{len(made.runs)} not started"
    shutil.rmtree(results.run("grpo-toy").folder)
    said = watch_text(watched(results, made.runs))
    assert said.endswith("1 more not started")
    assert "\ngrpo-toy " not in said


def test_the_live_page_says_the_same_renews_itself_and_tells_its_age(study, monkeypatch) -> None:
    _, results = study
    monkeypatch.setattr(live_page, "EVERY", 0.05)
    with live_page.live_page(results), Lease(results.run(RUN)):
        deadline = time.monotonic() + 20
        while not (results.report.live.exists() and "<td>running" in results.report.live.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        running = results.report.live.read_text()
    assert 'http-equiv="refresh"' in running
    assert "40 of 100" in running
    assert "rollout 0.5 s, update 1.2 s, other 0.3 s" in running
    after = results.report.live.read_text()
    assert "<td>running" not in after
    assert "<td>stopped" in after
    assert "is old" in after
    assert "http://" not in after.replace("http://www.w3.org", "")


def test_foreign_names_are_text_on_the_live_page(study) -> None:
    _, results = study
    folder = results.run("<script>alert(1)</script>".replace("/", "")).folder
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text("{}")
    live_page.write_live_page(results)
    assert "<script>alert" not in results.report.live.read_text()
