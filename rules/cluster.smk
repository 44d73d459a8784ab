# What Snakemake does on a SLURM cluster beside running jobs, and which failed jobs it tries again.
import time

from snakemake.jobs import Job
from snakemake.logging import logger

from ngrpo.errors import ends_in_mistake
from ngrpo.slurm.executor import notice_ends
from ngrpo.slurm.preflight import before_submission

STARTED = time.time()

SLURM_LOGS = notice_ends().log_of if SETTINGS.cluster else {}


onstart:
    if SETTINGS.cluster:
        try:
            for line in before_submission(SETTINGS.cluster):
                logger.info(f"[slurm] {line}")
        except UserError as e:
            raise WorkflowError(str(e)) from None


def restart_times(job, stock=Job.restart_times.fget):
    """How often a failed job is tried again: not at all where its log ends in a user's mistake, else as stock."""
    for log in [*map(Path, job.log), *filter(None, [SLURM_LOGS.get(job)])]:
        is_new = log.exists() and log.stat().st_mtime >= STARTED
        if is_new and ends_in_mistake(log.read_text(errors="replace")):
            logger.info(
                f"It isn't tried again: another try would end as this did ({log})."
            )
            return 0
    return stock(job)


# Snakemake asks this of a job that has failed. Its own answer is a number for all: with the profile, a training with a
# mistake in its settings would take its GPUs a dozen times more.
Job.restart_times = property(restart_times)
