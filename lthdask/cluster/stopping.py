"""The end of tasks that nobody waits for any more: they save their state and stop."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from distributed import Client, Future

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds that tasks have to stop; the process of one that has not by then is replaced."""
REPLACING = 30.0
"""Seconds that this may take; nothing is waited for any longer."""
CLOSED = ("closing", "closed")
"""States of a client that can do nothing any more."""


def take_back(client: Client, queue: str) -> None:
    """Have the tasks of a queue stop, and wait until they have: nobody else may train the same.

    It raises nothing: its caller tells why they are taken back.
    """
    if client.status in CLOSED:
        return
    ours = [key for key in list(client.futures) if f"-{queue}-" in str(key)]
    try:
        client.cancel([Future(key, client) for key in ours])  # whoever else holds them
        left = client.sync(_end, client, queue, callback_timeout=PATIENCE + REPLACING + 5)
    except Exception as problem:  # there is no scheduler any more, or no client
        log.warning("nobody tells whether the workers have stopped: %r", problem)
        return
    if left:
        log.warning(
            "%s may still train what was taken back, as it neither stops nor could be replaced in "
            "time; end it before you train the same study again",
            ", ".join(left),
        )


async def _end(client: Client, queue: str) -> list[str]:
    """End the tasks of a queue; return the workers that may still run some of them."""
    busy = await _busy(client, queue, await client.nthreads(), PATIENCE)
    if not busy:
        return []
    known = (await client.scheduler.identity(n_workers=-1))["workers"]
    busy = [address for address in busy if address in known]  # the others have left
    alone = [address for address in busy if not known[address]["nanny"]]
    if alone:  # nobody would start another one
        log.warning("waiting until %s ends what it does", ", ".join(alone))
    others = [address for address in busy if address not in alone]
    replaced, left = await asyncio.gather(
        client.restart_workers(others, REPLACING, raise_for_error=False),
        _busy(client, queue, alone, REPLACING),
    )
    return left + [address for address, outcome in replaced.items() if outcome != "OK"]


async def _busy(client: Client, queue: str, workers: Iterable[str], seconds: float) -> list[str]:
    """Wait until workers have ended the tasks of a queue; return those that do not say so in time.

    Each is asked alone: one that does not answer says nothing of the others.
    """

    async def ask(address: str) -> str | None:
        ended = client.run(_until_it_ends, queue, workers=[address], on_error="ignore")
        try:
            await asyncio.wait_for(ended, seconds)
        except TimeoutError:
            return address
        return None

    return [address for address in await asyncio.gather(*map(ask, workers)) if address]


async def _until_it_ends(queue: str, dask_worker: Any) -> None:
    while any(f"-{queue}-" in str(task.key) for task in dask_worker.state.all_running_tasks):
        await asyncio.sleep(0.05)
