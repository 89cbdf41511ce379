"""The size of a network: its parameters, and what one input takes."""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import nn

from lthdask.errors import first_sentence
from lthdask.lottery.experiment import Experiment
from lthdask.networks.build import Network, Shape, on_meta
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
        counted = _multiply_adds(deepcopy(outline).to("meta").eval(), shape, kind)
    except Exception as error:  # code of one's own may ask for values
        problem = first_sentence(error)
    return Size(shape, classes, parameters, prunable, counted, problem)


def size_in(experiment: Experiment) -> Size:
    """Return the size of an experiment's network on its data."""
    data = experiment.data
    inputs, _ = next(iter(data.evaluation(data.test, 1)))
    return size_of(experiment.network, data.shape, data.classes, inputs.dtype)


def _multiply_adds(network: nn.Module, shape: Shape, kind: torch.dtype) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), torch.device("meta"), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, *shape, dtype=kind))
    return int(counter.get_total_flops()) // 2
