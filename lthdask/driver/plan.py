"""What a run would do: cells, epochs, disk and time. Nothing is started or written."""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np

from lthdask import needs
from lthdask.driver.chains import Chains
from lthdask.driver.disk import bytes_of_tickets, bytes_to_keep, checkpoint_sizes
from lthdask.driver.opening import Opened, open_study
from lthdask.driver.remaining import Remaining, epochs_to_train, plain_epochs, remaining
from lthdask.driver.schedule import wall_epochs
from lthdask.driver.sizes import known_size, own_experiment
from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.lottery import runs
from lthdask.lottery.experiment import Experiment
from lthdask.lottery.size import Size, size_in
from lthdask.lottery.trial import require_prunable
from lthdask.networks.zoo import is_of_zoo
from lthdask.options import Options
from lthdask.storage.arrays import Arrays
from lthdask.storage.folder import Folder
from lthdask.storage.schema import Status
from lthdask.study import Study
from lthdask.training.engine import Engine
from lthdask.training.loop import Diverged
from lthdask.training.pace import epoch_seconds
from lthdask.worker.tasks import require_a_batch
from lthdask.worker.work import Work

STATES = 3
"""Files with the state of an unfinished run: two, written in turn, and one while it is written."""


@dataclass(frozen=True)
class Schedule:
    """How long some workers need.

    Attributes
    ----------
    workers : int
    wall_epochs : float
        Epochs that pass, one after the other, until all is trained.
    seconds : float or None
        The same in seconds; None if it is not known.
    busy : float
        Share of the workers' time in which they train.
    """

    workers: int
    wall_epochs: int | float
    seconds: float | None
    busy: float


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes
    ----------
    study : Study
    left : Remaining
        What is to be trained; of an adaptive run, the longest cells that its budget allows.
        Its `again` says what of dense runs is trained again.
    cells : list of Cell
        Cells that may be trained, longest first.
    done : int
        Cells that need no training any more.
    epochs : float
        Epochs to be trained, dense runs included; of an adaptive run, at most.
    plain : int
        Epochs that the plain nested loop would train: all T in each of the cells.
    disk : int
        Bytes to be written, and kept.
    cohort : int
        The most cells that a worker trains side by side.
    seconds_per_epoch : float or None
        Time of an epoch on one worker, evaluation included; None if it is not known.
    source : str
        Where `seconds_per_epoch` comes from, or why it is not known.
    checkpoint : tuple of int
        Bytes of the weights of a checkpoint, and of a complete one.
    steps : int
        Batches in an epoch; 0 where they are not known, or matter to nothing. Then a rewind epoch
        in iterations counts as 0.
    options : Options
    size : Size or None
        How large the network is; None if that is not known before the data are read.
    """

    study: Study
    left: Remaining
    cells: list[Cell]
    done: int
    epochs: int | float
    plain: int
    disk: int
    cohort: int
    seconds_per_epoch: float | None
    source: str
    checkpoint: tuple[int, int]
    steps: int = 0
    options: Options = Options()
    size: Size | None = None

    @property
    def dense_runs(self) -> int:
        """Dense runs to be trained."""
        return len(self.left.dense_runs)

    @cached_property
    def _chains(self) -> Chains:
        return Chains(self.study, self.left, self.steps)

    @cached_property
    def _work(self) -> int | float:
        return wall_epochs(self._chains, self.left, 1, self.cohort)  # one worker never rests

    def on(self, workers: int) -> "Schedule":
        """Return how long this many workers need."""
        wall = wall_epochs(self._chains, self.left, workers, self.cohort)
        busy = self._work / (workers * wall) if wall else 1.0
        return Schedule(workers, wall, self.seconds(wall), busy)

    def on_some(self, also: int) -> "list[Schedule]":
        """Return how long so many workers need, and 1, 2, 4, ... as long as more of them help."""
        found, workers = {also: self.on(also), 1: self.on(1)}, 1
        least = self.on(max(1, len(self.left.cells) + self.dense_runs)).wall_epochs
        while found[workers].wall_epochs > least:
            workers *= 2
            found[workers] = self.on(workers)
        return [found[workers] for workers in sorted(found)]

    def seconds(self, epochs: float) -> float | None:
        """Return how long one worker takes for so many epochs, or None if it is not known."""
        return None if self.seconds_per_epoch is None else self.seconds_per_epoch * epochs

    def meanwhile(self, workers: int) -> int:
        """Return the bytes that are needed besides while it runs, at most, and freed at its end.

        They are for the states of unfinished runs, and for final weights that others wait for.
        """
        weights, complete = self.checkpoint
        at_once = min(workers * self.cohort, len(self.cells) + self.dense_runs)
        awaited = sum(
            needs.awaited(self.study, c) and not self.options.keeps(c) for c in self.cells
        )
        final = weights + weights // 4  # with its mask, a byte for each of four
        return at_once * STATES * complete + awaited * final


def plan(
    study: Study,
    out: str | Path | None = None,
    data: str | Path | None = None,
    options: Options = Options(),
    *,
    here: bool = True,
) -> Plan:
    """Return what :func:`lthdask.run` would do with the same arguments.

    The time of an epoch is that of earlier cells. Without any, it is measured, if cells would
    train `here`, on this machine.
    """
    opened = open_study(study, out, options)
    study, left = opened.study, remaining(opened)
    seen = _look(opened, data, here) if left.replicates else None
    steps = opened.steps or (seen.steps if seen and _has_steps(study) else 0)
    if steps:
        needs.require_steps(study, steps)
    cells, dense_runs = left.cells, len(left.dense_runs)
    dense = epochs_to_train(study, [], dense_runs) + left.again_epochs
    epochs = epochs_to_train(study, cells, 0, steps) + dense
    if options.adaptive is not None:  # what it spends at most, dense runs aside
        whole = epochs_to_train(study, opened.cells, 0, steps)
        epochs = min(epochs, int(options.adaptive * whole) + dense)
        spent = accumulate(study.recipe.epochs - cell.epochs_before(steps) for cell in cells)
        most = epochs - dense
        within = [cell for cell, so_far in zip(cells, spent, strict=True) if so_far <= most]
        left = replace(left, cells=within)
    elsewhere = None, "cells would train on other machines, and none is done yet"
    unfinished = sum(s in (Status.PENDING, Status.SKIPPED) for s in opened.cells.values())
    measured = _from_earlier_cells(opened.folder)
    seconds, source = measured or (_measured(opened, data, seen) if here else elsewhere)
    experiment = own_experiment(opened, data)
    own = experiment and experiment.outline()
    sizes = checkpoint_sizes(study, own)
    disk = bytes_to_keep(study, left, sizes, steps) + bytes_of_tickets(opened, left, sizes, own)
    return Plan(
        study,
        left,
        cells,
        len(opened.cells) - (unfinished if options.masks_only else len(cells)),
        epochs,
        plain_epochs(study, len(cells), dense_runs),
        disk,
        _cohort(opened),
        seconds,
        source,
        sizes,
        steps,
        options,
        size_in(experiment) if experiment else known_size(opened, data),
    )


def _look(opened: Opened, data: str | Path | None, here: bool) -> Experiment | None:
    """Return the experiment with its data, on the CPU; None if they are not to be read from here.

    Raises
    ------
    InputError
        What a worker would say of them: they are missing, cannot be used, or are other ones than
        those that the study was begun with.
    """
    work = Work(
        opened.study, Engine(device="cpu").chosen(), opened.folder, data, recorded=opened.data
    )
    name = opened.study.data.name
    if not here and not (name == "digits" or (work.data and Path(work.data).exists())):
        return None
    try:
        experiment = work.experiment()
    except InputError:
        if opened.options.download:
            return None
        raise
    require_a_batch(experiment)
    if is_of_zoo(opened.study.network.name):
        require_prunable(experiment)
    return experiment


def _has_steps(study: Study) -> bool:
    """Return whether a rewind epoch needs the number of steps."""
    return not all(isinstance(k, int) for k in (*study.grid.ks, study.mask_at))


def _cohort(opened: Opened) -> int:
    """Return how many cells are trained side by side, as far as it is known: else one."""
    used = opened.manifest.engine.cohort if opened.manifest else 1
    asked = opened.engine.cohort
    most = used if asked == "auto" else asked
    return 1 if most == "auto" else most


def _from_earlier_cells(folder: Folder) -> tuple[float, str] | None:
    """Return the median time of an epoch in the cells that are done."""
    if not folder.cube.exists():
        return None
    arrays = Arrays(folder.path)
    epochs = arrays.named("metrics", "epochs_trained")
    trained = epochs > 0  # one that diverged at once was trained for none
    per_epoch = arrays.named("record", "seconds")[trained] / epochs[trained]
    known = per_epoch[np.isfinite(per_epoch)]
    source = "1 earlier cell" if len(known) == 1 else f"{len(known)} earlier cells"
    return (float(np.median(known)), source) if len(known) else None


def _measured(
    opened: Opened, data: str | Path | None, seen: Experiment | None
) -> tuple[float | None, str]:
    """Return the time of an epoch here, from a few steps and a part of the evaluation."""
    if seen is None:
        return None, "the data are not there yet"
    try:
        engine = opened.engine.chosen()
    except InputError as error:
        return None, str(error)
    work = Work(opened.study, engine, opened.folder, data)
    experiment = work.experiment(seen.data if engine.device == "cpu" else None)
    images, recipe = experiment.data, experiment.recipe
    try:
        engine = runs.choose_engine(replace(opened.engine, cohort=1), experiment).engine
    except InputError as error:
        return None, str(error)
    start = next(runs.train_dense(experiment, 0))[0]
    try:
        seconds, some = epoch_seconds(
            experiment.build(), images, recipe, start, experiment.seed, engine
        )
    except Diverged as error:
        return None, str(error)
    return seconds, f"{some} steps on this machine"
