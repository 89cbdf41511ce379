"""The window: which tasks are submitted next, and how many of them are in flight.

It knows nothing of Dask, so that the order of a grid can be simulated as it is.
"""

import heapq
from dataclasses import dataclass, field
from typing import Generic, TypeVar

LEAST, MOST = 2, 4
"""Tasks in flight per worker: enough that no worker ever waits for the driver."""
FEWEST = 8
"""Workers to submit for, also where there are fewer: a graph of two tasks costs 2 ms, too."""

T = TypeVar("T")


@dataclass
class Window(Generic[T]):
    """What waits to be submitted: the longest first, and of equals the first that came."""

    _waiting: list[tuple[float, int, T]] = field(default_factory=list)
    _added: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, task: T, length: float) -> None:
        """Add a task that takes so long, in any unit."""
        heapq.heappush(self._waiting, (-length, self._added, task))
        self._added += 1

    def take(self, in_flight: int, workers: int) -> list[T]:
        """Return the tasks to submit now, longest first; they wait here no more.

        Many at a time, or none: Dask takes 2 ms for each graph.
        """
        workers = max(FEWEST, workers)
        if in_flight > LEAST * workers:
            return []
        room = min(MOST * workers - in_flight, len(self._waiting))
        return [heapq.heappop(self._waiting)[-1] for _ in range(room)]
