"""Show a running study: a bar in a terminal, lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from lthdask.events import Event

QUIET_SECONDS = 60.0
"""Seconds between two lines about epochs in a log."""


@dataclass
class Pace:
    """How far a study is, and how fast it goes.

    Attributes
    ----------
    cells, epochs : int
        How many are to be trained in all.
    cells_done, epochs_done : int
    """

    cells: int = 0
    epochs: int = 0
    cells_done: int = 0
    epochs_done: int = 0
    _began: float = field(default_factory=time.monotonic)

    def count(self, event: Event) -> None:
        """Take an event into account."""
        if event.kind == "plan":
            self.cells, self.epochs, self._began = event.cells, event.epochs, time.monotonic()
        self.cells_done += event.kind == "cell"
        self.epochs_done += event.epochs if event.kind == "epoch" else 0

    def __str__(self) -> str:
        """Return cells done, epochs per second and the time left."""
        done = f"{self.cells_done}/{self.cells} cells"
        if not self.epochs_done:
            return done
        rate = self.epochs_done / (time.monotonic() - self._began)
        left = max(0, self.epochs - self.epochs_done) / rate
        return f"{done}, {rate:.2g} epochs/s, {duration(left)} left"


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
            say(f"{what}: {pace}", event)

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
    with Progress(*columns, console=console) as bars:
        bar: TaskID = bars.add_task("starting", total=None, pace="")

        def draw(event: Event) -> None:
            pace.count(event)
            if event.kind == "plan" and event.status:
                console.print(event.status, highlight=False)
            if event.kind in ("dense", "cell") and event.status != "done":
                console.print(f"{event.name} {event.status}", highlight=False)
            what = "tickets" if pace.cells_done or event.kind == "cell" else "dense run"
            total = pace.epochs or None
            bars.update(
                bar, description=what, total=total, completed=pace.epochs_done, pace=str(pace)
            )

        yield draw
