"""What a running study tells those who watch it, and what a task knows of where it runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Event:
    """Something that has just happened; for display, never as the record.

    Attributes
    ----------
    kind : {"plan", "dense", "epoch", "cell", "warning"}
        The work is known; a dense run has ended; a run has trained more epochs; a cell
        has ended; something needs attention.
    name : str
        Name of the dense run or cell; for a warning, what it is about.
    status : str
        With "plan", the engine and why it was chosen; with "dense" and "cell", what became of
        it; with "warning", the sentence.
    cells : int
    epochs : float
        With "plan", how many are to be trained, dense runs' epochs included; with "epoch", how
        many the run has trained since its last event.
    """

    kind: Literal["plan", "dense", "epoch", "cell", "warning"]
    name: str = ""
    status: str = ""
    cells: int = 0
    epochs: float = 0


class Stopped(Exception):  # noqa: N818 - an outcome of a task, not an error
    """A task has stopped because its worker has to go, or nobody waits for it; it is picked up."""


@dataclass(frozen=True)
class TaskContext:
    """What a task knows of the worker it runs on.

    Attributes
    ----------
    tell : callable
        Sends an `Event` to the driver, which tells it before the outcome of the task.
    should_stop : callable
        Returns whether the worker has to go, or the run was cancelled: save, and raise `Stopped`.
    lifetime : float or None
        Seconds after which the worker leaves by itself.
    place : str
        Where the worker is: its node's address, or its own name where all are on one node.
    node : str
        The same as a queue calls it.
    """

    tell: Callable[[Event], None]
    should_stop: Callable[[], bool]
    lifetime: float | None = None
    place: str = ""
    node: str = ""
