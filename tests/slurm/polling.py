"""Snakemake that asks SLURM about its jobs every second: the executor's own pauses grow to three minutes.

Nothing else is changed; jobs start Snakemake as they do on a cluster.
"""

import sys

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

RemoteExecutor.next_seconds_between_status_checks = property(lambda _: 1, lambda *_: None)

if __name__ == "__main__":
    sys.exit(main())
