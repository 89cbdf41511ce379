"""How sensitive an untrained network is to its weights: the gradients behind SNIP and SynFlow.

Both score the initial weights, before the first step (Frankle, Dziugaite, Roy & Carbin,
"Pruning Neural Networks at Initialization", ICLR 2021, compare them to magnitude after
training).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthdask.data import Data
from lthdask.masks import Pruning, draw_mask, prunable_weights

FLOW_ROUNDS = 100
"""Rounds of SynFlow (Tanaka et al. 2020, section 6): with one, it empties layers, too."""


def loss_gradients(
    network: nn.Module, data: Data, batch_size: int, seed: int, replicate: int
) -> dict[str, Tensor]:
    """Return the gradient of the loss for SNIP, on the first batch of the first epoch.

    One batch, as in Lee, Ajanthan & Torr 2019, section 5.1, with its statistics in batch
    norm. The network is used up: its running statistics change.
    """
    network.train()
    images, labels = next(data.epoch(batch_size, seed, replicate, 1))
    loss = F.cross_entropy(network(images), labels)
    return _gradients(network, loss)


def flow_gradients(network: nn.Module, shape: tuple[int, int, int]) -> dict[str, Tensor]:
    """Return the gradient of the synaptic flow: the summed outputs for an image of ones.

    Of a network whose weights are their absolute values, in evaluation mode, where batch
    norm is linear (Tanaka et al. 2020, equation 3 and its published code).

    Parameters
    ----------
    network : Module
        Of float64: the flow through many layers leaves the range of float32.
    shape : tuple of int
        Of an image, (C, H, W).
    """
    network.eval()
    weight = next(network.parameters())
    ones = torch.ones(1, *shape, dtype=weight.dtype, device=weight.device)
    return _gradients(network, network(ones).sum())


def synflow_mask(
    network: nn.Module,
    threshold: float,
    pruning: Pruning,
    spared: frozenset[str],
    shape: tuple[int, int, int],
    rounds: int = FLOW_ROUNDS,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Prune by synaptic flow, a little in each round (Tanaka et al. 2020, algorithm 1).

    Parameters
    ----------
    network : Module
        With its initial weights; it is used up.
    threshold, pruning, spared
        As of :func:`lthdask.masks.draw_mask`, whose result is returned.
    shape : tuple of int
        Of an image, (C, H, W).
    rounds : int
        The density falls in equal proportions.
    """
    network.double()
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.abs_()
    initial = {name: weight.clone() for name, weight in prunable_weights(network).items()}
    live, before, cutoffs = prunable_weights(network), None, dict[str, float]()
    for number in range(1, rounds + 1):
        gradients = flow_gradients(network, shape)
        share = 1 - (1 - threshold) ** (number / rounds) if number < rounds else threshold
        before, cutoffs = draw_mask(
            initial,
            share,
            pruning,
            spared,
            before=before,
            initial=initial,
            gradients=gradients,
        )
        for name, weight in live.items():
            weight.mul_(before[name])
    assert before is not None
    return before, cutoffs


def _gradients(network: nn.Module, value: Tensor) -> dict[str, Tensor]:
    parameters, names = dict(network.named_parameters()), list(prunable_weights(network))
    gradients = torch.autograd.grad(value, [parameters[name] for name in names])
    return dict(zip(names, gradients, strict=True))
