"""A call of a task on a worker: what became of it, and where."""

import pickle
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

from distributed import Reschedule, get_worker

from lthdask.cluster.workers import (
    has_to_go,
    is_unwanted,
    node_of,
    place_of,
    start_anew,
    topic_of,
)
from lthdask.errors import FinalError, InputError
from lthdask.events import Stopped, TaskContext


def call_on_worker(function: Callable[..., Any], *shared: Any) -> tuple[Any, str]:
    """Run a task on a worker; return its outcome, and where that was."""
    worker = get_worker()
    task = worker.get_current_task()
    here = TaskContext(
        tell=lambda event: worker.log_event(topic_of(task), astuple(event)),
        should_stop=lambda: has_to_go(worker) or is_unwanted(worker, task),
        lifetime=worker.lifetime,
        place=place_of(worker.name, worker.address),
        node=node_of(worker),
    )
    try:
        outcome = function(here, *shared)
    except Stopped:
        raise Reschedule from None
    except FinalError:
        raise
    except Exception as problem:
        outcome = problem
    several = outcome if isinstance(outcome, list) else [outcome]
    problems = [one for one in several if isinstance(one, Exception)]
    if all(isinstance(problem, FinalError) for problem in problems):
        return outcome, here.place
    if not all(isinstance(problem, FinalError | InputError) for problem in problems):
        start_anew(worker, task)
    travels = [_as_it_travels(one) for one in several]
    outcome = travels if isinstance(outcome, list) else travels[0]
    raise FailedError(outcome, here.place, here.node) from problems[0]


def _as_it_travels(outcome: Any) -> Any:
    """Return an outcome, or its text where pickle cannot send it: the place must arrive."""
    try:
        pickle.loads(pickle.dumps(outcome))
    except Exception:
        return RuntimeError(repr(outcome))
    return outcome


class FailedError(Exception):
    """What a task raised, and where.

    It travels through the scheduler: results are fetched from workers, and this one may be
    unable to answer, or gone.
    """

    def __str__(self) -> str:
        return repr(self.__cause__)[:200]  # Dask replaces the arguments where this is long
