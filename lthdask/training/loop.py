"""Training: one loop for the dense run, for every ticket, and for many tickets side by side.

:func:`train` is a generator: it yields after each epoch, and its caller saves the state, logs
what was measured, or stops. On a CPU, a run that starts from any saved state ends in the same
bits as one that was never stopped.
"""

import math
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from torch import nn

from lthdask.data.batches import Data
from lthdask.errors import FinalError
from lthdask.networks.randomness import seeded, seeds_of
from lthdask.pruning.masks import Mask
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.engine import Engine
from lthdask.training.model import Model
from lthdask.training.recipe import Recipe


class Diverged(FinalError):  # noqa: N818 - an outcome of a run, as much as an error
    """A loss is no longer a finite number."""


@dataclass(frozen=True)
class EpochMetrics:
    """What was measured after an epoch; losses in nats, accuracies in [0, 1]."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    test_loss: float
    test_accuracy: float


@dataclass(frozen=True)
class Measurement:
    """What was measured inside an epoch, after some number of steps, counted from epoch 0."""

    iteration: int
    validation_loss: float
    validation_accuracy: float
    test_accuracy: float


Outcome = EpochMetrics | Measurement | Diverged | None


@dataclass(frozen=True)
class Progress:
    """Where training is, and what was measured there.

    Attributes
    ----------
    epoch, step : int
        As in a `Checkpoint`.
    outcomes : sequence of EpochMetrics, Measurement, Diverged or None
        One for each model that is trained; a cohort has several.
    states : callable
        Returns the complete state of each model. It is the network's own, and changes as
        training continues: to keep it longer, keep a :meth:`Checkpoint.copy`.
    """

    epoch: int
    step: int
    outcomes: Sequence[Outcome]
    states: Callable[[], list[Checkpoint]]

    @classmethod
    def at(cls, state: Checkpoint, outcome: Outcome) -> "Progress":
        """Return what was measured for one model, with its state."""
        return cls(state.epoch, state.step, [outcome], lambda: [state])


def train(
    network: nn.Module,
    data: Data,
    recipe: Recipe,
    start: Checkpoint,
    *,
    seed: int,
    replicate: int,
    mask: Mask | None = None,
    engine: Engine,
    due: Callable[[], bool] = lambda: False,
    child: int = 0,
    stops: Container[int] = (),
) -> Iterator[Progress]:
    """Train from `start` to the last epoch of the recipe.

    Parameters
    ----------
    network : Module
        The network, on the device to train on; its weights are replaced by those of `start`.
    data : Data
        The data, on the same device.
    recipe : Recipe
        Its schedule is a function of the absolute epoch: from checkpoint k, training
        continues at the rates of epochs k + 1..T.
    start : Checkpoint
        Where to start; it is not changed.
    seed, replicate : int
        What the order of the data, its augmentation and dropout are drawn from.
    mask : mapping of str to Tensor, optional
        What stays pruned. Weights and buffers are set to zero there, and their gradients are
        held at zero, so that nothing can revive them, not even momentum or weight decay.
    engine : Engine
        Precision of the computation.
    due : callable
        Asked after each step inside an epoch; where it returns true, there is a yield, too.
    child : int
        Not 0 for a run that sees the same data in another order.
    stops : container of int
        Steps, counted from epoch 0, after which there is a yield, too.

    Yields
    ------
    Progress
        For one model: `EpochMetrics` at the end of an epoch; inside one, a `Measurement` at
        each `Recipe.measure_every` steps; None elsewhere.

    Raises
    ------
    Diverged
        If a loss is not finite.
    """
    model = Model(network, recipe, engine, start.weights, start.buffers, start.loss, mask or {})
    yield from train_models(
        model,
        data,
        recipe,
        start,
        seed=seed,
        replicate=replicate,
        due=due,
        child=child,
        stops=stops,
    )


def train_models(
    models: Model,
    data: Data,
    recipe: Recipe,
    start: Checkpoint,
    *,
    seed: int,
    replicate: int,
    due: Callable[[], bool],
    child: int,
    stops: Container[int] = (),
) -> Iterator[Progress]:
    """Train what `models` are, one or several, from the epoch and step of `start`.

    The rest is as for :func:`train`. One that diverges raises; of several, the others go on, and
    change no bit, until every one has.
    """
    advance, steps = models.advancing(), data.steps(recipe.batch_size)
    diverged: dict[int, Diverged] = {}

    def require_finite(losses: list[float]) -> None:
        for model, loss in enumerate(losses):
            if not math.isfinite(loss):
                problem = Diverged(f"the loss is {loss} in epoch {epoch + 1}")
                if not models.side_by_side:
                    raise problem
                diverged.setdefault(model, problem)

    def progress(outcomes: Sequence[Outcome], epoch: int, step: int, since: int = 0) -> Progress:
        outcomes = [diverged.get(model, outcome) for model, outcome in enumerate(outcomes)]
        return Progress(epoch, step, outcomes, partial(models.states, epoch, step, since))

    for epoch in range(start.epoch, recipe.epochs):
        first, since = (start.step, start.since) if epoch == start.epoch else (0, 0)
        batches = data.epoch(recipe.batch_size, seed, replicate, epoch + 1, first, child)
        seeds = seeds_of(seed, replicate, epoch + 1, steps, child) if models.draws else []
        models.network.train()
        for step, (images, labels) in enumerate(batches, first):
            with seeded(seeds[step], models.device) if models.draws else nullcontext():
                advance(images, labels, recipe.rate(epoch, step, steps))
            iteration = epoch * steps + step + 1
            measured = recipe.measure_every and iteration % recipe.measure_every == 0
            if step + 1 < steps and (measured or due() or iteration in stops):
                require_finite(sums := models.loss_sums())
                inside = _measured(models, data, iteration) if measured else [None] * len(sums)
                yield progress(inside, epoch, step + 1, since)
                if len(diverged) == len(sums):
                    return
        train_losses = [loss / (steps - since) for loss in models.loss_sums()]
        require_finite(train_losses)
        validation = models.evaluate(data, data.validation)
        require_finite([loss for loss, _ in validation])
        models.require_pruned(diverged)
        each = zip(train_losses, validation, models.evaluate(data, data.test), strict=True)
        models.loss_sum.zero_()
        yield progress([EpochMetrics(epoch + 1, loss, *v, *t) for loss, v, t in each], epoch + 1, 0)
        if len(diverged) == len(train_losses):
            return


def _measured(models: Model, data: Data, iteration: int) -> list[Measurement]:
    """Measure the models inside an epoch, which continues as if nothing had happened."""
    validation, test = (models.evaluate(data, split) for split in (data.validation, data.test))
    models.network.train()
    return [Measurement(iteration, *v, t[1]) for v, t in zip(validation, test, strict=True)]
