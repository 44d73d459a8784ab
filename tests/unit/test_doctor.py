"""`ngrpo doctor`: real runs on this machine, and environments, clusters and GPUs that are pretended outside of it."""

import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hub_cache import fill_cache

from ngrpo import doctor
from ngrpo.doctor import environments, machine, outside
from ngrpo.doctor.checks import SCALES
from ngrpo.study.expand import load_study
from ngrpo.study.layout import Results

PROJECT = Path(__file__).resolve().parents[2]
A100 = "NVIDIA A100-SXM4-80GB, 81920, 550.54.15, 8.0"


def run(*arguments: str, program: tuple[str, ...] = ("-m", "ngrpo"), **environment: str) -> subprocess.CompletedProcess:
    """The doctor as a user starts it, in the project's folder; the hub is offline unless output otherwise."""
    known = {**os.environ, "PYTHONPATH": str(PROJECT / "workflow"), "HF_HUB_OFFLINE": "1", **environment}
    command = [sys.executable, *program, *(("doctor",) if program[-1] == "ngrpo" else ()), *arguments]
    return subprocess.run(command, cwd=PROJECT, env=known, capture_output=True, text=True, check=False)


def line(text: str, what: str) -> list[str]:
    """The three columns of one check."""
    return next(row for row in text.splitlines() if row.startswith(what)).split(" | ")


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Put programs that print something in front of PATH: programs(name="text")."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_HOME", raising=False)

    def make(**printed: str) -> None:
        for name, text in printed.items():
            path = folder / name.replace("_", "-")
            path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n" if text else "#!/bin/sh\nexit 9\n")
            path.chmod(0o755)

    return make


def pretend(prefix: Path, packages: dict[str, str], *, ngrpo: bool = True) -> Path:
    """A venv with the metadata of these packages and nothing else."""
    for name, version in packages.items():
        info = prefix / "lib/python3.11/site-packages" / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if ngrpo:
        (prefix / "bin").mkdir()
        (prefix / "bin/ngrpo").touch()
    return prefix


@pytest.fixture
def gpu_environment(tmp_path):
    """What envs/train-gpu.lock installs, CUDA label included, with flash-attn."""
    lock = environments.read_lock(PROJECT / "envs/train-gpu.lock")
    return pretend(tmp_path / "gpu", {**lock, "torch": f"{lock['torch']}+cu124", "flash-attn": "2.7.4.post1"})


# --- as a user runs it ----------------------------------------------------------------------------------------------


def test_it_tells_about_this_machine_and_its_exit_code_is_the_asked_scales():
    done = run("--workflow", "deployed", "--train", "elsewhere")
    assert done.returncode == 0, done.stdout + done.stderr
    assert line(done.stdout, "environment workflow")[1].endswith("packages as in workflow.lock")
    assert line(done.stdout, "cores")[1].split()[0] == str(len(os.sched_getaffinity(0)))
    rows = done.stdout.split("\n\n")[0].splitlines()
    assert all(len(row.split(" | ")) == 3 for row in rows)
    assert "toy: can run <" in done.stdout
    smoke = run("--workflow", "deployed", "--train", "elsewhere", "--scale", "smoke", "--results", "nowhere")
    assert smoke.returncode == 1
    assert "smoke: no: data folder <" in smoke.stdout


def test_it_needs_nothing_but_python():
    """As on a node where nothing is installed: no site packages at all."""
    done = run("--train", "elsewhere", program=("-S", "-m", "ngrpo.doctor"), PATH="")
    assert done.returncode in (0, 1)
    assert "this Python has no yaml" in line(done.stdout, "sources")[1]
    assert not done.stderr


def test_unknown_options_and_scales_are_refused():
    assert "there is no scale 'papper'" in run("--scale", "papper").stderr
    assert run("--skale", "paper").returncode == 2


# --- environments ---------------------------------------------------------------------------------------------------


def test_an_environment_is_as_locked_until_a_version_differs(gpu_environment, tmp_path):
    locks = [PROJECT / "envs/train-cpu.lock", PROJECT / "envs/train-gpu.lock"]
    (check,), lock, have = environments.environment("train", str(gpu_environment), locks)
    assert (check.stops, check.do, lock) == ((), "", locks[1])
    assert "packages as in train-gpu.lock" in check.state
    assert not any(f.stops for f in environments.stack(have, lock))
    other = tmp_path / "envs" / "train-gpu.lock"
    other.parent.mkdir()
    for old, new, stops in (("sglang==0.4.6.post5", "sglang==0.4.7", SCALES), ("idna==3.20", "idna==3.99", ())):
        other.write_text(locks[1].read_text().replace(f"\n{old} ", f"\n{new} "))
        (check,), _, _ = environments.environment("train", str(gpu_environment), [other])
        name, version = new.split("==")
        assert f"1 of {len(have) - 1} packages aren't as in train-gpu.lock: {name} " in check.state
        assert f"(lock: {version})" in check.state
        assert (check.stops, check.do) == (stops, "make env-gpu")


def test_a_missing_package_stops_and_a_missing_environment_is_named(gpu_environment, tmp_path):
    shutil.rmtree(next(gpu_environment.glob("lib/python3.11/site-packages/tqdm-*")))
    (check,), _, _ = environments.environment("train", str(gpu_environment), [PROJECT / "envs/train-gpu.lock"])
    assert "tqdm missing" in check.state
    assert check.stops == SCALES
    (check,), lock, _ = environments.environment("train", str(tmp_path / "none"), [PROJECT / "envs/train-cpu.lock"])
    assert (check.state, check.stops, lock) == ("isn't there", SCALES, None)
    assert "make env" in check.do


def test_an_environment_without_ngrpo_or_flash_attn_is_told(gpu_environment):
    (gpu_environment / "bin/ngrpo").unlink()
    shutil.rmtree(next(gpu_environment.glob("lib/python3.11/site-packages/flash_attn-*")))
    checks, lock, have = environments.environment("train", str(gpu_environment), [PROJECT / "envs/train-gpu.lock"])
    assert checks[1].stops == SCALES
    assert "pip install --no-deps -e ." in checks[1].do
    flash = environments.stack(have, lock)[1]
    assert (flash.state, flash.stops) == ("missing", ("paper",))


# --- GPUs, cluster --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "fit", "word"),
    [
        ("\n".join([A100] * 8), ("single", "paper"), ""),
        (A100, ("single", "paper"), "fewer than the paper's 8"),
        (A100.replace("550.54.15", "470.82.01"), (), "driver 525.6"),
        (A100.replace("8.0", "7.0"), (), "capability 8.0"),
        (A100.replace("81920", "16384"), (), "23 GB"),
        (A100.replace("81920", "23028"), ("single",), "40 GB"),
        (A100.replace("81920", "[N/A]"), (), "23 GB"),
    ],
)
def test_gpus_are_judged_by_number_memory_driver_and_capability(programs, printed, fit, word):
    programs(nvidia_smi=printed)
    check, fits = machine.gpus()
    assert fits == fit
    assert word in check.do
    assert bool(check.do) == bool(word)
    assert check.stops == tuple(scale for scale in ("single", "paper") if scale not in fit)


def test_a_driver_without_gpus_and_no_driver_are_told_apart(programs, monkeypatch):
    programs(nvidia_smi="")
    assert machine.gpus()[0].state == "nvidia-smi finds none"
    monkeypatch.setenv("PATH", "")
    assert "no nvidia-smi" in machine.gpus()[0].state


def ample(monkeypatch) -> None:
    """A node that has the room which this one may lack."""
    for name in ("CORES", "MEMORY", "SHARED_MEMORY"):
        monkeypatch.setattr(machine, name, {})
    monkeypatch.setattr(doctor, "disk_needs", lambda config, results: {"paper": (1, 1)})
    monkeypatch.setattr(outside, "reachable", lambda endpoint: True)


def test_a_gpu_node_with_the_locked_environment_can_run_the_paper(programs, gpu_environment, monkeypatch, capsys):
    programs(nvidia_smi="\n".join([A100] * 8), nvcc="Cuda compilation tools, release 12.4, V12.4.131")
    ample(monkeypatch)
    monkeypatch.chdir(PROJECT)
    arguments = ["--scale", "paper", "--workflow", "elsewhere", "--train", str(gpu_environment)]
    assert doctor.main(arguments) == 0
    assert "nvcc V12.4.131" in capsys.readouterr().out
    programs(nvcc="")
    assert doctor.main(arguments) == 1
    assert "paper: no: CUDA compiler <" in capsys.readouterr().out


def test_a_login_node_runs_the_paper_through_slurm(programs, gpu_environment, monkeypatch, capsys):
    ample(monkeypatch)
    monkeypatch.setattr(machine, "CORES", {"paper": 10**6})
    monkeypatch.chdir(PROJECT)
    arguments = ["--scale", "paper", "--workflow", "elsewhere", "--train", str(gpu_environment)]
    programs(nvidia_smi="", sinfo="cpu*|(null)|10|1-00:00:00\ngpu|gpu:a100:8|4|2-00:00:00")
    assert doctor.main(arguments) == 0
    output = capsys.readouterr().out
    assert line(output, "SLURM")[1] == "GPUs in gpu (4 nodes, gpu:a100:8, up to 2-00:00:00)"
    programs(sinfo="cpu*|(null)|10|1-00:00:00")
    assert doctor.main(arguments) == 1
    assert "paper: no: cores, GPUs <" in capsys.readouterr().out


# --- hub and data folder --------------------------------------------------------------------------------------------


def test_the_hub_answers_or_its_cache_has_everything_or_what_lacks_is_named(tmp_path, monkeypatch):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Say nothing."""

    config = PROJECT / "config"
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        assert outside.hub(config, tmp_path).state.endswith("answers")
        server.shutdown()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
    check = outside.hub(config, tmp_path)
    assert set(check.stops) == {"single", "paper"}
    files = {
        "models": dict.fromkeys(("config.json", "tokenizer_config.json", "model.safetensors"), b"x"),
        "datasets": {"test.jsonl": b"x"},
    }
    needed = [*outside.sources(config, "paper"), *outside.sources(config, "single")]
    for kind, source in {source["repo"]: (kind, source) for kind, _, source in needed}.values():
        at = {"repo": source["repo"], "files": files[kind], "commit": source["revision"]}
        snapshot = fill_cache(tmp_path / "cache", kind.removesuffix("s"), **at)
        if "R1-Distill-Qwen-1.5B" in source["repo"]:
            looked_at = snapshot
    assert outside.hub(config, tmp_path).stops == ()
    # half a download, and another commit, aren't what the study needs
    for before, after in (("model.safetensors", "gone"), (looked_at, looked_at.with_name("f" * 40))):
        (looked_at / before).rename(looked_at / after)
        check = outside.hub(config, tmp_path)
        assert check.stops == ("paper",)
        assert "DeepSeek-R1-Distill-Qwen-1.5B" in check.state
        (looked_at / after).rename(looked_at / before)


def test_files_of_the_data_folder_are_missed_by_name(tmp_path):
    config, results = PROJECT / "config", tmp_path / "results"
    assert outside.data_folder(config, results, None).stops == ("smoke",)
    files = {s["file"]: name for kind, name, s in outside.sources(config, "smoke") if kind == "datasets"}
    for file in files:
        (tmp_path / file).touch()
    assert outside.data_folder(config, results, tmp_path).stops == ()
    (tmp_path / "amc23.jsonl").unlink()
    check = outside.data_folder(config, results, tmp_path)
    assert "missing: amc23.jsonl" in check.state
    assert check.stops == ("smoke",)
    made = results / "smoke/data" / f"{files['amc23.jsonl']}.parquet"
    made.parent.mkdir(parents=True)
    made.touch()
    assert outside.data_folder(config, results, tmp_path).stops == ()


# --- limits of a node -----------------------------------------------------------------------------------------------


def test_a_containers_memory_counts_not_the_nodes(tmp_path):
    meminfo, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    meminfo.write_text("MemTotal:       500000000 kB\nMemFree: 1 kB\n")
    limit.write_text("max\n")
    assert machine.memory(meminfo, limit).stops == ()
    limit.write_text(str(7 * 10**9))
    check = machine.memory(meminfo, limit)
    assert check.stops == ("smoke", "single", "paper")
    assert check.state == "7 GB allowed here (the node has 512 GB)"


def test_room_is_looked_for_where_results_will_be(tmp_path):
    check = machine.disk(tmp_path / "not/yet/there", {"toy": (1, 1), "paper": (10**18, 10**18)})
    assert check.stops == ("paper",)
    assert "paper takes 1000000000 GB with one training at a time" in check.do
    assert "--config results=FOLDER" in check.do
    tight = machine.disk(tmp_path, {"toy": (1, 1), "paper": (1, 10**18)})
    assert tight.stops == ()
    assert "let fewer run at a time" in tight.do
    assert machine.disk(tmp_path, {"toy": (1, 1)}).do == ""
    assert "isn't computed here" in machine.disk(tmp_path, {}).state


def test_what_is_made_already_needs_no_more_room(tmp_path):
    before = doctor.disk_needs(PROJECT / "config", tmp_path)
    assert before["toy"][0] < 2e9 < before["paper"][0] < before["paper"][1]
    for name in load_study(PROJECT / "config", "paper").models:
        card = Results(tmp_path / "paper").model(name).card
        card.parent.mkdir(parents=True)
        card.touch()
    after = doctor.disk_needs(PROJECT / "config", tmp_path)
    assert before["paper"][0] - after["paper"][0] == pytest.approx(2 * (1.78 + 7.62 + 1.24 + 1.72) * 1e9)
    assert doctor.disk_needs(tmp_path, tmp_path) == {}  # no configuration there


# --- the GPU locks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train-gpu", "train-gpu-current"])
def test_a_gpu_lock_holds_what_is_asked_for_and_names_no_registry(name):
    lock = environments.read_lock(PROJECT / f"envs/{name}.lock")
    asked = (PROJECT / f"envs/{name}.in").read_text()
    pins = [row.split("==") for row in asked.splitlines() if "==" in row and not row.startswith("#")]
    assert len(pins) >= 11
    for package, version in pins:
        assert lock[environments.plain(package.split("[")[0])] == version
    for path in (f"{name}.in", f"{name}.lock", "check.lock"):
        text = (PROJECT / "envs" / path).read_text()
        assert "://" not in text
        assert "--index" not in text


def test_rollout_relevant_packages_are_the_same_on_cpu_and_gpu():
    locks = (environments.read_lock(PROJECT / f"envs/train-{name}.lock") for name in ("cpu", "gpu", "gpu-current"))
    cpu, gpu, current = locks
    differing = {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]}
    assert differing == {"torch", "sympy"}  # torch 2.6.0 asks for sympy 1.13.1
    assert {name for name in cpu.keys() & current.keys() if cpu[name] != current[name]} == {"torch", "triton"}
    assert (
        not {"sgl-kernel", "flashinfer-python", "flash-attn", "xgrammar"} & current.keys()
    )  # nothing compiled for one torch


def test_a_scale_of_ones_own_is_looked_at_and_a_mistyped_one_is_named(programs, tmp_path, monkeypatch, capsys):
    ample(monkeypatch)
    (tmp_path / "scales").mkdir()
    (tmp_path / "scales" / "mine.yaml").write_bytes((PROJECT / "config" / "scales" / "smoke.yaml").read_bytes())
    arguments = ["--config", str(tmp_path), "--workflow", "elsewhere", "--train", "elsewhere", "--scale"]
    doctor.main([*arguments, "mine"])
    output = capsys.readouterr().out
    assert "mine: no: data folder <" in output
    assert "isn't known here" in output
    with pytest.raises(SystemExit):
        doctor.main([*arguments, "min"])
    assert "did you mean 'mine'?" in capsys.readouterr().err
