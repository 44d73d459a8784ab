"""A verl run and a server of one's own as docs/in-your-own-code.md has them: its lines, and what a reader has.

Without pytest and without the repository's package, so that it runs in an environment made from a wheel, too.
"""

import os
import re
import socket
import subprocess
import time
from pathlib import Path

from ngrpo.data.datasets import make_dataset, read_problems
from ngrpo.files import read_json, write_json
from ngrpo.stages.base_models import make_model
from ngrpo.training.verl import accelerator

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "in-your-own-code.md"
STEPS, GROUP, PROMPTS = 3, 4, 8
TABLE, RUN, ASK = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
(SERVE,) = re.findall(r"```bash\n(ngrpo serve .*?)\n```", PAGE.read_text(encoding="utf-8"))
REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return float(solution_str.strip().endswith(ground_truth)) + 0.01 * len(solution_str)
"""
BEFORE = """
import sys
from pathlib import Path

import ray
from own_code import configuration
from transformers import AutoModelForCausalLM
from verl.trainer.main_ppo import run_ppo

here = Path(sys.argv[1])
model, table = AutoModelForCausalLM.from_pretrained(here / "model"), here / "neighbors.safetensors"
config = configuration(here)
"""
"""What a reader of the page has already."""
BEFORE_TABLE = """
from transformers import AutoModelForCausalLM

model, table = AutoModelForCausalLM.from_pretrained("model"), "neighbors.safetensors"
"""
BEFORE_ASKING = """
import requests

url, prompt = "http://127.0.0.1:PORT", "1 + 2"
"""
AFTER = """
print("mixed steps:", len(record.index))
"""


def configuration(home: Path):
    """verl's own configuration of a tiny GRPO run, as its user would write it: nothing of ours but the CPU's part."""
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer")
    OmegaConf.set_struct(config, False)
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    theirs = {
        "data.train_files": str(home / "rl.parquet"), "data.val_files": str(home / "rl.parquet"),
        "data.train_batch_size": PROMPTS, "data.max_prompt_length": 16, "data.max_response_length": 16,
        "data.dataloader_num_workers": 0, "algorithm.adv_estimator": "grpo", "critic.strategy": "fsdp2",
        "actor_rollout_ref.model.path": str(home / "model"), f"{actor}.ppo_mini_batch_size": PROMPTS,
        f"{actor}.use_kl_loss": True, f"{actor}.optim.lr": 1e-3, f"{rollout}.n": GROUP, f"{rollout}.name": "sglang",
        f"{rollout}.tensor_model_parallel_size": 1, "trainer.n_gpus_per_node": 1, "trainer.logger": ["console"],
        "trainer.val_before_train": False, "trainer.test_freq": -1, "trainer.save_freq": -1,
        "trainer.total_training_steps": STEPS, "trainer.default_local_dir": str(home / "checkpoints"),
        "custom_reward_function.path": str(home / "reward.py"), "ray_init.num_cpus": 6,
    }  # fmt: skip
    machine = accelerator.settings(PROMPTS * GROUP, PROMPTS * GROUP, 1024, "float32")
    for key, value in {**theirs, **machine}.items():
        OmegaConf.update(config, key, value, force_add=True)
    return config


def make_home(folder: Path) -> Path:
    """A model with a chat template, problems as verl's data set has them, a reward."""
    import pandas as pd
    from tiny_runs import MODEL, TRAIN

    make_model(MODEL, folder / "model")
    path = folder / "model" / "tokenizer_config.json"
    write_json(path, {**read_json(path), "chat_template": "{{ messages[0]['content'] }}"})
    make_dataset(TRAIN, folder / "problems.parquet")
    rows = [
        {
            "prompt": [{"role": "user", "content": row["problem"]}],
            "data_source": "sums",
            "reward_model": {"style": "rule", "ground_truth": row["answer"]},
            "extra_info": {"index": i},
        }
        for i, row in enumerate(read_problems(folder / "problems.parquet"))
    ]
    pd.DataFrame(rows).to_parquet(folder / "rl.parquet")
    (folder / "reward.py").write_text(REWARD)
    return folder


def follow(home: Path, lines: str, python: str, path: str) -> subprocess.CompletedProcess:
    """What the page's lines come to, in a process of their own. path: its PYTHONPATH, besides this folder."""
    # a pretended GPU a rank, as Ray counts them
    resources = 'ray.init(num_cpus=6, num_gpus=1, resources={"cpu": 1}, '
    program = home / "program.py"
    program.write_text(f"{BEFORE}\n{lines.replace('ray.init(', resources)}")
    return _run([python, program, home], home, path)


def _environment(home: Path, path: str) -> dict[str, str]:
    return {
        "PYTHONPATH": f"{HERE}:{path}", "PATH": os.environ["PATH"], "HOME": str(home), "OMP_NUM_THREADS": "1",
        "TORCHDYNAMO_DISABLE": "1", "HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0",
    }  # fmt: skip


def _run(command: list, home: Path, path: str) -> subprocess.CompletedProcess:
    environment = _environment(home, path)
    return subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=False, timeout=900)


def follow_server(home: Path, programs: Path, path: str) -> str:
    """What the lines about a server come to: the table made, the server started as the page says, one request.

    programs: the folder of `ngrpo` and `python`. Raises AssertionError with what was said where a step fails.
    """
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    (home / "table.py").write_text(BEFORE_TABLE + TABLE)
    (home / "ask.py").write_text(BEFORE_ASKING.replace("PORT", port) + ASK + AFTER)
    made = _run([programs / "python", "table.py"], home, path)
    assert made.returncode == 0, made.stderr
    line = SERVE.replace("MODEL", "model").replace("30000", port)
    said = home / "server.log"
    with said.open("w") as log:
        command, environment = ["bash", "-c", f"exec {programs}/{line}"], _environment(home, path)
        server = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            while "ready to roll" not in said.read_text():
                assert server.poll() is None, said.read_text()
                time.sleep(1)
            asked = _run([programs / "python", "ask.py"], home, path)
        finally:
            server.terminate()
            server.wait(60)
    assert asked.returncode == 0, asked.stderr + said.read_text()
    return asked.stdout


def figures(done: subprocess.CompletedProcess, name: str) -> list[float]:
    """A metric's values in what verl's console logger wrote."""
    return [float(x) for x in re.findall(rf"{name}:([-+.e\d]+)", done.stdout)]
