"""The whole story: how a study becomes a cube of results.

A dense network is trained once per replicate; its checkpoints are scattered once; two
nested loops, over thresholds and rewind epochs, become delayed tasks; the workers train
every ticket and write its cell.
"""

import errno
import functools
import logging
import secrets
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from lthdask.cluster.queue import Queue, Task
from lthdask.errors import ExhaustedError, InputError
from lthdask.events import Event
from lthdask.grid import Cell
from lthdask.preparing import engine_for, epochs_to_train, existing, prepared, remaining_of
from lthdask.storage import checkpoints
from lthdask.storage.folder import Folder
from lthdask.storage.results import Cube, Status, open_results
from lthdask.study import Study
from lthdask.tasks import Work, dense_run, train_cell, train_dense
from lthdask.training import Diverged

if TYPE_CHECKING:
    from distributed import Client

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}

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
    with _said_when_full(folder), folder.driving():
        work, cube = prepared(queue, work)
        left = remaining_of(cube.cells(), study, folder, retry_failed)
        cells = left.cells
        for cell in cells:
            folder.remove_traceback(cell)
        folder.remove_finals(study.waits_for(cell) for cell in cells)
        search = _Search(work, cube, cells, queue, watch)
        replicates = sorted({cell.replicate for cell in cells} | left.dense_runs)
        trained = [replicate for replicate in replicates if search.share_checkpoints(replicate)]
        epochs = epochs_to_train(study, cells, dense_runs=len(replicates) - len(trained))
        watch(Event("plan", cells=len(cells), epochs=epochs))
        for replicate in replicates:
            if replicate in trained:
                search.add_cells(replicate)
            else:
                search.add_dense_run(replicate)
        queue.run()
    return open_results(folder.path)


@dataclass
class _Search:
    """The dense runs and cells of a study that are still to be trained."""

    work: Work
    cube: Cube
    cells: list[Cell]
    queue: Queue
    watch: Callable[[Event], None]
    raised: Counter[str] = field(default_factory=Counter)
    followers: dict[Cell, list[Cell]] = field(default_factory=dict)
    awaiting: Counter[Cell] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        for cell in self.cells:
            if awaited := self.work.study.waits_for(cell):
                self.followers.setdefault(awaited, []).append(cell)
        self.awaiting.update({cell: len(after) for cell, after in self.followers.items()})

    def add_dense_run(self, replicate: int) -> None:
        """Queue the dense run of a replicate, before all cells."""
        then = functools.partial(self._dense_run_landed, replicate)
        name, arguments = dense_run(replicate), (self.work, replicate)
        self.queue.add(Task(name, train_dense, arguments, length=float("inf"), then=then))

    def share_checkpoints(self, replicate: int) -> bool:
        """Scatter the checkpoints that a replicate's cells start from, once.

        Returns
        -------
        bool
            Whether they are there. If one is missing or damaged, none counts: the dense
            run is trained anew, and gives the same.
        """
        folder, study = self.work.folder, self.work.study
        digests = folder.manifest()["checkpoints"].get(str(replicate))
        if digests is None:
            return False
        cells = self.cells_of(replicate)
        for epoch in sorted({epoch for cell in cells for epoch in study.checkpoints_for(cell)}):
            path = checkpoints.path_of(folder.path, replicate, epoch)
            load = functools.partial(checkpoints.load, path, digests.get(str(epoch), ""))
            try:
                self.queue.share((replicate, epoch), load)
            except InputError as error:
                log.warning("%s: the dense run is trained anew", error)
                return False
        return True

    def add_cells(self, replicate: int) -> None:
        """Queue the cells of a replicate, but for those that wait for another one."""
        for cell in self.first_of(replicate):
            self.add_cell(cell)

    def add_cell(self, cell: Cell) -> None:
        """Queue a cell."""
        study, replicate = self.work.study, cell.replicate
        self.queue.add(
            Task(
                f"cell-{cell}",
                train_cell,
                arguments=(self.work, cell),
                shared=tuple((replicate, epoch) for epoch in study.checkpoints_for(cell)),
                length=study.recipe.epochs - cell.first_epoch,
                then=functools.partial(self._cell_landed, cell),
            )
        )

    def cells_of(self, replicate: int) -> list[Cell]:
        """Return the cells of a replicate."""
        return [cell for cell in self.cells if cell.replicate == replicate]

    def first_of(self, replicate: int) -> list[Cell]:
        """Return those of them that wait for no other cell."""
        there, study = set(self.cells), self.work.study
        return [c for c in self.cells_of(replicate) if study.waits_for(c) not in there]

    def _dense_run_landed(self, replicate: int, outcome: Any) -> None:
        name, folder = dense_run(replicate), self.work.folder
        if isinstance(outcome, Exception):
            if self._tried_again(name, outcome):
                self.add_dense_run(replicate)
                return
            self.watch(Event("dense", f"dense run {replicate}", "failed"))
            for cell in self.first_of(replicate):
                self._fail(cell, outcome)
            return
        manifest = folder.manifest()
        manifest["checkpoints"][str(replicate)] = outcome
        folder.write_manifest(manifest)
        checkpoints.State(folder.run(name)).remove()
        self.watch(Event("dense", f"dense run {replicate}", "done"))
        if self.share_checkpoints(replicate):
            self.add_cells(replicate)
            return
        unread = InputError(f"the driver cannot read the checkpoints of replicate {replicate}")
        for cell in self.first_of(replicate):
            self._fail(cell, unread)

    def _cell_landed(self, cell: Cell, outcome: Any) -> None:
        if not isinstance(outcome, Exception):
            self.work.folder.remove_traceback(cell)
            self.watch(Event("cell", str(cell), outcome))
            for follower in self.followers.get(cell, ()):
                if outcome == "done":
                    self.add_cell(follower)
                else:
                    self._fail(follower, RuntimeError(f"{cell}, which it starts from, {outcome}"))
            self._ended(cell)
        elif self._tried_again(str(cell), outcome):
            self.add_cell(cell)
        else:
            self._fail(cell, outcome)

    def _tried_again(self, name: str, outcome: Exception) -> bool:
        """Keep the reason why a run raised, and return whether to begin it again.

        Whether it has been begun too often is for the next attempt to say. One that raises
        before it is even recorded is not begun again.
        """
        if isinstance(outcome, OSError) and outcome.errno in NO_ROOM:
            raise outcome
        self._keep_reason(name, outcome)
        self.raised[name] += 1
        attempts = self.work.folder.attempts(name)
        begun = sum(attempt.get("driver") == self.work.driver for attempt in attempts)
        return self.raised[name] <= begun and not isinstance(outcome, ExhaustedError | Diverged)

    def _fail(self, cell: Cell, outcome: Exception) -> None:
        """Mark a cell as failed, and those that wait for it."""
        self._keep_reason(str(cell), outcome)
        self.cube.mark(cell, Status.FAILED)
        self.watch(Event("cell", str(cell), "failed"))
        for follower in self.followers.get(cell, ()):
            self._fail(follower, RuntimeError(f"{cell}, which it starts from, failed"))
        self._ended(cell)

    def _ended(self, cell: Cell) -> None:
        """Remove the final weights that nobody waits for any more."""
        if awaited := self.work.study.waits_for(cell):
            self.awaiting[awaited] -= 1
            if not self.awaiting[awaited]:
                self.work.folder.final(awaited).unlink(missing_ok=True)

    def _keep_reason(self, name: str, outcome: Exception) -> None:
        folder = self.work.folder
        if isinstance(outcome, ExhaustedError) and folder.has_traceback(name):
            return  # which says more
        try:
            folder.write_traceback(name, "".join(traceback.format_exception(outcome)))
        except OSError as error:
            if error.errno in NO_ROOM:
                raise
            log.warning("cannot keep the reason why %s failed: %s", name, error)


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
