"""The experiments: train the dense network; draw a ticket from it and train that.

Plain functions of values. Nothing here knows where a run takes place, or where its results
go.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from threading import Lock
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lthdask.cohort import Found, largest_cohort, train_cohort
from lthdask.data import Data
from lthdask.engine import ROUNDS, Choice, Engine, choose
from lthdask.grid import CHILDREN, Cell
from lthdask.masks import (
    Mask,
    Pruning,
    draw_mask,
    prunable_weights,
    random_mask,
    spared_weights,
)
from lthdask.networks import Network, build, on_meta
from lthdask.rewinding import Checkpoint, Ticket, masked
from lthdask.scores import scored
from lthdask.sensitivity import loss_gradients, synflow_mask
from lthdask.stability import errors_between
from lthdask.streams import Purpose, stream
from lthdask.training import Diverged, EpochMetrics, Measurement, Recipe, train

_drawing = Lock()
_idle: dict[Hashable, list[nn.Module]] = {}


@dataclass(frozen=True)
class Drawn:
    """What was drawn from a dense run's weights, kept by a worker for as long as those are."""

    scores: dict[Hashable, dict[str, Tensor]] = field(default_factory=dict)
    masks: dict[Hashable, tuple[dict[str, Tensor], dict[str, float]]] = field(default_factory=dict)


_drawn: WeakKeyDictionary[Checkpoint, Drawn] = WeakKeyDictionary()
KEPT_MASKS = 64
"""Of each dense run: 140 MB of MobileNetV2."""

Epochs = Iterator[tuple[Checkpoint, EpochMetrics | Measurement | None]]
Dense = Mapping[int, Checkpoint]
"""Checkpoints of a replicate's dense run: epoch → state."""


@dataclass(frozen=True)
class Experiment:
    """Everything that a training run depends on but its replicate, mask and start.

    Attributes
    ----------
    network : Network
    image_size : int
        In pixels.
    data : Data
        Held on the engine's device.
    recipe : Recipe
    pruning : Pruning
    seed : int
    engine : Engine
        With nothing left on ``auto``.
    fresh_buffers : bool
        Whether a ticket's optimizer starts afresh.
    mask_epoch : int, optional
        Epoch of the dense run whose weights give the mask; T by default.
    """

    network: Network
    image_size: int
    data: Data
    recipe: Recipe
    pruning: Pruning
    seed: int
    engine: Engine
    fresh_buffers: bool = False
    mask_epoch: int | None = None

    def build(self, replicate: int = 0, again: bool = False) -> nn.Module:
        """Return the network as `replicate` initialises it, on the device.

        It is drawn on the CPU, so that it is the same on every device. `again` is another
        initialisation of the same replicate.
        """
        # torch's layers draw from one generator for the whole process.
        with _drawing, torch.random.fork_rng(devices=[]):
            bits = stream(self.seed, replicate, Purpose.INITIALISATION, int(again))
            torch.manual_seed(int(bits.random_raw() >> 1))
            network = build(self.network, self.image_size, self.data.channels, self.data.classes)
        return _laid_out(network.to(torch.device(self.engine.device)))

    @contextmanager
    def borrowed(self) -> Iterator[nn.Module]:
        """Lend the network on the device, with arbitrary weights, for others to be loaded.

        It is built once per process, or once for each that is lent at the same time: building
        MobileNetV2 takes as long as two steps.
        """
        kind = (self.network, self.image_size, self.data.channels, self.data.classes)
        device = self.engine.device
        idle = _idle.setdefault((*kind, device), [])
        try:
            network = idle.pop()
        except IndexError:
            network = _laid_out(deepcopy(self.outline()).to_empty(device=device))
        yield network  # one that something went wrong with is not lent again
        network.zero_grad()
        idle.append(network)

    def outline(self) -> nn.Module:
        """Return the network without storage: names and shapes only."""
        return on_meta(self.network, self.image_size, self.data.channels, self.data.classes)


def choose_engine(asked: Engine, experiment: Experiment) -> Choice:
    """Return the engine for an experiment, whose own need only have the device in common.

    On a GPU, as many cells are trained side by side as fit into its memory.

    Raises
    ------
    InputError
        If the device is not there.
    """

    def steps(engine: Engine) -> Iterator[object]:
        return _some_steps(replace(experiment, engine=engine))

    choice = choose(asked, experiment.outline(), steps)
    if choice.engine.cohort == "auto":
        network = replace(experiment, engine=choice.engine).build()
        most = largest_cohort(network, experiment.data, experiment.recipe, choice.engine)
        choice = replace(choice, engine=replace(choice.engine, cohort=most))
    return choice


def _some_steps(experiment: Experiment) -> Iterator[object]:
    """Train the first steps of a dense run, on the threads of a cell; nothing comes of it."""
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
) -> Epochs:
    """Train the unpruned network of a replicate.

    Parameters
    ----------
    experiment : Experiment
    replicate : int
    start : Checkpoint, optional
        A state that was yielded before, to go on from.
    due : callable
        As in :func:`lthdask.training.train`.

    Yields
    ------
    checkpoint : Checkpoint
        Checkpoints 0, 1, ..., T, or those after `start`; 0 is before the first step.
    metrics : EpochMetrics or None
        Of the epoch; None for checkpoint 0 and inside an epoch.
    """
    network = experiment.build(replicate)
    if start is None:
        weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        start = Checkpoint(0, weights)
        yield start, None
    yield from _train(experiment, network, replicate, start, None, due)


def draw(experiment: Experiment, cell: Cell, dense: Dense, before: Ticket | None = None) -> Ticket:
    """Draw what a cell trains: a mask, and the state that its arm starts from under it.

    Parameters
    ----------
    experiment : Experiment
    cell : Cell
    dense : mapping of int to Checkpoint
        Those of `lthdask.study.Study.checkpoints_for`, by epoch.
    before : Ticket, optional
        Final weights and mask of the cell that this one waits for: of iterative pruning
        the round before, of a child its sibling.

    Notes
    -----
    The mask is that of the ticket for every arm. A random mask keeps as many weights of
    each layer and is laid over checkpoint k as it was, not over what the ticket's mask has
    left of it. The controls ``lr_rewind`` and ``fine_tune`` keep the weights, and the
    optimizer's state, of the dense run's end (Renda, Frankle & Carbin 2020, section 3).
    """
    k, last = cell.rewind_epoch, experiment.recipe.epochs
    if cell.arm == "dense_child":
        return Ticket(dense[k], {}, {})
    if cell.arm == "ticket_child":
        assert before
        return Ticket(masked(dense[k], before.mask, experiment.fresh_buffers), before.mask, {})
    mask, cutoffs = _mask(experiment, cell, dense, before)
    if cell.arm == "random_mask":
        mask = random_mask(mask, _spared(experiment), experiment.seed, cell.replicate)
    if cell.arm == "reinit":
        weights = experiment.build(cell.replicate, again=True).state_dict()
        start = Checkpoint(0, {name: tensor.cpu() for name, tensor in weights.items()})
    elif cell.arm in ("lr_rewind", "fine_tune"):
        start = replace(dense[last], epoch=k)
    else:
        start = dense[k]
    return Ticket(masked(start, mask, experiment.fresh_buffers), mask, cutoffs)


def mask_at(
    experiment: Experiment, replicate: int, threshold: float, dense: Dense, epoch: int
) -> Mask:
    """Return the mask that the weights of an epoch of the dense run would give, 0 included."""
    cell = Cell("ticket", replicate, threshold, 0)
    return _mask(replace(experiment, mask_epoch=epoch), cell, dense, None)[0]


def ticket(
    experiment: Experiment, trained: Checkpoint, early: Checkpoint, threshold: float
) -> Ticket:
    """Draw the ticket of checkpoint `early` at `threshold`, from the `trained` dense weights."""
    cell = Cell("ticket", 0, threshold, early.epoch)
    epochs = experiment.mask_epoch or experiment.recipe.epochs
    return draw(experiment, cell, {early.epoch: early} | {epochs: trained})


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
    recipe, child = _trained_as(experiment, arm)
    experiment, start = replace(experiment, recipe=recipe), start or drawn.start
    with experiment.borrowed() as network:
        yield from _train(experiment, network, replicate, start, drawn.mask, due, child)


def train_tickets(
    experiment: Experiment,
    replicate: int,
    starts: Sequence[Checkpoint],
    masks: Sequence[dict[str, Tensor]],
    due: Callable[[], bool] = lambda: False,
    *,
    arm: str = "ticket",
) -> Iterator[Found]:
    """Train what was drawn for the cells of a cohort, from the same point on, to T.

    Parameters
    ----------
    experiment : Experiment
    replicate : int
    starts : sequence of Checkpoint
        Where each starts: that of its ticket, or a state that was yielded before.
    masks : sequence of dict of str to Tensor
    due : callable
        As in :func:`lthdask.training.train`.
    arm : str
        Of all of them, or another one that is trained in the same way.

    Yields
    ------
    sequence of (Checkpoint, Outcome)
        For each ticket what :func:`train_ticket` yields; `Diverged`, with any checkpoint,
        once its loss is no longer finite.
    """
    if len(starts) == 1:
        ticket = Ticket(starts[0], masks[0], {})
        alone = train_ticket(experiment, replicate, ticket, due=due, arm=arm)
        try:
            yield from ([found] for found in alone)
        except Diverged as problem:
            yield [(starts[0], problem)]
        return
    recipe, child = _trained_as(experiment, arm)
    torch.set_num_threads(experiment.engine.threads)
    with experiment.borrowed() as network:
        cohort = train_cohort(
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
        for checkpoints, outcomes in cohort:
            yield list(zip(checkpoints, outcomes, strict=True))


def _trained_as(experiment: Experiment, arm: str) -> tuple[Recipe, int]:
    """Return the recipe that an arm is trained by, and whether as a child."""
    recipe = experiment.recipe.fine_tuning() if arm == "fine_tune" else experiment.recipe
    return recipe, int(arm in CHILDREN)


def line(experiment: Experiment, one: Checkpoint, other: Checkpoint) -> list[float]:
    """Return the test errors between two children, as of :mod:`lthdask.stability`."""
    torch.set_num_threads(experiment.engine.threads)
    with experiment.borrowed() as network:
        return errors_between(network, experiment.data, experiment.engine, one, other)


def densities(
    experiment: Experiment, trained: Checkpoint
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Count what is left of a network: the weights that are not zero.

    Returns
    -------
    network : dict of str to float
        ``density``, of its prunable weights, and ``parameters_left``, of all its parameters.
    layers : dict of str to dict of str to float
        Name of the prunable weight → ``density`` and ``dead_channels``, its output channels
        without a single weight.
    """
    network = experiment.outline()
    weights = {name: trained.weights[name] for name in prunable_weights(network)}
    sizes = {name: weight.numel() for name, weight in weights.items()}
    channels = {name: weight.flatten(1).count_nonzero(1) for name, weight in weights.items()}
    kept = {name: int(of_layer.sum()) for name, of_layer in channels.items()}
    parameters = sum(parameter.numel() for parameter in network.parameters())
    pruned = sum(sizes.values()) - sum(kept.values())
    return (
        {
            "density": sum(kept.values()) / sum(sizes.values()),
            "parameters_left": (parameters - pruned) / parameters,
        },
        {
            name: {
                "density": kept[name] / sizes[name],
                "dead_channels": int((channels[name] == 0).sum()),
            }
            for name in weights
        },
    )


def _laid_out(network: nn.Module) -> nn.Module:
    moved: nn.Module = network.to(memory_format=torch.channels_last)
    return moved


def _spared(experiment: Experiment) -> frozenset[str]:
    return spared_weights(experiment.outline(), experiment.pruning.spare)


def _mask(
    experiment: Experiment, cell: Cell, dense: Dense, before: Ticket | None
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Draw the mask of a ticket and of its controls, with its cutoffs.

    All rewind epochs and arms of a threshold share it, and all thresholds the scores: what
    takes as long as an epoch of a small study is computed once per worker.
    """
    epoch = experiment.mask_epoch
    trained = (
        before.start if before else dense[experiment.recipe.epochs if epoch is None else epoch]
    )
    pruning, spared, threshold = experiment.pruning, _spared(experiment), cell.threshold
    final = {name: trained.weights[name] for name in prunable_weights(experiment.outline())}
    torch.set_num_threads(experiment.engine.threads)  # the last bits of a score decide ranks
    if before:
        scores = _scores(experiment, cell, dense, final, before.mask)
        return draw_mask(final, threshold, pruning, spared, before=before.mask, scores=scores)
    drawn = _drawn.setdefault(trained, Drawn())
    of = (pruning, experiment.network, experiment.seed, cell.replicate)
    if (*of, threshold) not in drawn.masks:
        if pruning.score == "synflow":
            shape = (experiment.data.channels, experiment.image_size, experiment.image_size)
            network = _initial(experiment, cell, dense).cpu()
            found = synflow_mask(network, threshold, pruning, spared, shape)
        else:
            if of not in drawn.scores:
                drawn.scores[of] = _scores(experiment, cell, dense, final, None)
            found = draw_mask(final, threshold, pruning, spared, scores=drawn.scores[of])
        drawn.masks[*of, threshold] = found
    found = drawn.masks[*of, threshold]
    if len(drawn.masks) > KEPT_MASKS:
        del drawn.masks[next(iter(drawn.masks))]
    return found


def _scores(
    experiment: Experiment,
    cell: Cell,
    dense: Dense,
    final: dict[str, Tensor],
    before: Mask | None,
) -> dict[str, Tensor]:
    """Score the weights of each layer that is not spared, and that are not pruned before."""
    pruning, spared = experiment.pruning, _spared(experiment)
    living = {
        name: before[name] if before else torch.ones_like(weight, dtype=torch.bool)
        for name, weight in final.items()
        if name not in spared
    }
    initial, gradients = None, None
    if pruning.needs_initial:
        initial = {name: dense[0].weights[name] for name in final}
    if pruning.needs_gradients:
        network = _initial(experiment, cell, dense)
        batch = experiment.recipe.batch_size
        found = loss_gradients(network, experiment.data, batch, experiment.seed, cell.replicate)
        gradients = {name: gradient.cpu() for name, gradient in found.items()}
    return scored(pruning.score, living, final, initial, gradients)


def _initial(experiment: Experiment, cell: Cell, dense: Dense) -> nn.Module:
    """Return the network as the dense run began."""
    network = experiment.build(cell.replicate)
    network.load_state_dict(dense[0].weights)
    return network


def _train(
    experiment: Experiment,
    network: nn.Module,
    replicate: int,
    start: Checkpoint,
    mask: dict[str, Tensor] | None,
    due: Callable[[], bool],
    child: int = 0,
) -> Epochs:
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
    )
