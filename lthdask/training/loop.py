"""Training: one loop for the dense run and for every ticket.

:func:`train` is a generator: it yields after each epoch, and its caller saves the state, logs
what was measured, or stops. On a CPU, a run that starts from any saved state ends in the same
bits as one that was never stopped.
"""

import math
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthdask.data.batches import Data
from lthdask.errors import FinalError
from lthdask.networks.randomness import seeded, seeds_of
from lthdask.networks.stack import layers_are_known
from lthdask.own import is_own
from lthdask.pruning.masks import Mask
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.engine import Engine
from lthdask.training.evaluation import at_least_float32, evaluate, laid_out, precision
from lthdask.training.graphs import Advance, graphed, plain
from lthdask.training.optimizers import buffers_of, optimizer_of
from lthdask.training.products import products
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
    network.load_state_dict(start.weights)
    weights = dict(network.named_parameters())
    optimizer = optimizer_of(recipe.optimizer, weights, start.buffers)
    if is_own(recipe.optimizer.name):  # it may do on the CPU what a graph does not record
        engine = replace(engine, graphs=False)
    # float32 masks in the layout of their weights: 0.3 % of a step; boolean ones took 1.8 %.
    kept = {name: torch.empty_like(weights[name]).copy_(m) for name, m in (mask or {}).items()}
    lay_over(kept, weights, optimizer)
    steps, device = data.steps(recipe.batch_size), next(iter(weights.values())).device
    loss_sum = torch.tensor(start.loss, dtype=torch.float64, device=device)
    losses = partial(_loss, network, engine=engine, smoothing=recipe.label_smoothing)
    advance = advancing(network, losses, optimizer, kept, loss_sum, engine)
    draws = not layers_are_known(network)  # for all that is known
    # Looked up once: going through the modules of MobileNetV2 takes 2 ms.
    states = partial(_states, dict(network.state_dict()), optimizer, weights, loss_sum)
    for epoch in range(start.epoch, recipe.epochs):
        first, since = (start.step, start.since) if epoch == start.epoch else (0, 0)
        batches = data.epoch(recipe.batch_size, seed, replicate, epoch + 1, first, child)
        seeds = seeds_of(seed, replicate, epoch + 1, steps, child) if draws else []
        network.train()
        for step, (images, labels) in enumerate(batches, first):
            with seeded(seeds[step], device) if draws else nullcontext():
                advance(images, labels, recipe.rate(epoch, step, steps))
            iteration = epoch * steps + step + 1
            measured = recipe.measure_every and iteration % recipe.measure_every == 0
            if step + 1 < steps and (measured or due() or iteration in stops):
                require_finite(float(loss_sum), epoch + 1)
                inside = _measurement(network, data, engine, iteration) if measured else None
                yield Progress(epoch, step + 1, [inside], partial(states, epoch, step + 1, since))
        train_loss = float(loss_sum) / (steps - since)
        require_finite(train_loss, epoch + 1)
        validation = evaluate(network, data, data.validation, engine)
        require_finite(validation[0], epoch + 1)
        _require_pruned(weights, kept)
        metrics = EpochMetrics(
            epoch + 1, train_loss, *validation, *evaluate(network, data, data.test, engine)
        )
        loss_sum.zero_()
        yield Progress(epoch + 1, 0, [metrics], partial(states, epoch + 1, 0))


def _measurement(network: nn.Module, data: Data, engine: Engine, iteration: int) -> Measurement:
    """Measure the network inside an epoch, which continues as if nothing had happened."""
    loss, accuracy = evaluate(network, data, data.validation, engine)
    test = evaluate(network, data, data.test, engine)[1]
    network.train()
    return Measurement(iteration, loss, accuracy, test)


@torch.no_grad()
def lay_over(
    kept: dict[str, Tensor], weights: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    """Set what is pruned to zero, in place, in weights and in their optimizer's buffers.

    Momentum left in place would revive a weight at the next step.
    """
    for name, mask in kept.items():
        weight = weights[name]
        for tensor in (weight, *optimizer.state.get(weight, {}).values()):
            if tensor is not None and tensor.shape == weight.shape:
                tensor.mul_(mask)


def advancing(
    network: nn.Module,
    losses: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    kept: dict[str, Tensor],
    loss_sum: Tensor,
    engine: Engine,
) -> Advance:
    """Return one training step, as a function of (images, labels, learning rate).

    Parameters
    ----------
    network : Module
    losses : callable
        (images, labels) → the loss, or those of several models, in the shape of `loss_sum`.
    optimizer : Optimizer
        The optimizer of the network's parameters.
    kept : dict of str to Tensor
        Name of parameter → 1 where its gradient counts, 0 where it is held at zero.
    loss_sum : Tensor
        What the loss of each step is added to.
    engine : Engine
    """
    weights, masks = dict(network.named_parameters()), cast(Any, list(kept.values()))

    @products(engine)
    def step(images: Tensor, labels: Tensor) -> None:
        loss = losses(images, labels)
        optimizer.zero_grad()
        loss.sum().backward()  # each of several models has the gradient of its own loss
        if kept:
            gradients: Any = [weights[name].grad for name in kept]
            torch._foreach_mul_(gradients, masks)
        optimizer.step()
        loss_sum.add_(loss.detach())

    state = [*weights.values(), *network.buffers(), loss_sum]
    return (graphed if loss_sum.is_cuda and engine.graphs else plain)(step, optimizer, state)


def _loss(
    network: nn.Module, images: Tensor, labels: Tensor, engine: Engine, smoothing: float
) -> Tensor:
    with precision(engine):
        logits = network(laid_out(images))
    return F.cross_entropy(at_least_float32(logits), labels, label_smoothing=smoothing)


def _states(
    state: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    weights: dict[str, nn.Parameter],
    loss: Tensor,
    epoch: int,
    step: int,
    since: int = 0,
) -> list[Checkpoint]:
    buffers = buffers_of(optimizer, weights)
    return [Checkpoint(epoch, state, buffers, step, float(loss) if step else 0.0, since)]


def require_finite(loss: float, epoch: int) -> None:
    """Raise `Diverged` unless the loss is a number."""
    if not math.isfinite(loss):
        raise Diverged(f"the loss is {loss} in epoch {epoch}")


def _require_pruned(weights: dict[str, nn.Parameter], kept: dict[str, Tensor]) -> None:
    """Refuse to go on if a pruned weight came back to life."""
    for name, mask in kept.items():
        if (weights[name].detach() * (1 - mask)).any():
            raise RuntimeError(f"pruned weights of {name} are not zero")
