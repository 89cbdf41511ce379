"""One self-contained HTML page of sentences, figures and tables, which needs no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bokeh.document import Document
from bokeh.embed import components
from bokeh.io.doc import patch_curdoc
from bokeh.plotting import figure
from bokeh.resources import Resources
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from rich.table import Table


@dataclass(frozen=True)
class Section:
    """A part of a page; what it has is shown in this order.

    Parameters
    ----------
    title : str
    lines : sequence of str
        Sentences.
    figures : sequence of figure
    tables : sequence of rich.table.Table
    facts : mapping of str to str
        What → its value.
    text : str
        Shown as it is, line by line.
    """

    title: str
    lines: Sequence[str] = ()
    figures: Sequence[figure] = ()
    tables: Sequence[Table] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    text: str = ""


def document(title: str, about: str, sections: Sequence[Section]) -> str:
    """Return the page as HTML, with everything it needs.

    Parameters
    ----------
    title, about : str
        Its heading, and the line below.
    sections : sequence of Section
    """
    plots = [plot for section in sections for plot in section.figures]
    own = Document()
    with patch_curdoc(own):  # a page of Dask that ended in an error leaves its own behind
        script, divs = components(plots) if plots else ("", ())
    pages = Environment(
        loader=PackageLoader("lthdask.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["rows"] = _rows
    return pages.get_template("report.html").render(
        title=title,
        about=about,
        sections=sections,
        divs={plot.id: Markup(div) for plot, div in zip(plots, divs, strict=True)},
        bokeh=Markup(Resources(mode="inline", components=["bokeh"]).render_js()),
        script=Markup(script),
    )


def _rows(table: Table) -> list[tuple[Any, ...]]:
    return list(zip(*(column.cells for column in table.columns), strict=True))
