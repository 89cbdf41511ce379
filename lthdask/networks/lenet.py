"""LeNet-300-100."""

import math
from itertools import pairwise

from torch import nn


def lenet_300_100(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return LeNet-300-100, Glorot-normal as in Frankle & Carbin 2019, figure 2.

    It takes inputs of any shape, and has 266,610 parameters on MNIST.
    """
    widths = (math.prod(shape), 300, 100, classes)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layer = nn.Linear(before, after)
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
