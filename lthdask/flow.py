"""The whole story: how a study becomes a cube of results.

A dense network is trained once per replicate; its checkpoints are scattered once; two
nested loops, over thresholds and rewind epochs, become delayed tasks; the workers train
every ticket and write its cell.
"""

import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from lthdask.cluster.queue import Queue
from lthdask.driver.preparing import engine_for, epochs_to_train, existing, prepared, remaining_of
from lthdask.driver.sweep import NO_ROOM, Sweep
from lthdask.errors import InputError
from lthdask.events import Event
from lthdask.storage.driver import driving
from lthdask.storage.folder import Folder
from lthdask.storage.results import open_results
from lthdask.storage.schema import Status
from lthdask.study import Study
from lthdask.worker.work import Work

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)


def run(
    study: Study,
    client: "Client",
    out: str | Path | None = None,
    data: str | Path | None = None,
    *,
    download: bool = False,
    retry_failed: bool = False,
    max_attempts: int = 3,
    checkpoint_interval: float = 60.0,
    masks_only: bool = False,
    adaptive: float | None = None,
    watch: Callable[[Event], None] = lambda event: None,
) -> xr.Dataset:
    """Train every cell of a study that is not done yet.

    Parameters
    ----------
    study : Study
    client : distributed.Client
        Where to train; its owner opens and closes it.
    out : path, optional
        The study's folder, seen by every worker; ``runs/<name>`` by default.
    data : path, optional
        The folder of the data set, seen by every worker.
    download : bool
        Fetch a data set that is missing from that folder.
    retry_failed : bool
        Train failed cells again.
    max_attempts : int
        A cell is failed once so many attempts ended without a newer saved state.
    checkpoint_interval : float
        Seconds between two saved states of a cell: what is lost with a worker at most.
    masks_only : bool
        Train the dense runs and compare the masks of their epochs, but train no cell.
    adaptive : float, optional
        Search for the frontier, and spend at most this share of the grid's epochs, in (0, 1].
    watch : callable
        Called with each `Event`, from more than one thread.

    Returns
    -------
    xarray.Dataset
        As from :func:`lthdask.open_results`.

    Raises
    ------
    InputError
        If something that was given cannot be used, or nothing can be written any more;
        nothing that is done is lost.
    """
    if adaptive is not None and not 0 < adaptive <= 1:
        raise InputError(f"the budget is a share of the grid's epochs, above 0; got {adaptive:g}")
    if adaptive is not None and study.iterative:
        raise InputError("iterative pruning trains every round; it leaves no cell to be skipped")
    if masks_only and study.pruning.needs_gradients:
        raise InputError(f"{study.pruning.score} masks are those of epoch 0: none to compare")
    folder = existing(study, out)
    folder.make()
    queue = Queue(client, _Messages(watch))
    work = Work(
        study,
        engine_for(study, folder),
        folder,
        Path(data).absolute() if data else None,
        download,
        secrets.token_hex(8),
        checkpoint_interval,
        max_attempts,
    )
    with _said_when_full(folder), driving(folder.path):
        work, cube = prepared(queue, work)
        left = remaining_of(cube.cells(), study, folder, retry_failed)
        cells = [] if masks_only else left.cells
        for cell in cells:
            folder.remove_traceback(cell)
        folder.remove_finals(study.waits_for(cell) for cell in cells)
        sweep = Sweep(work, cube, cells, queue, watch, masks_only, adaptive)
        every = range(study.grid.replicates) if masks_only else {c.replicate for c in cells}
        replicates = sorted({*every} | left.dense_runs)
        trained = [replicate for replicate in replicates if sweep.is_trained(replicate)]
        epochs = epochs_to_train(study, cells, dense_runs=len(replicates) - len(trained))
        how = f"{work.engine.precision} on {work.engine.device}"
        status = f"{how}: {folder.manifest()['engine_reason']}"
        watch(Event("plan", status=status, cells=len(cells), epochs=epochs))
        for replicate in replicates:
            if replicate in trained:
                sweep.add_cells(replicate)
            else:
                sweep.add_dense_run(replicate)
        queue.run()
        sweep.skip_the_rest()
        folder.remove_states(c for c, status in cube.cells().items() if status is Status.DONE)
    return open_results(folder.path)


@dataclass
class _Messages:
    """What the workers tell: warnings go to the log, once each, the rest to who watches."""

    watch: Callable[[Event], None]
    warned: set[str] = field(default_factory=set)

    def __call__(self, event: Event) -> None:
        if event.kind != "warning":
            self.watch(event)
        elif event.name not in self.warned:
            self.warned.add(event.name)
            log.warning("%s", event.status)


@contextmanager
def _said_when_full(folder: Folder) -> Iterator[None]:
    """Say in one sentence that nothing can be written any more."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise InputError(
            f"cannot write to {error.filename or folder.path}: {error.strerror}; make room, and "
            f"run the same command again: what is done is kept"
        ) from None
