"""A page of our own in Dask's dashboard, first in its menu.

What this needs of Dask is partly private. Where Dask has changed that, a run goes on without the
page, and the log says so.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any
from weakref import WeakKeyDictionary

from distributed import Client

log = logging.getLogger(__name__)

NAME = "grid"
"""Of the page, in its address and in the menu."""
PANE = "/individual-lottery-grid"
"""Where JupyterLab's extension for Dask finds the page, as one of its panes."""
Crew = Sequence[Mapping[str, Any]]
"""For each worker its ``name`` and ``host``, its ``memory`` in bytes, and what it ``runs``."""
Fill = Callable[[Any], None]
"""Fills a Bokeh document."""
Page = Callable[[Callable[[], Crew | None]], Fill]
"""Returns what fills the page, given what tells of the workers."""


def show_page(client: Client, page: Page, origins: Sequence[str] = ()) -> None:
    """Have the dashboard of a client's scheduler show a page, in place of one it shows already.

    Parameters
    ----------
    client : distributed.Client
    page : callable
        The scheduler may run elsewhere: this is sent there.
    origins : sequence of str
        What may connect to the page: origins as a browser says them, with ``*`` for any port.
    """
    try:
        client.run_on_scheduler(_show, page, tuple(origins))
    except Exception as error:  # whatever Dask has changed, or a scheduler without lthdask says
        log.warning(
            "the dashboard has no page of the grid (%s: %s); `lthdask watch` shows the same",
            type(error).__name__,
            error,
        )


async def _show(page: Page, origins: tuple[str, ...], dask_scheduler: Any) -> None:
    """Do it, on the event loop of the scheduler."""
    site = _sites.get(dask_scheduler)
    if site is None:
        site = _Site(dask_scheduler)
        _sites[dask_scheduler] = site
    site.allow(origins)
    site.fill = page(lambda: _crew(dask_scheduler))


class _Site:
    """Our page beside those of a scheduler; it shows what was asked for last.

    It is another application than Dask's, because that lets pages of any origin connect.
    """

    def __init__(self, scheduler: Any) -> None:
        from bokeh.application import Application
        from bokeh.application.handlers.function import FunctionHandler
        from bokeh.server.tornado import BokehTornado
        from tornado.ioloop import IOLoop

        self.fill: Fill = _say_that_nothing_runs
        self._variables = _menu_of(scheduler)
        theirs = scheduler.http_application.applications
        prefix = theirs[0].prefix if theirs else ""
        self._application = application = BokehTornado(
            {f"/{NAME}": Application(FunctionHandler(self._fill))},
            prefix=prefix,
            absolute_url="",
            use_index=False,
        )
        scheduler.http_application.add_application(application)  # which is closed with it
        application.initialize(IOLoop.current())
        application.start()

    def allow(self, origins: Iterable[str]) -> None:
        """Have pages of these origins connect, too."""
        self._application.websocket_origins.update(origins)

    def _fill(self, document: Any) -> None:
        self.fill(document)
        if self._variables is not None:
            from distributed.dashboard.components.scheduler import env

            document.template = env.get_template("simple.html")
            document.template_variables.update(self._variables)


_sites: WeakKeyDictionary[Any, _Site] = WeakKeyDictionary()
"""By scheduler of this process."""


def _menu_of(scheduler: Any) -> dict[str, Any] | None:
    """Put the page into the menu of every page, and return what the menu needs.

    What was taken out of the pages, which its entry outlives, leaves the menu.
    """
    try:
        from distributed.dashboard.scheduler import applications, template_variables

        variables: dict[str, Any] = template_variables(scheduler)  # one for all pages
        if NAME not in variables["pages"]:
            variables["pages"].insert(0, NAME)
        there = [plot for plot in variables["plots"] if f"/{plot['url']}" in applications]
        variables["plots"][:] = there
        return {"prefix": "/", **variables}
    except Exception as error:
        log.warning(
            "the menu of the dashboard lacks the page of the grid (%s: %s); it is at /%s",
            type(error).__name__,
            error,
            NAME,
        )
        return None


def _crew(scheduler: Any) -> Crew | None:
    """Return what is known of the workers; None where Dask has changed what tells."""
    try:
        return crew_of(scheduler)
    except Exception as error:
        log.debug("nothing is known of the workers (%s)", error)
        return None


def crew_of(scheduler: Any) -> list[dict[str, Any]]:
    """Return what a scheduler knows of its workers."""
    return [
        {
            "name": f"worker {state.name}" if isinstance(state.name, int) else str(state.name),
            "host": state.host,
            "memory": state.metrics.get("memory", 0),
            "runs": [_said(task.key) for task in list(state.processing)[: state.nthreads]],
        }
        for state in scheduler.workers.values()
    ]


def _said(key: Any) -> str:
    """Return the name of a task without what makes its key unique."""
    return str(key).rsplit("-", 2)[0].removeprefix("cell.").replace("-task-", "-")


def offer_pane() -> None:
    """Offer the page to JupyterLab's extension for Dask, where that is installed.

    It knows the pages of Dask's own application alone, which has them before it starts.
    """
    if not find_spec("dask_labextension"):
        return
    try:
        from distributed.dashboard.scheduler import applications

        applications.setdefault(PANE, _pane)
    except Exception as error:
        log.warning("JupyterLab has no pane of the grid (%s: %s)", type(error).__name__, error)


def _pane(scheduler: Any, extra: Any, document: Any) -> None:
    site = _sites.get(scheduler)
    (site.fill if site else _say_that_nothing_runs)(document)


def _say_that_nothing_runs(document: Any) -> None:
    from bokeh.models import Div

    document.add_root(Div(text="No study has been run here yet."))
