"""The whole story: how a study becomes a cube of results.

A dense network is trained once per replicate; its checkpoints are scattered once; two
nested loops, over thresholds and rewind epochs, become delayed tasks; the workers train
every ticket and write its cell.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from lthdask.arguments import checked
from lthdask.cluster.dashboard import show_page
from lthdask.cluster.queue import Queue
from lthdask.driver.keeping import drop_worse
from lthdask.driver.opening import Opened, driving_study
from lthdask.driver.preparing import surroundings, write_down
from lthdask.driver.remaining import remaining
from lthdask.driver.sweep import Sweep
from lthdask.events import Event
from lthdask.options import Options, origins_with
from lthdask.report.notebook import bar, in_notebook
from lthdask.report.page.document import page_of
from lthdask.results import open_asked
from lthdask.study import Study
from lthdask.worker.work import Work

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)


@checked
def run(
    study: Study,
    client: "Client",
    out: str | Path | None = None,
    data: str | Path | None = None,
    options: Options = Options(),
    watch: Callable[[Event], None] | None = None,
) -> xr.Dataset:
    """Train every cell of a study that is not done yet, and wait until it is.

    :func:`lthdask.submit` does not wait.

    A folder that has the study already grows along the axes of its grid by what is new. What it
    has besides is left alone.

    Parameters
    ----------
    study : Study
    client : distributed.Client
        Where to train; its owner opens and closes it.
    out : path, optional
        The study's folder, seen by every worker; ``runs/<name>`` by default.
    data : path, optional
        The folder of the data set, seen by every worker.
    options : Options
        How to train it; none of them changes a result.
    watch : callable, optional
        Called with each `Event`, in the thread that called this. Workers go on meanwhile, but no
        further work is queued until it returns. If it raises, the run ends with that. By
        default, a cell of a notebook shows a bar.

    Returns
    -------
    xarray.Dataset
        Results, as from :func:`lthdask.open_results`; of what was asked for alone, where the
        folder has more.

    Raises
    ------
    InputError
        If something that was given cannot be used, or nothing more can be written. Nothing
        that is done is lost, whatever a run ends with.

    Examples
    --------
    >>> small = {"network.name": "lenet_300_100", "data.image_size": "8", "recipe.epochs": "2"}
    >>> small |= {"grid.thresholds": "0.5,0.9", "grid.rewind_epochs": "0"}
    >>> study = Study.read("digits").changed(small)
    >>> results = run(study, client, "runs/small")  # client: from lthdask.open_client
    >>> results.sel(arm="ticket", replicate=0).density.values
    array([0.5, 0.1])
    """
    with (
        driving_study(study, out, options) as opened,
        bar() if watch is None and in_notebook() else nullcontext(watch) as told,
    ):
        train(opened, client, data, told)
    return open_asked(opened.folder.path, study)


def train(
    opened: Opened,
    client: "Client",
    data: str | Path | None = None,
    watch: Callable[[Event], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Train what is left of an opened study; the arguments are those of :func:`run`.

    Once another thread sets `stop`, no task goes on, and it ends with a `CancelledError`.
    """
    show_page(
        client, partial(page_of, opened.folder.path), origins_with(opened.options.allow_origin)
    )
    tell = _Messages(watch or (lambda event: None))
    queue = Queue(client, tell, stop or threading.Event())
    work = Work(
        opened.study, opened.engine, opened.folder, data, opened.options, recorded=opened.data
    )
    around = surroundings(queue, work)
    manifest, cube = write_down(opened, around)
    work, left = replace(work, engine=manifest.engine, recorded=manifest.data), remaining(opened)
    sweep = Sweep(work, manifest, cube, left, queue, tell)
    trained = sweep.begin()
    for replicate in left.replicates:
        if replicate in trained:
            sweep.add_cells(replicate)  # by threshold and rewind epoch, from shared checkpoints
        else:
            sweep.add_dense_run(replicate)  # and its cells, once that is trained
    queue.run()
    sweep.end()
    drop_worse(opened)


@dataclass
class _Messages:
    """What is told of a run: warnings go to the log, once each, the rest goes to `watch`."""

    watch: Callable[[Event], None]
    warned: set[str] = field(default_factory=set)

    def __call__(self, event: Event) -> None:
        if event.kind != "warning":
            self._show(event)
        elif event.name not in self.warned:
            self.warned.add(event.name)
            log.warning("%s", event.status)

    def _show(self, event: Event) -> None:
        try:
            self.watch(event)
        except Exception as error:
            error.add_note(
                "`watch` raised this, and the run has stopped. What is done is kept, and the same "
                "call picks up where it left off."
            )
            raise
