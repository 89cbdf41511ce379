"""What is trained: a network, its mask, its optimizer, and a step of it."""

from collections.abc import Collection
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthdask.data.batches import Data, Split
from lthdask.networks.stack import layers_are_known
from lthdask.own import is_own
from lthdask.pruning.masks import Mask
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.engine import Engine
from lthdask.training.evaluation import at_least_float32, evaluate, laid_out, precision
from lthdask.training.graphs import Advance, graphed, plain
from lthdask.training.optimizers import Buffers, buffers_of, optimizer_of
from lthdask.training.products import products
from lthdask.training.recipe import Recipe


class Model:
    """One model in training; a :class:`lthdask.training.cohort.Cohort` is several, side by side.

    Parameters
    ----------
    network : Module
        Its weights are replaced.
    recipe : Recipe
    engine : Engine
    weights, buffers, loss
        As in a `Checkpoint`; of several models, with one more axis in front.
    mask : mapping of str to Tensor
        What stays pruned.
    """

    side_by_side = False

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        engine: Engine,
        weights: dict[str, Tensor],
        buffers: Buffers,
        loss: float | list[float],
        mask: Mask,
    ) -> None:
        network.load_state_dict(weights)
        self.network, self.engine, self.smoothing = network, engine, recipe.label_smoothing
        self.weights = dict(network.named_parameters())
        self.optimizer = optimizer_of(recipe.optimizer, self.weights, buffers, self.side_by_side)
        # float32 masks in the layout of their weights: 0.3 % of a step; boolean ones took 1.8 %.
        self.kept = {n: torch.empty_like(self.weights[n]).copy_(m) for n, m in mask.items()}
        lay_over(self.kept, self.weights, self.optimizer)
        self.device = next(iter(self.weights.values())).device
        self.loss_sum = torch.tensor(loss, dtype=torch.float64, device=self.device)
        own = is_own(recipe.optimizer.name)  # it may do on the CPU what a graph does not record
        self.recorded = self.device.type == "cuda" and engine.graphs and not own
        self.draws = not layers_are_known(network)  # random numbers, for all that is known
        # Looked up once: going through the modules of MobileNetV2 takes 2 ms.
        self.state = dict(network.state_dict())

    def advancing(self) -> Advance:
        """Return one training step, as a function of (images, labels, learning rate)."""
        state = [*self.weights.values(), *self.network.buffers(), self.loss_sum]
        step = products(self.engine)(self._step)
        return (graphed if self.recorded else plain)(step, self.optimizer, state)

    def _step(self, images: Tensor, labels: Tensor) -> None:
        loss = self.losses(images, labels)
        for weight in self.weights.values():  # `zero_grad` takes 8 % of LeNet's step
            weight.grad = None
        # Each of several models has the gradient of its own loss.
        (loss.sum() if self.side_by_side else loss).backward()
        if self.kept:
            gradients: Any = [self.weights[name].grad for name in self.kept]
            torch._foreach_mul_(gradients, cast(Any, list(self.kept.values())))
        self.optimizer.step()
        self.loss_sum.add_(loss.detach())

    def losses(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch; those of several models, in the shape of `loss_sum`."""
        with precision(self.engine):
            logits = self.network(laid_out(images))
        return F.cross_entropy(at_least_float32(logits), labels, label_smoothing=self.smoothing)

    def evaluate(self, data: Data, split: Split) -> list[tuple[float, float]]:
        """Return the mean loss, in nats, and the accuracy, in [0, 1], of each model."""
        return [evaluate(self.network, data, split, self.engine)]

    def loss_sums(self) -> list[float]:
        """Return the sum of each model's losses in the epoch so far."""
        sums: list[float] = self.loss_sum.flatten().tolist()
        return sums

    def states(self, epoch: int, step: int, since: int) -> list[Checkpoint]:
        """Return the state of each model, which changes as training continues."""
        buffers = buffers_of(self.optimizer, self.weights)
        loss = self.loss_sums()[0] if step else 0.0
        return [Checkpoint(epoch, self.state, buffers, step, loss, since)]

    def require_pruned(self, diverged: Collection[int]) -> None:
        """Refuse to go on if a pruned weight came back to life, but for a model that diverged."""
        for name, mask in self.kept.items():
            revived = (self.weights[name].detach() * (1 - mask)).reshape(*self.loss_sum.shape, -1)
            found = revived.any(-1).flatten().tolist()
            if any(alive and model not in diverged for model, alive in enumerate(found)):
                raise RuntimeError(f"pruned weights of {name} are not zero")


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
