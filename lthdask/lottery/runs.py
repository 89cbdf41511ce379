"""The trainings of a grid: of the dense network, and of what is drawn from it.

Plain functions of values. Nothing here knows where a run takes place, or where its results
go.
"""

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from lthdask.arms import ARMS
from lthdask.lottery.experiment import Experiment
from lthdask.lottery.size import sees_one_pixel
from lthdask.lottery.stability import errors_between
from lthdask.lottery.ticket import Ticket
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.choice import ROUNDS, Choice, choose
from lthdask.training.cohort import largest_cohort, train_cohort
from lthdask.training.engine import Engine
from lthdask.training.loop import Diverged, Outcome, Progress, train
from lthdask.training.recipe import Recipe

Epochs = Iterator[tuple[Checkpoint, Outcome]]


SINGLE = "a convolution reads single pixels, which PyTorch gets wrong in bfloat16 on a CPU"


def _gets_bfloat16_wrong(asked: Engine, experiment: Experiment) -> bool:
    data = experiment.data
    if asked.precision != "auto" or asked.chosen().device != "cpu":
        return False
    return sees_one_pixel(experiment.network, data.shape, data.classes)


def choose_engine(asked: Engine, experiment: Experiment) -> Choice:
    """Return the engine for an experiment; its own engine need only have the same device.

    On a GPU, as many cells are trained side by side as fit into its memory; but one by one where
    a layer of the network or the optimizer is not known, which need not keep them apart.

    Raises
    ------
    InputError
        If the device is not there.
    """

    def steps(engine: Engine) -> Iterator[object]:
        return _some_steps(replace(experiment, engine=engine))

    network = experiment.outline()
    if _gets_bfloat16_wrong(asked, experiment):
        choice = choose(replace(asked, precision="float32"), network, steps, SINGLE)
    else:
        choice = choose(asked, network, steps)
    if choice.engine.cohort != 1 and not experiment.keeps_cells_apart:
        reason = (
            f"{choice.reason}; cells are trained one by one: "
            f"not all of the network's layers, or not the optimizer, are known to keep them apart"
        )
        return Choice(replace(choice.engine, cohort=1), reason)
    if choice.engine.cohort == "auto":
        network = replace(experiment, engine=choice.engine).build()
        most = largest_cohort(network, experiment.data, experiment.recipe, choice.engine)
        choice = replace(choice, engine=replace(choice.engine, cohort=most))
    return choice


def _some_steps(experiment: Experiment) -> Iterator[object]:
    """Train the first steps of a dense run, on the threads of a cell, and keep nothing."""
    data, recipe, engine = experiment.data, experiment.recipe, experiment.engine
    # One more than is asked for: the last step of an epoch is followed by an evaluation.
    images = torch.arange((ROUNDS + 2) * recipe.batch_size) % len(data.train)
    still = replace(recipe.optimizer, rate=1e-9)  # at which nothing diverges
    short = replace(
        experiment,
        data=replace(data, train=data.train.subset(images)),
        recipe=replace(recipe, optimizer=still, measure_every=0),
        engine=replace(engine, dense_threads=engine.threads),
    )
    states = train_dense(short, 0, due=lambda: True)
    next(states)  # checkpoint 0
    return states


def train_dense(
    experiment: Experiment,
    replicate: int,
    start: Checkpoint | None = None,
    due: Callable[[], bool] = lambda: False,
    stops: Container[int] = (),
) -> Epochs:
    """Train the unpruned network of a replicate.

    Parameters
    ----------
    experiment : Experiment
    replicate : int
    start : Checkpoint, optional
        A state that was yielded before, to go on from.
    due, stops
        As in :func:`lthdask.training.loop.train`.

    Yields
    ------
    checkpoint : Checkpoint
        Checkpoints 0, 1, ..., T, or those after `start`; 0 is before the first step. Those at
        `stops`, too.
    metrics : EpochMetrics or None
        Metrics of the epoch; None for checkpoint 0 and inside an epoch.
    """
    network = experiment.build(replicate)
    if start is None:
        weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        start = Checkpoint(0, weights)
        yield start, None
    yield from _each_copied(_train(experiment, network, replicate, start, None, due, stops=stops))


def train_ticket(
    experiment: Experiment,
    replicate: int,
    drawn: Ticket,
    start: Checkpoint | None = None,
    due: Callable[[], bool] = lambda: False,
    *,
    arm: str = "ticket",
) -> Epochs:
    """Train what was drawn from its first epoch to T, yielding after each epoch.

    `start` and `due` are as in :func:`train_dense`.
    """
    start = start or drawn.origin
    yield from _each_copied(_train_alone(experiment, replicate, start, drawn.mask, due, arm))


def train_tickets(
    experiment: Experiment,
    replicate: int,
    starts: Sequence[Checkpoint],
    masks: Sequence[dict[str, Tensor]],
    due: Callable[[], bool] = lambda: False,
    *,
    arm: str = "ticket",
) -> Iterator[Progress]:
    """Train what was drawn for the cells of a cohort, from the same point on, to T.

    Parameters
    ----------
    experiment : Experiment
    replicate : int
    starts : sequence of Checkpoint
        Where each starts: that of its ticket, or a state that was yielded before.
    masks : sequence of dict of str to Tensor
    due : callable
        As in :func:`lthdask.training.loop.train`.
    arm : str
        Arm of all of them, or another one that is trained in the same way.

    Yields
    ------
    Progress
        For each ticket, what :func:`train_ticket` yields at that point. Once its loss is no
        longer finite, it is `Diverged`, with any state.
    """
    if len(starts) == 1:
        try:
            yield from _train_alone(experiment, replicate, starts[0], masks[0], due, arm)
        except Diverged as problem:
            yield Progress.at(starts[0], problem)
        return
    recipe, child = _trained_as(experiment, arm)
    torch.set_num_threads(experiment.engine.threads)
    with experiment.borrowed() as network:
        yield from train_cohort(
            network,
            experiment.data,
            recipe,
            starts,
            masks,
            seed=experiment.seed,
            replicate=replicate,
            engine=experiment.engine,
            due=due,
            child=child,
        )


def _train_alone(
    experiment: Experiment,
    replicate: int,
    start: Checkpoint,
    mask: dict[str, Tensor],
    due: Callable[[], bool],
    arm: str,
) -> Iterator[Progress]:
    recipe, child = _trained_as(experiment, arm)
    experiment = replace(experiment, recipe=recipe)
    with experiment.borrowed() as network:
        yield from _train(experiment, network, replicate, start, mask, due, child)


def _each_copied(epochs: Iterator[Progress]) -> Epochs:
    """Yield the states of one model as values: copies, which nothing changes."""
    for found in epochs:
        (state,), (outcome,) = found.states(), found.outcomes
        yield state.copy(), outcome


def _trained_as(experiment: Experiment, arm: str) -> tuple[Recipe, int]:
    """Return the recipe that an arm is trained by, and whether as a child."""
    recipe = experiment.recipe.fine_tuning() if ARMS[arm].fine_tuned else experiment.recipe
    return recipe, int(ARMS[arm].reordered)


def errors_on_line(experiment: Experiment, one: Checkpoint, other: Checkpoint) -> list[float]:
    """Return the test errors between two children; see :mod:`lthdask.lottery.stability`."""
    torch.set_num_threads(experiment.engine.threads)
    with experiment.borrowed() as network:
        return errors_between(network, experiment.data, experiment.engine, one, other)


def _train(
    experiment: Experiment,
    network: nn.Module,
    replicate: int,
    start: Checkpoint,
    mask: dict[str, Tensor] | None,
    due: Callable[[], bool],
    child: int = 0,
    stops: Container[int] = (),
) -> Iterator[Progress]:
    engine = experiment.engine
    torch.set_num_threads(engine.threads if mask is not None else engine.dense_threads)
    return train(
        network,
        experiment.data,
        experiment.recipe,
        start,
        seed=experiment.seed,
        replicate=replicate,
        mask=mask,
        engine=engine,
        due=due,
        child=child,
        stops=stops,
    )
