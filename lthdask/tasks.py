"""What a worker does: look around, train a dense network, compare masks; cells are in cells.py.

The bodies of the tasks. Each takes small values and checkpoints, and leaves its results on
disk, because results that only live on a worker are lost with it.
"""

import functools
import itertools
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from lthdask import drawing, lottery
from lthdask.data import Data
from lthdask.datasets import DataSource, load
from lthdask.distances import distances
from lthdask.engine import Choice, Engine
from lthdask.errors import InputError
from lthdask.events import Event, Here, Stopped
from lthdask.experiment import Experiment
from lthdask.masks import prunable_weights
from lthdask.rewinding import Checkpoint
from lthdask.storage import checkpoints
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.study import Study
from lthdask.training import Diverged, EpochMetrics, Found, Measurement, Outcome

BETWEEN_TELLING = 1.0
"""Seconds, at least, between two of a run's events. Each takes a millisecond from training, whose
thread shares its process with Dask's; and of a thousand workers, all pass through one driver."""


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

    def experiment(self) -> Experiment:
        """Return the experiment; its data are read once per process."""
        study = self.study
        return Experiment(
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


def cube_of(work: Work) -> Cube:
    """Return the cube of the study, opened once per process and driver.

    Its 23 arrays take as long to open as a cell takes to be written, and no driver changes
    them once tasks run.
    """
    return _cube(work.folder.cube, work.driver)


@functools.lru_cache(maxsize=1)
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
    majority : float
        Share of the validation images that are of the most frequent class.
    """

    choice: Choice
    layers: list[str]
    steps: int
    majority: float


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
    validation = experiment.data.validation.labels
    majority = int(validation.bincount().max()) / len(validation)
    return Surroundings(choice, layers, experiment.data.steps(batch), majority)


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
        self.saved_at = self._clock
        self._told_at, self._untold = self._clock, 0
        self._state = checkpoints.State(work.folder.run(name), self._warn)
        self.start: Checkpoint | None
        self.start, notes = self._state.load() or (None, {})
        self.curves = {int(epoch): values for epoch, values in notes.get("curves", {}).items()}
        self.learning = {int(at): values for at, values in notes.get("learning", {}).items()}
        self.digests: dict[str, str] = notes.get("digests", {})
        self._seconds_before: float = notes.get("seconds", 0.0)

    def begin(self, epoch: int, beside: int = 1) -> None:
        """Record the attempt; without a state, it starts at the end of `epoch`.

        `beside` runs are trained in one step, and share the time it takes.
        """
        self._clock, self._beside = time.monotonic(), beside
        self.position = (self.start.epoch, self.start.step) if self.start else (epoch, 0)
        about = {
            "driver": self.work.driver,
            "started": self.began,
            "place": self.place,
            "pid": os.getpid(),
            "epoch": self.position[0],
            "step": self.position[1],
            "seconds": self._seconds_before,
            "beside": beside,
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
        waited = time.monotonic() - self.saved_at
        return waited >= self.work.checkpoint_interval or self.here.should_stop()

    def note(self, outcome: Outcome, steps: int) -> None:
        """Keep what was measured, and say from time to time how many epochs are done."""
        if isinstance(outcome, EpochMetrics):
            self.curves[outcome.epoch] = asdict(outcome)
            self.learning[outcome.epoch * steps] = asdict(outcome)
            self._untold += 1
            if time.monotonic() - self._told_at >= BETWEEN_TELLING:
                self.tell()
        elif isinstance(outcome, Measurement):
            self.learning[outcome.iteration] = asdict(outcome)

    def tell(self) -> None:
        """Say how many epochs are done since this was said."""
        if self._untold:
            self.here.tell(Event("epoch", str(self.name), epochs=self._untold))
        self._untold, self._told_at = 0, time.monotonic()

    def save(self, checkpoint: Checkpoint) -> None:
        """Save the state."""
        notes = {
            "curves": self.curves,
            "learning": self.learning,
            "digests": self.digests,
            "seconds": self.seconds(),
        }
        self._state.save(checkpoint, notes)
        self.saved_at = time.monotonic()

    def seconds(self) -> float:
        """Return how long the run has taken, in all attempts that went on from one another."""
        return self._seconds_before + (time.monotonic() - self._clock) / self._beside

    def end(self) -> None:
        """Remove the state: the results are written."""
        self._state.remove()

    def _warn(self, sentence: str) -> None:
        self.here.tell(Event("warning", str(self.name), sentence))

    def compare_with_lifetime(self, epoch: float) -> None:
        """Warn if an epoch takes, in seconds, longer than a worker lives."""
        lifetime = self.here.lifetime
        if lifetime and epoch > lifetime:
            sentence = (
                f"an epoch takes {epoch:.0f} s, longer than the {lifetime:.0f} s that a worker "
                f"has: it goes on inside an epoch, but a longer wall-time would start less often"
            )
            self.here.tell(Event("warning", "lifetime", sentence))


def follow(
    trainings: Sequence[Training],
    epochs: Iterator[Found],
    experiment: Experiment,
) -> Iterator[Found]:
    """Pass on what is trained; keep the curves of each run, and save its state when it is due.

    Parameters
    ----------
    trainings : sequence of Training
        Of runs that are trained side by side.
    epochs : iterator of Found
        What was found of them.
    experiment : Experiment

    Raises
    ------
    Stopped
        If the worker has to go; the states are saved.
    """
    last, steps = experiment.recipe.epochs, experiment.data.steps(experiment.recipe.batch_size)
    first, clock = trainings[0], time.monotonic()
    epoch, step = first.position
    try:
        for found in epochs:
            for training, outcome in zip(trainings, found.outcomes, strict=True):
                training.note(outcome, steps)
            yield found
            if all(isinstance(outcome, Diverged) for outcome in found.outcomes):
                continue
            done = (found.epoch - epoch) * steps + found.step - step
            first.compare_with_lifetime((time.monotonic() - clock) * steps / max(done, 1))
            if found.epoch < last and first.due():
                leaving = first.here.should_stop()
                each = zip(trainings, found.states(), found.outcomes, strict=True)
                for training, state, outcome in each:
                    if not isinstance(outcome, Diverged):
                        training.save(state)
                first.saved_at = time.monotonic()  # many take as long as an interval
                if leaving:
                    raise Stopped
    finally:
        for training in trainings:
            training.tell()


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
            checkpoints.require(checkpoints.path_of(folder.path, replicate, int(epoch)), digest)
        except InputError as error:
            training.restart(str(error))
            break
    training.begin(0)
    experiment = work.experiment()
    epochs = lottery.train_dense(experiment, replicate, training.start, training.due)
    checkpoint = training.start
    for found in follow([training], itertools.starmap(Found.at, epochs), experiment):
        (checkpoint,) = found.states()
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
        drawing.mask_at(experiment, replicate, threshold, {0: first, epoch: load(epoch)}, epoch)
        for epoch in range(work.study.recipe.epochs + 1)
    )
    Cube(folder.cube).write_mask_distances(replicate, threshold, distances(masks))
