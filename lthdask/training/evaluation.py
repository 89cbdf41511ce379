"""Evaluation: what a network gets right, and in which precision and layout it computes.

After each epoch there are two passes over data, and no third: the validation images, by which
tickets are chosen and verdicts are found, and the test images, for the curve that is shown.
`Recipe.measure_every` adds both inside an epoch. Batch norm's statistics are computed anew, in a
pass over the training images, only between two networks (`lthdask.lottery.stability`). What passes
over activations each has, :mod:`lthdask.networks.folding` says.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthdask.data.batches import EVALUATION_BATCH, Data, Split
from lthdask.networks.folding import folded
from lthdask.training.engine import Engine
from lthdask.training.products import products


def evaluate(network: nn.Module, data: Data, split: Split, engine: Engine) -> tuple[float, float]:
    """Return the mean loss, in nats, and the accuracy, in [0, 1], on a split."""
    network.eval()
    if engine.evaluation == "folded":
        network = folded(network)
    loss = correct = torch.zeros((), dtype=torch.float64, device=data.mean.device)
    with torch.inference_mode(), products(engine), precision(engine):
        for images, labels in data.evaluation(split, data.evaluation_batch()):
            logits = at_least_float32(network(laid_out(images)))
            loss = loss + F.cross_entropy(logits, labels, reduction="sum")
            correct = correct + (logits.argmax(1) == labels).sum()
    return float(loss) / len(split), float(correct) / len(split)


def recompute_batch_norm(network: nn.Module, data: Data, engine: Engine) -> None:
    """Replace batch-norm statistics by those of the training images under these weights.

    A network whose weights were not trained as they are now (masked, or between two others)
    would otherwise be judged with the statistics of another network.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a mean over all batches
    network.eval()  # dropout, for one, is no part of what is judged
    for norm in norms:
        norm.train()
    try:
        with torch.no_grad(), products(engine), precision(engine):
            for images, _ in data.evaluation(data.train):
                if len(images) == min(EVALUATION_BATCH, len(data.train)):
                    network(laid_out(images))
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


def at_least_float32(logits: Tensor) -> Tensor:
    """Return logits in a precision in which a loss can be computed."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def precision(engine: Engine) -> AbstractContextManager[object]:
    """Return the context that a network's forward pass runs in."""
    if engine.precision == "bfloat16":
        return torch.autocast(engine.device, torch.bfloat16)
    return nullcontext()  # an autocast that is not enabled takes LeNet up to 7 % of a step


def laid_out(images: Tensor) -> Tensor:
    """Return images in channels_last, where convolutions are fastest; other inputs as they are."""
    if images.ndim != 4:
        return images
    return images.contiguous(memory_format=torch.channels_last)
