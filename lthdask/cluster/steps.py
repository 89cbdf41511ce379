"""Workers that are steps of the Slurm allocation that this process runs in.

A step is the workers of one node, one per GPU: the same command as that of a job of a whole node,
started by srun. Nothing is queued, and all of it ends with the allocation.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import dask

from lthdask.cluster.allocation import Allocation, require_allocation
from lthdask.cluster.job_script import arguments
from lthdask.cluster.jobs import job_cluster, say_where_the_dashboard_is, step_class
from lthdask.cluster.owned import Client, in_order
from lthdask.cluster.settings import Settings, margin
from lthdask.cluster.workers import Say, Workers
from lthdask.errors import InputError

USED = (
    *("death_timeout", "interface", "job_script_prologue", "local_directory", "log_directory"),
    *("python", "shared_temp_directory", "worker_extra_args"),
)
"""What steps take from the section of Slurm in a cluster file."""
PATIENCE = 600.0
"""Seconds to wait for the first worker, at most: the allocation is there already."""


@contextmanager
def allocated(settings: Settings, workers: Workers, threads: int, say: Say) -> Iterator[Client]:
    """Workers on every node of the allocation, which end in time before it does."""
    here = require_allocation()
    most = workers[1] if isinstance(workers, tuple) else workers
    nodes, each = here.spread(most, threads)
    if most and nodes * each != most:
        say(f"{nodes * each} workers in place of {most}: {each} on each of {nodes} nodes")
    with (
        in_order(dask.config.set({"distributed.deploy.lost-worker-timeout": "15s"})),
        _step_cluster(settings, here, each, say) as cluster,
        closing(Client(cluster)) as client,
    ):
        cluster.adapt(minimum=nodes * each, maximum=nodes * each)
        say_where_the_dashboard_is(cluster, say)
        _wait_for_a_worker(client, min(settings.patience, PATIENCE))
        with _ending_in_time(here.ends, say):
            yield client


def _step_cluster(settings: Settings, here: Allocation, each: int, say: Say) -> Any:
    given = settings.queue("slurm") if (settings.values.get("jobqueue") or {}).get("slurm") else {}
    used = {key: value for key, value in given.items() if key in USED}
    if set(given) - set(used):
        taken = ", ".join(key.replace("_", "-") for key in USED)
        say(f"of jobqueue.slurm, srun takes {taken}; the rest is the allocation's")
    size = {"processes": each, "cores": each, "memory": "1GiB"}  # overruled by --memory-limit
    steps = {"job": here.job, "nodes": here.nodes}
    return job_cluster(step_class(), arguments(used | size | steps, settings, None))


def _wait_for_a_worker(client: Client, patience: float) -> None:
    began = time.monotonic()
    while not client.nthreads():
        reasons = [step.why_it_ended() for step in list(client.cluster.workers.values())]
        if reasons and all(reasons):
            raise InputError(f"srun has ended before a worker was there: {reasons[0]}")
        if time.monotonic() - began > patience:
            raise InputError(f"srun has started no worker within {patience:.0f} s")
        time.sleep(0.2)


@contextmanager
def _ending_in_time(ends: float | None, say: Say) -> Iterator[None]:
    """Stop this process as Ctrl-C does, before Slurm kills it together with its workers."""
    if ends is None:
        yield
        return
    early = margin(ends - time.time())

    def stop() -> None:
        say(f"the allocation ends in {early:.0f} s")
        # A background process of a script ignores Ctrl-C; the command takes SIGTERM as well.
        taken = callable(signal.getsignal(signal.SIGTERM))
        number = signal.SIGTERM if taken else signal.SIGINT
        signal.pthread_kill(threading.main_thread().ident or 0, number)

    timer = threading.Timer(ends - time.time() - early, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
