"""What is asked of SLURM: before anything is submitted, and about jobs.

Only SLURM's own commands are used (sinfo, squeue, sacct, sacctmgr, scontrol), in forms that Debian's 22.05 and later
versions understand.
"""
