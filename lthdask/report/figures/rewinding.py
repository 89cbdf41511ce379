"""What the rewind epoch decides: how sparse tickets can be, and how stable training is."""

from typing import Any

import numpy as np
import xarray as xr
from bokeh.models import ColumnDataSource, Range1d
from bokeh.plotting import figure

from lthdask.report.accuracy_map import some
from lthdask.report.figures.density import density_range, density_ticks
from lthdask.report.figures.style import (
    INK,
    frame,
    look_of,
    missing,
    percent,
    shades,
    ticks,
    with_legend,
)
from lthdask.report.labels import axis_of_k, ks_of
from lthdask.report.paired import Means, values_of
from lthdask.report.selection import margin_of, whole
from lthdask.report.summary import points
from lthdask.report.tables import between
from lthdask.report.verdict import frontier


def frontier_over_k(results: xr.Dataset, margin: float | None = None) -> figure:
    """Return how sparse tickets can be and still match the dense run, over the rewind epoch.

    Points are the estimates of :func:`lthdask.frontier`, lines their intervals, which need two
    replicates; they are open where no ticket gives an end. A triangle is the sparsest ticket
    that was compared, so that the true frontier may be lower.

    Parameters
    ----------
    results : Dataset
        What :func:`lthdask.open_results` returned, or a selection of it.
    margin : float, optional
        In points; that of the study by default.
    """
    margin = margin_of(results, margin)
    title = f"Sparsest tickets within {points(margin)} of the dense run"
    results = whole(results)
    _, done = values_of(results.sel(arm=["ticket"]), "test_accuracy")
    trained = done.any(("arm", "replicate", "threshold")).values
    if not trained.any():
        return missing(title, "No ticket is done.")
    found = frontier(results, margin).isel(rewind_epoch=np.flatnonzero(trained))
    y_range = density_range([*results.density.values, 1.0], flipped=False)
    rows = _frontier_columns(found, y_range.start)
    told = zip(ks_of(found), rows["text"], strict=True)
    said = ", ".join(f"k={k:g}: {text}" for k, text in told)
    plot = frame(
        title,
        axis_of_k(results),
        "density, and threshold",
        said,
        [("k", "@k"), ("sparsest", "@text"), ("95 % interval", "@interval")],
        y_axis_type="log",
        x_range=_k_range(results),
        y_range=y_range,
    )
    _k_ticks(plot, results)
    density_ticks(plot, results.density, "yaxis")
    source = ColumnDataSource(rows)
    if np.isfinite(rows["low"]).any():
        plot.segment(
            "k", "low", "k", "high", source=source, line_color=INK, line_width=1.5,
            legend_label="95 % interval",
        )  # fmt: skip
    plot.scatter(
        "k", "density", marker="mark", source=source, size=9, color=look_of("ticket").colour,
        line_width=2, legend_group="kind",
    )  # fmt: skip
    return with_legend(plot)


def _frontier_columns(found: xr.Dataset, floor: float) -> dict[str, list[Any]]:
    """Return what is drawn of a frontier; an interval that is open below ends at the `floor`."""
    low, high = (found.density_interval.sel(bound=bound).values for bound in ("low", "high"))
    pairs = list(zip(found.density.values.tolist(), found.at_edge.values.tolist(), strict=True))
    kinds = ["none" if d != d else "edge" if edge else "inside" for d, edge in pairs]
    return {
        "k": found.rewind_epoch.values.tolist(),
        "density": [1.0 if d != d else d for d, _ in pairs],
        "low": np.maximum(low, floor).tolist(),
        "high": high.tolist(),
        "mark": [_MARKS[kind][0] for kind in kinds],
        "kind": [_MARKS[kind][1] for kind in kinds],
        "text": [
            _MARKS[kind][2].format(percent(d)) for kind, (d, _) in zip(kinds, pairs, strict=True)
        ],
        "interval": [
            f"{between(*of)} %" if np.isfinite(of[0]) else "" for of in zip(low, high, strict=True)
        ],
    }


_MARKS = {
    "inside": ("circle", "sparsest that matches", "{}"),
    "edge": ("inverted_triangle", "the same, sparsest of all", "≤ {}"),
    "none": ("x", "none matches", "none matches"),
}
"""What is known of a frontier → its mark, what that means, and its text."""


def barrier_over_k(results: xr.Dataset) -> figure:
    """Return the barrier between children that see the data in another order, over k.

    One line for each density, and one for the dense network: training is stable where the barrier
    is near 0 (Frankle et al. 2020). It takes a study with ``--stability``.
    """
    title = "Barrier between two orders of the data"
    if "barrier" not in results:
        return missing(title, "The study has no children; --stability trains them.")
    results = whole(results)
    values, counts = values_of(results, "barrier")
    means = Means.over_replicates(values, counts & values.notnull(), 0.0).mean
    if not bool(means.notnull().any()):
        return missing(title, "No barrier is known.")
    plot = frame(
        title,
        axis_of_k(results),
        "barrier, points of test error",
        f"Between {float(means.min()):.1f} and {float(means.max()):.1f} points",
        [("run", "@name"), ("k", "@k"), ("barrier, points", "@barrier{0.0}")],
        x_range=_k_range(results),
    )
    _k_ticks(plot, results)
    lines = []
    if "dense_child" in results.arm:
        of_dense = means.sel(arm="dense_child").max("threshold")
        dense = look_of("dense")
        lines.append(("dense", of_dense, dense.colour, dense.dash))
    if "ticket_child" in results.arm:
        chosen = some(results.threshold.values.tolist())
        for threshold, colour in zip(chosen, shades(len(chosen)), strict=True):
            share = float(results.density.sel(threshold=threshold))
            of = means.sel(arm="ticket_child", threshold=threshold)
            lines.append((f"{percent(share)} (threshold {threshold:g})", of, colour, "solid"))
    for name, of, colour, dash in lines:
        known = of.notnull().values
        rows = {"k": of.rewind_epoch.values[known], "barrier": of.values[known]}
        source = ColumnDataSource(rows | {"name": [name] * int(known.sum())})
        look = {"source": source, "color": colour, "legend_label": name}
        plot.line("k", "barrier", line_dash=dash, line_width=1.5, **look)
        plot.scatter("k", "barrier", size=6, **look)
    return with_legend(plot)


def _k_range(results: xr.Dataset) -> Range1d:
    ks = results.rewind_epoch.values
    room = 0.06 * max(float(ks.max() - ks.min()), 1.0)
    return Range1d(float(ks.min()) - room, float(ks.max()) + room)


def _k_ticks(plot: figure, results: xr.Dataset) -> None:
    """Put ticks at the rewind epochs of a study."""
    ks = results.rewind_epoch.values.tolist()
    shown = some(ks, 10)
    ticks(plot.xaxis[0], {k: f"{k:g}" if k in shown else "" for k in ks})
