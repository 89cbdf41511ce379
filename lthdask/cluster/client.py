"""Open a Dask client, the same way for a script, a notebook and a test.

Workers are processes of this machine, jobs of a queue, steps of the allocation that the driver
runs in, or those of a scheduler that runs already. One worker has one device.
"""

import gc
import logging
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any

from lthdask.arguments import checked
from lthdask.cluster import security
from lthdask.cluster.deployment import choose
from lthdask.cluster.jobs import queued
from lthdask.cluster.local import local
from lthdask.cluster.owned import Client, in_order
from lthdask.cluster.settings import Settings
from lthdask.cluster.steps import allocated
from lthdask.cluster.workers import Prepare, Say, Workers
from lthdask.errors import InputError
from lthdask.limits import require_mask


@checked
def open_client(
    workers: Workers = None,
    *,
    threads: int = 1,
    cluster: Path | str | None = None,
    deployment: str | None = None,
    scheduler: str | None = None,
    say: Say = print,
) -> Client:
    """Open a client, whose closing ends its workers, and leaves no job in a queue.

    Close it with ``client.close()``, or open it in a ``with`` statement. The end of the process
    closes it, too.

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
        Address of a scheduler that runs already; replaces the file's. Its workers stay.
    say : callable
        Called with one line at a time: where it trains, and what it waits for.

    Returns
    -------
    distributed.Client
        With at least one worker.

    Raises
    ------
    InputError
        If something that was given cannot be used, or patience with the queue has ended.

    Examples
    --------
    >>> client = open_client(2)                              # on this machine  # doctest: +SKIP
    >>> results = lthdask.run(study, client)                 # doctest: +SKIP
    >>> client.close()                                       # doctest: +SKIP
    >>> with open_client(scheduler=address) as client:       # workers that are there
    ...     len(client.scheduler_info()["workers"])
    2
    """
    _require_counts(workers, threads)
    require_mask()
    settings = Settings.read(Path(cluster) if cluster else None)
    chosen = choose(settings, deployment, scheduler, say)
    with ExitStack() as opened:
        for change in (settings.applied(), security.own_scratch(), collecting_rarely()):
            opened.enter_context(in_order(change))
        if chosen == "scheduler":
            opened.enter_context(in_order(_losing_quietly()))
            existing = _existing(str(scheduler or settings.scheduler))
            client = opened.enter_context(closing(existing))
        elif chosen == "local":
            client = opened.enter_context(local(workers, threads, say))
        elif chosen == "srun":
            client = opened.enter_context(allocated(settings, workers, threads, say))
        else:
            jobs = queued(chosen, settings, workers or 1, threads, say)
            client = opened.enter_context(jobs)
        client.register_plugin(Prepare())
        client.own(opened.pop_all())
    return client


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
def _losing_quietly() -> Iterator[None]:
    """Keep Dask from saying that a scheduler is lost: we do, in a sentence, where it ends a run."""
    dasks = logging.getLogger("distributed.client")
    before = dasks.level
    dasks.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        dasks.setLevel(before)


def _require_counts(workers: Workers, threads: int) -> None:
    """Refuse numbers of workers and threads with which nothing can be trained."""
    numbers = () if workers is None else workers if isinstance(workers, tuple) else (workers,)
    if not all(map(_is_count, numbers)) or list(numbers) != sorted(numbers):
        raise InputError(
            f"`workers` is a number, 1 or more, or two of them, the least and the most; got "
            f"{workers!r}"
        )
    if not _is_count(threads):
        raise InputError(f"`threads` is a number, 1 or more; got {threads!r}")


def _is_count(given: Any) -> bool:
    return not isinstance(given, bool) and isinstance(given, Integral) and int(given) > 0


def _existing(address: str) -> Client:
    """Return a client to a scheduler that runs already; its workers stay when the client leaves."""
    certificates = security.configured_for(address)
    try:  # for distributed.comm.timeouts.connect
        return Client(address, security=certificates)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"no Dask scheduler answers at {address}: {error}") from None
