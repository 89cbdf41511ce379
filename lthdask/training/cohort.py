"""Cohorts: many tickets trained in one step, side by side on one device.

The cells of a cohort see the same batches at the same learning rates; their starting
weights and masks differ. The loss is the sum of theirs, so each has the gradient of its own,
and each ends where it would end alone, up to the order of sums: in float64 and with SGD
within 1e-9.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthdask.data.batches import Data, Split
from lthdask.networks.stack import Stack, stack, stacked
from lthdask.pruning.masks import Mask
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.engine import Engine
from lthdask.training.evaluation import at_least_float32, laid_out, precision
from lthdask.training.loop import (
    Diverged,
    EpochMetrics,
    Measurement,
    Outcome,
    Progress,
    advancing,
    lay_over,
    require_finite,
)
from lthdask.training.optimizers import optimizer_of
from lthdask.training.products import products
from lthdask.training.recipe import Recipe


def train_cohort(
    network: nn.Module,
    data: Data,
    recipe: Recipe,
    starts: Sequence[Checkpoint],
    masks: Sequence[Mask],
    *,
    seed: int,
    replicate: int,
    engine: Engine,
    due: Callable[[], bool] = lambda: False,
    child: int = 0,
) -> Iterator[Progress]:
    """Train several models from their `starts` to the last epoch of the recipe.

    Parameters
    ----------
    network : Module
        The network of all models, on the device; it is not changed.
    starts : sequence of Checkpoint
        Where each model starts, all after the same epochs and steps.
    masks : sequence of mapping of str to Tensor
        What stays pruned in each model, one mask per start; an empty one prunes nothing.
    data, recipe, seed, replicate, engine, due, child
        As for :func:`lthdask.training.loop.train`.

    Yields
    ------
    Progress
        When `train` would, and for each model what `train` would. A model whose loss is no
        longer finite is `Diverged` from then on, and changes no bit of the others. The last
        yield is at the end of training, or where every model has diverged.

    Raises
    ------
    ValueError
        If the starts are not at the same point of training.
    """
    _require_together(starts, masks)
    models = stack(network, len(starts), engine.kernels)
    side_by_side = {name: [start.weights[name] for start in starts] for name in starts[0].weights}
    models.network.load_state_dict({name: stacked(ts) for name, ts in side_by_side.items()})
    weights = dict(models.network.named_parameters())
    optimizer = optimizer_of(recipe.optimizer, weights, _buffers(starts), side_by_side=True)
    kept = _kept(masks, weights)
    lay_over(kept, weights, optimizer)
    steps, device = data.steps(recipe.batch_size), next(iter(weights.values())).device
    loss_sum = torch.tensor([s.loss for s in starts], dtype=torch.float64, device=device)
    losses = partial(_losses, models, engine=engine, smoothing=recipe.label_smoothing)
    advance = advancing(models.network, losses, optimizer, kept, loss_sum, engine)
    states = partial(_states, models.network.state_dict(), optimizer, weights, loss_sum)
    diverged: dict[int, Diverged] = {}
    for epoch in range(starts[0].epoch, recipe.epochs):
        at_start = epoch == starts[0].epoch
        first, since = (starts[0].step, starts[0].since) if at_start else (0, 0)
        batches = data.epoch(recipe.batch_size, seed, replicate, epoch + 1, first, child)
        models.network.train()
        for step, (images, labels) in enumerate(batches, first):
            advance(images, labels, recipe.rate(epoch, step, steps))
            iteration = epoch * steps + step + 1
            measured = recipe.measure_every and iteration % recipe.measure_every == 0
            if step + 1 < steps and (measured or due()):
                _note(diverged, loss_sum.tolist(), epoch + 1)
                inside: list[Outcome] = [None] * len(starts)
                if measured:
                    inside = [*_measurements(models, data, engine, iteration)]
                outcomes = [diverged.get(i, o) for i, o in enumerate(inside)]
                yield Progress(epoch, step + 1, outcomes, partial(states, epoch, step + 1, since))
                if len(diverged) == len(starts):
                    return
        train_losses = [loss / (steps - since) for loss in loss_sum.tolist()]
        _note(diverged, train_losses, epoch + 1)
        validation = _evaluate(models, data, data.validation, engine)
        _note(diverged, [loss for loss, _ in validation], epoch + 1)
        _require_pruned(weights, kept, diverged)
        test = _evaluate(models, data, data.test, engine)
        metrics = [
            EpochMetrics(epoch + 1, loss, *of_validation, *of_test)
            for loss, of_validation, of_test in zip(train_losses, validation, test, strict=True)
        ]
        loss_sum.zero_()
        outcomes = [diverged.get(i, m) for i, m in enumerate(metrics)]
        yield Progress(epoch + 1, 0, outcomes, partial(states, epoch + 1, 0))
        if len(diverged) == len(starts):
            return


def largest_cohort(network: nn.Module, data: Data, recipe: Recipe, engine: Engine) -> int:
    """Return how many models fit on the device; on a CPU 1, which is fastest there.

    The peak memory of training and evaluating 1 and 2 models is measured, and what is free.
    """
    device = next(network.parameters()).device
    if device.type != "cuda":
        return 1
    torch.cuda.empty_cache()
    before, free = torch.cuda.memory_reserved(device), torch.cuda.mem_get_info(device)[0]
    taken = []
    for models in (1, 2):
        torch.cuda.reset_peak_memory_stats(device)
        try:
            _train_once(network, data, recipe, engine, models)
        except torch.OutOfMemoryError:
            return 1
        taken.append(torch.cuda.max_memory_reserved(device) - before)
        torch.cuda.empty_cache()
    return models_within(free, *taken)


def models_within(free: int, one: int, two: int) -> int:
    """Return how many models fit in nine tenths of `free` bytes, given what 1 and 2 take."""
    each = max(two - one, 1)
    return max(1, 1 + int(0.9 * free - one) // each)


def _train_once(
    network: nn.Module, data: Data, recipe: Recipe, engine: Engine, models: int
) -> None:
    """Train and evaluate a cohort on one batch of each kind."""
    few = {
        name: split.subset(torch.arange(min(count, len(split))))
        for name, split, count in (
            ("train", data.train, recipe.batch_size),
            ("validation", data.validation, data.evaluation_batch()),
            ("test", data.test, data.evaluation_batch()),
        )
    }
    mask = {name: torch.ones_like(p, dtype=torch.bool) for name, p in network.named_parameters()}
    # From the recipe's last epoch on: one epoch of one step.
    start = Checkpoint(recipe.epochs - 1, network.state_dict())
    starts, masks = [start] * models, [mask] * models
    once = replace(data, **few)  # type: ignore[arg-type]
    for _ in train_cohort(network, once, recipe, starts, masks, seed=0, replicate=0, engine=engine):
        pass


def _require_together(starts: Sequence[Checkpoint], masks: Sequence[Mask]) -> None:
    if len(starts) != len(masks):
        raise ValueError(f"each start needs a mask; got {len(starts)} and {len(masks)}")
    points = sorted({(start.epoch, start.step) for start in starts})
    if len(points) != 1:
        raise ValueError(f"a cohort must start after the same (epoch, step); got {points}")


def _buffers(starts: Sequence[Checkpoint]) -> dict[str, dict[str, Tensor]]:
    """Return the optimizers' buffers side by side; one that has made no step has zeros.

    Adam counts its steps, and one count is kept for the cohort.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for name in dict.fromkeys(name for start in starts for name in start.buffers):
        of_models = [start.buffers.get(name, {}) for start in starts]
        found[name] = {}
        for buffer, like in next(bs for bs in of_models if bs).items():
            tensors = [bs.get(buffer, torch.zeros_like(like)) for bs in of_models]
            if like.dim() == 0 and len({float(tensor) for tensor in tensors}) > 1:
                raise ValueError(
                    f"the optimizers of a cohort must have done as many steps; "
                    f"got {sorted({int(tensor) for tensor in tensors})}"
                )
            found[name][buffer] = stacked(tensors) if like.dim() else like
    return found


def _kept(masks: Sequence[Mask], weights: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the masks side by side, as numbers in the layout of their weights."""
    kept = {
        name: torch.ones_like(weights[name]).detach()
        for name in dict.fromkeys(name for mask in masks for name in mask)
    }
    for model, mask in enumerate(masks):
        for name, survives in mask.items():
            kept[name][model].copy_(survives)
    return kept


def _logits(models: Stack, images: Tensor, engine: Engine) -> Tensor:
    with precision(engine):
        return at_least_float32(models(laid_out(images)))


def _each_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the loss of each model on each image, (B, N)."""
    every = labels.repeat(len(logits))
    losses = F.cross_entropy(
        logits.flatten(0, 1), every, reduction="none", label_smoothing=smoothing
    )
    return losses.view(logits.shape[:2])


def _losses(
    models: Stack, images: Tensor, labels: Tensor, engine: Engine, smoothing: float
) -> Tensor:
    return _each_loss(_logits(models, images, engine), labels, smoothing).mean(1)


def _evaluate(models: Stack, data: Data, split: Split, engine: Engine) -> list[tuple[float, float]]:
    """Return the mean loss and the accuracy of each model, as `evaluate` does for one."""
    models.network.eval()
    loss = correct = torch.zeros(models.models, dtype=torch.float64, device=data.mean.device)
    with torch.inference_mode(), products(engine):
        for images, labels in data.evaluation(split, data.evaluation_batch(models.models)):
            logits = _logits(models, images, engine)
            loss = loss + _each_loss(logits, labels).sum(1)
            correct = correct + (logits.argmax(2) == labels).sum(1)
    return list(zip((loss / len(split)).tolist(), (correct / len(split)).tolist(), strict=True))


def _measurements(
    models: Stack, data: Data, engine: Engine, iteration: int
) -> Iterator[Measurement]:
    """Measure the models inside an epoch, which continues as if nothing had happened."""
    validation = _evaluate(models, data, data.validation, engine)
    test = _evaluate(models, data, data.test, engine)
    models.network.train()
    for (loss, accuracy), (_, test_accuracy) in zip(validation, test, strict=True):
        yield Measurement(iteration, loss, accuracy, test_accuracy)


def _states(
    state: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    weights: dict[str, nn.Parameter],
    loss_sum: Tensor,
    epoch: int,
    step: int,
    since: int = 0,
) -> list[Checkpoint]:
    """Return each model's state: views of what they share."""
    losses = loss_sum.tolist()
    of_models = {name: tensor.unbind() for name, tensor in state.items()}
    buffers = {
        name: {
            buffer: t.unbind() if t.dim() else [t] * len(losses)
            for buffer, t in optimizer.state[weight].items()
            if t is not None
        }
        for name, weight in weights.items()
        if weight in optimizer.state
    }
    return [
        Checkpoint(
            epoch,
            {name: tensors[model] for name, tensors in of_models.items()},
            {name: {b: ts[model] for b, ts in of.items()} for name, of in buffers.items()},
            step,
            losses[model] if step else 0.0,
            since,
        )
        for model in range(len(losses))
    ]


def _note(diverged: dict[int, Diverged], losses: list[float], epoch: int) -> None:
    """Add the models whose loss is no longer finite."""
    for model, loss in enumerate(losses):
        try:
            require_finite(loss, epoch)
        except Diverged as problem:
            diverged.setdefault(model, problem)


def _require_pruned(
    weights: dict[str, nn.Parameter], kept: dict[str, Tensor], diverged: dict[int, Diverged]
) -> None:
    """Refuse to go on if a pruned weight of a model came back to life."""
    for name, mask in kept.items():
        alive = (weights[name].detach() * (1 - mask)).flatten(1).any(1).tolist()
        if any(found and model not in diverged for model, found in enumerate(alive)):
            raise RuntimeError(f"pruned weights of {name} are not zero")
