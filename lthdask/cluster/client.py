"""Open a Dask client, the same way for a script, a notebook and a test.

Workers are processes of this machine, jobs of a queue, steps of the allocation that the driver
runs in, or those of a scheduler that runs already. One worker has one device.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed import Client

from lthdask.cluster import security
from lthdask.cluster.deployment import choose
from lthdask.cluster.jobs import queued
from lthdask.cluster.local import local
from lthdask.cluster.settings import Settings
from lthdask.cluster.steps import allocated
from lthdask.cluster.workers import Prepare, Say, Workers
from lthdask.errors import InputError


@contextmanager
def open_client(
    workers: Workers = None,
    *,
    threads: int = 1,
    cluster: Path | str | None = None,
    deployment: str | None = None,
    scheduler: str | None = None,
    say: Say = print,
) -> Iterator[Client]:
    """Open a client, and close it with its workers at the end, however the end comes.

    Parameters
    ----------
    workers : int or (int, int), optional
        Number of workers, one device each: on this machine or in an allocation (default and
        most: one per GPU, else per core; on this machine, as far as there is memory), or in
        queued jobs (default: 1). Two numbers are the least and the most of an elastic number.
    threads : int
        CPU threads that a cell computes with.
    cluster : path, optional
        A cluster file, strictly checked; ``lthdask cluster-file`` writes one to start from.
    deployment : str, optional
        Replaces the file's deployment.
    scheduler : str, optional
        Address of a scheduler that runs already; replaces the file's.
    say : callable
        Called with one line at a time: where it trains, and what it waits for.

    Yields
    ------
    distributed.Client
        With at least one worker.

    Raises
    ------
    InputError
        If something that was given cannot be used, or patience with the queue has ended.

    Examples
    --------
    >>> with open_client(2) as client:                    # on this machine  # doctest: +SKIP
    ...     lthdask.run(lthdask.Study.read("digits"), client)
    >>> with open_client(scheduler=address) as client:    # workers that are there
    ...     len(client.scheduler_info()["workers"])
    2
    """
    settings = Settings.read(Path(cluster) if cluster else None)
    chosen = choose(settings, deployment, scheduler, say)
    with settings.applied(), security.own_scratch(), collecting_rarely():
        if chosen == "scheduler":
            opened = _existing(str(scheduler or settings.scheduler))
        elif chosen == "local":
            opened = local(workers, threads, say)
        elif chosen == "srun":
            opened = allocated(settings, workers, threads, say)
        else:
            opened = queued(chosen, settings, workers or 1, threads, say)
        with opened as client:
            client.register_plugin(Prepare())
            yield client


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """Have Python's garbage collector run a third as often, as Dask's own scheduler command does.

    The collector was a quarter of what a short cell cost the driver, because of the many objects
    of torch that never go away (dask/distributed#1653).
    """
    before = gc.get_threshold()
    gc.set_threshold(*(3 * threshold for threshold in before))
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _existing(address: str) -> Iterator[Client]:
    """Workers of a scheduler that runs already; they stay when the client leaves."""
    certificates = security.configured_for(address)
    try:  # for distributed.comm.timeouts.connect
        client = Client(address, security=certificates)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"no Dask scheduler answers at {address}: {error}") from None
    with client:
        yield client
