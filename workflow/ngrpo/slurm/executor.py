"""Snakemake's SLURM executor: what it wouldn't submit, and jobs whose end it wouldn't notice.

Only here is the plugin `snakemake_executor_plugin_slurm` called (2.8.0, which envs/workflow.lock names).
"""

import logging
import shlex
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ngrpo.errors import UserError
from ngrpo.study.cluster import NO_ACCOUNT, STAGES, Cluster


class _Resources(dict):
    """A job's resources as the plugin reads them: by key and as attributes."""

    def __getattr__(self, name: str) -> Any:
        return self.get(name)


def sbatch_command(resources: dict[str, Any], threads: int = 1) -> str:
    """The plugin's own sbatch command for a job of these resources, without the job's script.

    Raises snakemake's WorkflowError where the plugin wouldn't submit it.
    """
    from snakemake_executor_plugin_slurm.submit_string import get_submit_command
    from snakemake_executor_plugin_slurm.utils import set_gres_string
    from snakemake_executor_plugin_slurm.validation import validate_slurm_extra

    job = SimpleNamespace(resources=_Resources(resources), threads=threads)
    validate_slurm_extra(job)
    account, partition = resources.get("slurm_account"), resources.get("slurm_partition")
    params = {
        "run_uuid": "check",
        "slurm_logfile": "check",
        "comment_str": "check",
        "account": f"-A '{account}'" if account else "",
        "partition": f"-p '{partition}'" if partition else "",
        "workdir": None,
    }
    return get_submit_command(job, params) + set_gres_string(job)


def check_submission(cluster: Cluster, where: Path) -> None:
    """Raise UserError for what the executor would refuse at each submission."""
    try:
        from snakemake_executor_plugin_slurm.accounts import validate_account
        from snakemake_interface_common.exceptions import WorkflowError
    except ImportError:  # not the environment that submits
        return
    for stage in STAGES:
        try:
            needs = cluster.needs(stage)
            nodes = max(cluster.nodes.values(), default=1) if stage == "train" else 1
            sbatch_command({**needs, "nodes": nodes, "tasks": cluster.tasks(nodes) if stage == "train" else None})
        except WorkflowError as e:
            raise UserError(
                f"the SLURM executor wouldn't submit a {stage} job: {e}",
                where=f"{where}: cluster",
                do="change what it names, in extra or in the key of that name",
            ) from None
        account = needs.get("slurm_account", NO_ACCOUNT)
        if account == NO_ACCOUNT:
            continue
        try:
            validate_account(account, logging.getLogger(__name__))
        except (WorkflowError, OSError) as e:
            raise UserError(
                f"the SLURM executor can't check the account '{account}', and wouldn't submit: {e}",
                where=f"{where}: cluster.account",
                do=f"write the word none, and `export SBATCH_ACCOUNT={account}` before snakemake: sbatch reads it",
            ) from None


class Answers:
    """SLURM's answers to the executor about its jobs, completed; else it would wait for some of them for ever.

    The executor knows a job's end by a word such as COMPLETED or CANCELLED. It doesn't take sacct's `CANCELLED by 1000`
    for one; a job that squeue no longer shows (SLURM forgets those that ended MinJobAge seconds ago) still runs for it;
    and where nobody answers (a controller restarts, accounting is off) it forgets all jobs itself, and never ends. Here
    states are their first word; a job that squeue hasn't shown for PATIENCE seconds has ended, as sacct or else its own
    log says; where sacct doesn't answer squeue is asked, and where nobody does the jobs are taken to run.
    """

    PATIENCE = 60.0  # seconds; a controller that has just started may not know all jobs yet

    def __init__(self) -> None:
        self.logs: dict[str, Path | None] = {}
        """Every job that the executor waits for, by its id: SLURM's log of it."""
        self.log_of: dict[Any, Path] = {}
        """Every Snakemake job that it has waited for: SLURM's log of its latest try."""
        self._missing: dict[str, float] = {}

    def completed(self, states: dict[str, str], by_squeue: bool, now: float) -> dict[str, str]:
        """The states that the executor should see. by_squeue: who gave them; now: seconds."""
        states = {job: (state.split() or [state])[0].rstrip("+") for job, state in states.items()}
        for job in self.logs:
            if job in states or not by_squeue:
                self._missing.pop(job, None)
            elif now - self._missing.setdefault(job, now) >= self.PATIENCE:
                states[job] = _end_of(job, self.logs[job])
        return states


def _end_of(job: str, log: Path | None) -> str:
    """How a job ended that squeue doesn't show."""
    try:
        done = subprocess.run(
            ("sacct", "-X", "--noheader", "--parsable2", f"--jobs={job}", "--format=State"),
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        known = done.stdout.split() if done.returncode == 0 else []
    except (OSError, subprocess.TimeoutExpired):
        known = []
    if known:
        return known[0]
    if log is None or not log.exists():
        return "UNKNOWN"  # the executor takes it for a success, and Snakemake then looks for the job's files
    # what the job's own Snakemake says last
    return "COMPLETED" if "(100%) done" in log.read_text(errors="replace") else "FAILED"


def notice_ends() -> Answers:
    """Complete SLURM's answers to the executor of this process (see `Answers`); again replaces the first.

    Safe: the executor acts on words that it knows. Not in place, it waits for a forgotten job until it is killed.
    """
    import snakemake_executor_plugin_slurm as plugin

    answers = Answers()
    query = getattr(plugin.query_job_status, "stock", plugin.query_job_status)
    check = getattr(plugin.Executor.check_active_jobs, "stock", plugin.Executor.check_active_jobs)

    async def query_job_status(command: str, logger: Any) -> Any:
        states, seconds = await query(command, logger)
        by_squeue = command.startswith("squeue")
        if states is None and not by_squeue:
            by_squeue = True
            states, seconds = await query(plugin.query_job_status_squeue(shlex.split(command)[-1]), logger)
        if states is None:
            return {}, 0.0
        return answers.completed(states, by_squeue, time.monotonic()), seconds

    async def check_active_jobs(executor: Any, active_jobs: list[Any]) -> AsyncIterator[Any]:
        answers.logs = {one.external_jobid: one.aux.get("slurm_logfile") for one in active_jobs}
        answers.log_of |= {one.job: log for one in active_jobs if (log := answers.logs[one.external_jobid])}
        async for job in check(executor, active_jobs):
            yield job

    query_job_status.stock = query  # type: ignore[attr-defined]
    check_active_jobs.stock = check  # type: ignore[attr-defined]
    plugin.query_job_status = query_job_status
    plugin.Executor.check_active_jobs = check_active_jobs
    return answers
