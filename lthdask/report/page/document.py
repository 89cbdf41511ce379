"""The page: a study's grid as it fills. It knows nothing of where it is shown."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr
from bokeh.document import Document, without_document_lock
from bokeh.events import ConnectionLost
from bokeh.layouts import column, row
from bokeh.models import ColumnDataSource, CustomJS, Div, HoverTool, Row, TapTool

from lthdask.errors import InputError
from lthdask.report.figures.curves import curve_columns, learning_curves
from lthdask.report.figures.map import describe, difference_map
from lthdask.report.page import words
from lthdask.report.page.choice import Choice, Chooser
from lthdask.report.page.source import Columns, Look, Source
from lthdask.storage.results import study_of

log = logging.getLogger(__name__)

Crew = Sequence[Mapping[str, Any]]
"""What is known of workers: ``name``, ``host``, ``memory`` in bytes, and what it ``runs``."""
AskCrew = Callable[[], Crew | None]
EVERY = 1000
"""Milliseconds between two looks of a page."""
COME_BACK = """
const again = async () => {
  try {
    const answer = await fetch(window.location.href, {cache: "no-store"})
    if (answer.ok) { window.location.reload(); return }
  } catch { }
  setTimeout(again, 3000)
}
if (!window.lthdask_comes_back) { window.lthdask_comes_back = true; setTimeout(again, 1000) }
"""
"""A server that is started anew knows no page of the old one."""
INVITATION = '<p class="faint">Choose a cell to see its learning curves.</p>'


def document(source: Source, crew: AskCrew | None = None) -> Callable[[Document], None]:
    """Return what fills a Bokeh document with the page.

    Parameters
    ----------
    source : Source
        The study's folder; one for all who look at it.
    crew : callable, optional
        Returns what is known of the workers, if anything is; it is called on the event loop and
        must be quick.
    """
    return lambda doc: _Page(doc, source, crew).show()


def page_of(path: Path, crew: AskCrew | None = None) -> Callable[[Document], None]:
    """Return what fills a Bokeh document with the page of the study in a folder."""
    return document(Source(path), crew)


class _Page:
    """What one viewer sees."""

    def __init__(self, doc: Document, source: Source, crew: AskCrew | None) -> None:
        self.doc, self.source, self.crew = doc, source, crew
        arguments = doc.session_context.request.arguments if doc.session_context else {}
        self.chooser = Chooser({name: str(values[0], "utf8") for name, values in arguments.items()})
        self.head, self.cell, self.now, self.failures = (_text() for _ in range(4))
        self.cells, self.lines = ColumnDataSource(), ColumnDataSource()
        self.map, self.curves = column(), column(sizing_mode="stretch_width")
        self.busy = False
        self.told = Look()
        self.shown: tuple[Choice | None, int] = None, 0
        self.shown_axes: Any = None
        self.explained = set[str]()

    def show(self) -> None:
        """Put the page together, and keep it up to date."""
        self.doc.title = "lthdask"
        self.doc.js_on_event(ConnectionLost, CustomJS(code=COME_BACK))
        self.head.text = words.heading(self.source.folder.path.name, Look())
        self.body = column(self.head, sizing_mode="stretch_width")
        self.body.styles = {"background": "#ffffff", "padding": "8px 16px"}
        self.doc.add_root(self.body)
        for select in self.chooser.selects:
            select.on_change("value", self._chose)
        self.cells.selected.on_change("indices", self._clicked)
        self._show_what_is_known()
        self.doc.add_periodic_callback(self.follow, EVERY)
        self.doc.add_next_tick_callback(self.update)

    def _show_what_is_known(self) -> None:
        """Show what others look at already: a page that is sent whole is there at once."""
        if (results := self.source.latest.results) is None:
            return
        choice = self.chooser.choice(results)
        known = self.source.known(choice.arm, choice.replicate)
        if known and choice.cell is None:
            look, columns = known
            self._draw(look, self.crew() if self.crew else None, choice, columns, None)

    def _chose(self, attribute: str, before: str, now: str) -> None:
        self.doc.add_next_tick_callback(self.update)

    def _clicked(self, attribute: str, before: list[int], now: list[int]) -> None:
        at = [self.cells.data[name][i] for name in ("threshold", "rewind_epoch") for i in now[:1]]
        self.chooser.choose_cell(*at)

    @without_document_lock  # type: ignore[untyped-decorator]
    async def follow(self) -> None:
        """Bring the page up to date if there is something new."""
        if self.source.due or self.told is not self.source.latest:
            await self._update()

    @without_document_lock  # type: ignore[untyped-decorator]
    async def update(self) -> None:
        """Bring the page up to date."""
        await self._update()

    async def _update(self) -> None:
        """Look at the study in a thread, and draw it; clicks are taken meanwhile."""
        if self.busy:
            return
        self.busy = True
        try:
            crew = self.crew() if self.crew else None
            workers = None if crew is None else len(crew)
            look = await asyncio.to_thread(self.source.look, workers)
            drawn = await asyncio.to_thread(self._prepare, look)
        except (InputError, OSError, RuntimeError) as problem:
            # The cube grows, and the next look will do; or the run has ended, and takes no threads.
            log.debug("the page is not brought up to date: %s", problem)
        else:
            self.doc.add_next_tick_callback(partial(self._draw, look, crew, *drawn))
        finally:
            self.busy = False

    def _prepare(self, look: Look) -> tuple[Choice | None, Columns | None, xr.Dataset | None]:
        """Return what is chosen; if it is drawn anew, the cells of the map, and the curves."""
        if look.results is None:
            return None, None, None
        choice = self.chooser.choice(look.results)
        if self.shown == (choice, look.number):
            return choice, None, None
        columns = self.source.columns(choice.arm, choice.replicate)
        threshold, k = choice.cell or (None, None)
        curves = choice.cell and self.source.curves(threshold=threshold, rewind_epoch=k)
        return choice, columns, curves

    def _draw(
        self,
        look: Look,
        crew: Crew | None,
        choice: Choice | None,
        columns: Columns | None,
        curves: xr.Dataset | None,
    ) -> None:
        began = time.thread_time()
        self._tell(look, crew)
        self.told = look
        if look.results is None:
            return
        self.chooser.offer(look.results)
        if choice != self.chooser.choice(look.results):  # chosen meanwhile
            self.doc.add_next_tick_callback(self.update)
        elif choice and columns is not None:
            self._draw_map(look.results, choice, columns)
            self._draw_curves(choice, curves)
            self.shown = choice, look.number
        self.source.spent(time.thread_time() - began)

    def _tell(self, look: Look, crew: Crew | None) -> None:
        """Say how far the study is, who trains, and what failed."""
        _put(self.head, words.heading(_name(look, self.source), look))
        _put(self.failures, words.failures(look))
        _put(self.now, words.running(look, time.time()) if crew is None else words.workers(crew))

    def _draw_map(self, results: xr.Dataset, choice: Choice, columns: Columns) -> None:
        self.explained |= {"running"} & {*columns["state"]}
        axes = choice[:2], str(results.sizes), len(self.explained)
        if axes == self.shown_axes:
            bring_up_to_date(self.cells, columns)
            describe(self.map.children[0], columns)
        else:
            self.cells.data = {name: list(values) for name, values in columns.items()}
            plot = difference_map(results, choice.arm, choice.replicate, source=self.cells)
            self._can_be_clicked(plot)
            self.map.children, self.shown_axes = [plot], axes
            if len(self.body.children) == 1:  # once, or the lists would lose the keyboard
                self.body.children = [self.head, self.chooser.layout(), self._below()]
        at = zip(columns["threshold"], columns["rewind_epoch"], strict=True)
        chosen = [i for i, cell in enumerate(at) if cell == choice.cell]
        self.cells.selected.indices = chosen
        told = [words.cell({name: values[i] for name, values in columns.items()}) for i in chosen]
        _put(self.cell, "".join(told))

    def _below(self) -> Row:
        """Return the map, with the rest beside it, or below it where there is no room."""
        return row(
            self.map,
            column(
                self.curves,
                self.cell,
                self.now,
                self.failures,
                sizing_mode="stretch_width",
                styles={"flex": "1 1 340px", "max-width": "640px"},
            ),
            styles={"flex-wrap": "wrap"},
            spacing=24,
            sizing_mode="stretch_width",
        )

    def _can_be_clicked(self, plot: Any) -> None:
        """Have a click choose a cell; say under the pointer where it was trained, too."""
        tap = TapTool()
        plot.add_tools(tap)
        plot.toolbar.active_tap = tap
        for hover in plot.select(HoverTool):
            hover.tooltips = [*hover.tooltips, ("trained on", "@place")]

    def _draw_curves(self, choice: Choice, curves: xr.Dataset | None) -> None:
        another = self.shown[0] != choice
        if curves is not None and choice.cell is not None:
            asked = choice.arm, *choice.cell, choice.replicate
            self.lines.data = curve_columns(curves, *asked)
            if another:
                plot = learning_curves(curves, *asked, source=self.lines)
                plot.sizing_mode = "stretch_width"
                self.curves.children = [plot]
        elif another:
            self.curves.children = [Div(text=INVITATION, stylesheets=[words.STYLE])]


def _name(look: Look, source: Source) -> str:
    study = study_of(look.results) if look.results is not None else {}
    return str(study.get("name", source.folder.path.name))


def _text() -> Div:
    return Div(stylesheets=[words.STYLE], sizing_mode="stretch_width")


def _put(div: Div, text: str) -> None:
    """Change a text, if it is another one: every change is sent to the browser."""
    if div.text != text:
        div.text, div.visible = text, bool(text)


def bring_up_to_date(source: ColumnDataSource, columns: Columns) -> None:
    """Change what a map shows: only what is new is sent, to every viewer."""
    patches = {}
    for name, values in columns.items():
        both = enumerate(zip(source.data[name], values, strict=True))
        new = [(i, of) for i, (old, of) in both if old != of and (old == old or of == of)]
        if new:
            patches[name] = new
    source.patch(patches)
