"""Values that many tasks need: scattered once, and again where their last holder was lost.

They are futures for the tasks. Dask itself would cancel tasks whose value is lost
(dask/distributed#3149).
"""

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import dask
from dask.utils import parse_timedelta
from distributed import Client, Future
from distributed.comm import CommClosedError

from lthdask.errors import InputError

log = logging.getLogger(__name__)

NO_WORKERS = (
    "no worker is left, and none has started: they end as they start, for example because memory "
    "is short; choose fewer `workers`, or end what else runs there. What is done is kept, and the "
    "same command picks up where it left off"
)
FULL = (
    "the workers take no data, for example because their memory is full; what is done is kept, and "
    "the same command picks up where it left off"
)
TAKING = 600
"""Seconds in which workers that take no data may do so again."""
REFUSALS = 20
"""How often in a row a shared value may be lost as it is sent."""


class NoWorkersError(InputError):
    """There are no workers any more, or none that does anything."""


class UnreadableError(Exception):
    """A shared value cannot be read; its cause says why."""


@dataclass
class SharedValues:
    """Values by their names, and where the workers have them.

    Parameters
    ----------
    client : distributed.Client
    key : callable
        Returns a key for a name that was never used.
    go_on : callable
        Raises if there is a reason to wait no longer.
    """

    client: Client
    key: Callable[[str], str]
    go_on: Callable[[], None]
    _loaders: dict[str, Callable[[], Any]] = field(default_factory=dict)
    _futures: dict[str, Future] = field(default_factory=dict)

    def add(self, name: str, load: Callable[[], Any]) -> None:
        """Share a value; `load` reads it, and reads it again if the workers lose it.

        It is scattered once, when the first task that needs it is submitted: workers begin with
        the longest tasks while values that only others need are sent. If it cannot be read
        then, the tasks that need it end with that error.
        """
        self._loaders[name] = load

    def __getitem__(self, name: str) -> Future:
        """Return a value, scattered.

        Raises
        ------
        UnreadableError
            If it cannot be read; its cause says why.
        NoWorkersError
            If no worker takes it.
        """
        if name in self._futures:
            return self._futures[name]
        try:
            value = self._loaders[name]()
        except (InputError, OSError) as problem:
            raise UnreadableError from problem
        for _ in range(REFUSALS):
            self._wait_for_a_worker()
            try:
                (self._futures[name],) = self.client.scatter({self.key(name): value}).values()
                return self._futures[name]
            except (CommClosedError, TimeoutError):  # its worker has just died, or is leaving
                self.go_on()
                log.warning("no worker was there to receive %s; sending it again", name)
                time.sleep(1)
        raise NoWorkersError(FULL)

    def _wait_for_a_worker(self) -> None:
        """Wait if there is none that takes data, such as between two jobs of a queue."""
        patience = dask.config.get("distributed.scheduler.no-workers-timeout")
        patience, began = parse_timedelta(patience) if patience else math.inf, time.monotonic()
        while not self.client.sync(self.client.scheduler.ncores_running, workers=None):
            self.go_on()
            waited, some = time.monotonic() - began, self.client.nthreads()
            if waited > (TAKING if some else patience):
                raise NoWorkersError(FULL if some else NO_WORKERS)
            time.sleep(0.1)

    def forget_what_was_lost(self, names: Iterable[str]) -> None:
        """Have those of some values that the workers have lost scattered again."""
        for name in names:
            if name in self._futures and self._futures[name].status != "finished":
                del self._futures[name]

    def clear(self) -> None:
        """Have the workers keep none of them for this process."""
        self._futures.clear()
