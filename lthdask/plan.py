"""What a run would do: cells, epochs, disk and time. Nothing is started or written."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lthdask import lottery
from lthdask.errors import InputError
from lthdask.flow import epochs_to_train, existing, remaining
from lthdask.grid import Cell
from lthdask.networks import on_meta
from lthdask.storage.folder import Folder
from lthdask.storage.results import open_results
from lthdask.study import Study
from lthdask.tasks import Work
from lthdask.training import train

MEASURED_STEPS = 8
CUBE_BYTES_PER_CELL = 6 * 4096
"""Six files, each at least a block of the file system."""


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes
    ----------
    cells : list of Cell
        Those to be trained, longest first.
    done : int
        Cells that need no training any more.
    dense_runs : int
        Dense runs to be trained.
    epochs : int
        To be trained, dense runs included.
    disk : int
        Bytes to be written.
    seconds_per_epoch : float or None
        On one worker; None where it is not known.
    source : str
        Where `seconds_per_epoch` comes from.
    """

    cells: list[Cell]
    done: int
    dense_runs: int
    epochs: int
    disk: int
    seconds_per_epoch: float | None
    source: str

    def seconds(self, workers: int, epochs: int) -> float | None:
        """Return how long so many workers need, for `epochs` in a dense run, or None."""
        if self.seconds_per_epoch is None:
            return None
        waves = -(-self.dense_runs // workers) * epochs
        cells = self.epochs - self.dense_runs * epochs
        return self.seconds_per_epoch * (waves + cells / max(1, min(workers, len(self.cells))))


def plan(
    study: Study,
    out: str | Path | None = None,
    data: str | Path | None = None,
    *,
    retry_failed: bool = False,
) -> Plan:
    """Return what :func:`lthdask.run` would do with the same arguments."""
    folder = existing(study, out)
    cells = remaining(study, folder, retry_failed)
    trained = {int(replicate) for replicate in folder.manifest().get("checkpoints", {})}
    dense_runs = len({cell.replicate for cell in cells} - trained)
    seconds, source = _from_earlier_cells(folder) or _measured(study, folder, data)
    return Plan(
        cells,
        len(study.grid.cells()) - len(cells),
        dense_runs,
        epochs_to_train(study, cells, dense_runs),
        dense_runs * checkpoint_bytes(study) + len(cells) * CUBE_BYTES_PER_CELL,
        seconds,
        source,
    )


def checkpoint_bytes(study: Study) -> int:
    """Return the size of the checkpoints of one dense run, but for their headers."""
    network = on_meta(study.network, study.data.image_size, 3, 10)
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
    results = open_results(folder.path)
    per_epoch = (results.seconds / results.epochs_trained).values
    known = per_epoch[np.isfinite(per_epoch)]
    return (float(np.median(known)), f"{len(known)} earlier cells") if len(known) else None


def _measured(study: Study, folder: Folder, data: str | Path | None) -> tuple[float | None, str]:
    """Return the time of an epoch from a few steps here, if cells would train on the like."""
    try:
        work = Work(study, study.engine.chosen(), folder, Path(data).absolute() if data else None)
    except InputError:
        return None, "no such device on this machine"
    experiment = work.experiment()
    network = experiment.build()
    start = next(lottery.train_dense(experiment, 0))[0]
    torch.set_num_threads(work.engine.threads)
    steps = experiment.data.steps(study.recipe.batch_size)
    if steps < 1:
        raise InputError(
            f"batch_size is {study.recipe.batch_size}, but there are only "
            f"{len(experiment.data.train)} training images"
        )
    run = train(
        network,
        experiment.data,
        study.recipe,
        start,
        seed=study.seed,
        replicate=0,
        engine=work.engine,
        every=1,
    )
    clock = [time.perf_counter() for _ in zip(range(min(steps, MEASURED_STEPS)), run, strict=False)]
    warm = clock[1:] if len(clock) > 2 else clock
    per_step = float(np.median(np.diff(warm))) if len(warm) > 1 else 0.0
    return per_step * steps, f"{len(clock)} steps on this machine"
