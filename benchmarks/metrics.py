"""Metrics and intervals of 838 problems × 32 samples (all benchmarks of the paper): time, and memory of the process.

Both are measured in a process of its own, from a table of grades in memory to the table of metrics; the memory is the
process's peak, so it holds Python, pandas and scipy, too. There is no peer: the goal bounds ours.
"""

import json
import subprocess
import sys
from typing import Any

from benchmarks.rows import row

ENV = "workflow"
NAMES = ("metrics-time", "metrics-memory")
PROBLEMS, SAMPLES = 838, 32
SECONDS, MEGABYTES = 2.0, 300.0

PROGRAM = f"""
import json, resource, time
import numpy as np, pandas as pd
from ngrpo.statistics.metrics import compare, summarize
rng = np.random.default_rng(0)
tables = []
for shift in (0.0, 0.03):
    chance = np.clip(np.random.default_rng(1).beta(0.4, 0.4, {PROBLEMS}) + shift, 0, 1)
    correct = rng.random(({PROBLEMS}, {SAMPLES})) < chance[:, None]
    tables.append(pd.DataFrame({{
        "problem_id": np.repeat([f"p{{i}}" for i in range({PROBLEMS})], {SAMPLES}),
        "sample": np.tile(np.arange({SAMPLES}), {PROBLEMS}),
        "grade": np.where(correct.ravel(), "correct", "wrong"),
    }}))
start = time.perf_counter()
summarize(tables[0], (1, 2, 4, 8, 16, 32))
compare(*tables, (16, 32))
print(json.dumps([time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def rows() -> list[dict[str, Any]]:
    """Two rows: seconds for one evaluation's metrics and one comparison, and the process's peak memory."""
    out = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    took, megabytes = json.loads(out)
    note = f"{PROBLEMS} problems x {SAMPLES}: every metric with its intervals, and one comparison"
    return [
        row("metrics-time", ours=took, peer=None, unit="s", at_most=SECONDS, note=note),
        row("metrics-memory", ours=megabytes, peer=None, unit="MB", at_most=MEGABYTES, note=f"{note}; whole process"),
    ]
