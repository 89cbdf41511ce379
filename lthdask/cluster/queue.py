"""Tasks on the workers: values shared once, tasks submitted longest first in a window.

The driver never holds more than a window of tasks, so that its memory does not grow with
the grid. Values that many tasks need are scattered once and are futures from then on. A
value whose last holder was lost is scattered again, and the tasks it took with it are
submitted anew: Dask itself would cancel them (dask/distributed#3149).
"""

import heapq
import logging
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

import dask
from distributed import Client, Future, as_completed, get_worker

from lthdask.cluster.client import ask_for_workers

WINDOW = 3
"""Tasks in flight per worker: enough that no worker ever waits for the driver."""
TOPIC = "lthdask"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """One call on a worker.

    Attributes
    ----------
    name : str
        Unique in the queue; seen in the dashboard.
    function : callable
        Called as ``function(*arguments, *values, tell)``: `values` are the shared ones, and
        ``tell(message)`` shows a message to the driver while the task runs.
    arguments : tuple
        Small values; they travel with the task.
    shared : tuple of hashable
        Names of shared values.
    length : float
        How long it takes, in any unit: the longest is submitted first.
    then : callable
        Called on the driver with what came of it: the result, or the exception it raised.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    shared: tuple[Hashable, ...] = ()
    length: float = 0.0
    then: Callable[[Any], None] = lambda outcome: None


@dataclass
class Queue:
    """Tasks that wait for, or run on, the workers of a client.

    Parameters
    ----------
    client : distributed.Client
    on_message : callable, optional
        Called with each message that a running task tells, in another thread.
    """

    client: Client
    on_message: Callable[[Any], None] | None = None
    _waiting: list[tuple[float, int, Task]] = field(default_factory=list)
    _loaders: dict[Hashable, Callable[[], Any]] = field(default_factory=dict)
    _futures: dict[Hashable, Future] = field(default_factory=dict)
    _added: int = 0
    _submitted: int = 0

    def share(self, name: Hashable, load: Callable[[], Any]) -> None:
        """Scatter a value; `load` gives it, and gives it again if the workers lose it."""
        self._loaders[name] = load
        if not self.client.nthreads():  # between two jobs of a queue, say
            self.client.wait_for_workers(1)
        # In a list: the keys of a bare mapping would become keys of the whole cluster.
        (self._futures[name],) = self.client.scatter([load()], hash=False)

    def add(self, task: Task) -> None:
        """Add a task, also while others run."""
        heapq.heappush(self._waiting, (-task.length, self._added, task))
        self._added += 1

    def run(self) -> None:
        """Run until no task is left, those included that are added on the way."""
        landed, running = as_completed([]), dict[str, Task]()
        if self.on_message:
            self.client.subscribe_topic(TOPIC, lambda event: self.on_message(event[1]))
        try:
            while self._waiting or running:
                ask_for_workers(self.client, len(self._waiting) + len(running))
                while self._waiting and len(running) < self._window():
                    task = heapq.heappop(self._waiting)[-1]
                    future = self._submit(task)
                    running[future.key] = task
                    landed.add(future)
                future = next(landed)
                task = running.pop(future.key)
                try:
                    outcome = future.result()
                except CancelledError:
                    log.warning("%s lost its checkpoints with a worker; sent again", task.name)
                    self._share_what_was_lost(task)
                    self.add(task)
                    continue
                except Exception as error:
                    outcome = error
                finally:
                    future.release()
                task.then(outcome)
        finally:
            if self.on_message:
                self.client.unsubscribe_topic(TOPIC)

    def _window(self) -> int:
        return WINDOW * max(1, len(self.client.nthreads()))

    def _submit(self, task: Task) -> Future:
        self._submitted += 1
        values = [self._futures[name] for name in task.shared]
        # A key is used once: Dask answers a known key with its old result, or its old end.
        call = dask.delayed(_call, traverse=False)(
            task.function,
            task.arguments,
            *values,
            dask_key_name=f"{task.name}-{self._submitted}",
        )
        return self.client.compute(call, priority=task.length)

    def _share_what_was_lost(self, task: Task) -> None:
        for name in task.shared:
            if self._futures[name].status != "finished":
                self.share(name, self._loaders[name])


def _call(function: Callable[..., Any], arguments: tuple[Any, ...], *shared: Any) -> Any:
    """Run a task on a worker."""
    worker = get_worker()
    return function(*arguments, *shared, lambda message: worker.log_event(TOPIC, message))
