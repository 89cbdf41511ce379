"""The learning curves of a cell beside those of the dense run."""

from typing import Any

import numpy as np
import xarray as xr
from bokeh.models import ColumnDataSource, Range1d
from bokeh.plotting import figure

from lthdask.report.figures.style import frame, look_of, missing, named, with_legend
from lthdask.report.labels import k_of
from lthdask.report.selection import whole
from lthdask.storage.meanings import CURVES


def curve_columns(
    results: xr.Dataset,
    arm: str,
    threshold: float,
    rewind_epoch: float,
    replicate: int | None = None,
    quantity: str = "test_accuracy",
) -> dict[str, list[Any]]:
    """Return what :func:`learning_curves` draws: one row for each run that has begun.

    Parameters
    ----------
    results : Dataset
        What ``lthdask.open_results(path, "curves")`` returned.
    arm, threshold, rewind_epoch
        The cell, by values that the axes have.
    replicate : int, optional
        All replicates by default, each by itself.
    quantity : {"test_accuracy", "validation_accuracy", "validation_loss", "train_loss"}

    Returns
    -------
    dict of str to list
        ``run``, such as ``dense, replicate 0``, and its ``kind``; ``epoch`` and ``value``, a list
        each; ``end`` and ``last``, the last of each; ``colour`` and ``dash`` of the line. Dense
        runs come first. Where no run has begun, there is one row, which is not seen.
    """
    results = whole(results)
    if replicate is not None:
        results = results.sel(replicate=[replicate])
    cell = results.sel(arm=arm, threshold=threshold, rewind_epoch=rewind_epoch)
    runs = [
        (kind, number, of.sel(replicate=number).values.tolist())
        for kind, of in (
            ("dense", results[f"dense_{quantity}_curve"]),
            (arm, cell[f"{quantity}_curve"]),
        )
        for number in results.replicate.values.tolist()
    ]
    several = results.sizes["replicate"] > 1
    rows = []
    for kind, number, values in runs:
        known = [i for i, value in enumerate(values) if np.isfinite(value)]
        if known:
            row = {
                "run": named(kind) + (f", replicate {number}" if several else ""),
                "kind": named(kind),
                "epoch": [i + 1 for i in known],
                "value": [values[i] for i in known],
                "end": known[-1] + 1,
                "last": values[known[-1]],
                "colour": look_of(kind).colour,
                "dash": look_of(kind).dash,
            }
            rows.append(row)
    return {name: [row[name] for row in rows or [_nothing(results)]] for name in _nothing(results)}


def _nothing(results: xr.Dataset) -> dict[str, Any]:
    """Return a row that is not seen, but says that there is none, and gives axes a range."""
    ends = [1, results.sizes["epoch"]]
    why = "no epoch is done yet"
    row = {"run": why, "kind": why, "epoch": ends, "value": [0.0, 100.0], "end": 1}
    return row | {"last": np.nan, "colour": "#00000000", "dash": "solid"}


def learning_curves(
    results: xr.Dataset,
    arm: str,
    threshold: float,
    rewind_epoch: float,
    replicate: int | None = None,
    quantity: str = "test_accuracy",
    source: ColumnDataSource | None = None,
) -> figure:
    """Return the learning curves of a cell beside those of the dense runs.

    Parameters
    ----------
    results, arm, threshold, rewind_epoch, replicate, quantity
        As of :func:`curve_columns`.
    source : ColumnDataSource, optional
        What is drawn, as :func:`curve_columns` returned it; whoever gives it can change it later.

    Returns
    -------
    figure
        Of whose axes the vertical one follows what is drawn.
    """
    title = f"{named(arm)}, threshold {threshold:g}, k={k_of(results, rewind_epoch):g}"
    if f"{quantity}_curve" not in results:
        return missing(title, 'The curves were not opened: open_results(path, "curves").')
    if source is None:
        asked = (arm, threshold, rewind_epoch, replicate, quantity)
        source = ColumnDataSource(curve_columns(results, *asked))
    meaning = CURVES[quantity]
    ends = ", ".join(
        f"{run}: {last:.3g} at last"
        for run, last in zip(source.data["run"], source.data["last"], strict=True)
    )
    plot = frame(
        title,
        "epoch",
        f"{meaning.label}, {meaning.units}",
        ends,
        [("run", "@run"), ("epoch", "$x{0}"), (meaning.label, "$y{0.00}")],
        x_range=Range1d(0.5, results.sizes["epoch"] + 0.5),
    )
    plot.xaxis.ticker.min_interval = 1
    plot.multi_line(
        "epoch", "value", source=source, line_color="colour", line_dash="dash", line_width=2,
        line_alpha=0.85, legend_field="kind",
    )  # fmt: skip
    # How far a run is, and all there is to see of one epoch.
    plot.scatter("end", "last", source=source, size=5, color="colour")
    return with_legend(plot, "bottom_right" if "accuracy" in quantity else "top_right")
