"""A cluster whose queue a test holds: each job is submitted as Snakemake submits it to any, and starts when it may.

The queue is the folder that HELD_QUEUE names: a job's command is written to {n}.sh there, and runs once a file `go` is.
"""

import asyncio
import os
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path

from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from snakemake_interface_executor_plugins.settings import CommonSettings

common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    pass_default_storage_provider_args=True,
    pass_default_resources_args=True,
    pass_envvar_declarations_to_cmd=False,
    auto_deploy_default_storage_provider=False,
)


class Executor(RemoteExecutor):
    """Snakemake's side of the held queue."""

    def run_job(self, job: JobExecutorInterface) -> None:
        """Write the job's command down, and start it when the queue is let go."""
        queue = Path(os.environ["HELD_QUEUE"])
        script = queue / f"{len(list(queue.glob('*.sh')))}.sh"
        script.write_text(self.format_job_exec(job) + "\n")
        hold = f"while [ ! -e {queue}/go ]; do sleep 0.1; done; exec bash {script} > {script}.log 2>&1"
        started = subprocess.Popen(["bash", "-c", hold])
        self.report_job_submission(SubmittedJobInfo(job, external_jobid=str(started.pid), aux={"process": started}))

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncGenerator[SubmittedJobInfo, None]:
        """Those that still run."""
        await asyncio.sleep(0.1)
        for job in active_jobs:
            code = job.aux["process"].poll()
            if code is None:
                yield job
            elif code:
                self.report_job_error(job)
            else:
                self.report_job_success(job)

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """End them."""
        for job in active_jobs:
            job.aux["process"].kill()
