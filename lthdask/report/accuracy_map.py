"""The map of accuracies as it is printed.

It is made of plain arrays, because a glance must not wait for xarray and SciPy.
"""

from collections.abc import Collection, Sequence
from math import isfinite
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.highlighter import Highlighter
from rich.table import Table
from rich.text import Text

from lthdask.rewinding import Rewind
from lthdask.storage.schema import Status

T = TypeVar("T")

MOST = 40
"""Thresholds, and rewind epochs, in a table: of a wider grid it shows some, evenly chosen."""


def accuracies(
    thresholds: Sequence[float],
    rewind_epochs: Sequence[Rewind],
    status: NDArray[Any],
    accuracy: NDArray[Any],
    density: NDArray[Any],
    dense: NDArray[Any],
    emptied: Collection[float] = (),
    fallen: NDArray[Any] | None = None,
) -> Table:
    """Return test accuracies in percent, thresholds by rewind epochs, the dense run below.

    With replicates, it shows mean ± standard deviation, and how many of them are done if not
    all are. A cell of which none is done shows its status.

    Parameters
    ----------
    thresholds : sequence of float
    rewind_epochs : sequence of int, float or Iterations
    status, accuracy, density : ndarray, (replicates, thresholds, rewind epochs)
        Of the tickets; accuracies in percent.
    dense : ndarray, (replicates,)
        Accuracies of the dense runs; NaN before they are trained.
    emptied : collection of float
        Thresholds to mark, because they empty a layer.
    fallen : ndarray of bool, optional, (thresholds, rewind epochs)
        Cells to mark, because a replicate lies far below the others.
    """
    rows, columns = some(range(len(thresholds)), MOST), some(range(len(rewind_epochs)), MOST)
    title = f"test accuracy, %{left_out(len(thresholds), len(rewind_epochs))}"
    table = map_of(title, [rewind_epochs[j] for j in columns])
    for i in rows:
        threshold, shown = thresholds[i], []
        for j in columns:
            done = np.where(status[:, i, j] == Status.DONE, accuracy[:, i, j], np.nan)
            mark = "†" * bool(fallen is not None and fallen[i, j])
            shown.append((percent(done) or named(status[:, i, j])) + mark)
        table.add_row(*row_head(threshold, density[:, i], threshold in emptied), *shown)
    table.add_section()
    rest = [""] * (len(columns) - 1)
    table.add_row("dense", "1", percent(dense) or "not trained", *rest)
    return table


def some(values: Sequence[T], most: int = 6) -> list[T]:
    """Return at most so many values, evenly chosen, with the first and the last."""
    places = np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)
    return [values[place] for place in places.tolist()]


def left_out(thresholds: int, rewind_epochs: int = 0) -> str:
    """Return what the title of a table adds where it does not show all of so many."""
    of = {"thresholds": thresholds, "rewind epochs": rewind_epochs}
    shown = [f"{MOST} of {count} {what}" for what, count in of.items() if count > MOST]
    return f"; {' and '.join(shown)}, all by lthdask report --csv FILE" if shown else ""


def map_of(title: str, rewind_epochs: Sequence[Rewind]) -> Table:
    """Return an empty table of thresholds by rewind epochs."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_style="", title_justify="left")
    table.add_column("threshold", justify="right")
    table.add_column("density", justify="right")
    for k in rewind_epochs:
        table.add_column(f"k={k:g}", justify="right")
    return table


def row_head(threshold: float, density: NDArray[Any], emptied: bool) -> tuple[str, str]:
    """Return the threshold, marked where it empties a layer, and the density."""
    counted = f"{np.nanmean(density):.4f}" if np.isfinite(density).any() else ""
    return f"{threshold:g}{'*' * emptied}", counted


def named(codes: NDArray[Any]) -> str:
    """Return what became of the replicates; a dash where there is nothing to train."""
    words = {code: code.name.lower().replace("_", " ") for code in Status}
    words[Status.NOT_APPLICABLE] = "–"
    return "/".join(dict.fromkeys(words[Status(code)] for code in codes.tolist()))


def percent(values: Sequence[float] | NDArray[Any]) -> str:
    """Return mean ± standard deviation; empty where there is no value."""
    known = [float(value) for value in values if isfinite(value)]
    if not known:
        return ""
    mean, spread = sum(known) / len(known), ""
    if len(known) > 1:
        spread = f" ± {(sum((x - mean) ** 2 for x in known) / (len(known) - 1)) ** 0.5:.1f}"
    some = f" ({len(known)}/{len(values)})" if len(known) < len(values) else ""
    return f"{mean:.1f}{spread}{some}"


class _Outcomes(Highlighter):
    """Colours what a reader looks for first."""

    def highlight(self, text: Text) -> None:
        """Colour outcomes and marks, in place."""
        text.highlight_regex(r"\bwinning\b", "green")
        text.highlight_regex(r"\b(worse|failed|diverged|never)\b", "red")
        text.highlight_regex("[†*]", "yellow")


def print_table(console: Console, table: Table) -> None:
    """Print a table at its own width: cut to the width of a screen, it would lose digits.

    A terminal shows outcomes in colour, unless NO_COLOR is set.
    """
    unbounded = console.options.update(max_width=100_000)
    console.width = max(console.width, console.measure(table, options=unbounded).maximum)
    if not console.no_color:
        table.header_style, console.highlighter = "dim", _Outcomes()
        for column in table.columns:
            column.highlight = True
    console.print(table)
