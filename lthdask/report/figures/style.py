"""How figures look: colours that colour-blind people can tell apart, and no chart junk."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from bokeh.models import FixedTicker, HoverTool, Range1d
from bokeh.palettes import Cividis256
from bokeh.plotting import figure


class Look(NamedTuple):
    """How the line of a run is drawn: colour is never all that tells arms apart."""

    colour: str
    dash: str
    marker: str


LOOKS = {
    "ticket": Look("#0072b2", "solid", "circle"),
    "random_mask": Look("#d55e00", "dashed", "square"),
    "reinit": Look("#009e73", "dotted", "triangle"),
    "constant_signs": Look("#882255", "8 3", "star"),
    "equal_epochs": Look("#332288", "12 2 2 2 2 2", "square_pin"),
    "lr_rewind": Look("#cc79a7", "dotdash", "diamond"),
    "fine_tune": Look("#b8860b", "dashdot", "inverted_triangle"),
    "lr_rewind_iterated": Look("#994f88", "2 6", "triangle_pin"),
    "fine_tune_iterated": Look("#6e4f00", "14 4", "asterisk"),
    "trained_ticket": Look("#1f3f77", "10 2", "hex_dot"),
    "dense_pretrained": Look("#404040", "2 3", "cross"),
    "ticket_child": Look("#56b4e9", "solid", "hex"),
    "dense_child": Look("#707070", "dashed", "plus"),
    "dense": Look("#000000", "4 2", "x"),
}
"""Colours after Okabe and Ito; the iterated arms are darker than those that are not."""
_COLOURS = ("#117733", "#aa3377", "#004488", "#bb5566", "#44546a")
_DASHES = ("3 3", "10 3 3 3", "6 1", "1 3", "16 3", "5 2 1 2 1 2")
_MARKERS = ("cross", "circle_x", "diamond_cross", "square_cross", "hex_dot", "y", "circle_y")


def look_of(run: str) -> Look:
    """Return how an arm, or the dense run, is drawn; the same in every figure.

    Examples
    --------
    >>> look_of("ticket")
    Look(colour='#0072b2', dash='solid', marker='circle')
    """
    if run in LOOKS:
        return LOOKS[run]
    place = crc32(run.encode())
    return Look(*(of[place % len(of)] for of in (_COLOURS, _DASHES, _MARKERS)))


INK = "#303030"
FONT = "11px"


def named(arm: str) -> str:
    """Return an arm as it is written in a text."""
    return arm.replace("_", " ")


def frame(
    title: str, x: str, y: str, said: str, tooltips: Sequence[tuple[str, str]] = (), **more: Any
) -> figure:
    """Return an empty figure.

    Parameters
    ----------
    title, x, y : str
        What is shown, and along which axes, with their units.
    said : str
        The text alternative: what somebody learns who cannot see the figure.
    tooltips : sequence of (label, field)
        What is shown under the pointer.
    **more
        Further attributes, as of :func:`bokeh.plotting.figure`.
    """
    size = {"width": 600, "height": 340}
    plot = figure(
        title=title,
        x_axis_label=x,
        y_axis_label=y,
        tools="pan,box_zoom,reset,save",
        html_attributes={"role": "img", "aria-label": f"{title}. {said}"},
        **(size | more),
    )
    plot.toolbar.autohide = True
    plot.toolbar.logo = None
    if tooltips:
        plot.add_tools(HoverTool(tooltips=list(tooltips)))
    plot.outline_line_color = None
    plot.title.text_color = INK
    plot.title.text_font_size = "13px"
    plot.title.text_font_style = "bold"
    for axis in plot.axis:
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_color = axis.major_label_text_color = INK
        axis.axis_label_text_font_size = axis.major_label_text_font_size = FONT
        axis.axis_line_color = axis.major_tick_line_color = INK
        axis.minor_tick_line_color = None
    plot.grid.grid_line_color = "#ebebeb"
    return plot


def missing(title: str, why: str) -> figure:
    """Return a figure that says why there is nothing to draw."""
    plot = frame(title, "", "", why, x_range=Range1d(0, 1), y_range=Range1d(0, 1), height=140)
    plot.text([0.5], [0.5], text=[why], text_align="center", text_baseline="middle",
              text_color=INK, text_font_size="12px")  # fmt: skip
    plot.axis.visible = plot.grid.visible = False
    plot.toolbar_location = None
    return plot


def ticks(axis: Any, labels: Mapping[float, str]) -> None:
    """Put ticks at the given places alone, with their labels."""
    axis.ticker = FixedTicker(ticks=list(labels))
    axis.major_label_overrides = dict(labels)


def with_legend(plot: figure, location: str = "right") -> figure:
    """Put the legend of a figure, if it has one, beside it or to a place inside it."""
    for legend in plot.legend:
        if location == "right":
            plot.add_layout(legend, "right")
        else:
            legend.location = location
        legend.background_fill_alpha = 0.8
        legend.border_line_color = None
        legend.label_text_font_size = FONT
        legend.label_text_color = INK
        legend.padding, legend.spacing = 6, 0
        legend.glyph_height = legend.label_height = 15
    return plot


def shades(count: int) -> list[str]:
    """Return colours from light to dark, as what they stand for gets sparser."""
    places = np.linspace(215, 10, count).round().astype(int)
    return [Cividis256[place] for place in places]


def percent(share: float) -> str:
    """Return a share in percent, to three digits.

    Examples
    --------
    >>> percent(0.5), percent(0.0123), percent(1.0)
    ('50 %', '1.23 %', '100 %')
    """
    return f"{100 * share:.3g} %" if share == share else "?"


def signed(points: float, digits: int = 1) -> str:
    """Return a difference with its sign; a true minus, and no sign where it is rounded to 0.

    Examples
    --------
    >>> signed(0.26), signed(-3), signed(-0.01)
    ('+0.3', '−3.0', '0.0')
    """
    text = f"{points:+.{digits}f}"
    return text.replace("-", "−") if text.strip("+-0.") else text[1:]
