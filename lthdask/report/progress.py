"""Show a running study: a bar in a terminal, lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from lthdask.events import Event

QUIET_SECONDS = 60.0
"""Seconds between two lines about epochs in a log."""


@dataclass(frozen=True)
class Progress:
    """How far a run of a study is at one moment, and how fast it goes.

    Attributes
    ----------
    cells : int
    epochs : float
        How many are to be trained in all, those of dense runs included; 0 before that is known.
    cells_done : int
    epochs_done : float
    seconds : float
        For how long it has been trained.

    Examples
    --------
    >>> Progress(cells=16, epochs=80, cells_done=4, epochs_done=20, seconds=10)
    4/16 cells, 2 epochs/s, 30 s left
    """

    cells: int = 0
    epochs: float = 0
    cells_done: int = 0
    epochs_done: float = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float | None:
        """Epochs per second; None before the first."""
        return self.epochs_done / self.seconds if self.epochs_done and self.seconds else None

    @property
    def left(self) -> float | None:
        """Seconds until the end, at the rate so far."""
        return max(0, self.epochs - self.epochs_done) / self.rate if self.rate else None

    def __repr__(self) -> str:
        """Return cells done, epochs per second and the time left."""
        done = f"{self.cells_done}/{self.cells} cells"
        if self.epochs_done + 1e-6 >= self.epochs > 0 and self.cells_done >= self.cells:
            return f"{done} in {duration(self.seconds)}"
        if self.rate is None or self.left is None:
            return done
        return f"{done}, {self.rate:.2g} epochs/s, {duration(self.left)} left"


class Pace:
    """Counts what a run of a study tells."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began, self._counted = clock, clock(), Progress()

    def count(self, event: Event) -> None:
        """Take an event into account."""
        now = self._counted
        if event.kind == "plan":
            now, self._began = Progress(event.cells, event.epochs), self._clock()
        elif event.kind == "cell":
            now = replace(now, cells_done=now.cells_done + 1)
        elif event.kind == "epoch":
            now = replace(now, epochs_done=now.epochs_done + event.epochs)
        self._counted = now

    @property
    def progress(self) -> Progress:
        """How far it is now."""
        return replace(self._counted, seconds=self._clock() - self._began)


def part(now: Progress) -> str:
    """Return which part of a study is trained."""
    return "tickets" if now.cells_done else "dense run"


def duration(seconds: float) -> str:
    """Return a time as people say it: ``45 s``, ``3 min 5 s``, ``2 h 10 min``, ``4 d 3 h``."""
    whole = round(seconds)
    for (size, unit), (smaller, part) in (
        ((86400, "d"), (3600, "h")),
        ((3600, "h"), (60, "min")),
        ((60, "min"), (1, "s")),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {part}"
    return f"{whole} s"


def told(
    say: Callable[[str, Event], None], clock: Callable[[], float] = time.monotonic
) -> Callable[[Event], None]:
    """Return the function to call with each event of a study, to say it in lines.

    There is a line for each run that ends, and one a minute in between.
    """
    pace, said = Pace(), clock()

    def tell(event: Event) -> None:
        nonlocal said
        pace.count(event)
        if event.kind == "plan" and event.status:
            say(event.status, event)
        ended = event.kind in ("dense", "cell")
        if ended or (event.kind == "epoch" and clock() - said >= QUIET_SECONDS):
            said = clock()
            what = f"{event.name} {event.status}" if ended else event.name
            say(f"{what}: {pace.progress}", event)

    return tell


@contextmanager
def shown(
    console: Console, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[Event], None]]:
    """Yield the function to call with each event of a study, to show it on `console`.

    Outside a terminal, it prints lines.
    """
    if not console.is_terminal:
        yield told(lambda line, _: console.print(line, highlight=False, soft_wrap=True), clock)
        return
    pace = Pace()
    columns = TextColumn("{task.description}"), BarColumn(None), TextColumn("{task.fields[pace]}")
    with Bars(*columns, console=console) as bars:
        bar: TaskID = bars.add_task("starting", total=None, pace="")

        def draw(event: Event) -> None:
            pace.count(event)
            if event.kind == "plan" and event.status:
                console.print(event.status, highlight=False)
            if event.kind in ("dense", "cell") and event.status != "done":
                console.print(f"{event.name} {event.status}", highlight=False)
            now = pace.progress
            bars.update(
                bar,
                description=part(now),
                total=now.epochs or None,
                completed=now.epochs_done,
                pace=str(now),
            )

        yield draw
