"""Every arm over the density, at the rewind epochs that the validation images choose."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from bokeh.models import BoxAnnotation, ColumnDataSource, Range1d
from bokeh.plotting import figure

from lthdask.arms import CHILDREN
from lthdask.report.controls import at_chosen, chosen_rewind_epochs
from lthdask.report.figures.style import (
    INK,
    frame,
    look_of,
    missing,
    named,
    percent,
    ticks,
    with_legend,
)
from lthdask.report.labels import k_of
from lthdask.report.paired import Means, one_image
from lthdask.report.selection import whole

_WIDTH, _HEIGHT = 400, 250
"""Pixels of the axes, roughly."""


class _Quantity(NamedTuple):
    name: str
    title: str
    axis: str
    digits: str


_ACCURACY = _Quantity("test_accuracy", "Test accuracy", "test accuracy, %", "0.00")
_EARLY_STOP = _Quantity(
    "early_stop_iteration", "Steps until early stop", "steps from a run's own start", "0"
)


def accuracy_over_density(results: xr.Dataset) -> figure:
    """Return the test accuracy of every arm over the density, beside that of the dense run.

    Each threshold has the k that :func:`lthdask.report.controls.chosen_rewind_epochs` chooses on
    the validation images. With replicates, means have their 95 % interval.

    Parameters
    ----------
    results : Dataset
        What :func:`lthdask.open_results` returned, or a selection of it.
    """
    return _over_density(results, _ACCURACY)


def early_stop_over_density(results: xr.Dataset) -> figure:
    """Return the step of the lowest validation loss of every arm over the density, likewise.

    Steps are counted from a run's own start, and are as fine as was measured.
    """
    return _over_density(results, _EARLY_STOP)


def _over_density(results: xr.Dataset, quantity: _Quantity) -> figure:
    title = f"{quantity.title}, k chosen on the validation images"
    results = whole(results)
    chosen = chosen_rewind_epochs(results)
    values, counts = at_chosen(results, quantity.name, chosen)
    if not bool((counts & values.notnull()).any()):
        return missing(title, "No ticket is done.")
    least = one_image(results) if quantity is _ACCURACY else 0.0
    means = Means.over_replicates(values, counts & values.notnull(), least)
    density = results.density.sel(threshold=chosen.threshold)
    dense = float(results[f"dense_{quantity.name}"].mean("replicate"))
    plot = frame(
        title,
        "density: share of the weights that is left; below it, the threshold",
        quantity.axis,
        _said(means.mean, density, dense),
        [
            ("run", "@arm"),
            ("threshold", "@threshold"),
            ("density", "@density_text"),
            ("k", "@k"),
            (quantity.axis, f"@mean{{{quantity.digits}}}@interval"),
            ("replicates", "@count"),
        ],
        x_axis_type="log",
        x_range=density_range(density.values),
    )
    density_ticks(plot, density)
    _draw_dense(plot, results[f"dense_{quantity.name}"], least)
    arms = [str(arm) for arm in results.arm.values if arm not in CHILDREN]
    interval, ks = means.interval(0.05), [f"{k_of(results, k):g}" for k in chosen.values]
    for i, arm in enumerate(arms):
        of = {"count": means.count, "mean": means.mean, "interval": interval}
        rows = _rows({name: v.sel(arm=arm) for name, v in of.items()}, density, ks)
        if rows["mean"]:
            _draw_arm(plot, arm, rows, i - (len(arms) - 1) / 2)
    return with_legend(plot)


def _rows(of: dict[str, xr.DataArray], density: xr.DataArray, ks: list[str]) -> Any:
    """Return the columns of what is drawn of an arm."""
    known = np.isfinite(of["mean"].values)
    low, high = (of["interval"].sel(bound=bound).values for bound in ("low", "high"))
    half = [0.5 * (b - a) for a, b in zip(low[known], high[known], strict=True)]
    shares = density.values[known]
    return {
        "density": shares.tolist(),
        "density_text": [percent(share) for share in shares],
        "threshold": [f"{t:g}" for t in density.threshold.values[known]],
        "k": [k for k, one in zip(ks, known, strict=True) if one],
        "mean": of["mean"].values[known].tolist(),
        "low": low[known].tolist(),
        "high": high[known].tolist(),
        "interval": [f" ± {h:.2g}" if np.isfinite(h) else "" for h in half],
        "count": of["count"].values[known].tolist(),
    }


def _draw_arm(plot: figure, arm: str, rows: dict[str, list[Any]], place: float) -> None:
    """Draw an arm; `place` moves it aside by a few pixels, so that intervals do not overlap."""
    ends = plot.x_range.start, plot.x_range.end
    aside = (ends[1] / ends[0]) ** (4 * place / _WIDTH)
    rows["x"] = [density * aside for density in rows["density"]]
    rows["arm"] = [named(arm)] * len(rows["x"])
    source, (colour, dash, marker) = ColumnDataSource(rows), look_of(arm)
    plot.segment("x", "low", "x", "high", source=source, line_color=colour, line_width=1.5)
    plot.line(
        "x", "mean", source=source, color=colour, line_dash=dash, line_width=1.5,
        legend_label=named(arm),
    )  # fmt: skip
    plot.scatter(
        "x", "mean", source=source, color=colour, marker=marker, size=7,
        legend_label=named(arm),
    )  # fmt: skip


def _draw_dense(plot: figure, dense: xr.DataArray, least: xr.DataArray | float) -> None:
    """Draw the dense runs across: their mean, and its interval as a band."""
    of = Means.over_replicates(dense, dense.notnull(), least)
    mean, (low, high) = float(of.mean), of.interval(0.05).values.tolist()
    look = look_of("dense")
    if not np.isfinite(mean):
        return
    if np.isfinite(low):
        band = BoxAnnotation(bottom=low, top=high, fill_color="#000000", fill_alpha=0.08)
        band.line_color = None
        plot.add_layout(band)
    ends = [plot.x_range.start, plot.x_range.end]
    plot.line(
        ends, [mean, mean], color=look.colour, line_dash=look.dash, line_width=1.5,
        legend_label="dense",
    )  # fmt: skip


def density_range(densities: Any, flipped: bool = True) -> Range1d:
    """Return a range of a logarithmic axis around densities, the sparse ones last."""
    known = [share for share in np.ravel(densities) if share > 0] or [0.1, 1.0]
    least, most = min(known) / 1.25, max(known) * 1.25
    return Range1d(most, least) if flipped else Range1d(least, most)


def density_ticks(plot: figure, density: xr.DataArray, of: str = "xaxis") -> None:
    """Put ticks at the densities of a study, with as many labels as there is room for."""
    across = of == "xaxis"
    axis, extent = getattr(plot, of)[0], plot.x_range if across else plot.y_range
    per_pixel = abs(np.log(extent.end / extent.start)) / (_WIDTH if across else _HEIGHT)
    labels, free = dict[float, str](), -np.inf
    pairs = zip(density.values.tolist(), density.threshold.values.tolist(), strict=True)
    for share, threshold in sorted(pair for pair in pairs if pair[0] > 0):
        lines = percent(share), f"{threshold:g}"
        half = (4 + 3.5 * max(map(len, lines)) if across else 7) * per_pixel
        if np.log(share) - half >= free:
            labels[share], free = ("\n" if across else "  ").join(lines), np.log(share) + half
        else:
            labels.setdefault(share, "")
    ticks(axis, labels)
    axis.axis_label_standoff = 8
    axis.major_label_text_color = INK


def _said(mean: xr.DataArray, density: xr.DataArray, dense: float) -> str:
    """Return the sparsest end of the figure in a sentence."""
    known = mean.sel(arm="ticket").notnull().values
    if not known.any():
        return "No ticket is done."
    at = np.flatnonzero(known)[-1]
    shown = ", ".join(
        f"{named(str(arm))} {float(mean.sel(arm=arm)[at]):.4g}"
        for arm in mean.arm.values
        if np.isfinite(mean.sel(arm=arm)[at])
    )
    return f"At a density of {percent(float(density[at]))}: {shown}; dense {dense:.4g}"
