"""Sensitivity: gradients at the initial weights, by which SNIP, GraSP and SynFlow prune.

They choose a mask before anything is trained: SNIP by the weights that the loss hangs on, GraSP
by those that the norm of its gradient hangs on, SynFlow by those that the flow from input to
output hangs on. The given network is never changed, not even its batch-norm statistics: gradients
are taken on a copy.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthdask.data.batches import Data
from lthdask.networks.randomness import seeded, seeds_of
from lthdask.pruning.masks import Mask, draw_mask
from lthdask.pruning.rule import Pruning, prunable_weights
from lthdask.pruning.scores import scored

TEMPERATURE = 200
"""By which GraSP divides logits."""


def loss_gradients(
    network: nn.Module, data: Data, batch_size: int, seed: int, replicate: int
) -> dict[str, Tensor]:
    """Return the gradient of the mean loss by each prunable weight, for ``snip``.

    The mean is over the first batch of epoch 1, in the study's order: one batch, as in Lee et
    al., "SNIP: single-shot network pruning based on connection sensitivity" (ICLR 2019,
    algorithm 1). The network is in training mode, because batch norm has no statistics yet.

    Parameters
    ----------
    network : Module
        The network with its initial weights, on the device of `data`.
    data : Data
    batch_size : int
        Images in the batch.
    seed, replicate : int
        What the order of the data and its augmentation are drawn from.

    Returns
    -------
    dict of str to Tensor
        Name of weight → gradient in nats per unit of the weight, float32, whatever the
        engine's precision. On a CPU its last bits depend on the number of threads.
    """
    copied = copy.deepcopy(network).train()
    return _gradients(_loss(copied, data, batch_size, seed, replicate), copied)


def hessian_gradients(
    network: nn.Module, data: Data, batch_size: int, seed: int, replicate: int
) -> dict[str, Tensor]:
    """Return the Hessian of the mean loss times its gradient, H · g, for ``grasp``.

    Both are those by the prunable weights (Wang et al., "Picking winning tickets before training
    by preserving gradient flow", ICLR 2020, equation 8), on the batch of :func:`loss_gradients`,
    which the parameters and the result are like. As in the authors' code, the logits are divided
    by 200, so that every class is about as likely. H · g is half the gradient of ‖g‖².
    """
    copied = copy.deepcopy(network).train()
    loss = _loss(copied, data, batch_size, seed, replicate, TEMPERATURE)
    gradients = _gradients(loss, copied, again=True)
    norm = torch.stack([gradient.square().sum() for gradient in gradients.values()]).sum()
    return _gradients(norm / 2, copied)


def _loss(
    network: nn.Module, data: Data, batch: int, seed: int, replicate: int, temperature: float = 1
) -> Tensor:
    images, labels = next(data.epoch(batch, seed, replicate, 1))
    (first,) = seeds_of(seed, replicate, 1, 1)
    with seeded(first, images.device):  # as in the first step of training
        logits = network(images)
    return F.cross_entropy(logits / temperature, labels)


def synaptic_flow(
    network: nn.Module, shape: tuple[int, ...], mask: Mask | None = None
) -> dict[str, Tensor]:
    """Return the gradient of the synaptic flow by each prunable weight, for ``synflow``.

    The flow is the sum of the outputs for an input of ones, with the magnitude of every
    parameter in its place (Tanaka et al., "Pruning neural networks without any data by
    iteratively conserving synaptic flow", NeurIPS 2020, equation 2), in evaluation mode, as
    their code does.

    Parameters
    ----------
    network : Module
        With its initial weights.
    shape : tuple of int
        Shape of one input.
    mask : mapping of str to Tensor, optional
        What is pruned already.

    Returns
    -------
    dict of str to Tensor
        Name of weight → gradient by its magnitude, float64, at least 0. On a CPU its last
        bits depend on the number of threads.
    """
    # Flow grows by a factor per layer: it passes the largest float32 within deep networks.
    copied = copy.deepcopy(network).double().eval()
    weights = prunable_weights(copied)
    with torch.no_grad():
        for tensor in copied.state_dict().values():
            tensor.abs_()
        for name, kept in (mask or {}).items():
            weights[name].mul_(kept)
    for module in copied.modules():
        if isinstance(module, nn.ReLU6):
            module.max_val = math.inf  # the flow is far above 6, where nothing has a gradient
    device = next(copied.parameters()).device
    flow = copied(torch.ones(1, *shape, dtype=torch.float64, device=device)).sum()
    return _gradients(flow, copied)


def synflow_mask(
    network: nn.Module,
    threshold: float,
    pruning: Pruning,
    spared: frozenset[str],
    shape: tuple[int, ...],
    rounds: int = 100,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Prune by SynFlow, in rounds whose densities fall exponentially.

    In one round, whole layers would be lost: each layer's scores sum to the same flow, so those
    of a large layer are low. Scored again while it shrinks, its last weights carry all of it
    (Tanaka et al., NeurIPS 2020, theorem 3 and algorithm 1).

    Parameters
    ----------
    network : Module
        With its initial weights.
    threshold : float
        Share of the weights that are not spared to prune, in (0, 1).
    pruning : Pruning
        With the score ``synflow``.
    spared : frozenset of str
        Names of weights that are kept whole.
    shape : tuple of int
        Shape of one input.
    rounds : int
        Number of rounds, at least 1; 100 in the paper.

    Returns
    -------
    mask, cutoffs
        What :func:`lthdask.pruning.masks.draw_mask` returns; cutoffs are of the last round.
    """
    weights = prunable_weights(network)
    mask = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    shares = [1 - (1 - threshold) ** (n / rounds) for n in range(1, rounds)]
    for share in [*shares, threshold]:
        flow = synaptic_flow(network, shape, mask)
        living = {name: kept for name, kept in mask.items() if name not in spared}
        scores = scored("synflow", living, weights, initial=weights, gradients=flow)
        mask, cutoffs = draw_mask(weights, share, pruning, spared, before=mask, scores=scores)
    return mask, cutoffs


def _gradients(value: Tensor, network: nn.Module, again: bool = False) -> dict[str, Tensor]:
    """Return the gradient of a value by the prunable weights of the network it came from.

    Where it is to be differentiated `again`, it keeps what that takes.
    """
    parameters = dict(network.named_parameters())
    names = list(prunable_weights(network))
    wanted = [parameters[name] for name in names]
    gradients = torch.autograd.grad(value, wanted, create_graph=again)
    return dict(zip(names, gradients, strict=True))
