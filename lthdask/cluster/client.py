"""Open a Dask client, the same way for a script, a notebook and a test."""

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import dask
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, WorkerPlugin

SETTINGS = {
    # Checkpoints are dependencies of every cell; without these two, Dask hands out cells
    # eagerly, ignores their priority, and blames one lost worker on cells that never ran.
    "distributed.scheduler.rootish-taskgroup": 100_000,
    "distributed.scheduler.rootish-taskgroup-dependencies": 100_000,
    "distributed.scheduler.worker-saturation": 1.0,
    # A cell is not to blame for the worker it was on.
    "distributed.scheduler.allowed-failures": 1000,
    # It would drop the copies of the checkpoints that were scattered to every worker.
    "distributed.scheduler.active-memory-manager.policies": [],
    # Training is one long call; a worker in it is busy, not lost.
    "distributed.scheduler.worker-ttl": "30 minutes",
    # Dask has workers give freed memory back at once, and training asks for it again in the
    # next step: page faults halved the speed of MobileNetV2 (189 against 407 images/s).
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 2**30,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 2**30,
}


@contextmanager
def open_client(workers: int | None = None, threads: int = 1) -> Iterator[Client]:
    """Open a client to workers on this machine, and close both at the end.

    Parameters
    ----------
    workers : int, optional
        Worker processes, one cell each; by default, and at most, as many as the machine
        has room for.
    threads : int
        CPU threads that a cell computes with.

    Yields
    ------
    distributed.Client
        Scheduler and dashboard listen on this machine only.
    """
    count = min(workers or local_workers(threads), local_workers(threads))
    with dask.config.set(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Port 8787 is already in use")
        cluster = LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:8787",
            silence_logs=logging.CRITICAL,  # tracebacks are kept in the study's folder
        )
        with cluster, Client(cluster) as client:
            client.register_plugin(IgnoreInterrupt())
            yield client


class IgnoreInterrupt(WorkerPlugin):  # type: ignore[misc]
    """Leave Ctrl-C, which a terminal sends to every process, to the driver."""

    name = "ignore-interrupt"

    def setup(self, worker: object) -> None:
        """Ignore SIGINT; Dask calls this in the worker's main thread."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def local_workers(threads: int = 1) -> int:
    """Return how many cells of so many threads this machine has room for."""
    return max(1, int(CPU_COUNT) // threads)
