"""What a worker does: look around, train a dense network, train a cell.

The bodies of the tasks. Each takes small values and checkpoints, and leaves its results on
disk, because results that only live on a worker are lost with it.
"""

import functools
import os
import platform
import time
from dataclasses import asdict, dataclass, replace
from math import nan
from pathlib import Path

import torch

from lthdask import lottery
from lthdask.data import Data
from lthdask.datasets import DataSource, load
from lthdask.distances import distances
from lthdask.engine import Choice, Engine
from lthdask.errors import InputError
from lthdask.events import Event, Here, Stopped
from lthdask.grid import Cell
from lthdask.learning_speed import learning_speed
from lthdask.masks import prunable_weights
from lthdask.rewinding import Checkpoint, Ticket
from lthdask.stability import barrier
from lthdask.storage import checkpoints
from lthdask.storage.folder import Folder
from lthdask.storage.results import Cube, Status
from lthdask.study import Study
from lthdask.training import Diverged, EpochMetrics


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
    driver : str
        Names the run of the command that asks for the work.
    checkpoint_interval : float
        Seconds between two saved states of a run.
    max_attempts : int
        How many attempts at a run may end without a newer state.
    """

    study: Study
    engine: Engine
    folder: Folder
    data: Path | None = None
    download: bool = False
    driver: str = ""
    checkpoint_interval: float = 60.0
    max_attempts: int = 3

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
            mask_epoch=study.mask_epoch,
        )


@functools.lru_cache(maxsize=1)
def _data(source: DataSource, folder: Path | None, download: bool, device: str) -> Data:
    return load(source, folder, download).to(torch.device(device))


@functools.lru_cache(maxsize=1)  # 23 arrays; a driver changes none of them once tasks run
def _cube(path: Path, driver: str) -> Cube:
    return Cube(path)


def _place(engine: Engine) -> str:
    """Return host, device and, in a queue, the number of the job."""
    device: str = engine.device
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    jobs = [
        os.environ[name] for name in ("SLURM_JOB_ID", "PBS_JOBID", "JOB_ID") if name in os.environ
    ]
    device += f":{visible}" if device == "cuda" and visible else ""
    return " ".join([platform.node(), device, *(f"job {job}" for job in jobs[:1])])


@dataclass(frozen=True)
class Surroundings:
    """What a worker finds.

    Attributes
    ----------
    choice : Choice
        The study's engine, decided for this worker's device, and why.
    layers : list of str
        Names of the prunable weights.
    steps : int
        Batches in an epoch.
    """

    choice: Choice
    layers: list[str]
    steps: int


def look_around(work: Work, word: str, here: Here) -> Surroundings:
    """Check, before anything is trained, that the study can be trained here.

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
    experiment = replace(work, engine=work.engine.chosen()).experiment()
    train, batch = len(experiment.data.train), work.study.recipe.batch_size
    if train < batch:
        raise InputError(f"batch_size is {batch}, but there are only {train} training images")
    layers = list(prunable_weights(experiment.build()))
    choice = lottery.choose_engine(work.engine, experiment)
    return Surroundings(choice, layers, experiment.data.steps(batch))


def dense_run(replicate: int) -> str:
    """Return the name of a dense run."""
    return f"dense-r{replicate}"


class Training:
    """A training run that may be stopped at any step, and goes on from there.

    Parameters
    ----------
    work : Work
    name : object
        Of the run: a cell, or `dense_run`.
    here : Here

    Attributes
    ----------
    start : Checkpoint or None
        The newest state that was saved.
    curves : dict of int to dict of str to float
        `EpochMetrics` of the epochs that are done.
    learning : dict of int to dict of str to float
        `Measurement` at the iterations inside epochs.
    digests : dict of str to str
        Of a dense run: epoch → digest of its checkpoint.

    Raises
    ------
    Stopped
        If the worker has to go already.
    """

    def __init__(self, work: Work, name: object, here: Here) -> None:
        if here.should_stop():
            raise Stopped
        self.work, self.name, self.here = work, name, here
        self.place = _place(work.engine)
        self.began, self._clock = time.time(), time.monotonic()
        self._saved_at = self._clock
        self._state = checkpoints.State(work.folder.run(name), self._warn)
        self.start: Checkpoint | None
        self.start, notes = self._state.load() or (None, {})
        self.curves = {int(epoch): values for epoch, values in notes.get("curves", {}).items()}
        self.learning = {int(at): values for at, values in notes.get("learning", {}).items()}
        self.digests: dict[str, str] = notes.get("digests", {})
        self._seconds_before: float = notes.get("seconds", 0.0)

    def begin(self, epoch: int) -> None:
        """Record the attempt; without a state, it starts at the end of `epoch`."""
        self._position = (self.start.epoch, self.start.step) if self.start else (epoch, 0)
        about = {
            "driver": self.work.driver,
            "started": self.began,
            "place": self.place,
            "pid": os.getpid(),
            "epoch": self._position[0],
            "step": self._position[1],
            "seconds": self._seconds_before,
        }
        most = self.work.max_attempts
        self.attempt = self.work.folder.begin_attempt(self.name, about, most)

    def restart(self, reason: str) -> None:
        """Forget the state, which cannot be gone on with."""
        self._warn(f"{self.name} starts anew: {reason}")
        self._state.remove()
        self.start, self.curves, self.learning, self.digests = None, {}, {}, {}

    def due(self) -> bool:
        """Return whether it is time to save the state."""
        waited = time.monotonic() - self._saved_at
        return waited >= self.work.checkpoint_interval or self.here.should_stop()

    def follow(self, epochs: lottery.Epochs, steps: int) -> lottery.Epochs:
        """Pass on what is trained; keep its curves, and save its state when that is due.

        Raises
        ------
        Stopped
            If the worker has to go; the state is saved.
        """
        (epoch, step), clock = self._position, time.monotonic()
        for checkpoint, metrics in epochs:
            if isinstance(metrics, EpochMetrics):
                self.curves[metrics.epoch] = asdict(metrics)
                self.learning[metrics.epoch * steps] = asdict(metrics)
                self.here.tell(Event("epoch", str(self.name)))
            elif metrics:
                self.learning[metrics.iteration] = asdict(metrics)
            yield checkpoint, metrics
            done = (checkpoint.epoch - epoch) * steps + checkpoint.step - step
            self._compare_with_lifetime((time.monotonic() - clock) * steps / max(done, 1))
            if checkpoint.epoch < self.work.study.recipe.epochs and self.due():
                leaving = self.here.should_stop()
                self.save(checkpoint)
                if leaving:
                    raise Stopped

    def save(self, checkpoint: Checkpoint) -> None:
        """Save the state."""
        notes = {
            "curves": self.curves,
            "learning": self.learning,
            "digests": self.digests,
            "seconds": self.seconds(),
        }
        self._state.save(checkpoint, notes)
        self._saved_at = time.monotonic()

    def seconds(self) -> float:
        """Return how long the run has taken, in all attempts that went on from one another."""
        return self._seconds_before + time.monotonic() - self._clock

    def end(self) -> None:
        """Remove the state: the results are written."""
        self._state.remove()

    def _warn(self, sentence: str) -> None:
        self.here.tell(Event("warning", str(self.name), sentence))

    def _compare_with_lifetime(self, epoch: float) -> None:
        lifetime = self.here.lifetime
        if lifetime and epoch > lifetime:
            sentence = (
                f"an epoch takes {epoch:.0f} s, longer than the {lifetime:.0f} s that a worker "
                f"has: it goes on inside an epoch, but a longer wall-time would start less often"
            )
            self.here.tell(Event("warning", "lifetime", sentence))


def train_dense(work: Work, replicate: int, here: Here) -> dict[str, str]:
    """Train the dense network of a replicate; save its checkpoints and its curves.

    Its state is kept until the driver has written down the digests.

    Returns
    -------
    dict of str to str
        Epoch → digest of its checkpoint.
    """
    study, folder = work.study, work.folder
    training = Training(work, dense_run(replicate), here)
    for epoch, digest in training.digests.items():
        try:
            checkpoints.read(checkpoints.path_of(folder.path, replicate, int(epoch)), digest)
        except InputError as error:
            training.restart(str(error))
            break
    training.begin(0)
    experiment = work.experiment()
    steps = experiment.data.steps(study.recipe.batch_size)
    epochs = lottery.train_dense(experiment, replicate, training.start, training.due)
    checkpoint = training.start
    for checkpoint, _ in training.follow(epochs, steps):
        if checkpoint.step == 0:
            done = checkpoint.epoch
            path = checkpoints.path_of(folder.path, replicate, done)
            complete = done <= study.kept_until or done == study.recipe.epochs
            training.digests[str(done)] = checkpoints.save(path, checkpoint, complete)
    Cube(folder.cube).write_dense(replicate, training.curves, training.learning)
    if checkpoint:
        training.save(checkpoint)
    return training.digests


def compare_masks(work: Work, replicate: int, threshold: float, here: Here) -> None:
    """Write the distances between the masks of every two epochs of a dense run."""
    folder, experiment = work.folder, work.experiment()
    digests = folder.manifest()["checkpoints"][str(replicate)]

    def load(epoch: int) -> Checkpoint:
        path = checkpoints.path_of(folder.path, replicate, epoch)
        return checkpoints.load(path, digests[str(epoch)])

    first = load(0)
    masks = (
        lottery.mask_at(experiment, replicate, threshold, {0: first, epoch: load(epoch)}, epoch)
        for epoch in range(work.study.recipe.epochs + 1)
    )
    Cube(folder.cube).write_mask_distances(replicate, threshold, distances(masks))


def train_cell(work: Work, cell: Cell, here: Here, *dense: Checkpoint) -> str:
    """Draw what a cell trains, train it, and write its results into the cube.

    Parameters
    ----------
    work : Work
    cell : Cell
    here : Here
    *dense : Checkpoint
        Of the dense run: those of :meth:`lthdask.study.Study.checkpoints_for`.

    Returns
    -------
    str
        What became of the cell: ``done`` or ``diverged``.
    """
    study, folder, cube = work.study, work.folder, _cube(work.folder.cube, work.driver)
    training = Training(work, cell, here)
    training.begin(cell.first_epoch)
    experiment, by_epoch = work.experiment(), {state.epoch: state for state in dense}
    waited = study.waits_for(cell)
    before = checkpoints.load_ticket(folder.final(waited)) if waited else None
    drawn = lottery.draw(experiment, cell, by_epoch, before)
    epochs = lottery.train_ticket(
        experiment, cell.replicate, drawn, training.start, training.due, arm=cell.arm
    )
    status, last, metrics = Status.DONE, training.start or drawn.start, {}
    line: list[float] = []
    steps = experiment.data.steps(study.recipe.batch_size)
    try:
        for last, _ in training.follow(epochs, steps):
            pass
        metrics = training.curves[last.epoch] | learning_speed(
            training.learning, cell.first_epoch * steps, cube.dense_accuracy(cell.replicate)
        )
        if cell.arm in ("ticket_child", "dense_child"):
            sibling = before.start if before else by_epoch[study.recipe.epochs]
            line = lottery.line(experiment, sibling, last)
            metrics["barrier"] = barrier(line)
    except Diverged:
        status = Status.DIVERGED
    left, layers = lottery.densities(experiment, last)
    if status is Status.DONE and study.awaited(cell):
        final = Ticket(replace(last, buffers={}), drawn.mask, {})
        checkpoints.save_ticket(folder.final(cell), final)
    cube.write(
        cell,
        status,
        metrics | left | {"epochs_trained": len(training.curves)},
        training.curves,
        {name: layer | {"cutoff": drawn.cutoffs.get(name, nan)} for name, layer in layers.items()},
        {
            "seconds": training.seconds(),
            "attempts": training.attempt,
            "started": training.began,
            "ended": time.time(),
        },
        training.place,
        training.learning,
        line,
    )
    training.end()
    return status.name.lower()
