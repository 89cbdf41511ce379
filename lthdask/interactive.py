"""A run in the background: it goes on while its caller looks at what it has done so far."""

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from lthdask.arguments import checked
from lthdask.cluster.owned import Client as OwnedClient
from lthdask.driver.opening import driving_study
from lthdask.errors import InputError
from lthdask.events import Event
from lthdask.flow import train
from lthdask.options import Options
from lthdask.report.cells import cell_table
from lthdask.report.notebook import Output, in_notebook
from lthdask.report.page.source import Source
from lthdask.report.page.still import still
from lthdask.report.progress import Pace, Progress
from lthdask.results import open_asked
from lthdask.study import Study

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client

EVERY = 1.0
"""Seconds between two pictures of a cell of a notebook."""


@checked
def submit(
    study: Study,
    client: "Client",
    out: str | Path | None = None,
    data: str | Path | None = None,
    options: Options = Options(),
) -> "Submitted":
    """Train every cell of a study that is not done yet, in the background.

    It returns at once. The arguments are those of :func:`lthdask.run`, which waits. A client of
    :func:`lthdask.open_client` that is closed meanwhile cancels the run first; a plain
    ``distributed.Client`` ends it at once, while tasks still finish a step and save their state.

    Returns
    -------
    Submitted
        The run; as the last line of a cell of a notebook, it shows the grid as it fills.

    Raises
    ------
    InputError
        If the study or its folder cannot be used, or another driver runs it. What only a worker
        finds out, such as data that are missing, ends the run: :meth:`Submitted.wait` raises it.

    Examples
    --------
    >>> changes = {"network.name": "lenet_300_100", "data.image_size": 8, "recipe.epochs": 2}
    >>> changes |= {"grid.thresholds": [0.5, 0.9], "grid.rewind_epochs": 0}
    >>> study = Study.read("digits").changed(changes)
    >>> submitted = submit(study, client, "runs/small")   # client: from lthdask.open_client
    >>> submitted                                         # doctest: +SKIP
    <digits in runs/small: running, 1/2 cells, 2 epochs/s, 1 s left>
    >>> submitted.wait().sel(arm="ticket", replicate=0).density.values
    array([0.5, 0.1])
    """
    return Submitted(study, client, out, data, options)


class Submitted:
    """A study that is trained in the background; :func:`submit` makes it.

    It goes on until all is done, somebody cancels it, or its client or its process ends, even if
    nobody holds it.

    Attributes
    ----------
    study : Study
    folder : Path
        The study's folder.
    """

    def __init__(
        self,
        study: Study,
        client: "Client",
        out: str | Path | None,
        data: str | Path | None,
        options: Options,
    ) -> None:
        self.study, self.folder = study, Path(out or Path("runs") / study.name)
        self._pace, self._last = Pace(), Progress()
        self._source = Source(self.folder)
        self._problem: BaseException | None = None
        self._opened, self._stop, self._ended = (threading.Event() for _ in range(3))
        self._prepared = threading.Event()
        self._output = Output()

        def drive() -> None:
            try:
                with driving_study(study, out, options) as opened:
                    self._opened.set()
                    train(opened, client, data, self._count, self._stop)
            except BaseException as problem:
                self._problem = problem
            self._last, self._source = self._pace.progress, Source(self.folder)
            for reached in (self._ended, self._prepared, self._opened):
                reached.set()

        self._thread = _begin(drive, f"lthdask {study.name}")
        try:
            self._opened.wait()
        except KeyboardInterrupt:
            self.cancel()
            raise
        if self._problem:
            raise self._problem
        if isinstance(client, OwnedClient):
            client.before_closing(partial(_cancel, weakref.ref(self)))

    def _count(self, event: Event) -> None:
        self._pace.count(event)
        if event.kind == "plan":
            self._prepared.set()

    @property
    def progress(self) -> Progress:
        """How far it is: cells and epochs of this run, epochs per second, the time left."""
        return self._last if self._ended.is_set() else self._pace.progress

    @property
    def cells(self) -> "pd.DataFrame":
        """Every cell of the study, with its state, its accuracy in percent, and where it was run.

        States are those of ``status`` in the results, and ``running``.
        """
        results = None
        with suppress(InputError):  # until it is prepared
            results = open_asked(self.folder, self.study, "records")
        return cell_table(self.study.grid.cells(), results, self._source.look().running)

    def results(self, *groups: str) -> xr.Dataset:
        """Return the results of the study so far, as from :func:`lthdask.open_results`.

        Until the study is prepared, which takes seconds, this waits.

        Raises
        ------
        InputError
            If the run has ended before there were any.
        """
        self._prepared.wait()
        return open_asked(self.folder, self.study, *groups)

    def wait(self, timeout: float | None = None) -> xr.Dataset:
        """Wait until it has ended.

        An interrupt ends the waiting, and not the run.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        xarray.Dataset
            The results.

        Raises
        ------
        TimeoutError
            If it has not ended by then; it goes on.
        concurrent.futures.CancelledError
            If it was cancelled.
        InputError, OSError
            What else has ended it. Nothing that is done is lost.
        """
        try:
            ended = self._ended.wait(timeout)
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(f"{self.study.name} is trained on; `cancel()` ends that")
            raise
        if not ended:
            raise TimeoutError(f"{self!r} has not ended after {timeout:g} s; it goes on")
        if self._problem:
            raise self._problem
        return self.results()

    def cancel(self) -> None:
        """End it, and return once nothing of it trains any more.

        Cells that run save their state. The workers stay, and the same study can be submitted
        again. To cancel what has ended does nothing.
        """
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __repr__(self) -> str:
        """Return in a line what it is, and how far."""
        return f"<{self.study.name} in {self.folder}: {self._told()}>"

    def _told(self) -> str:
        now, problem = self.progress, self._problem
        if isinstance(problem, CancelledError):
            return f"cancelled, {now.cells_done}/{now.cells} cells done"
        if problem:
            return f"ended by {type(problem).__name__}: {problem}"
        if self._stop.is_set() and not self._ended.is_set():
            return "being cancelled"
        if not now.epochs:
            return "nothing was left to train" if self._ended.is_set() else "being prepared"
        return f"{'done' if self._ended.is_set() else 'running'}, {now}"

    def _repr_html_(self) -> str:
        """Return the grid as it is now."""
        return still(self.study.name, self._source, f"This run: {self._told()}")

    def _ipython_display_(self) -> None:
        """Show the grid in the cell of a notebook, and keep it up to date until all has ended."""
        if not in_notebook():
            raise NotImplementedError  # IPython then takes another representation
        output = Output()
        output.show(self._repr_html_(), repr(self))
        self._output = output
        self._drawing = _begin(partial(self._draw, output), f"lthdask map of {self.study.name}")

    def _draw(self, output: Output) -> None:
        """Keep a picture up to date, until another one is asked for."""
        ended = False
        while output is self._output and not ended:
            ended = self._ended.wait(EVERY)
            with suppress(Exception):  # the next picture will do
                output.show(self._repr_html_(), repr(self))


def _cancel(submitted: "weakref.ref[Submitted]") -> None:
    """Cancel what still runs; what has ended, and nobody holds, is not kept for this."""
    if it := submitted():
        it.cancel()


def _begin(work: Callable[[], Any], name: str) -> threading.Thread:
    """Begin something in a thread that does not keep its process from ending."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread
