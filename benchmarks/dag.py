"""`snakemake -n all` at the paper's scale, every job of the study: time, memory, and where the time goes.

There is no peer: the goal bounds ours. The parts are measured in processes of their own: Python and Snakemake's import,
the configuration read and expanded into specs, and the rest, which is Snakemake's (parsing, DAG, files looked up).
"""

import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.rows import row

ENV = "workflow"
NAMES = ("dag-time", "dag-memory")
SECONDS, MEGABYTES = 10.0, 1000.0
EXPAND = """
from pathlib import Path
from ngrpo.study.expand import load_study
study = load_study(Path("config"), "paper")
study.write_specs(Path({results!r}))
"""


def _took(*command: str) -> tuple[float, str]:
    start = time.perf_counter()
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, said.stdout + said.stderr


def rows() -> list[dict[str, Any]]:
    """Two rows: seconds, and the largest process's peak memory."""
    binary = str(Path(sys.executable).with_name("snakemake"))
    with tempfile.TemporaryDirectory() as results:
        imports, _ = _took(sys.executable, "-c", "import snakemake.cli, pandas, pydantic")
        nothing, _ = _took(sys.executable, "-c", "import pydantic, yaml, ngrpo.study.expand")
        expansion, _ = _took(sys.executable, "-c", EXPAND.format(results=f"{results}/specs"))
        whole, said = _took(binary, "-n", "all", "--config", "scale=paper", f"results={results}")
    jobs = int(re.findall(r"^total\s+(\d+)", said, re.M)[-1])
    megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    expanding = max(0.0, expansion - nothing)
    note = (
        f"{jobs} jobs: imports {imports:.1f} s, configuration and specs {expanding:.1f} s, "
        f"Snakemake's rules, DAG and files {max(0.0, whole - imports - expanding):.1f} s"
    )
    return [
        row("dag-time", ours=whole, peer=None, unit="s", at_most=SECONDS, note=note),
        row("dag-memory", ours=megabytes, peer=None, unit="MB", at_most=MEGABYTES, note=f"{jobs} jobs; peak"),
    ]
