"""Deployment: where workers are, as requested or as found."""

import functools
import shutil
import subprocess
from collections.abc import Callable

from lthdask.cluster.allocation import allocation, require_allocation
from lthdask.cluster.places import DEPLOYMENTS
from lthdask.cluster.room import Room
from lthdask.cluster.settings import Settings
from lthdask.errors import InputError, one_of


def choose(
    settings: Settings,
    deployment: str | None,
    scheduler: str | None,
    say: Callable[[str], None] = print,
) -> str:
    """Return the deployment to use: what is given, what the file says, or what is there."""
    if scheduler is not None and not scheduler.strip():
        raise InputError("`scheduler` is an address, such as tcp://host:8786; got nothing")
    if deployment is not None and deployment not in DEPLOYMENTS:
        raise one_of("deployment", deployment, DEPLOYMENTS)
    if scheduler and deployment not in (None, "auto", "scheduler"):
        raise InputError(
            f"`scheduler` is given, and `deployment` is {deployment}; leave one of them out"
        )
    chosen = "scheduler" if scheduler else deployment or settings.deployment
    if chosen == "scheduler" and not (scheduler or settings.scheduler):
        raise InputError(
            "`deployment` is scheduler, but no address is given; give one with `scheduler`"
        )
    if chosen == "srun":
        require_allocation()
    if chosen != "auto":
        return chosen
    here = allocation()
    if here and here.gpus:
        say(
            f"training in this allocation, because the Slurm job {here.job} has GPUs; "
            f"set `deployment` to slurm to queue jobs"
        )
        return "srun"
    if slurm_answers():
        other = "srun to train in this allocation" if here else "local to train on this machine"
        say(f"training on Slurm, because sbatch answers here; set `deployment` to {other}")
        return "slurm"
    say(
        "training on this machine, because no Slurm answers here; "
        "set `deployment` to slurm to insist"
    )
    return "local"


def room(deployment: str, threads: int) -> int | None:
    """Return how many workers there is room for; None where a queue or a scheduler decides."""
    if deployment == "local":
        return Room.here(threads).workers
    return require_allocation().room(threads) if deployment == "srun" else None


@functools.cache
def slurm_answers() -> bool:
    """Return whether jobs can be submitted to a Slurm from here."""
    if not shutil.which("sbatch") or not shutil.which("sinfo"):
        return False
    try:
        return subprocess.run(["sinfo", "-h"], capture_output=True, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False
