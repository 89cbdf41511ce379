"""Figures as files for papers and talks: PNG, SVG and vector PDF, drawn by a browser."""

import json
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bokeh.document import Document
from bokeh.embed import json_item
from bokeh.io.doc import patch_curdoc
from bokeh.plotting import figure
from bokeh.resources import Resources

from lthdask.errors import InputError, one_of
from lthdask.report.browser import Browser, opened
from lthdask.report.figures.style import FONT
from lthdask.storage.files import write_whole

FORMATS = (".pdf", ".svg", ".png")
DOTS, POINTS, PIXELS = 300, 72, 96
"""In an inch: pixels of a PNG; points, of which Chromium's pages of PDF have a whole number, and so
has what is saved; and pixels of a page."""
LEAST, MOST = 40, 400
"""Widths in mm."""
_NARROW, _WIDE, _ROOMY = 460, 600, 1.3
"""Width in pixels between which a figure is laid out anew, with its legend below, for a smaller
one; and how many of them go into the place of one."""
_EXPORTED = """
(async () => {
  const place = document.createElement("div")
  document.body.replaceChildren(place)
  const [view] = await Bokeh.embed.embed_item(%s, place)
  const drawn = view.model.document
  if (!drawn.is_idle) await new Promise((done) => drawn.idle.connect(done))
  return view.export("svg").ctx.get_serialized_svg(true)
})()
"""
_STYLE = "<style>body { margin: 0 } svg { display: block }</style>"


def save(plot: figure, file: str | Path, width: float | None = None) -> None:
    """Save a figure as a file, drawn by the Chromium or Chrome of this machine.

    Parameters
    ----------
    plot : figure
        One of those of `lthdask.report.figures`, or any other of Bokeh's. It is not changed.
    file : str or Path
        Its suffix says what it becomes: ``.pdf`` (vectors, with its fonts embedded), ``.svg``, or
        ``.png`` of 300 pixels in an inch.
    width : float, optional
        In mm, from 40 to 400: 85 is a usual column of a paper, 180 a page. By default, a figure
        is as wide as in the report, most of them 159 mm, with text of 8 points, which is scaled
        with it. In a column it is still 6 points, but less in maps.

    Raises
    ------
    InputError
        If there is no browser, or it fails, the suffix is another one, or the width out of range.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> from lthdask.report.figures.map import difference_map
    >>> save(difference_map(results), "map.pdf", width=85)      # doctest: +SKIP
    """
    file = Path(file)
    if file.suffix not in FORMATS:
        raise one_of("suffix", file.suffix, FORMATS)
    _save({file: plot}, [file.suffix], width)


def save_all(plots: Mapping[str, figure], folder: Path, width: float | None = None) -> None:
    """Save figures in all `FORMATS`, under their names; otherwise as :func:`save`."""
    _save({folder / name: plot for name, plot in plots.items()}, FORMATS, width)


def _save(plots: Mapping[Path, figure], suffixes: Sequence[str], width: float | None) -> None:
    if width is not None and not LEAST <= width <= MOST:
        raise InputError(f"`width` is in mm, from {LEAST} to {MOST}; got {width:g}")
    with opened() as browser:
        browser.value(f"{Resources(mode='inline', components=['bokeh']).js_raw[0]}; null")
        for file, plot in plots.items():
            drawn = _draw(browser, plot, width)
            for suffix in suffixes:
                write_whole(file.with_suffix(suffix), _CONTENT[suffix](browser, drawn))


@dataclass(frozen=True)
class _Drawn:
    """A figure that the page shows, as SVG, and its size in points."""

    svg: str
    across: int
    down: int


def _draw(browser: Browser, plot: figure, width: float | None) -> _Drawn:
    """Show a figure in the page, in the size that it shall have."""
    own = Document()
    with patch_curdoc(own):  # a page of Dask that ended in an error leaves its own behind
        item: Any = json_item(plot)
    _prepare(item["doc"]["roots"][0]["attributes"], width)
    svg = browser.value(_EXPORTED % json.dumps(item))
    natural = re.search(r'width="(\d+)" height="(\d+)"', svg)
    assert natural is not None
    pixels = [int(count) for count in natural.groups()]
    across = round(POINTS * (pixels[0] / PIXELS if width is None else width / 25.4))
    down = round(across * pixels[1] / pixels[0])
    head = 'width="{}pt" height="{}pt" viewBox="0 0 {} {}"'.format(across, down, *pixels)
    svg = svg.replace(natural[0], head, 1)
    browser.value(f"document.body.innerHTML = {json.dumps(_STYLE + svg)}; null")
    return _Drawn(svg, across, down)


def _prepare(of: dict[str, Any], width: float | None) -> None:
    """Leave out the tools of a figure, given as attributes, and make room for a narrow one."""
    of["toolbar_location"] = None
    if width is None or of.setdefault("width", _WIDE) != _WIDE:  # as Bokeh, which leaves it out
        return
    of["width"] = round(max(_NARROW, min(_WIDE, _ROOMY * width * PIXELS / 25.4)))
    legends = [part for part in of.get("right", []) if part.get("name") == "Legend"]
    if of["width"] < _WIDE:
        of["title"]["attributes"]["text_font_size"] = FONT
        of["right"] = [part for part in of.get("right", []) if part not in legends]
        of["below"] = [*of["below"], *legends]
        for legend in legends:
            legend["attributes"] |= {"ncols": 2, "spacing": 8, "location": "top_left"}


def _pdf(browser: Browser, drawn: _Drawn) -> bytes:
    given: dict[str, float] = {f"margin{side}": 0 for side in ("Top", "Bottom", "Left", "Right")}
    # A little less: the next whole number of points is taken.
    given |= {"paperWidth": drawn.across / 72.001, "paperHeight": drawn.down / 72.001}
    return b64decode(browser.ask("Page.printToPDF", pageRanges="1", **given)["data"])


def _png(browser: Browser, drawn: _Drawn) -> bytes:
    across, down = (
        round(count * DOTS / POINTS) * PIXELS / DOTS for count in (drawn.across, drawn.down)
    )
    clip = {"x": 0, "y": 0, "width": across, "height": down, "scale": DOTS / PIXELS}
    shot = browser.ask("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
    return b64decode(shot["data"])


def _svg(browser: Browser, drawn: _Drawn) -> bytes:
    return drawn.svg.encode()


_CONTENT = {".pdf": _pdf, ".svg": _svg, ".png": _png}
