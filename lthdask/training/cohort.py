"""Cohorts: many tickets trained in one step, side by side on one device.

The cells of a cohort see the same batches at the same learning rates; their starting
weights and masks differ. The loss is the sum of theirs, so each has the gradient of its own,
and each ends where it would end alone, up to the order of sums: in float64 and with SGD
within 1e-9.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthdask.data.batches import Data, Split
from lthdask.networks.stack import stack, stacked
from lthdask.pruning.masks import Mask
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.engine import Engine
from lthdask.training.evaluation import at_least_float32, laid_out, precision
from lthdask.training.loop import Progress, train_models
from lthdask.training.model import Model
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
    cohort = Cohort(network, recipe, engine, starts, masks)
    yield from train_models(
        cohort, data, recipe, starts[0], seed=seed, replicate=replicate, due=due, child=child
    )


class Cohort(Model):
    """Several models in training, side by side in one `Stack`.

    What is of one in a `Model` is of all here, with one more axis in front.
    """

    side_by_side = True

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        engine: Engine,
        starts: Sequence[Checkpoint],
        masks: Sequence[Mask],
    ) -> None:
        self.stack = stack(network, len(starts), engine.kernels)
        weights = {n: stacked([start.weights[n] for start in starts]) for n in starts[0].weights}
        buffers, losses = _buffers(starts), [start.loss for start in starts]
        super().__init__(self.stack.network, recipe, engine, weights, buffers, losses, _kept(masks))
        self.draws = False  # in a stack, nothing may

    def losses(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each model on a batch."""
        return _each_loss(self._logits(images), labels, self.smoothing).mean(1)

    def evaluate(self, data: Data, split: Split) -> list[tuple[float, float]]:
        """Return the mean loss and the accuracy of each model, as `evaluate` does for one."""
        models, count = self.stack.models, len(split)
        self.network.eval()
        loss = correct = torch.zeros(models, dtype=torch.float64, device=data.mean.device)
        with torch.inference_mode(), products(self.engine):
            for images, labels in data.evaluation(split, data.evaluation_batch(models)):
                logits = self._logits(images)
                loss = loss + _each_loss(logits, labels).sum(1)
                correct = correct + (logits.argmax(2) == labels).sum(1)
        return list(zip((loss / count).tolist(), (correct / count).tolist(), strict=True))

    def states(self, epoch: int, step: int, since: int) -> list[Checkpoint]:
        """Return each model's state: views of what they share."""
        (whole,), losses = super().states(epoch, step, since), self.loss_sums()

        def apart(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
            each = {n: t.unbind() if t.dim() else [t] * len(losses) for n, t in tensors.items()}
            return [{n: ts[model] for n, ts in each.items()} for model in range(len(losses))]

        weights = apart(whole.weights)
        buffers = {name: apart(of_weight) for name, of_weight in whole.buffers.items()}
        return [
            replace(
                whole,
                weights=weights[model],
                buffers={name: of[model] for name, of in buffers.items()},
                loss=loss if step else 0.0,
            )
            for model, loss in enumerate(losses)
        ]

    def _logits(self, images: Tensor) -> Tensor:
        with precision(self.engine):
            return at_least_float32(self.stack(laid_out(images)))


def _each_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the loss of each model on each image, (B, N)."""
    every = labels.repeat(len(logits))
    losses = F.cross_entropy(
        logits.flatten(0, 1), every, reduction="none", label_smoothing=smoothing
    )
    return losses.view(logits.shape[:2])


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


def _kept(masks: Sequence[Mask]) -> Mask:
    """Return the masks side by side; what one of them does not name, it does not prune."""
    every = {name: torch.ones_like(kept) for mask in masks for name, kept in mask.items()}
    return {name: stacked([mask.get(name, ones) for mask in masks]) for name, ones in every.items()}
