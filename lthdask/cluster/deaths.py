"""How many workers a task may take with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client


@contextmanager
def allowing(deaths: int, client: Client) -> Iterator[None]:
    """Have a task that has taken so many workers with it end with an `ExhaustedError`.

    A scheduler that runs already keeps the number that its owner has set.
    """
    if client.cluster is None:
        yield
        return
    usual = dask.config.get("distributed.scheduler.allowed-failures")
    client.run_on_scheduler(_allow, deaths - 1)
    try:
        yield
    finally:
        if client.status == "running":
            client.run_on_scheduler(_allow, usual)


def _allow(number: int, dask_scheduler: Any) -> None:
    """Set how many workers may die with a task that is tried again."""
    dask_scheduler.allowed_failures = number
