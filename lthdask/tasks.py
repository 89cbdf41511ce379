"""What a worker does: look around, train a dense network, train a cell.

The bodies of the tasks. Each takes small values and checkpoints, and leaves its results on
disk, because results that only live on a worker are lost with it.
"""

import functools
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from lthdask import lottery
from lthdask.data import Data
from lthdask.datasets import DataSource, load
from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.masks import prunable_weights
from lthdask.rewinding import Checkpoint
from lthdask.storage import checkpoints
from lthdask.storage.folder import Folder
from lthdask.storage.results import Cube, Status
from lthdask.study import Study
from lthdask.training import Diverged, Engine

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Work:
    """What every task of a study needs to know.

    Attributes
    ----------
    study : Study
    engine : Engine
        With nothing left on ``auto``, once a worker has looked around.
    folder : Folder
        Of the study.
    data : Path or None
        Folder of the data set.
    download : bool
        Whether a missing data set may be fetched.
    """

    study: Study
    engine: Engine
    folder: Folder
    data: Path | None = None
    download: bool = False

    def experiment(self) -> lottery.Experiment:
        """Return the experiment; its data are read once per process."""
        study = self.study
        return lottery.Experiment(
            network=study.network,
            image_size=study.data.image_size,
            data=_data(study.data, self.data, self.download, self.engine.device),
            recipe=study.recipe,
            pruning=study.pruning,
            seed=study.seed,
            engine=self.engine,
            fresh_buffers=study.fresh_buffers,
        )


@functools.lru_cache(maxsize=1)
def _data(source: DataSource, folder: Path | None, download: bool, device: str) -> Data:
    return load(source, folder, download).to(torch.device(device))


def _place(engine: Engine) -> str:
    """Return host, device and, in a queue, the number of the job."""
    device: str = engine.device
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    jobs = [
        os.environ[name] for name in ("SLURM_JOB_ID", "PBS_JOBID", "JOB_ID") if name in os.environ
    ]
    device += f":{visible}" if device == "cuda" and visible else ""
    return " ".join([platform.node(), device, *(f"job {job}" for job in jobs[:1])])


def look_around(work: Work, word: str, tell: Tell) -> tuple[Engine, list[str]]:
    """Check, before anything is trained, that the study can be trained here.

    Returns
    -------
    engine : Engine
        The study's, decided for this worker's device.
    layers : list of str
        Names of the prunable weights.

    Raises
    ------
    InputError
        If the device, the study's folder or the data cannot be used from this worker.
    """
    host = platform.node()
    if not work.folder.find_word(word):
        raise InputError(
            f"the worker on {host} does not see the folder {work.folder.path}; "
            f"give one on a shared file system with --out"
        )
    engine = work.engine.chosen()
    experiment = Work(work.study, engine, work.folder, work.data, work.download).experiment()
    train, batch = len(experiment.data.train), work.study.recipe.batch_size
    if train < batch:
        raise InputError(f"batch_size is {batch}, but there are only {train} training images")
    return engine, list(prunable_weights(experiment.build()))


def train_dense(work: Work, replicate: int, tell: Tell) -> dict[str, str]:
    """Train the dense network of a replicate; save its checkpoints and its curves.

    Returns
    -------
    dict of str to str
        Epoch → digest of its checkpoint.
    """
    study, folder = work.study, work.folder
    keep_until, last = study.kept_until, study.recipe.epochs
    digests, curves = {}, {}
    for checkpoint, metrics in lottery.train_dense(work.experiment(), replicate):
        epoch = checkpoint.epoch
        path = checkpoints.path_of(folder.path, replicate, epoch)
        complete = epoch <= keep_until or epoch == last
        digests[str(epoch)] = checkpoints.save(path, checkpoint, complete)
        if metrics:
            curves[epoch] = asdict(metrics)
            tell(f"dense run {replicate}")
    Cube(folder.cube).write_dense(replicate, curves)
    return digests


def train_cell(work: Work, cell: Cell, trained: Checkpoint, early: Checkpoint, tell: Tell) -> str:
    """Draw the ticket of a cell, train it, and write its results into the cube.

    Parameters
    ----------
    work : Work
    cell : Cell
    trained, early : Checkpoint
        Of the dense run: after the last epoch, and at the cell's rewind epoch.
    tell : callable

    Returns
    -------
    str
        What became of the cell: ``done`` or ``diverged``.
    """
    clock, started = time.perf_counter(), time.time()
    place = _place(work.engine)
    attempt = work.folder.begin_attempt(cell, {"started": started, "place": place})
    experiment = work.experiment()
    ticket = lottery.ticket(experiment, trained, early, cell.threshold)
    status, last, curves, metrics = Status.DONE, ticket.start, {}, {}
    try:
        for last, measured in lottery.train_ticket(experiment, cell.replicate, ticket):
            if measured:
                curves[measured.epoch] = asdict(measured)
                tell(str(cell))
        metrics = curves[last.epoch]
    except Diverged:
        status = Status.DIVERGED
    density, by_layer = lottery.densities(experiment, last)
    Cube(work.folder.cube).write(
        cell,
        status,
        metrics | {"density": density, "epochs_trained": len(curves)},
        curves,
        {
            name: {"density": share, "cutoff": ticket.cutoffs[name]}
            for name, share in by_layer.items()
        },
        {
            "seconds": time.perf_counter() - clock,
            "attempts": attempt,
            "started": started,
            "ended": time.time(),
        },
        place,
    )
    return status.name.lower()
