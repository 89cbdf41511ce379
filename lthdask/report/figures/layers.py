"""What pruning leaves of each layer."""

import numpy as np
import xarray as xr
from bokeh.models import ColumnDataSource, Range1d
from bokeh.plotting import figure

from lthdask.report.accuracy_map import some
from lthdask.report.figures.style import (
    frame,
    missing,
    percent,
    shades,
    ticks,
    with_legend,
)
from lthdask.report.layers import layer_means
from lthdask.report.selection import whole

_MOST_NAMES = 12


def density_by_layer(results: xr.Dataset) -> figure:
    """Return the share of each layer's weights that is left in the tickets, at several thresholds.

    Parameters
    ----------
    results : Dataset
        What ``lthdask.open_results(path, "layers")`` returned, or a selection of it.
    """
    return _by_layer(results, "layer_density", "Density by layer", "share of the layer's weights")


def dead_channels_by_layer(results: xr.Dataset) -> figure:
    """Return how many output channels of each layer have no weight left, likewise."""
    name, axis = "layer_dead_channels", "output channels without a weight"
    return _by_layer(results, name, "Dead channels by layer", axis)


def _by_layer(results: xr.Dataset, name: str, title: str, axis: str) -> figure:
    if name not in results:
        return missing(title, 'The layers were not opened: open_results(path, "layers").')
    results = whole(results)
    of = layer_means(results)[name]
    known = [t for t in of.threshold.values.tolist() if of.sel(threshold=t).notnull().any()]
    if not known:
        return missing(title, "No ticket is done.")
    least = 1e-3 if name == "layer_density" else 1.0
    shown, layers = some(known), [str(layer) for layer in of.layer.values]
    last = of.sel(threshold=shown[-1])
    worst = layers[int((np.argmin if name == "layer_density" else np.argmax)(last.values))]
    plot = frame(
        title + (f", {len(shown)} of {len(known)} thresholds" if len(shown) < len(known) else ""),
        "layer, from input to output",
        axis,
        f"At threshold {shown[-1]:g}, least is left of {worst}",
        [("layer", "@layer"), ("threshold", "@threshold"), (axis, "@value{0.[000]}")],
        x_range=Range1d(-0.7, len(layers) - 0.3),
        y_range=Range1d(0, max(least, 1.05 * float(of.sel(threshold=shown).max()))),
    )
    if len(layers) <= _MOST_NAMES:
        ticks(plot.xaxis[0], dict(enumerate(layers)))
        plot.xaxis.major_label_orientation = 0.5 if len(layers) > 4 else 0
    for threshold, colour in zip(shown, shades(len(shown)), strict=True):
        share = percent(float(results.density.sel(threshold=threshold)))
        rows = {
            "place": np.arange(len(layers)),
            "value": of.sel(threshold=threshold).values,
            "layer": layers,
            "threshold": [f"{threshold:g} (density {share})"] * len(layers),
        }
        look = {"source": ColumnDataSource(rows), "color": colour}
        look["legend_label"] = f"{share} (threshold {threshold:g})"
        plot.line("place", "value", line_width=1.2, **look)
        plot.scatter("place", "value", size=4, **look)
    return with_legend(plot)
