"""SLURM's own commands, as they are asked here: their answers, and errors in a user's words."""

import shutil
import subprocess

from ngrpo.errors import UserError


def answer(*command: str) -> str:
    """A SLURM command's output. Raises UserError where SLURM isn't here or doesn't answer."""
    if shutil.which(command[0]) is None:
        raise UserError(
            f"there is no `{command[0]}` on this machine",
            where="PATH",
            do="run this on a login node of the SLURM cluster",
        )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"`{command[0]}` fails: {done.stderr.strip()[-300:]}", where=" ".join(command))
    return done.stdout
