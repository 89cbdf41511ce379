"""What a worker does: look around, train a dense network, compare masks; cells are in cells.py.

These are the bodies of the tasks. Each takes small values, and leaves its results on disk,
because results that live only on a worker are lost with it.
"""

import itertools
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from lthdask import given, needs
from lthdask.data.digest import DataDigest
from lthdask.errors import InputError
from lthdask.events import Event, TaskContext
from lthdask.lottery import drawing, runs
from lthdask.lottery.experiment import Experiment
from lthdask.lottery.trial import require_prunable, require_repeatable
from lthdask.networks.build import is_known
from lthdask.pruning.distances import distances
from lthdask.pruning.rule import prunable_weights
from lthdask.rewinding import Iterations, Place
from lthdask.storage import checkpoints, source
from lthdask.storage.cube import Cube
from lthdask.study import Study
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.choice import Choice
from lthdask.training.loop import Diverged, Progress
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
        If the device, the study's folder, the data, code of one's own or given masks cannot be
        used from this worker, or are not those that the study was begun with.
    """
    host = platform.node()
    if not work.folder.sees(probe):
        raise InputError(
            f"the worker on {host} does not see the folder {work.folder.path}; "
            f"choose a folder on a shared file system with `out`"
        )
    experiment = replace(work, engine=work.engine.chosen()).experiment()
    require_a_batch(experiment)
    for mask in work.study.pruning.masks:
        given.require_fit(mask, experiment.prunable())
    source.require(work.study, work.folder, (experiment.data.shape, experiment.data.classes))
    if work.study.own:
        require_repeatable(experiment)
    elif not is_known(work.study.network):
        require_prunable(experiment)
    layers = list(prunable_weights(experiment.build()))
    choice = runs.choose_engine(work.engine, experiment)
    if choice.engine.device == "cuda" and not experiment.keeps_cells_apart:
        here.tell(Event("warning", "cohort", choice.reason))
    validation = experiment.data.validation.labels
    majority = int(validation.bincount().max()) / len(validation)
    return Surroundings(choice, layers, experiment.steps, majority, experiment.data.digest)


def require_a_batch(experiment: Experiment) -> None:
    """Refuse batches for which there are too few images.

    Raises
    ------
    InputError
        If it is so.
    """
    train, batch = len(experiment.data.train), experiment.recipe.batch_size
    if train < batch:
        raise InputError(f"batch_size is {batch}, but there are only {train} training images")


def dense_run_name(replicate: int) -> str:
    """Return the name of a dense run."""
    return f"dense-r{replicate}"


def train_dense(work: Work, replicate: int, here: TaskContext) -> dict[Place, str]:
    """Train the dense network of a replicate; save its checkpoints and its curves.

    Its state is kept until the driver has written down the digests.

    Returns
    -------
    dict of Place to str
        Epoch, or steps inside one → digest of its checkpoint.
    """
    training = _resumed(work, replicate, here)
    training.begin()
    end = _train_dense(training, replicate, work.study.recipe.epochs, known={})
    Cube(work.folder.cube).write_dense(replicate, training.curves, training.learning)
    if end:
        training.save(end)
    return training.digests


def train_dense_again(
    work: Work, replicate: int, epochs: range, digests: Mapping[Place, str], here: TaskContext
) -> dict[Place, str]:
    """Train a part of a trained dense run again, for states that were not kept or are damaged.

    It goes on to the end of an epoch, whose weights are known, also for a state inside it.

    Parameters
    ----------
    work : Work
    replicate : int
    epochs : range
        ``range(2, 5)`` goes on from checkpoint 2, and makes checkpoints 3 to 5.
    digests : mapping of Place to str
        Those of the dense run's checkpoints. What is made again must agree with them.
    here : TaskContext

    Returns
    -------
    dict of Place to str
        All digests: those of checkpoints that are complete now have changed.

    Raises
    ------
    InputError
        If a checkpoint has other weights than the one it is to replace. That is kept.
    """
    training = _resumed(work, replicate, here, epochs.start)
    start = training.start
    reached = min(start.epoch, epochs.stop) if start else 0
    if set(range(epochs.start + 1, reached + 1)) - training.digests.keys():
        training.restart("its state is of another attempt")
    if training.start is None:
        path = checkpoints.path_of(work.folder.path, replicate, epochs.start)
        with suppress(InputError):  # without it, from the initialisation
            training.start = checkpoints.load(path, digests.get(epochs.start, ""))
    training.begin()
    if end := _train_dense(training, replicate, epochs.stop, digests):
        training.save(end)
    return {**digests, **training.digests}


def _resumed(work: Work, replicate: int, here: TaskContext, first: int = 0) -> ResumableRun:
    """Return the dense run with its newest state, if its checkpoints are whole, and enough now.

    A state may be older than the growth of the study, or than the end of the run. What counts is
    after epoch `first`.
    """
    training = ResumableRun(work, dense_run_name(replicate), here)
    steps, start = work.experiment().steps, training.start
    remembers = bool(start and start.buffers)
    reached = start.epoch * steps + start.step if start else 0
    inside = {s for s in needs.inside(work.study, steps) if first * steps < s <= reached}
    if lacking := inside - {at.count for at in training.digests if isinstance(at, Iterations)}:
        training.restart(f"the state after step {min(lacking):,} was not asked for when it passed")
    for at, digest in training.digests.items():
        path = checkpoints.path_of(work.folder.path, replicate, at)
        try:
            checkpoints.require(path, digest)
            complete = remembers and at != 0 and _is_complete(work.study, at, steps)
            if not checkpoints.is_there(path, complete):
                raise InputError(f"{path} was saved before its complete state was asked for")
        except InputError as error:
            training.restart(str(error))
            break
    return training


def _is_complete(study: Study, at: Place, steps: int) -> bool:
    """Return whether the complete state is kept there, with the optimizer's buffers."""
    return (
        isinstance(at, Iterations)
        or at <= needs.kept_until(study, steps)
        or at == study.recipe.epochs
    )


def _train_dense(
    training: ResumableRun,
    replicate: int,
    last: int,
    known: Mapping[Place, str],
) -> Checkpoint | None:
    """Train a dense run until so many epochs are done, and save its checkpoints.

    They must agree with the digests that are `known`.
    """
    work, checkpoint = training.work, training.start
    if checkpoint and checkpoint.epoch >= last:
        return checkpoint
    experiment = work.experiment()
    inside = needs.inside(work.study, experiment.steps)
    epochs = runs.train_dense(experiment, replicate, checkpoint, training.due, inside)
    for found in follow([training], itertools.starmap(Progress.at, epochs), experiment):
        (checkpoint,) = found.states()
        at = checkpoint.place(experiment.steps)
        if at == work.study.recipe.epochs and not checkpoint.is_finite():
            raise Diverged("the loss is a number after the last epoch, but some weights are not")
        if not isinstance(at, Iterations) or at.count in inside:
            _save(training, replicate, at, checkpoint, known)
        if at == last:
            break
    return checkpoint


def _save(
    training: ResumableRun,
    replicate: int,
    at: Place,
    checkpoint: Checkpoint,
    known: Mapping[Place, str],
) -> None:
    """Save a checkpoint of a dense run, once it is seen to be the one that is known."""
    study, folder = training.work.study, training.work.folder
    if at in known and not checkpoints.agrees(checkpoint, known[at]):
        training.end()  # nobody may go on from it
        raise InputError(
            f"the dense run of replicate {replicate} is not the same when it is trained again "
            f"here: after {_told(at)} its weights are not those in {folder.path}, and results "
            f"must not mix; run the study on the kind of machine, and with the versions, that its "
            f"manifest.json names (on a GPU no two runs need agree), or choose another folder "
            f"with `out`"
        )
    complete = _is_complete(study, at, training.work.experiment().steps)
    path = checkpoints.path_of(folder.path, replicate, at)
    training.digests[at] = checkpoints.save(path, checkpoint, complete)


def _told(at: Place) -> str:
    return f"step {at.count:,}" if isinstance(at, Iterations) else f"epoch {at}"


def compare_masks(
    work: Work, replicate: int, threshold: float, digests: Mapping[Place, str], here: TaskContext
) -> None:
    """Write the distances between the masks of every two epochs of a dense run.

    `digests` are those of its checkpoints.
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
