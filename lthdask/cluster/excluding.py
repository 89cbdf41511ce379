"""Excluding a node of Slurm on which cells fail: its workers end, and no more start there."""

import re
import subprocess
from collections.abc import Collection
from typing import Any

import dask
from distributed import Client

from lthdask.cluster.workers import job_of

EXCLUDE = re.compile(r"(?:--exclude[= ]|-x) *(\S+)")
"""How a job of Slurm is kept from nodes."""


def exclude_node(client: Client, node: str, workers: Collection[str]) -> bool:
    """Have no worker start on a node from now on, and end those that are there, by their names.

    Return whether that is possible, which it is only with Slurm.
    """
    cluster, jobs = client.cluster, set(map(job_of, workers))
    options = getattr(cluster, "new_spec", {}).get("options", {})
    if "nodes" in options:  # steps of an allocation, one per node
        return _end_steps(cluster, jobs)
    if getattr(getattr(cluster, "job_cls", None), "submit_command", None) != "sbatch":
        return False
    given = options.get("job_extra_directives")
    if given is None:
        given = dask.config.get("jobqueue.slurm.job-extra-directives")
    options["job_extra_directives"] = excluding(given, node)  # of jobs to come
    if not _would_be_taken(cluster):
        options["job_extra_directives"] = given
        return False
    cluster.sync(cluster.scale_down, jobs)
    return True


def _would_be_taken(cluster: Any) -> bool:
    """Return whether Slurm has a node left for the jobs to come; none would ever start there."""
    with cluster._dummy_job.job_file() as script:
        asked = ["sbatch", "--test-only", script]
        return subprocess.run(asked, capture_output=True).returncode == 0


def excluding(directives: list[str], node: str) -> list[str]:
    """Return Slurm's directives with one more node excluded: of several lists, the last counts.

    Examples
    --------
    >>> excluding(["--gres=gpu:1", "-x a[1,3],b[1,3]"], "node7")
    ['--gres=gpu:1', '--exclude=a[1,3],b[1,3],node7']
    """
    lists = [found[1] for line in directives if (found := EXCLUDE.fullmatch(line.strip()))]
    others = [line for line in directives if not EXCLUDE.fullmatch(line.strip())]
    nodes = ",".join(lists)
    if node not in nodes.split(","):
        nodes = f"{nodes},{node}" if nodes else node
    return [*others, f"--exclude={nodes}"]


def _end_steps(cluster: Any, steps: set[str]) -> bool:
    """End steps for good, but not the last: the others are replaced on their own nodes."""
    left = {name: spec for name, spec in cluster.worker_spec.items() if name not in steps}
    if not left or len(left) == len(cluster.worker_spec):
        return False
    cluster.worker_spec = left
    workers = len(left) * cluster.workers_of_a_job
    cluster.adapt(minimum=workers, maximum=workers)
    cluster.sync(cluster._correct_state)
    return True
