"""The sweep over what is left of a study: dense runs first, then cells, each as soon as it can be.

A cell is queued once its dense run's checkpoints are shared, and the cell whose final
weights it needs is done; of an adaptive study, once the search asks for it. One that is
broken is marked, with those that wait for it, and the rest goes on.
"""

import errno
import functools
import logging
import math
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from lthdask.cluster.queue import Queue, Task
from lthdask.driver.adaptive import Point, Search
from lthdask.driver.preparing import epochs_to_train
from lthdask.errors import ExhaustedError, InputError
from lthdask.events import Event
from lthdask.grid import ARMS, Cell, cohorts
from lthdask.storage import checkpoints
from lthdask.storage.cube import Cube
from lthdask.storage.schema import Status
from lthdask.training.loop import Diverged
from lthdask.worker.cells import train_cells
from lthdask.worker.tasks import compare_masks, dense_run, train_dense
from lthdask.worker.work import Work

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}

log = logging.getLogger(__name__)


@dataclass
class Sweep:
    """The dense runs and cells of a study that are still to be trained.

    Parameters
    ----------
    work : Work
    cube : Cube
    cells : list of Cell
        To be trained, longest first.
    queue : Queue
        Where they are queued.
    watch : callable
        Called with each `Event`.
    masks_only : bool
        Compare the masks of each dense run, in place of training cells.
    adaptive : float or None
        Queue cells as :mod:`lthdask.driver.adaptive` asks for them, within this share of the
        grid's epochs.
    """

    work: Work
    cube: Cube
    cells: list[Cell]
    queue: Queue
    watch: Callable[[Event], None]
    masks_only: bool = False
    adaptive: float | None = None
    raised: Counter[str] = field(default_factory=Counter)
    followers: dict[Cell, list[Cell]] = field(default_factory=dict)
    awaiting: Counter[Cell] = field(default_factory=Counter)
    search: Search | None = None

    def __post_init__(self) -> None:
        for cell in self.cells:
            if awaited := self.work.study.waits_for(cell):
                self.followers.setdefault(awaited, []).append(cell)
        self.awaiting.update({cell: len(after) for cell, after in self.followers.items()})
        self.left, self.queued = set(self.cells), set[Cell]()
        self.without_dense = {cell.replicate for cell in self.cells}
        if self.adaptive is not None:
            self._begin_search(self.adaptive)

    def add_dense_run(self, replicate: int) -> None:
        """Queue the dense run of a replicate, before all cells."""
        then = functools.partial(self._dense_run_landed, replicate)
        name, arguments = dense_run(replicate), (self.work, replicate)
        self.queue.add(Task(name, train_dense, arguments, length=float("inf"), then=then))

    def is_trained(self, replicate: int) -> bool:
        """Return whether the checkpoints that a replicate's cells start from are there, and whole.

        If one is not, none counts: the dense run is trained anew, and gives the same.
        """
        if str(replicate) not in self.work.folder.manifest()["checkpoints"]:
            return False
        try:
            with ThreadPoolExecutor() as threads:  # no cell is trained meanwhile
                files = self._files(replicate).values()
                list(threads.map(lambda file: checkpoints.require(*file), files))
        except InputError as error:
            log.warning("%s: the dense run is trained anew", error)
            return False
        return True

    def _files(self, replicate: int) -> dict[int, tuple[Path, str]]:
        """Return the checkpoints that a replicate's cells start from: epoch → file, its digest."""
        folder = self.work.folder
        digests = folder.manifest()["checkpoints"][str(replicate)]
        return {
            epoch: (
                checkpoints.path_of(folder.path, replicate, epoch),
                digests.get(str(epoch), ""),
            )
            for epoch in self._epochs_for(self.cells_of(replicate))
        }

    def _epochs_for(self, cells: list[Cell]) -> list[int]:
        """Return the epochs of the dense run that cells need the checkpoints of."""
        return sorted({epoch for cell in cells for epoch in self.work.study.checkpoints_for(cell)})

    def add_cells(self, replicate: int) -> None:
        """Queue what comes after the dense run of a replicate."""
        for epoch, file in self._files(replicate).items():
            self.queue.share((replicate, epoch), functools.partial(checkpoints.load, *file))
        self.without_dense.discard(replicate)
        if self.masks_only:
            for threshold in self.work.study.grid.thresholds:
                self._add_masks(replicate, threshold)
        elif self.search:
            self._go_on()
        else:
            self.queue_cells(self.first_of(replicate))

    def queue_cells(self, cells: list[Cell]) -> None:
        """Queue cells that can be trained now, side by side where the engine has it."""
        if not cells:
            return
        share = math.ceil(len(cells) / self.queue.workers())  # so that no worker is left idle
        for cohort in cohorts(cells, max(1, min(int(self.work.engine.cohort), share))):
            self._add(cohort)

    def _add(self, cohort: list[Cell]) -> None:
        first = cohort[0]
        self.queue.add(
            Task(
                f"cell-{first}" + (f"-and-{len(cohort) - 1}-more" if len(cohort) > 1 else ""),
                train_cells,
                arguments=(self.work, cohort),
                shared=tuple((first.replicate, epoch) for epoch in self._epochs_for(cohort)),
                length=max(map(self.way_to_the_end, cohort)),
                then=functools.partial(self._landed, cohort),
            )
        )

    def way_to_the_end(self, cell: Cell) -> int:
        """Return how many epochs lie between a cell's begin and the end of all that waits for it.

        A chain of rounds is as long as its critical path, not as its first round: Hu's rule,
        which is the longest first (LPT) where nothing waits (Hu 1961, "Parallel sequencing and
        assembly line problems", Operations Research 9).
        """
        own = self.work.study.recipe.epochs - cell.first_epoch
        return own + max(map(self.way_to_the_end, self.followers.get(cell, ())), default=0)

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
            if self.masks_only:
                raise outcome
            self.watch(Event("dense", f"dense run {replicate}", "failed"))
            self.without_dense.discard(replicate)
            for cell in self.first_of(replicate):
                self._fail(cell, outcome)
            return
        manifest = folder.manifest()
        manifest["checkpoints"][str(replicate)] = outcome
        folder.write_manifest(manifest)
        checkpoints.State(folder.run(name)).remove()
        self.watch(Event("dense", f"dense run {replicate}", "done"))
        self.add_cells(replicate)

    def _add_masks(self, replicate: int, threshold: float) -> None:
        def landed(outcome: Any) -> None:
            if isinstance(outcome, Exception):
                raise outcome

        name = f"masks-r{replicate}-t{threshold:g}"
        arguments = (self.work, replicate, threshold)
        self.queue.add(Task(name, compare_masks, arguments, then=landed))

    def _landed(self, cohort: list[Cell], outcome: Any) -> None:
        outcomes = [outcome] * len(cohort) if isinstance(outcome, Exception) else outcome
        now = list[Cell]()
        for cell, of_cell in zip(cohort, outcomes, strict=True):
            if isinstance(of_cell, Exception) and len(cohort) > 1:
                _raise_if_full(of_cell)
                self._add([cell])  # alone, so that no cell is to blame for another
            else:
                now += self._cell_landed(cell, of_cell)
        self.queue_cells(now)

    def _cell_landed(self, cell: Cell, outcome: Any) -> list[Cell]:
        """Note what became of a cell, and return those that can be trained now."""
        if not isinstance(outcome, Exception):
            self.work.folder.remove_traceback(cell)
            self.watch(Event("cell", str(cell), outcome))
            followers = self.followers.get(cell, [])
            if outcome != "done":
                for follower in followers:
                    self._fail(follower, RuntimeError(f"{cell}, which it starts from, {outcome}"))
            self._ended(cell)
            return [f for f in followers if outcome == "done" and self._is_wanted(f)]
        if self._tried_again(str(cell), outcome):
            return [cell]
        self._fail(cell, outcome)
        return []

    def _tried_again(self, name: str, outcome: Exception) -> bool:
        """Keep the reason why a run raised, and return whether to begin it again.

        Whether it has been begun too often is for the next attempt to say. One that raises
        before it is even recorded is not begun again.
        """
        _raise_if_full(outcome)
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
        """Note that a cell has ended; remove final weights that nobody waits for any more."""
        self.left.discard(cell)
        if self.search and cell.arm == "ticket":
            self._answer((cell.threshold, cell.rewind_epoch))
            self._go_on()
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

    def _begin_search(self, share: float) -> None:
        """Begin to search the frontier, with what is known of it."""
        study, cells = self.work.study, self.work.study.grid.cells()
        axes = study.grid.thresholds, study.grid.rewind_epochs
        self.points: dict[Point, list[Cell]] = {point: [] for point in product(*axes)}
        for cell in cells:  # those without a k, or a threshold, belong to all of them
            arm = ARMS[cell.arm]
            thresholds = (cell.threshold,) if arm.has_threshold else axes[0]
            ks = (cell.rewind_epoch,) if arm.has_k else axes[1]
            for point in product(thresholds, ks):
                self.points[point].append(cell)
        spent = epochs_to_train(study, [cell for cell in cells if cell not in self.left], 0)
        self.search = Search(*axes, self._cost, share * epochs_to_train(study, cells, 0), spent)
        for point in self.points:
            self._answer(point)

    def _cost(self, point: Point) -> float:
        cells = [cell for cell in self.points[point] if cell in self.left - self.queued]
        return epochs_to_train(self.work.study, cells, 0)

    def _answer(self, point: Point) -> None:
        """Tell the search about a point of which all tickets have ended."""
        assert self.search
        tickets = [cell for cell in self.points[point] if cell.arm == "ticket"]
        if self.left.isdisjoint(tickets):
            self.search.answer(point, self.cube.matches(tickets, self.work.study.matching_margin))

    def _go_on(self) -> None:
        """Queue the cells of the points that the search asks for."""
        if self.without_dense or not self.search:
            return
        for point in self.search.next():
            new = [cell for cell in self.points[point] if cell in self.left - self.queued]
            self.queued.update(new)
            self.queue_cells([c for c in new if self.work.study.waits_for(c) not in self.left])

    def _is_wanted(self, cell: Cell) -> bool:
        return self.search is None or cell in self.queued

    def skip_the_rest(self) -> None:
        """Mark the cells that the search did not ask for, and say why."""
        if not self.search:
            return
        reasons = {}
        for cell in sorted(self.left):
            self.cube.mark(cell, Status.SKIPPED)
            reasons[str(cell)] = self.search.reason((cell.threshold, cell.rewind_epoch))
        self.work.folder.write_skipped(reasons)


def _raise_if_full(outcome: Exception) -> None:
    if isinstance(outcome, OSError) and outcome.errno in NO_ROOM:
        raise outcome
