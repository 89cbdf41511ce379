"""What a run would do: cells, epochs, disk and time. Nothing is started or written."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lthdask.driver.opening import Opened, open_study
from lthdask.driver.remaining import epochs_to_train, remaining
from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.lottery import runs
from lthdask.options import Options
from lthdask.storage.arrays import Arrays
from lthdask.storage.folder import Folder
from lthdask.storage.schema import Status
from lthdask.study import Study
from lthdask.training.loop import Diverged
from lthdask.training.pace import epoch_seconds
from lthdask.worker.work import Work

CUBE_BYTES_PER_CELL = 6 * 4096
"""Bytes of six files, each at least a block of the file system."""


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes
    ----------
    cells : list of Cell
        Cells to be trained, longest first.
    done : int
        Cells that need no training any more.
    dense_runs : int
        Dense runs to be trained.
    epochs : int
        Epochs to be trained, dense runs included.
    disk : int
        Bytes to be written.
    seconds_per_epoch : float or None
        Time of an epoch on one worker, evaluation included; None if it is not known.
    source : str
        Where `seconds_per_epoch` comes from, or why it is not known.
    """

    cells: list[Cell]
    done: int
    dense_runs: int
    epochs: int
    disk: int
    seconds_per_epoch: float | None
    source: str

    def seconds(self, workers: int, epochs: int) -> float | None:
        """Return how long this many workers need, with `epochs` in a dense run, or None."""
        if self.seconds_per_epoch is None:
            return None
        waves = -(-self.dense_runs // workers) * epochs
        cells = self.epochs - self.dense_runs * epochs
        return self.seconds_per_epoch * (waves + cells / max(1, min(workers, len(self.cells))))


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
    left = remaining(opened)
    cells, dense_runs = left.cells, len(left.dense_runs)
    epochs = epochs_to_train(study, cells, dense_runs)
    if options.adaptive is not None:  # what it spends at most, dense runs aside
        whole = epochs_to_train(study, opened.cells, 0)
        epochs = min(epochs, int(options.adaptive * whole) + dense_runs * study.recipe.epochs)
    elsewhere = None, "cells would train on other machines, and none is done yet"
    unfinished = sum(s in (Status.PENDING, Status.SKIPPED) for s in opened.cells.values())
    measured = _from_earlier_cells(opened.folder)
    seconds, source = measured or (_measured(opened, data) if here else elsewhere)
    return Plan(
        cells,
        len(opened.cells) - (unfinished if options.masks_only else len(cells)),
        dense_runs,
        epochs,
        dense_runs * checkpoint_bytes(study) + len(cells) * CUBE_BYTES_PER_CELL,
        seconds,
        source,
    )


def checkpoint_bytes(study: Study) -> int:
    """Return the size of the checkpoints of one dense run, without their headers."""
    network = study.outline()
    weights = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    settings = study.recipe.optimizer
    buffers = 2 if settings.name == "adam" else int(settings.momentum > 0)
    moments = buffers * sum(p.numel() * p.element_size() for p in network.parameters())
    complete = min(study.kept_until + 1, study.recipe.epochs)
    return int((study.recipe.epochs + 1) * weights + complete * moments)


def _from_earlier_cells(folder: Folder) -> tuple[float, str] | None:
    """Return the median time of an epoch in the cells that are done."""
    if not folder.cube.exists():
        return None
    arrays = Arrays(folder.path)
    per_epoch = arrays.named("record", "seconds") / arrays.named("metrics", "epochs_trained")
    known = per_epoch[np.isfinite(per_epoch)]
    source = "1 earlier cell" if len(known) == 1 else f"{len(known)} earlier cells"
    return (float(np.median(known)), source) if len(known) else None


def _measured(opened: Opened, data: str | Path | None) -> tuple[float | None, str]:
    """Return the time of an epoch here, from a few steps and a part of the evaluation."""
    try:
        engine = opened.engine.chosen()
        experiment = Work(opened.study, engine, opened.folder, data).experiment()
    except InputError as error:
        return None, str(error)
    images, recipe, batch = experiment.data, experiment.recipe, experiment.recipe.batch_size
    if images.steps(batch) < 1:
        raise InputError(
            f"batch_size is {batch}, but there are only {len(images.train)} training images"
        )
    engine = runs.choose_engine(replace(opened.engine, cohort=1), experiment).engine
    start = next(runs.train_dense(experiment, 0))[0]
    try:
        seconds, some = epoch_seconds(
            experiment.build(), images, recipe, start, experiment.seed, engine
        )
    except Diverged as error:
        return None, str(error)
    return seconds, f"{some} steps on this machine"
