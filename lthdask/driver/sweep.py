"""The sweep over what is left of a study: dense runs first, then cells, each as soon as it can be.

A cell is queued once its dense run's checkpoints are shared, and the cell whose final
weights it needs is done; of an adaptive study, once the search asks for it. One that is
broken is marked, with those that wait for it, and the rest goes on.
"""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lthdask import needs
from lthdask.arms import ARMS
from lthdask.cluster.queue import Queue, Task
from lthdask.driver.adaptive import Exploration
from lthdask.driver.attempts import Attempts
from lthdask.driver.chains import Chains
from lthdask.driver.full_disk import raise_if_full
from lthdask.driver.kept import Kept
from lthdask.driver.remaining import Remaining, epochs_to_train
from lthdask.errors import OtherData
from lthdask.events import Event
from lthdask.grid import Cell
from lthdask.rewinding import Place, step_of
from lthdask.storage import checkpoints
from lthdask.storage.cube import Cube
from lthdask.storage.manifest import Manifest
from lthdask.storage.results import follow
from lthdask.storage.schema import Status
from lthdask.worker.cells import train_cells
from lthdask.worker.tasks import (
    compare_masks,
    dense_run_name,
    train_dense,
    train_dense_again,
)
from lthdask.worker.work import Work

log = logging.getLogger(__name__)


@dataclass
class Sweep:
    """The dense runs and cells of a study that are still to be trained.

    Parameters
    ----------
    work : Work
    manifest : Manifest
        Of the study; the sweep goes on with it, and writes it, as dense runs are trained.
    cube : Cube
    remaining : Remaining
        What is to be trained.
    queue : Queue
        Where it is queued.
    watch : callable
        Called with each `Event`.
    """

    work: Work
    manifest: Manifest
    cube: Cube
    remaining: Remaining
    queue: Queue
    watch: Callable[[Event], None] = lambda event: None
    exploration: Exploration | None = None

    def __post_init__(self) -> None:
        self.cells = self.remaining.cells
        self.attempts = Attempts(self.work, self.queue)
        self.steps = self.manifest.steps
        self.chains = Chains(self.work.study, self.remaining, self.steps)
        self.without_dense = {cell.replicate for cell in self.cells}
        self.again: dict[int, range] = {}
        if (share := self.work.options.adaptive) is not None:
            look = functools.partial(next, follow(self.work.folder.path))
            of = self.work.study, look, self.remaining.every, self.cells, share
            again = filter(self.work.options.keeps, self.remaining.done)
            cohort = int(self.work.engine.cohort)
            self.exploration = Exploration(*of, cohort, self.steps, again)

    def begin(self) -> set[int]:
        """Say what is to be trained, and return the replicates whose dense run is trained."""
        study, folder, engine = self.work.study, self.work.folder, self.work.engine
        for cell in self.cells:
            folder.runs.remove_traceback(cell)
        if not self.work.options.masks_only:  # which trains no cell, and decides nothing of them
            folder.runs.remove_finals(self.chains.awaited)
        replicates = self.remaining.replicates
        trained = {r for r in replicates if r in self.manifest.checkpoints}
        found = {r: self._kept(r).lacking(self.chains.of(r)) for r in sorted(trained)}
        self.again = {r: epochs for r, epochs in found.items() if epochs is not None}
        status = f"{engine.precision} on {engine.device}: {self.manifest.engine_reason}"
        epochs = epochs_to_train(study, self.cells, len(replicates) - len(trained), self.steps)
        epochs += sum(map(len, self.again.values()))
        self.watch(Event("plan", status=status, cells=len(self.cells), epochs=epochs))
        for cell, awaited in self.remaining.lost.items():
            self._fail(cell, _broken_off(awaited, "failed"))
        return trained - self.again.keys()

    def end(self) -> None:
        """Mark the cells that a search did not ask for, and remove states that are left over."""
        statuses = self.cube.cells()
        if self.exploration:
            unasked = (Status.PENDING, Status.SKIPPED)  # not one that is done, but has to be again
            reasons = self.exploration.reasons()
            skipped = {cell: why for cell, why in reasons.items() if statuses[cell] in unasked}
            for cell in skipped:
                self.cube.mark(cell, Status.SKIPPED)
            others = [c for c in statuses if c not in self.remaining.every]
            before = {str(c) for c in others if statuses[c] is Status.SKIPPED}
            self.work.folder.write_skipped({str(c): why for c, why in skipped.items()}, before)
        done = (cell for cell, status in statuses.items() if status is Status.DONE)
        self.work.folder.runs.remove_states(done)
        self.work.folder.leave_whole(self.work.study.to_yaml(), self.manifest)

    def add_dense_run(self, replicate: int) -> None:
        """Queue the dense run of a replicate, or what is lacking of it, before all cells."""
        then = functools.partial(self._dense_run_landed, replicate)
        name = dense_run_name(replicate)
        function: Callable[..., Any] = train_dense
        arguments: tuple[Any, ...] = (self.attempts.work_for(name), replicate)
        if replicate in self.again:
            part = self.again[replicate], self.manifest.checkpoints[replicate]
            function, arguments = train_dense_again, (*arguments, *part)
        self.queue.add(Task(name, function, arguments, length=float("inf"), then=then))

    def _kept(self, replicate: int) -> Kept:
        """Return what is kept of a dense run that is trained."""
        study, digests = self.work.study, self.manifest.checkpoints[replicate]
        return Kept(study, self.work.folder.path, replicate, self.steps, digests)

    def _states_for(self, cells: list[Cell]) -> list[Place]:
        """Return the states of the dense run that cells need."""
        study, steps = self.work.study, self.steps
        needed = {at for cell in cells for at in needs.checkpoints_for(study, cell, steps)}
        return sorted(needed, key=lambda at: step_of(at, steps))

    def add_cells(self, replicate: int) -> None:
        """Queue what comes after the dense run of a replicate."""
        for at in self._states_for(self.chains.of(replicate)):
            load = functools.partial(checkpoints.load, *self._kept(replicate).file(at))
            self.queue.share(checkpoint_name(replicate, at), load)
        self.without_dense.discard(replicate)
        if self.work.options.masks_only:
            asked = {c.threshold for c in self.remaining.every if ARMS[c.arm].has_threshold}
            for threshold in sorted(asked) or self.work.study.grid.thresholds:
                self._add_masks(replicate, threshold)
        else:
            failed = self.attempts.reasons.keys()
            first = filter(self._is_wanted, self.chains.first_of(replicate))
            self.queue_cells([cell for cell in first if str(cell) not in failed])
            self._explore()

    def queue_cells(self, cells: list[Cell]) -> None:
        """Queue cells that can be trained now, side by side where the engine has it."""
        if cells:
            most, workers = int(self.work.engine.cohort), self.queue.workers()
            for cohort in self.chains.cohorts(cells, most, workers):
                self._add(cohort)

    def _add(self, cohort: list[Cell]) -> None:
        first, others = cohort[0], f"-and-{len(cohort) - 1}-more" if len(cohort) > 1 else ""
        needed = self._states_for(cohort)
        self.queue.add(
            Task(
                f"{first}{others}",
                train_cells,
                arguments=(self.attempts.work_for(*map(str, cohort)), cohort),
                shared=tuple(checkpoint_name(first.replicate, at) for at in needed),
                length=self.chains.length(cohort),
                then=functools.partial(self._landed, cohort),
                label=f"{first.label}{others}",
            )
        )

    def _dense_run_landed(self, replicate: int, outcome: Any) -> None:
        _raise_other_data([outcome])
        name, folder = dense_run_name(replicate), self.work.folder
        if isinstance(outcome, Exception):
            if self.attempts.again(name, outcome):
                self.add_dense_run(replicate)
                return
            if self.work.options.masks_only:
                raise self.attempts.reasons[name]
            self.watch(Event("dense", f"dense run {replicate}", "failed"))
            kept = self._kept(replicate) if replicate in self.again else None
            if not kept:
                self.without_dense.discard(replicate)
            for cell in self.chains.first_of(replicate):
                if not kept or kept.lacking([cell]) is not None:
                    self._fail(cell, self.attempts.reasons[name])
            if kept:
                self.add_cells(replicate)  # those that start from what is there
            return
        self.manifest = self.manifest.with_dense_run(replicate, outcome)
        folder.write_manifest(self.manifest)
        checkpoints.State(folder.runs.of(name)).remove()
        self.watch(Event("dense", f"dense run {replicate}", "done"))
        self.add_cells(replicate)

    def _add_masks(self, replicate: int, threshold: float) -> None:
        def landed(outcome: Any) -> None:
            if isinstance(outcome, Exception):
                raise outcome

        name = f"masks-r{replicate}-t{threshold:g}"
        arguments = (self.work, replicate, threshold, self.manifest.checkpoints[replicate])
        self.queue.add(Task(name, compare_masks, arguments, then=landed))

    def _landed(self, cohort: list[Cell], outcome: Any) -> None:
        outcomes = [outcome] * len(cohort) if isinstance(outcome, Exception) else outcome
        _raise_other_data(outcomes)
        now = list[Cell]()
        for cell, of_cell in zip(cohort, outcomes, strict=True):
            if isinstance(of_cell, Exception) and len(cohort) > 1:
                raise_if_full(self.work.folder.path, of_cell)
                self._add([cell])  # alone, so that no cell is to blame for another
            else:
                now += self._cell_landed(cell, of_cell)
        self.queue_cells(now)

    def _cell_landed(self, cell: Cell, outcome: Any) -> list[Cell]:
        """Note what became of a cell, and return those that can be trained now."""
        if not isinstance(outcome, Exception):
            self.work.folder.runs.remove_traceback(cell)
            if self.work.folder.runs.begun(cell, times=2):
                *before, here = self.work.folder.runs.fruitless(cell, self.work.driver) or [{}]
                elsewhere = [at for at in before if at["worker"] != here["worker"]]
                self.queue.places.died(str(cell), elsewhere)
            self.watch(Event("cell", str(cell), outcome))
            followers = self.chains.after(cell)
            if outcome != "done":
                for follower in followers:
                    self._fail(follower, _broken_off(cell, outcome))
            self._ended(cell)
            return [f for f in followers if outcome == "done" and self._is_wanted(f)]
        if self.attempts.again(str(cell), outcome):
            return [cell]
        self._fail(cell, outcome)
        return []

    def _fail(self, cell: Cell, outcome: Exception) -> None:
        """Mark a cell as failed, and those that wait for it."""
        failed = [(cell, outcome)]
        for lost, reason in failed:  # which grows meanwhile
            self.attempts.keep_reason(str(lost), reason)
            if lost not in self.remaining.done:
                self.cube.mark(lost, Status.FAILED)
            self.watch(Event("cell", str(lost), "failed"))
            why = _broken_off(lost, "failed")
            failed += [(follower, why) for follower in self.chains.after(lost)]
        for lost, _ in reversed(failed):
            self._ended(lost)

    def _ended(self, cell: Cell) -> None:
        """Note that a cell has ended; remove final weights that nobody waits for any more."""
        if self.exploration:
            self.exploration.ended(cell)
            self._explore()
        if released := self.chains.release(cell):
            self.work.folder.runs.final(released).unlink(missing_ok=True)

    def _explore(self) -> None:
        """Queue the cells that the search asks for."""
        if self.without_dense or not self.exploration:
            return
        self.queue_cells(self.exploration.next())

    def _is_wanted(self, cell: Cell) -> bool:
        return self.exploration is None or cell in self.exploration.wanted


def checkpoint_name(replicate: int, at: Place) -> str:
    """Return the name under which a checkpoint of a dense run is shared."""
    return f"checkpoint-r{replicate}-k{at}"


def _raise_other_data(outcomes: list[Any]) -> None:
    """Stop the run where a worker reads other data, for which no run is to blame."""
    for outcome in outcomes:
        if isinstance(outcome, OtherData):
            raise outcome


def _broken_off(awaited: Cell, outcome: str) -> RuntimeError:
    return RuntimeError(f"{awaited}, which it starts from, {outcome}")
