"""The map of a study: how much more accurate than the dense run each cell is."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
import xarray as xr
from bokeh.core.properties import value
from bokeh.models import (
    CDSView,
    ColorBar,
    ColumnDataSource,
    GroupFilter,
    HoverTool,
    Legend,
    LegendItem,
    LinearColorMapper,
    Range1d,
)
from bokeh.plotting import figure
from bokeh.transform import dodge

from lthdask.report.figures.cells import LIMIT, PALETTE, VERDICTS
from lthdask.report.figures.cells import STATES as STATES
from lthdask.report.figures.cells import map_columns as map_columns
from lthdask.report.figures.style import FONT, INK, frame, named, signed, ticks
from lthdask.report.labels import axis_of_k, ks_of
from lthdask.report.selection import scratch_controls
from lthdask.report.verdict import NO_BETTER, WINNING

UNITS = "points of test accuracy"
TOOLTIPS = [
    ("threshold", "@threshold_text"),
    ("density", "@density"),
    ("k", "@k"),
    ("state", "@outcome"),
    ("test accuracy", "@accuracy"),
    ("less dense, points", "@text"),
    ("verdict", "@verdict"),
]
"""What is shown of a cell under the pointer."""
_WRITTEN = {
    "text_align": "center",
    "text_baseline": "middle",
    "text_font_size": FONT,
    "nonselection_text_alpha": 1.0,  # Bokeh fades what is not selected
}
_DENSITY, _LEAST_WIDTH, _LEAST_HEIGHT = 52, 280, 190
"""Width in pixels of the column with the densities, and the least size of a map."""
_NARROW, _LOW, _WIDE = 30, 16, 450
"""Pixels: width and height below which a cell has no room for a number; width above which a map
has its legend below, so that something else has room beside it."""


def difference_map(
    results: xr.Dataset,
    arm: str = "ticket",
    replicate: int | None = None,
    limit: float = LIMIT,
    source: ColumnDataSource | None = None,
) -> figure:
    """Return the map of the differences to dense: thresholds by rewind epochs.

    The more is pruned, the lower a cell lies. Cells that are wide enough have the difference in
    points; with replicates, those of tickets also have a mark of their verdict. What is not done
    has a mark of its state.

    Parameters
    ----------
    results, arm, replicate, limit
        As of :func:`map_columns`.
    source : ColumnDataSource, optional
        What is drawn, as :func:`map_columns` returned it; whoever gives it can change it later,
        as long as the axes are the same.

    Returns
    -------
    figure
    """
    if source is None:
        source = ColumnDataSource(map_columns(results, arm, replicate, limit))
    columns = results.sizes["rewind_epoch"]
    wide, high = _size(columns, 640, 12, 56), _size(results.sizes["threshold"], 600, 14, 40)
    judged = arm == "ticket" and replicate is None and results.sizes["replicate"] > 1
    numbers = wide >= _NARROW + 16 * judged and high >= _LOW
    plot = _empty_map(results, arm, replicate, _said(source.data), wide, high)
    cells = plot.rect(
        "column", "row", 1, 1, source=source, fill_color="colour", line_color="#d0d0d0",
        nonselection_fill_alpha=1, nonselection_line_alpha=1,
        selection_line_color="#000000", selection_line_width=3,
    )  # fmt: skip
    _hatch(plot, source)
    written = _WRITTEN | {"source": source}
    if numbers:
        plot.text(dodge("column", -0.1 * judged), "row", text="text", text_color="ink", **written)
    edge = value(columns - 0.5 + 0.5 * _DENSITY / wide)
    plot.text(edge, "row", text="row_density", text_color=INK, **written)
    marks = {"source": source, "line_width": 1.5, "nonselection_alpha": 1}
    plot.scatter(
        "column", "row", marker="mark", size="mark_size", color=INK, fill_color=None, **marks
    )
    plot.scatter(
        dodge("column", 0.36 if numbers else 0), "row", marker="side_mark", size="side_size",
        line_color="ink", fill_color="side_fill", **marks,
    )  # fmt: skip
    plot.add_tools(HoverTool(tooltips=TOOLTIPS, renderers=[cells]))
    _explain(plot, source.data, _possible(results) if judged else [], limit)
    return plot


def _hatch(plot: figure, source: ColumnDataSource) -> None:
    """Hatch the cells with nothing to train: of a hatch for each cell, a browser makes pictures."""
    state = "not applicable"
    plot.rect(
        "column", "row", 1, 1, source=source, fill_color=None, line_color=None,
        hatch_pattern=STATES[state].hatch, hatch_color="#b0b0b0", hatch_scale=10, hatch_weight=0.5,
        nonselection_hatch_alpha=1,
        view=CDSView(filter=GroupFilter(column_name="state", group=state)),
    )  # fmt: skip


def _size(count: int, whole: int, least: int, most: int) -> int:
    """Return how many pixels each of some cells gets."""
    return max(least, min(most, whole // count))


def _empty_map(
    results: xr.Dataset, arm: str, replicate: int | None, said: str, wide: int, high: int
) -> figure:
    """Return a map without cells, of which each is so many pixels wide and high."""
    ks = [f"{k:g}" for k in ks_of(results)]
    thresholds = [f"{t:g}" for t in results.threshold.values.tolist()]
    across = max(len(ks) + _DENSITY / wide, _LEAST_WIDTH / wide)
    down = max(len(thresholds), _LEAST_HEIGHT / high)
    count = results.sizes["replicate"] if replicate is None else 1
    which = f", mean of {count} replicates" if count > 1 else ""
    which = f", replicate {replicate}" if replicate is not None else which
    plot = frame(
        f"{named(arm)} − dense{which}",
        axis_of_k(results),
        "threshold",
        said,
        x_range=Range1d(-0.5, across - 0.5),
        y_range=Range1d(down - 0.5, -0.5),
        frame_width=round(wide * across),
        frame_height=round(high * down),
        width=None,
        height=None,
        x_axis_location="above",
    )
    labels = _thinned(ks, wide, 16) | {len(ks) - 0.5 + 0.5 * _DENSITY / wide: "density"}
    ticks(plot.xaxis[0], labels)
    ticks(plot.yaxis[0], _thinned(thresholds, high, 13))
    plot.grid.visible = False
    plot.axis.axis_line_color = plot.axis.major_tick_line_color = None
    return plot


def _thinned(labels: list[str], apart: int, least: int) -> dict[float, str]:
    """Return labels that are some pixels apart by their place, as many as there is room for."""
    every = ceil(least / apart)
    return {place: text for place, text in enumerate(labels) if place % every == 0}


def describe(plot: figure, columns: Mapping[str, Sequence[Any]]) -> None:
    """Have the text alternative of a map say what it shows now."""
    label = f"{plot.title.text}. {_said(columns)}"
    plot.html_attributes = plot.html_attributes | {"aria-label": label}


def _said(columns: Mapping[str, Sequence[Any]]) -> str:
    """Return the map in a sentence."""
    states = list(columns["state"])
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    known = [value for value in columns["difference"] if np.isfinite(value)]
    between = f"{signed(min(known))} to {signed(max(known))}" if known else "not known yet"
    return f"Difference in {UNITS}; {len(states)} cells: {counts}; {between}"


def _possible(results: xr.Dataset) -> list[str]:
    """Return the verdicts that a ticket may get: without a control, none wins."""
    controlled = any(arm in scratch_controls(results) for arm in results.arm.values)
    return [of for of in VERDICTS if controlled or of not in (WINNING, NO_BETTER)]


def _explain(
    plot: figure, columns: Mapping[str, Sequence[Any]], verdicts: Sequence[str], limit: float
) -> None:
    """Say beside the map what colours and marks mean; while cells are pending, all of them."""
    bar = ColorBar(
        color_mapper=LinearColorMapper(palette=PALETTE, low=-limit, high=limit),
        width=8, padding=4, major_label_text_color=INK, bar_line_color=None, title=UNITS,
        title_text_font_style="normal", title_text_font_size=FONT, title_text_color=INK,
    )  # fmt: skip
    inside = {at: signed(at, 0) for at in (-limit / 2, 0.0, limit / 2)}
    ticks(bar, {-limit: f"≤ −{limit:g}", **inside, limit: f"≥ +{limit:g}"})
    plot.add_layout(bar, "right")
    found = set(columns["state"]) | {s for s in STATES if s in "".join(columns["outcome"])}
    if "pending" in found:
        found |= {"failed", "diverged", "skipped"}
    looks = {state: look for state, look in STATES.items() if state in found and state != "done"}
    looks |= {verdict: VERDICTS[verdict] for verdict in verdicts if VERDICTS[verdict].size}
    items = []
    for name, look in looks.items():
        drawn = plot.scatter(
            [np.nan], [np.nan], marker=look.mark if look.size else "square", line_width=1.5,
            size=look.size or 10, line_color=INK if look.size else "#b0b0b0",
            fill_color=INK if look.filled else None, hatch_pattern=look.hatch,
            hatch_color="#b0b0b0", hatch_scale=6, hatch_weight=0.5,
        )  # fmt: skip
        items.append(LegendItem(label=name, renderers=[drawn]))
    if items:
        legend = Legend(items=items, border_line_color=None, padding=0, spacing=0, margin=2)
        legend.label_text_font_size, legend.label_text_color = FONT, INK
        wide = plot.frame_width > _WIDE
        legend.ncols = plot.frame_width // 150 if wide else 1
        plot.add_layout(legend, "below" if wide else "right")
