"""The size of a network: its parameters, and what one input takes."""

from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lthdask.errors import first_sentence
from lthdask.lottery.experiment import Experiment
from lthdask.networks.build import Network, Shape, on_meta
from lthdask.networks.mobilenet import Depthwise
from lthdask.pruning.rule import prunable_weights


@dataclass(frozen=True)
class Size:
    """How large a network is.

    Attributes
    ----------
    input : tuple of int
        Shape of one input.
    classes : int
    parameters : int
    prunable : int
        Those of them that can be pruned.
    multiply_adds : int or None
        Products of two numbers, each added to a sum, that one input takes; None if they cannot
        be counted. Those of convolutions and of matrices count, attention's included; biases, batch
        norm and pooling do not.
    problem : str
        Why they cannot be counted; else empty.
    """

    input: Shape
    classes: int
    parameters: int
    prunable: int
    multiply_adds: int | None
    problem: str = ""


def size_of(
    network: Network, shape: Shape, classes: int, kind: torch.dtype = torch.float32
) -> Size:
    """Return the size of a network that takes inputs of a shape and a type. Nothing is computed."""
    outline = on_meta(network, shape, classes)
    parameters = sum(weight.numel() for weight in outline.parameters())
    prunable = sum(weight.numel() for weight in prunable_weights(outline).values())
    counted, problem = None, ""
    try:
        counted = multiply_adds(outline, shape, kind)
    except Exception as error:  # code of one's own may ask for values
        problem = first_sentence(error)
    return Size(shape, classes, parameters, prunable, counted, problem)


def size_in(experiment: Experiment) -> Size:
    """Return the size of an experiment's network on its data."""
    data = experiment.data
    inputs, _ = next(iter(data.evaluation(data.test, 1)))
    return size_of(experiment.network, data.shape, data.classes, inputs.dtype)


def sees_one_pixel(network: Network, shape: Shape, classes: int) -> bool:
    """Return whether a convolution of several taps, other than ours, reads images of one pixel.

    On a CPU, its gradient in bfloat16 reads uninitialised memory (oneDNN in PyTorch 2.15), so
    results would not be repeatable, and may be no numbers.
    """
    outline, found = deepcopy(on_meta(network, shape, classes)), list[bool]()

    def look(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        found.append(max(layer.kernel_size) > 1 and inputs[0].shape[2:].numel() == 1)

    for layer in outline.modules():
        if isinstance(layer, nn.Conv2d) and not isinstance(layer, Depthwise):
            layer.register_forward_pre_hook(look)
    with suppress(Exception):  # code of one's own may ask for values
        multiply_adds(outline, shape)
    return any(found)


def multiply_adds(network: nn.Module, shape: Shape, kind: torch.dtype = torch.float32) -> int:
    """Return how many one input takes, as :class:`Size` has them. Nothing is computed."""
    from torch.utils.flop_counter import FlopCounterMode

    network = deepcopy(network).to("meta").eval()
    with torch.no_grad(), torch.device("meta"), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, *shape, dtype=kind))
    return int(counter.get_total_flops()) // 2
