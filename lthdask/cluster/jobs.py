"""Workers that are jobs of a queue: Slurm, or another one that dask-jobqueue knows."""

import logging
import math
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import dask
from distributed import Security

from lthdask.cluster.job_script import absolute, arguments_of_queue
from lthdask.cluster.owned import Client, in_order
from lthdask.cluster.places import tunnel
from lthdask.cluster.settings import Settings
from lthdask.cluster.workers import Say, dashboard_address, devices
from lthdask.errors import InputError


@dataclass
class _Order:
    """The least and the most workers that a queue may start, and has been asked for."""

    limits: tuple[int, int]
    asked: tuple[int, int] = (0, 0)


UNFIT = ("PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit", "BadConstraints")
"""Slurm's reasons why a job waits that asks for what no node, or its partition, has."""
_orders: WeakKeyDictionary[Any, _Order] = WeakKeyDictionary()
"""By cluster."""


def job_script(settings: Settings, queue: str, threads: int = 1) -> str:
    """Return the job script that would be submitted, even where there is no such queue.

    Nothing is started or written: words stand for the scheduler and its certificates.
    """
    with settings.applied():
        given = arguments_of_queue(queue, settings, threads)
        given.pop("scheduler_options", None)
        shared = Path(given.pop("shared_temp_directory"))
        ca, cert, key = (shlex.quote(str(shared / name)) for name in ("CA_FILE", "CERT", "KEY"))
        security = Security(tls_ca_file=ca, tls_worker_cert=cert, tls_worker_key=key)
        cls = _cluster_class(queue)
        given |= {"name": f"{cls.__name__}-0", "protocol": "tls://", "security": security}
        with dask.config.set({f"jobqueue.{queue}.log-directory": None}):  # which would be made
            script: str = cls.job_cls("tls://SCHEDULER:PORT", **given).job_script()
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
        in_order(replaced),
        _queue_cluster(queue, settings, threads) as cluster,
        closing(Client(cluster)) as client,
    ):
        _say_how_many_jobs(cluster.workers_of_a_job, workers, say)
        order_workers(cluster, workers)
        ask_for_workers(client, 1)
        say_where_the_dashboard_is(cluster, say)
        _wait_for_a_worker(queue, client, settings.patience, say)
        _compare_with_devices(client, say)
        yield client


def say_where_the_dashboard_is(cluster: Any, say: Say) -> None:
    """Say the line that brings a dashboard of this machine to the user's own."""
    port = cluster.scheduler.http_server.port
    say(f"dashboard: {tunnel(8787, port)}, then http://127.0.0.1:8787/status")


def _say_how_many_jobs(each: int, workers: int | tuple[int, int], say: Say) -> None:
    """Say it where jobs of several workers cannot be as many as were asked for."""
    most = workers[1] if isinstance(workers, tuple) else workers
    if most % each:
        workers = math.ceil(most / each) * each
        say(f"{workers} workers in place of {most}, because a job has {each} (processes)")


def _compare_with_devices(client: Client, say: Say) -> None:
    """Say it where a job has more GPUs than workers, or fewer, before they share them out."""
    each = client.cluster.workers_of_a_job
    there = max(map(len, client.run(devices, on_error="ignore").values()), default=0)
    if there and there != each:
        what = "idle" if there > each else "shared by several workers"
        say(f"some GPUs are {what}: a job has {there} of them, but processes is {each}")


def _queue_cluster(queue: str, settings: Settings, threads: int) -> Any:
    """Return the cluster of a queue by name, with no worker yet."""
    given = arguments_of_queue(queue, settings, threads)
    if logs := settings.queue(queue).get("log_directory"):
        absolute(logs).mkdir(parents=True, exist_ok=True)
    return job_cluster(_cluster_class(queue), given)


def job_cluster(cls: Any, given: dict[str, Any]) -> Any:
    """Return a cluster of dask-jobqueue by its arguments, with no worker yet."""
    options = given.pop("scheduler_options", None) or {}
    Path(given["shared_temp_directory"]).mkdir(mode=0o700, parents=True, exist_ok=True)
    return cls(
        security=True,
        protocol="tls://",
        scheduler_options={"dashboard_address": dashboard_address(), **options},
        silence_logs=logging.CRITICAL,
        **given,
    )


def _cluster_class(queue: str) -> Any:
    """Return the class of a queue's clusters."""
    return _jobqueue().cluster_class(queue)


def step_class() -> Any:
    """Return the class of clusters inside an allocation of Slurm."""
    return _jobqueue().StepCluster


def _jobqueue() -> Any:
    """Import dask-jobqueue, and undo what that does to signals.

    It makes Ctrl-C end the process in silence, with exit code 0 (dask_jobqueue/runner.py), and
    writes its defaults into the user's home.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ensure_file, dask.config.ensure_file = dask.config.ensure_file, lambda source: None
    try:
        from lthdask.cluster import jobqueue
    finally:
        dask.config.ensure_file = ensure_file
    for number, handler in before.items():
        signal.signal(number, handler)
    return jobqueue


def _wait_for_a_worker(queue: str, client: Client, patience: float, say: Say) -> None:
    """Wait for the first worker, and meanwhile pass on what the queue says."""
    began, before = time.monotonic(), ""
    while not client.nthreads():
        jobs = [worker.job_id for worker in client.cluster.workers.values() if worker.job_id]
        state = _queue_state(queue, jobs)
        waited = time.monotonic() - began
        if jobs and state != before:
            say(f"waiting for the queue: {state}{_advice(state)}")
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
    found = [line.removesuffix(" (None)") for line in found]
    counts = {line: found.count(line) for line in found if line}
    return ", ".join(f"{count} {line}" for line, count in counts.items()) or "no jobs"


def _advice(state: str) -> str:
    """Return what to do where Slurm says that a job fits nowhere, and so would wait for ever."""
    if not any(f"({reason})" in state for reason in UNFIT):
        return ""
    return (
        "; such a job does not start: compare the lines marked (site) of the cluster file with "
        "what the partitions have, sinfo -o '%P %c %m %G %l'"
    )
