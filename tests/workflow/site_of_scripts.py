"""A SLURM that only answers: its commands as scripts, whose jobs end as their names say, for the real executor."""

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
QUICK = """
import sys
from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
sys.path.insert(0, {package!r})
from ngrpo.slurm.executor import Answers
RemoteExecutor.next_seconds_between_status_checks = property(lambda _: 0.5, lambda *_: None)
Answers.PATIENCE = 1.0
sys.exit(main())
"""
"""Snakemake that asks SLURM twice a second, and is patient for a second with a job that isn't shown."""

SBATCH = """#!{python}
import itertools, pathlib, sys
folder = pathlib.Path({folder!r})
words = sys.argv[1:]
for number in itertools.count(1):
    try:
        with open(folder / f"job.{{number}}", "x") as job:
            job.write("\\0".join(words))
        break
    except FileExistsError:
        continue
comment, log = words[words.index("--comment") + 1], pathlib.Path(words[words.index("--output") + 1])
rule, _, name = comment.removeprefix("rule_").partition("_wildcards_")
job_log = pathlib.Path({results!r}) / "toy" / "logs" / rule / f"{{name}}.log"
job_log.parent.mkdir(parents=True, exist_ok=True)
if "cosine" in name:
    job_log.write_text("error: no such metric\\n  where: spec\\n  do:    mend it\\n")
if "l1" in name:
    job_log.write_text("Traceback (most recent call last):\\nRuntimeError: CUDA error\\n")
if "l2" in name:
    table = pathlib.Path({results!r}) / "toy" / "neighbors" / f"{{name}}.safetensors"
    table.parent.mkdir(exist_ok=True)
    table.touch()
    log.with_name(f"{{number}}.log").write_text("1 of 1 steps (100%) done\\n")
else:
    with open(folder / "squeue.txt", "a") as shown:
        shown.write(f"{{number}}|FAILED\\n")
print(number)
"""
"""Tables of the cosine end in a user's mistake, of L1 in a crash; of L2 they are made, and squeue never shows them."""


class Site:
    """A folder with these commands, a site's settings, and `snakemake --profile slurm` with both."""

    def __init__(self, folder: Path, **cluster: Any):
        self.folder, self.results = folder, folder / "results"
        self.jobs, self.settings = folder / "jobs", folder / "mine.yaml"
        self.jobs.mkdir()
        site = {
            "account": "none",
            "cpu": {"partition": "short", "cpus": 6},
            "gpu": {"partition": "big", "type": "2080ti", "per_node": 4, "cpus": 3},
            **cluster,
        }
        settings = {"scale": "toy", "results": str(self.results), "environments": {"train": str(folder / "env")}}
        self.settings.write_text(yaml.safe_dump({**settings, "cluster": site}))
        python, given = sys.executable, {"folder": str(self.jobs), "results": str(self.results)}
        self._program("bin/sbatch", SBATCH.format(python=python, **given))
        self._program("bin/squeue", f'#!/bin/sh\ncase "$*" in *--name*) cat {self.jobs}/squeue.txt; esac\n')
        self._program("bin/sinfo", "#!/bin/sh\necho 'short|4:00:00|64|256000+|(null)|10'\n"
                      "echo 'big|2-00:00:00|96+|1000000|gpu:2080ti:4(S:0-1)|3'\n")  # fmt: skip
        self._program("bin/scontrol", "#!/bin/sh\necho 'MinJobAge               = 2 sec'\n")
        self._program("bin/sacct", "#!/bin/sh\nexit 1\n")
        self._program("env/bin/ngrpo", '#!/bin/sh\nfor last; do :; done\nmkdir -p "$last"\n')
        (self.jobs / "squeue.txt").touch()

    def _program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run Snakemake with the profile and this site's settings in a --configfile."""
        command = [sys.executable, "-c", QUICK.format(package=str(ROOT / "workflow")), *arguments]
        command += ["--profile", "slurm", "--configfile", str(self.settings), "--nolock", "--latency-wait=1"]
        command += ["--slurm-init-seconds-before-status-checks=1", "--seconds-between-status-checks=1"]
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": path}, text=True, check=False, timeout=120,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip

    def submitted(self) -> list[list[str]]:
        """The words of each sbatch command."""
        return [path.read_text().split("\0") for path in sorted(self.jobs.glob("job.*"))]
