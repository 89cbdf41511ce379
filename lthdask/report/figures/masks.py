"""How the masks of the dense run's epochs differ: the early-bird diagram."""

import numpy as np
import xarray as xr
from bokeh.models import ColorBar, LinearColorMapper, Range1d
from bokeh.palettes import Cividis256
from bokeh.plotting import figure

from lthdask.report.figures.style import INK, frame, missing, percent

TITLE = "Distance of the masks"


def mask_distances(results: xr.Dataset, threshold: float | None = None) -> figure:
    """Return how far apart the masks of every two epochs of the dense run are, as a map.

    Where a dark square begins, masks have settled, and a ticket can be drawn early (You et al.
    2020, "Drawing early-bird tickets"). It takes a study that was run with ``--masks-only``.

    Parameters
    ----------
    results : Dataset
        What ``lthdask.open_results(path, "masks")`` returned; the mean over replicates is shown.
    threshold : float, optional
        The highest that is known by default.
    """
    if "mask_distances" not in results:
        return missing(TITLE, 'The masks were not opened: open_results(path, "masks").')
    means = results.mask_distances.mean("replicate")
    known = [t for t in means.threshold.values.tolist() if means.sel(threshold=t).notnull().any()]
    if not known or threshold not in (None, *known):
        return missing(TITLE, "The masks of the epochs were not compared; --masks-only does.")
    threshold = known[-1] if threshold is None else threshold
    values = 100 * means.sel(threshold=threshold).values
    epochs, most = len(values), float(np.nanmax(values))
    ends = -0.5, epochs - 0.5
    plot = frame(
        f"{TITLE}, threshold {threshold:g}",
        "epoch of the dense run",
        "epoch of the dense run",
        f"The masks of epochs 0 and {epochs - 1} differ in {percent(values[0, -1] / 100)}",
        [("epochs", "$x{0} and $y{0}"), ("weights, %", "@image{0.00}")],
        x_range=Range1d(*ends),
        y_range=Range1d(*ends),
        width=None,
        height=None,
        frame_width=300,
        frame_height=300,
    )
    colours = LinearColorMapper(palette=Cividis256, low=0, high=most or 1.0)
    plot.image([values], x=-0.5, y=-0.5, dw=epochs, dh=epochs, color_mapper=colours)
    bar = ColorBar(color_mapper=colours, width=8, padding=4, major_label_text_color=INK)
    bar.title, bar.title_text_font_size = "% of the weights", "11px"
    plot.add_layout(bar, "right")
    plot.grid.visible = False
    return plot
