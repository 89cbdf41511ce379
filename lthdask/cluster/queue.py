"""Tasks on the workers: values shared once, tasks submitted longest first in a window.

The driver never holds more than a window of tasks, so that its memory does not grow with
the grid. Tasks that were lost with a shared value are submitted anew.
A worker where a task has failed is started anew, the task is tried elsewhere, and a place that
turns out to be sick is left out.
"""

import logging
import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Event as Flag
from typing import Any

import dask
from distributed import Client, Future, as_completed
from distributed.client import ClosedClientError
from distributed.scheduler import KilledWorker, NoWorkerError

from lthdask.cluster.calls import call_on_worker
from lthdask.cluster.jobs import ask_for_workers, workers_asked_for
from lthdask.cluster.shared_values import NO_WORKERS, NoWorkersError, SharedValues, UnreadableError
from lthdask.cluster.sick_places import SickPlaces
from lthdask.cluster.stopping import CLOSED, take_back
from lthdask.cluster.window import FEWEST, Window
from lthdask.cluster.workers import topic_of
from lthdask.errors import ExhaustedError, InputError
from lthdask.events import Event

log = logging.getLogger(__name__)

CANCELLED = "it was cancelled; what is done is kept, and the same study picks up where it left off"
GONE = (
    "the scheduler is gone, and its workers with it; what is done is kept, and the same command, "
    "with another one, picks up where it left off"
)
RECONNECTING = 20
"""Seconds in which a scheduler may come back."""


@dataclass(frozen=True)
class Task:
    """One call on a worker.

    Attributes
    ----------
    name : str
        One that has failed is added again under the same name.
    function : callable
        Called as ``function(*arguments, here, *values)``, with a `TaskContext` and the shared
        values. One that raises `Stopped` is called again elsewhere.
    arguments : tuple
        Small values; they travel with the task.
    shared : tuple of str
        Names of shared values.
    length : float
        How long it takes, in any unit: the longest is submitted first.
    then : callable
        Called on the driver with the outcome: the result, or the exception that it raised.
    label : str
        What Dask's pages call it; by default, its name. They group and colour tasks by the words
        before the first that has a digit.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    shared: tuple[str, ...] = ()
    length: float = 0.0
    then: Callable[[Any], None] = lambda outcome: None
    label: str = ""


@dataclass
class Queue:
    """Tasks that wait for the workers of a client, or run on them.

    Parameters
    ----------
    client : distributed.Client
    watch : callable, optional
        Called with each event that a running task sends, in the thread that runs the queue. It is
        told before the outcome of its task is, and after what the task has sent before.
    stop : threading.Event, optional
        Once another thread sets it, the queue ends with a `CancelledError`.
    """

    client: Client
    watch: Callable[[Event], None] = lambda event: None
    stop: Flag = field(default_factory=Flag)
    _waiting: Window[Task] = field(default_factory=Window)
    _events: deque[Event] = field(default_factory=deque)
    _workers: int = 0
    _counted: float = float("-inf")
    _keys: int = 0
    _lost: float = math.inf
    _name: str = field(default_factory=lambda: secrets.token_hex(4))

    def __post_init__(self) -> None:
        self.places = SickPlaces(self.client)
        self._shared = SharedValues(self.client, self._key, self._go_on)

    def share(self, name: str, load: Callable[[], Any]) -> None:
        """Share a value, which tasks name; `load` reads it, and again if the workers lose it."""
        self._shared.add(name, load)

    def _key(self, name: str) -> str:
        """Return a key that no queue has ever used.

        Dask answers a known key with its old result, or old end, as long as anybody holds it, as
        the traceback of a run that failed does.
        """
        self._keys += 1
        return f"{name}-{self._name}-{self._keys}"

    def add(self, task: Task) -> None:
        """Add a task, even while others run."""
        self._waiting.add(task, task.length)

    def workers(self) -> int:
        """Return how many workers there are, or will be when the queue has started them."""
        now = time.monotonic()
        if now - self._counted > 1:
            self._workers, self._counted = len(self.client.nthreads()), now
        return max(workers_asked_for(self.client), self._workers, 1)

    def run(self) -> None:
        """Run until no task is left, including those that are added on the way.

        Whatever else it ends with, no task of it runs on.

        Raises
        ------
        concurrent.futures.CancelledError
            If it was stopped.
        """
        loop = self.client.loop
        landed = as_completed([], loop=loop, with_results=True, raise_errors=False)
        running = dict[str, tuple[Task, Future]]()

        def note(event: tuple[float, Any]) -> None:  # in the loop of Dask, perhaps the scheduler's
            self._events.append(Event(*event[1]))
            with landed.thread_condition:
                landed.thread_condition.notify()

        topic = topic_of(self._key(""))
        self.client.subscribe_topic(topic, note)
        try:
            while self._waiting or running:
                self._go_on()
                ask_for_workers(self.client, len(self._waiting) + len(running))
                for task, future in self._submit_next(len(running)):
                    running[future.key] = task, future
                    landed.add(future)
                if not running:  # no task that was to be submitted has all its shared values
                    continue
                for future, result in self._next(landed):
                    (task, _), status = running.pop(future.key), future.status
                    if status == "error":
                        result = result[1]
                    future.release()
                    if status == "cancelled":
                        self._go_on()
                        log.warning(
                            "%s lost its checkpoints with a worker; sending them again", task.name
                        )
                        self._shared.forget_what_was_lost(task.shared)
                        self.add(task)
                    else:
                        task.then(self.places.outcome(task.name, _in_our_words(result)))
        except BaseException as error:
            self._shared.clear()
            if self._is_lost():  # nobody is there to take them back from
                gone = isinstance(error, (OSError, ClosedClientError))
                raise (InputError(GONE) if gone else error) from None
            take_back(self.client, self._name)
            raise
        finally:
            with suppress(ClosedClientError):
                self.client.unsubscribe_topic(topic)

    def _go_on(self) -> None:
        """Raise if there is a reason to end."""
        if self.stop.is_set():
            raise CancelledError(CANCELLED)
        if self.client.status in CLOSED:
            if self._is_lost():
                raise InputError(GONE)
            raise InputError(
                "the client was closed while the study was trained; what is done is kept, and the "
                "same study picks up where it left off with another client"
            )
        if not self._is_lost():  # or it is there again
            self._lost = math.inf
        else:
            self._lost = min(self._lost, now := time.monotonic())
            if self._lost < now - RECONNECTING:
                raise InputError(GONE)

    def _is_lost(self) -> bool:
        """Return whether the scheduler is gone; then Dask closes the client sooner or later."""
        status = self.client.status
        return status == "connecting" or (status in CLOSED and self.client.scheduler_comm is None)

    def _next(self, landed: as_completed) -> list[tuple[Future, Any]]:
        """Wait for tasks that have ended, and tell what is sent meanwhile."""
        while not landed.has_ready():
            self._go_on()
            self._tell()
            with landed.thread_condition:
                if not (landed.has_ready() or self._events):
                    landed.thread_condition.wait(0.1)
        batch: list[tuple[Future, Any]] = landed.next_batch(block=False)
        self._tell()  # what they have sent was there before they ended
        return batch

    def _tell(self) -> None:
        while self._events:
            self.watch(self._events.popleft())

    def _submit_next(self, running: int) -> Iterator[tuple[Task, Future]]:
        """Submit what there is room for: one task per worker first, so that they begin."""
        workers = self.workers()
        tasks = self._waiting.take(running, workers)
        at_once = max(FEWEST, workers)
        for begin in range(0, len(tasks), at_once):
            yield from self._submit(tasks[begin : begin + at_once])

    def _submit(self, tasks: list[Task]) -> Iterator[tuple[Task, Future]]:
        """Submit tasks as one graph."""
        call, calls = dask.delayed(call_on_worker, traverse=False, pure=False), []
        sent = list[Task]()
        for task in tasks:
            try:
                values = [self._shared[name] for name in task.shared]
            except UnreadableError as error:
                task.then(error.__cause__)
                continue
            sent.append(task)
            key = self._key(task.label or task.name)
            # As one value, that Dask does not search for collections: a fifth of a submission.
            function = partial(task.function, *task.arguments)
            with dask.annotate(priority=task.length, **self.places.preference(task.name)):
                calls.append(call(function, *values, dask_key_name=key))
            # So that the scheduler keeps it until a worker is free (one alone: overrides.ALONE),
            # also where a group is small for the workers. Dask would hand out such a one at
            # once, and a long task would wait behind another.
            calls[-1].dask[key]._data_producer = True
        return zip(sent, self.client.compute(calls), strict=True)


def _in_our_words(result: Any) -> Any:
    """Return a result, or why a task has ended: what Dask itself raised says less."""
    if isinstance(result, NoWorkerError):
        raise NoWorkersError(NO_WORKERS)
    if isinstance(result, KilledWorker):
        return ExhaustedError("every worker that began it has died")
    return result
