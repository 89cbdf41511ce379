"""What a worker does: look around, train a dense network, compare masks; cells are in cells.py.

These are the bodies of the tasks. Each takes small values, and leaves its results on disk,
because results that live only on a worker are lost with it.
"""

import itertools
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace

from lthdask.data.digest import DataDigest
from lthdask.errors import InputError
from lthdask.events import Event, TaskContext
from lthdask.lottery import drawing, runs
from lthdask.lottery.trial import require_repeatable
from lthdask.pruning.distances import distances
from lthdask.pruning.rule import prunable_weights
from lthdask.storage import checkpoints
from lthdask.storage.cube import Cube
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.choice import Choice
from lthdask.training.loop import Progress
from lthdask.worker.resuming import ResumableRun, follow
from lthdask.worker.work import Work


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
        Share of the validation images that belong to the most frequent class.
    data : DataDigest or None
        What identifies the data.
    """

    choice: Choice
    layers: list[str]
    steps: int
    majority: float
    data: DataDigest | None


def look_around(work: Work, probe: str, here: TaskContext) -> Surroundings:
    """Check, before anything is trained, that the study can be trained here.

    Raises
    ------
    InputError
        If the device, the study's folder, the data or code of one's own cannot be used from this
        worker, or the data or the code are not those that the study was begun with.
    """
    host = platform.node()
    if not work.folder.sees(probe):
        raise InputError(
            f"the worker on {host} does not see the folder {work.folder.path}; "
            f"choose a folder on a shared file system with `out`"
        )
    experiment = replace(work, engine=work.engine.chosen()).experiment()
    train, batch = len(experiment.data.train), work.study.recipe.batch_size
    if train < batch:
        raise InputError(f"batch_size is {batch}, but there are only {train} training images")
    if work.study.own:
        require_repeatable(experiment)
    layers = list(prunable_weights(experiment.build()))
    choice = runs.choose_engine(work.engine, experiment)
    if choice.engine.device == "cuda" and not experiment.keeps_cells_apart:
        here.tell(Event("warning", "cohort", choice.reason))
    validation = experiment.data.validation.labels
    majority = int(validation.bincount().max()) / len(validation)
    return Surroundings(
        choice, layers, experiment.data.steps(batch), majority, experiment.data.digest
    )


def dense_run_name(replicate: int) -> str:
    """Return the name of a dense run."""
    return f"dense-r{replicate}"


def train_dense(work: Work, replicate: int, here: TaskContext) -> dict[int, str]:
    """Train the dense network of a replicate; save its checkpoints and its curves.

    Its state is kept until the driver has written down the digests.

    Returns
    -------
    dict of int to str
        Epoch → digest of its checkpoint.
    """
    study, folder = work.study, work.folder
    training = ResumableRun(work, dense_run_name(replicate), here)
    for epoch, digest in training.digests.items():
        try:
            checkpoints.require(checkpoints.path_of(folder.path, replicate, epoch), digest)
        except InputError as error:
            training.restart(str(error))
            break
    training.begin(0)
    experiment = work.experiment()
    epochs = runs.train_dense(experiment, replicate, training.start, training.due)
    checkpoint = training.start
    for found in follow([training], itertools.starmap(Progress.at, epochs), experiment):
        (checkpoint,) = found.states()
        if checkpoint.step == 0:
            done = checkpoint.epoch
            path = checkpoints.path_of(folder.path, replicate, done)
            complete = done <= study.kept_until or done == study.recipe.epochs
            training.digests[done] = checkpoints.save(path, checkpoint, complete)
    Cube(folder.cube).write_dense(replicate, training.curves, training.learning)
    if checkpoint:
        training.save(checkpoint)
    return training.digests


def compare_masks(
    work: Work, replicate: int, threshold: float, digests: Mapping[int, str], here: TaskContext
) -> None:
    """Write the distances between the masks of every two epochs of a dense run.

    `digests` are those of its checkpoints, by epoch.
    """
    folder, experiment = work.folder, work.experiment()

    def load(epoch: int) -> Checkpoint:
        path = checkpoints.path_of(folder.path, replicate, epoch)
        return checkpoints.load(path, digests[epoch])

    first = load(0)
    masks = (
        drawing.mask_at(experiment, replicate, threshold, {0: first, epoch: load(epoch)}, epoch)
        for epoch in range(work.study.recipe.epochs + 1)
    )
    Cube(folder.cube).write_mask_distances(replicate, threshold, distances(masks))
