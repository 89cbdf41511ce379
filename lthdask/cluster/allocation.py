"""The Slurm allocation that this process runs in: a batch script's, or that of ``salloc``."""

import functools
import os
import re
import subprocess
from dataclasses import dataclass
from datetime import datetime
from math import ceil

from lthdask.errors import InputError

NODES = re.compile(r"\bNodes=(\S+) CPU_IDs=(\S+) Mem=\S+ GRES=(\S*)")
GPUS = re.compile(r"\bgpu(?::[^:,(]+)?:(\d+)")


@dataclass(frozen=True)
class Allocation:
    """A Slurm job with nodes.

    Attributes
    ----------
    job : str
        Its number.
    nodes : tuple of str
        Names of its nodes.
    cpus, gpus : int
        Of the node that has the fewest.
    ends : float or None
        Seconds since 1970; None if its time has no limit.
    """

    job: str
    nodes: tuple[str, ...]
    cpus: int
    gpus: int
    ends: float | None

    @classmethod
    def parse(cls, job: str, text: str) -> "Allocation | None":
        """Read what ``scontrol show job --details`` says; None if the job does not run."""
        parts = NODES.findall(text)
        if "JobState=RUNNING" not in text or not parts:
            return None
        hosts = [_output("scontrol", "show", "hostnames", names).split() for names, _, _ in parts]
        ends = re.search(r"EndTime=(\d\S+)", text)
        return cls(
            job,
            tuple(host for some in hosts for host in some),
            min(_count(ids) for _, ids, _ in parts),
            min(sum(map(int, GPUS.findall(gres))) for _, _, gres in parts),
            datetime.fromisoformat(ends[1]).timestamp() if ends else None,
        )

    def room(self, threads: int) -> int:
        """Return how many workers there is room for: one per GPU, or by the cores."""
        return len(self.nodes) * self._each(threads)

    def spread(self, workers: int | None, threads: int) -> tuple[int, int]:
        """Return on how many nodes workers are started, and how many on each of them."""
        most = self._each(threads)
        wanted = min(workers or len(self.nodes) * most, len(self.nodes) * most)
        each = ceil(wanted / len(self.nodes))
        return ceil(wanted / each), each

    def _each(self, threads: int) -> int:
        return self.gpus or max(1, self.cpus // threads)


def allocation() -> Allocation | None:
    """Return the allocation that this process runs in, if it does."""
    job = os.environ.get("SLURM_JOB_ID")
    return _allocation(job) if job else None


@functools.cache
def _allocation(job: str) -> Allocation | None:
    return Allocation.parse(job, _output("scontrol", "show", "job", "--details", "--oneliner", job))


def require_allocation() -> Allocation:
    """Return the allocation that this process runs in.

    Raises
    ------
    InputError
        If there is none.
    """
    found, job = allocation(), os.environ.get("SLURM_JOB_ID")
    if found:
        return found
    lack = f"scontrol shows no running job {job}" if job else "there is no SLURM_JOB_ID here"
    raise InputError(
        f"{lack}, so srun has no allocation to train in; run this in a batch script or in the "
        f"shell of `salloc`, or set `deployment` to slurm to queue jobs"
    )


def _count(ids: str) -> int:
    """Return how many numbers a list such as ``0-3,8`` has."""
    ends = [part.split("-") for part in ids.split(",")]
    return sum(int(end[-1]) - int(end[0]) + 1 for end in ends)


def _output(*command: str) -> str:
    environment = os.environ | {"SLURM_TIME_FORMAT": "standard"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
