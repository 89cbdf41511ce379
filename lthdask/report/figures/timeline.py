"""When each worker trained which cell, and what that cost."""

import numpy as np
import xarray as xr
from bokeh.models import ColumnDataSource, DatetimeTickFormatter, Range1d
from bokeh.plotting import figure

from lthdask.arms import place_of
from lthdask.grid import Cell
from lthdask.report.cost import cost, recorded
from lthdask.report.figures.style import frame, look_of, missing, named, ticks, with_legend
from lthdask.report.labels import k_of
from lthdask.storage.schema import CELL

TITLE = "Workers over time"
MOST, _WIDTH = 5000, 500
"""Cells of which each has a bar of its own; pixels of the axis, roughly."""
_SAID, _ALONE = 24, 0.75
"""Letters of a place that are shown; share of a worker above which a cell has it for itself."""


def timeline(results: xr.Dataset) -> figure:
    """Return when each worker trained which cell: a bar for each cell, beside its device.

    A device that trained several cells at once has several rows, but the cells of a cohort lie
    on each other. Of a cell that was begun several times, the last attempt is shown. Of more than
    `MOST` cells, those of a row that no pixel parts are one bar. What all of it cost says
    :func:`lthdask.report.cost.cost`.

    Parameters
    ----------
    results : Dataset
        What ``lthdask.open_results(path, "records")`` returned.
    """
    if "seconds" not in results:
        return missing(TITLE, 'The records were not opened: open_results(path, "records").')
    spent = cost(results)
    if spent is None:
        return missing(TITLE, "No cell has a record of its time.")
    of = recorded(results)
    rows, names = _rows(of)
    began, ended = (of[name].astype("M8[ms]") for name in ("started", "ended"))
    first, last = began.min().astype(float), ended.max().astype(float)
    room = max(0.02 * (last - first), 1000.0)
    pixel = np.timedelta64(round((last - first) / _WIDTH), "ms")
    joined = len(rows) > MOST
    plot = frame(
        TITLE + "; cells without a gap to be seen are one bar" * joined,
        f"time, UTC, from {began.min().astype('M8[s]').item():%Y-%m-%d %H:%M}",
        "host and device",
        str(spent),
        [("cell", "@cell"), ("worker", "@place"), ("began", "@began{%F %T}"),
         ("took", "@took{0.[0]} s")],
        x_axis_type="datetime",
        x_range=Range1d(first - room, last + room),
        y_range=Range1d(len(names) - 0.4, -0.6),
        height=min(700, 130 + 26 * len(names)),
    )  # fmt: skip
    plot.hover[0].formatters = {"@began": "datetime"}
    plot.xaxis.formatter = DatetimeTickFormatter(
        seconds="%H:%M:%S", minutes="%H:%M", hourmin="%H:%M", hours="%H:%M", days="%d %b"
    )
    ticks(plot.yaxis[0], _thinned(names))
    bars = {
        "cell": _names(results, of),
        "place": of["place"],
        "row": rows,
        "began": began,
        "ended": ended,
        "took": (ended - began).astype(float) / 1000,
    }
    for arm in sorted(set(of["arm"].tolist()), key=place_of):
        mine = of["arm"] == arm
        drawn = {name: values[mine] for name, values in bars.items()}
        if joined:
            drawn = _joined(drawn, pixel)
        plot.hbar(
            "row", 0.7, "ended", "began", source=ColumnDataSource(drawn),
            fill_color=look_of(arm).colour, fill_alpha=0.75, line_color="#ffffff", line_width=0.5,
            legend_label=named(arm),
        )  # fmt: skip
    return with_legend(plot)


def _names(results: xr.Dataset, of: dict[str, np.ndarray]) -> np.ndarray:
    """Return the names of the cells that are recorded."""
    ks = {k: k_of(results, k) for k in results.rewind_epoch.values.tolist()}
    columns = (of[axis].tolist() for axis in CELL)
    return np.array(
        [str(Cell(a, r, t, ks[k])) for a, r, t, k in zip(*columns, strict=True)], object
    )


def _joined(bars: dict[str, np.ndarray], pixel: np.timedelta64) -> dict[str, np.ndarray]:
    """Return bars of an arm, of which those of a row that no pixel parts are one."""
    order = np.lexsort((bars["began"], bars["row"]))
    bars = {name: values[order] for name, values in bars.items()}
    parted = bars["began"][1:] - bars["ended"][:-1] >= pixel
    first = np.flatnonzero([True, *(parted | (np.diff(bars["row"]) != 0))])
    counts = np.diff(first, append=len(order))
    joined = {name: values[first] for name, values in bars.items()}
    joined["ended"] = np.maximum.reduceat(bars["ended"], first)
    joined["took"] = np.add.reduceat(bars["took"], first)
    several = counts > 1
    joined["cell"][several] = [f"{count} cells" for count in counts[several].tolist()]
    return joined


def _rows(of: dict[str, np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """Return the row of each bar, and the names of the rows."""
    free: dict[str, list[float]] = {place: [] for place in sorted(set(of["place"].tolist()))}
    lanes = np.zeros(len(of["began"]), int)
    for i in np.argsort(of["began"]):
        until = free[of["place"][i]]
        alone = of["share"][i] > _ALONE
        lane = next((n for n, end in enumerate(until) if end <= of["began"][i] or not alone), None)
        if lane is None:
            until.append(0.0)
            lane = len(until) - 1
        lanes[i], until[lane] = lane, max(until[lane], of["over"][i])
    first = dict(zip(free, np.cumsum([0, *(len(ends) for ends in free.values())]), strict=False))
    rows = lanes + np.array([first[place] for place in of["place"].tolist()])
    names = [place if not lane else "" for place, ends in free.items() for lane in range(len(ends))]
    return rows, names


def _thinned(names: list[str]) -> dict[float, str]:
    """Return labels of rows, not more than can be read."""
    every = max(1, len(names) // 25)
    return {i: names[i][:_SAID] for i in range(len(names)) if names[i] and i % every == 0}
