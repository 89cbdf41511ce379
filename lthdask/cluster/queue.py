"""Tasks on the workers: values shared once, tasks submitted longest first in a window.

The driver never holds more than a window of tasks, so that its memory does not grow with
the grid. Values that many tasks need are scattered once and are futures from then on. A
value whose last holder was lost is scattered again, and the tasks it took with it are
submitted anew: Dask itself would cancel them (dask/distributed#3149).
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
from dask.utils import parse_timedelta
from distributed import Client, Future, as_completed
from distributed.client import ClosedClientError
from distributed.comm import CommClosedError
from distributed.scheduler import KilledWorker, NoWorkerError

from lthdask.cluster.calls import call_on_worker
from lthdask.cluster.jobs import ask_for_workers, workers_asked_for
from lthdask.cluster.sick_places import SickPlaces
from lthdask.cluster.stopping import CLOSED, take_back
from lthdask.cluster.window import FEWEST, Window
from lthdask.cluster.workers import topic_of
from lthdask.errors import ExhaustedError, InputError
from lthdask.events import Event

log = logging.getLogger(__name__)

NO_WORKERS = (
    "no worker is left, and none has started: they end as they start, for example because memory "
    "is short; choose fewer `workers`, or end what else runs there. What is done is kept, and the "
    "same command picks up where it left off"
)
CANCELLED = "it was cancelled; what is done is kept, and the same study picks up where it left off"
GONE = (
    "the scheduler is gone, and its workers with it; what is done is kept, and the same command, "
    "with another one, picks up where it left off"
)
RECONNECTING = 20
"""Seconds in which a scheduler may come back."""
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


class _UnreadableError(Exception):
    """A shared value cannot be read; its cause says why."""


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
    _loaders: dict[str, Callable[[], Any]] = field(default_factory=dict)
    _futures: dict[str, Future] = field(default_factory=dict)
    _events: deque[Event] = field(default_factory=deque)
    _workers: int = 0
    _counted: float = float("-inf")
    _keys: int = 0
    _lost: float = math.inf
    _name: str = field(default_factory=lambda: secrets.token_hex(4))

    def __post_init__(self) -> None:
        self.places = SickPlaces(self.client)

    def share(self, name: str, load: Callable[[], Any]) -> None:
        """Share a value; `load` reads it, and reads it again if the workers lose it.

        It is scattered once, when the first task that needs it is submitted: workers begin with
        the longest tasks while values that only others need are sent. If it cannot be read
        then, the tasks that need it end with that error.
        """
        self._loaders[name] = load

    def _shared(self, name: str) -> Future:
        """Return a shared value, scattered."""
        if name in self._futures:
            return self._futures[name]
        try:
            value = self._loaders[name]()
        except (InputError, OSError) as problem:
            raise _UnreadableError from problem
        for _ in range(REFUSALS):
            self._wait_for_a_worker()
            try:
                (self._futures[name],) = self.client.scatter({self._key(name): value}).values()
                return self._futures[name]
            except (CommClosedError, TimeoutError):  # its worker has just died, or is leaving
                self._go_on()
                log.warning("no worker was there to receive %s; sending it again", name)
                time.sleep(1)
        raise NoWorkersError(FULL)

    def _wait_for_a_worker(self) -> None:
        """Wait if there is none that takes data, such as between two jobs of a queue."""
        patience = dask.config.get("distributed.scheduler.no-workers-timeout")
        patience, began = parse_timedelta(patience) if patience else math.inf, time.monotonic()
        while not self.client.sync(self.client.scheduler.ncores_running, workers=None):
            self._go_on()
            waited, some = time.monotonic() - began, self.client.nthreads()
            if waited > (TAKING if some else patience):
                raise NoWorkersError(FULL if some else NO_WORKERS)
            time.sleep(0.1)

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
                        self._forget_what_was_lost(task)
                        self.add(task)
                    else:
                        task.then(self.places.outcome(task.name, _in_our_words(result)))
        except BaseException as error:
            self._futures.clear()
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
                values = [self._shared(name) for name in task.shared]
            except _UnreadableError as error:
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

    def _forget_what_was_lost(self, task: Task) -> None:
        for name in task.shared:
            if name in self._futures and self._futures[name].status != "finished":
                del self._futures[name]


def _in_our_words(result: Any) -> Any:
    """Return a result, or why a task has ended: what Dask itself raised says less."""
    if isinstance(result, NoWorkerError):
        raise NoWorkersError(NO_WORKERS)
    if isinstance(result, KilledWorker):
        return ExhaustedError("every worker that began it has died")
    return result
