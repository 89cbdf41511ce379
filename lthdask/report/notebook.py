"""What a cell of a notebook shows, and how it changes while a study runs."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from lthdask.events import Event
from lthdask.report.progress import Pace, Progress, part

EVERY = 0.2
"""Seconds between two changes of a bar, at least."""


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook, which IPython then knows."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class Output:
    """A place in the cell that runs at the first :meth:`show`; any thread may change it later."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._shown: dict[str, str] = {}

    def show(self, html: str, text: str) -> None:
        """Show something in place of what was shown before."""
        content = {"text/html": html, "text/plain": text}
        if self._handle is None:
            from IPython.display import display

            self._handle = display(content, raw=True, display_id=True)
        elif content != self._shown:
            self._handle.update(content, raw=True)
        self._shown = content


@contextmanager
def bar() -> Iterator[Callable[[Event], None]]:
    """Yield the function to call with each event of a study, to show a bar in the cell."""
    output, pace, notes, shown = Output(), Pace(), list[str](), time.monotonic()
    output.show("being prepared", "being prepared")

    def draw(event: Event) -> None:
        nonlocal shown
        pace.count(event)
        if event.kind == "plan" or (event.kind in ("dense", "cell") and event.status != "done"):
            notes.append(f"{event.name} {event.status}".strip())
        if event.kind == "plan" or time.monotonic() - shown > EVERY:
            output.show(*_drawn(pace.progress, notes))
            shown = time.monotonic()

    try:
        yield draw
    finally:
        output.show(*(_drawn(pace.progress, notes) if notes else ("", "")))


def _drawn(now: Progress, notes: list[str]) -> tuple[str, str]:
    """Return a bar as HTML and as text."""
    text = f"{part(now)}: {now}" if now.epochs else "nothing is left to train"
    of = f'<progress max="{max(now.epochs, 1)}" value="{now.epochs_done}"></progress>'
    lines = "".join(f"<br><small>{escape(note)}</small>" for note in notes)
    return f"<div>{of} {escape(text)}{lines}</div>", "\n".join([text, *notes])
