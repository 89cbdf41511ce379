"""The window: which tasks are submitted next, and how many of them are in flight.

It knows nothing about Dask, so that the order of a grid can be simulated as it is.
"""

import heapq
from dataclasses import dataclass, field
from typing import Generic, TypeVar

LEAST, MOST = 2, 4
"""Tasks in flight per worker: enough that no worker ever waits for the driver."""
FEWEST = 8
"""Workers to submit for, even if there are fewer: a graph of two tasks also costs 2 ms."""

T = TypeVar("T")


@dataclass
class Window(Generic[T]):
    """What waits to be submitted: the longest first, and among equals the first that came."""

    _waiting: list[tuple[float, int, T]] = field(default_factory=list)
    _added: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, task: T, length: float) -> None:
        """Add a task and how long it takes, in any unit."""
        heapq.heappush(self._waiting, (-length, self._added, task))
        self._added += 1

    def take(self, in_flight: int, workers: int) -> list[T]:
        """Return the tasks to submit now, longest first, and remove them from here.

        These are many at a time, or none: Dask takes 2 ms for each graph.
        """
        workers = max(FEWEST, workers)
        if in_flight > LEAST * workers:
            return []
        room = min(MOST * workers - in_flight, len(self._waiting))
        return [heapq.heappop(self._waiting)[-1] for _ in range(room)]
