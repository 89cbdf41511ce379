"""Deployment: where workers are, as requested or as found."""

import functools
import shutil
import subprocess
from collections.abc import Callable

from lthdask.cluster.settings import Settings
from lthdask.errors import InputError


def choose(
    settings: Settings,
    deployment: str | None,
    scheduler: str | None,
    say: Callable[[str], None] = print,
) -> str:
    """Return the deployment to use: what is given, what the file says, or what is there."""
    chosen = "scheduler" if scheduler else deployment or settings.deployment
    if chosen == "scheduler" and not (scheduler or settings.scheduler):
        raise InputError(
            "`deployment` is scheduler, but no address is given; give one with `scheduler`"
        )
    if chosen != "auto":
        return chosen
    if slurm_answers():
        say(
            "training on Slurm, because sbatch answers here; "
            "set `deployment` to local to train on this machine"
        )
        return "slurm"
    say(
        "training on this machine, because no Slurm answers here; "
        "set `deployment` to slurm to insist"
    )
    return "local"


@functools.cache
def slurm_answers() -> bool:
    """Return whether jobs can be submitted to a Slurm from here."""
    if not shutil.which("sbatch") or not shutil.which("sinfo"):
        return False
    try:
        return subprocess.run(["sinfo", "-h"], capture_output=True, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False
