"""Workers that are jobs of a queue: Slurm, or another one that dask-jobqueue knows."""

import getpass
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import dask
from distributed import Client

from lthdask.cluster.overrides import MEMORY, SAMPLING
from lthdask.cluster.places import QUEUES
from lthdask.cluster.settings import Settings
from lthdask.cluster.workers import Say, dashboard_address
from lthdask.errors import InputError

EXCLUDE = re.compile(r"(?:--exclude[= ]|-x) *(\S+)")
"""How a job of Slurm is kept from nodes."""


@dataclass
class _Order:
    """The least and the most workers that a queue may start, and has been asked for."""

    limits: tuple[int, int]
    asked: tuple[int, int] = (0, 0)


_orders: WeakKeyDictionary[Any, _Order] = WeakKeyDictionary()
"""By cluster."""


def job_script(settings: Settings, queue: str, threads: int = 1) -> str:
    """Return the job script that would be submitted, even where there is no such queue."""
    with settings.applied(), _queue_cluster(queue, settings, threads) as cluster:
        script: str = cluster.job_script()
        return script


def order_workers(cluster: Any, workers: int | tuple[int, int]) -> None:
    """Note how many workers a queue may start, the least and the most; none is asked for yet."""
    _orders[cluster] = _Order(workers if isinstance(workers, tuple) else (workers, workers))


def ask_for_workers(client: Client, tasks: int) -> None:
    """Ask a queue for as many workers as there is work for, up to the requested number.

    While only dense runs can be trained, no GPU is held idle for the cells that will come. The
    number never falls: workers that hold checkpoints are not sent away.
    """
    order = _order_of(client)
    if order is None:
        return
    least, most = (min(limit, max(tasks, 1)) for limit in order.limits)
    asked = max(least, order.asked[0]), max(most, order.asked[1])
    if asked != order.asked:
        order.asked = asked
        client.cluster.adapt(minimum=asked[0], maximum=asked[1])


def workers_asked_for(client: Client) -> int:
    """Return the most workers that a queue was asked for; 0 where there is no queue."""
    order = _order_of(client)
    return order.limits[1] if order else 0


def exclude_node(client: Client, node: str, workers: Collection[str]) -> bool:
    """Have no job of Slurm start on a node from now on, and end the jobs of its workers, by name.

    Return whether that is possible, which it is only with Slurm.
    """
    cluster = client.cluster
    if _order_of(client) is None or cluster.job_cls.submit_command != "sbatch":
        return False
    options = cluster.new_spec["options"]  # of jobs to come
    given = options.get("job_extra_directives")
    if given is None:
        given = dask.config.get("jobqueue.slurm.job-extra-directives")
    options["job_extra_directives"] = excluding(given, node)
    cluster.sync(cluster.scale_down, set(workers))
    return True


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


def _order_of(client: Client) -> _Order | None:
    return _orders.get(client.cluster) if client.cluster else None


@contextmanager
def queued(
    queue: str, settings: Settings, workers: int | tuple[int, int], threads: int, say: Say
) -> Iterator[Client]:
    """Jobs of a queue; none is left there at the end."""
    # A job that ended is replaced after this time, which is longer while a local client is open.
    replaced = dask.config.set({"distributed.deploy.lost-worker-timeout": "15s"})
    with (
        replaced,
        _queue_cluster(queue, settings, threads) as cluster,
        Client(cluster) as client,
    ):
        order_workers(cluster, workers)
        ask_for_workers(client, 1)
        port = cluster.scheduler.http_server.port
        host, user = os.uname().nodename, getpass.getuser()
        tunnel = f"ssh -N -L 8787:127.0.0.1:{port} {user}@{host}"
        say(f"dashboard: {tunnel}, then http://127.0.0.1:8787/status")
        _wait_for_a_worker(queue, client, settings.patience, say)
        yield client


def _queue_cluster(queue: str, settings: Settings, threads: int) -> Any:
    """Return the cluster of a queue by name, with no worker yet."""
    given = settings.queue(queue)
    given.setdefault("cores", 1)
    given.setdefault("processes", 1)
    given["job_name"] = given.pop("name", None) or "lthdask"
    if given.get("memory") is None:
        raise InputError(
            f"{settings.file}: jobqueue.{queue}.memory is missing; set it, e.g. memory: 32GiB"
        )
    shared = Path(given.pop("shared_temp_directory", None) or "~/.lthdask").expanduser()
    shared.mkdir(mode=0o700, parents=True, exist_ok=True)
    if logs := given.get("log_directory"):
        given["log_directory"] = str(Path(logs).expanduser().absolute())
    # exec: Slurm's SIGTERM reaches the first process of a job only, and the time it then
    # leaves is that process's; a shell that waits for the worker would waste both.
    given["python"] = f"exec {given.get('python') or sys.executable}"
    given["job_script_prologue"] = [
        *(given.get("job_script_prologue") or []),
        *(f"export {key}={value}" for key, value in MEMORY.items()),
        # Dask's settings stay with the driver, and the file may have others: those in force.
        *(f"export {_variable(key)}={shlex.quote(dask.config.get(key))}" for key in SAMPLING),
        f"export DASK_CONFIG={shlex.quote(str(settings.file))}",
    ]
    given["worker_extra_args"] = _worker_arguments(
        list(given.get("worker_extra_args") or []), settings.lifetime(queue)
    )
    return _cluster_class(queue)(
        config_name=queue,
        security=True,
        protocol="tls://",
        shared_temp_directory=str(shared),
        scheduler_options={"dashboard_address": dashboard_address()},
        silence_logs=logging.CRITICAL,
        **{key: value for key, value in given.items() if value is not None},
    )


def _variable(key: str) -> str:
    """Return the environment variable from which Dask reads a setting."""
    return "DASK_" + key.upper().replace(".", "__")


def _cluster_class(queue: str) -> Any:
    """Return dask-jobqueue's class for a queue, and undo what its import does to signals.

    It makes Ctrl-C end the process in silence, with exit code 0 (dask_jobqueue/runner.py).
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    import dask_jobqueue

    for number, handler in before.items():
        signal.signal(number, handler)
    return getattr(dask_jobqueue, QUEUES[queue])


def _worker_arguments(given: list[str], lifetime: tuple[float, float] | None) -> list[str]:
    """Return the worker's arguments, with those that make it leave before its job is killed."""
    arguments = [*given, "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    if "--memory-limit" not in given:
        arguments += ["--memory-limit", "0"]  # the queue fences memory already
    if lifetime and "--lifetime" not in given:
        arguments += ["--lifetime", f"{lifetime[0]:g}s"]
        arguments += ["--lifetime-stagger", f"{lifetime[1]:g}s"]
    return arguments


def _wait_for_a_worker(queue: str, client: Client, patience: float, say: Say) -> None:
    """Wait for the first worker, and meanwhile pass on what the queue says."""
    began, before = time.monotonic(), ""
    while not client.nthreads():
        jobs = [worker.job_id for worker in client.cluster.workers.values() if worker.job_id]
        state = _queue_state(queue, jobs)
        waited = time.monotonic() - began
        if jobs and state != before:
            say(f"waiting for the queue: {state}")
            before = state
        if waited > patience:
            raise InputError(
                f"no worker has started within {waited:.0f} s ({state}), so the jobs are "
                f"cancelled; ask for less in the cluster file, or set a longer lthdask.patience"
            )
        time.sleep(1)


def _queue_state(queue: str, jobs: list[str]) -> str:
    """Return how many jobs there are and, from Slurm, in which state and why."""
    if queue != "slurm" or not jobs:
        return "1 job submitted" if len(jobs) == 1 else f"{len(jobs)} jobs submitted"
    asked = ["squeue", "--noheader", "--format=%T (%r)", f"--jobs={','.join(jobs)}"]
    found = subprocess.run(asked, capture_output=True, text=True).stdout.split("\n")
    counts = {line: found.count(line) for line in found if line}
    return ", ".join(f"{count} {line}" for line, count in counts.items()) or "no jobs"
