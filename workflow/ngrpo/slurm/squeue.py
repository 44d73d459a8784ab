"""Jobs in SLURM's queue: those that a dead Snakemake left, the end of one's own, how long squeue shows ended ones."""

import getpass
import os
import re
from datetime import datetime
from pathlib import Path

from ngrpo.errors import UserError
from ngrpo.slurm.commands import answer


def orphans(folder: Path | None = None) -> dict[str, str]:
    """Jobs in the queue that an earlier Snakemake submitted from this folder: id → what it does.

    Snakemake locks its folder, so before it submits anything, all such jobs are a dead Snakemake's.
    """
    here = os.path.realpath(folder or Path.cwd())
    jobs = {}
    for line in answer("squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%i|%T|%Z|%k").splitlines():
        if line.count("|") < 3:
            continue
        job, state, workdir, comment = line.split("|", 3)
        ended = state in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
        if comment.startswith("rule_") and not ended and os.path.realpath(workdir) == here:
            jobs[job] = comment.removeprefix("rule_").replace("_wildcards_", " ")
    return jobs


def job_end() -> float | None:
    """When the time of the SLURM job that this process runs in is over (Unix seconds); None outside of a job.

    Raises UserError where it can't be known: the variable of SLURM 23.11 isn't there, and squeue isn't here (as in a
    container) or doesn't answer.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return None
    if os.environ.get("SLURM_JOB_END_TIME", "").isdigit():
        return float(os.environ["SLURM_JOB_END_TIME"])
    ends = answer("squeue", "--noheader", f"--jobs={job}", "--format=%e").strip()
    try:
        return datetime.fromisoformat(ends).timestamp() if ends[:1].isdigit() else None
    except ValueError:
        raise UserError(f"squeue gives no time that can be read: {ends}", where=f"job {job}") from None


def memory_seconds() -> int | None:
    """How long squeue shows jobs that have ended (MinJobAge); None where SLURM doesn't say."""
    try:
        match = re.search(r"^MinJobAge\s*=\s*(\d+)\s*(h?)", answer("scontrol", "show", "config"), re.MULTILINE)
    except UserError:
        return None
    return int(match[1]) * (3600 if match[2] else 1) if match else None
