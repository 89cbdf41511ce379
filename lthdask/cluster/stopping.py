"""The end of tasks that nobody waits for any more: they save their state and stop."""

import logging
import time
from typing import Any

from distributed import Client, Future

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds that tasks have to stop; the process of one that has not by then is replaced."""
CLOSED = ("closing", "closed")
"""States of a client that can do nothing any more."""


def take_back(client: Client, queue: str) -> None:
    """Have the tasks of a queue stop, and wait until they have: nobody else may train the same."""
    if client.status in CLOSED:
        return
    ours = [key for key in list(client.futures) if f"-{queue}-" in str(key)]
    client.cancel([Future(key, client) for key in ours])  # whoever else holds them
    ends = time.monotonic() + PATIENCE
    while busy := _busy(client, queue):
        if time.monotonic() > ends:  # it reads data, or a step takes long
            _restart(client, busy)
            return
        time.sleep(0.05)


def _busy(client: Client, queue: str) -> list[str]:
    """Return the workers that run a task of a queue, as far as they answer."""
    try:
        found = client.sync(client.run, _runs, queue, on_error="ignore", callback_timeout=PATIENCE)
    except (OSError, TimeoutError) as problem:
        log.warning("workers do not say whether they have stopped: %r", problem)
        return []
    return [address for address, runs in found.items() if runs]


def _runs(queue: str, dask_worker: Any) -> bool:
    return any(f"-{queue}-" in str(task.key) for task in dask_worker.state.all_running_tasks)


def _restart(client: Client, workers: list[str]) -> None:
    try:
        client.restart_workers(workers, raise_for_error=False)
    except ValueError:  # without a nanny, nobody would start another one
        log.warning("%s ends what it does before it stops", ", ".join(workers))
