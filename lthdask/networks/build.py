"""Networks by name, fitted to the shape of an input and the number of classes.

The convolutional ones take images of one or three channels; a single channel is shown to
every channel of a three-channel stem, so a network has the same weights whatever the data.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from lthdask.errors import InputError
from lthdask.networks.lenet import lenet_300_100
from lthdask.networks.mobilenet import mobilenet_v2
from lthdask.networks.resnet import resnet20
from lthdask.own import chosen, file_of, function, is_own, plain

Shape = tuple[int, ...]
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v2": mobilenet_v2,
    "resnet20": resnet20,
    "lenet_300_100": lenet_300_100,
}
"""The known networks: name → function of (shape, classes), and of settings by their names."""
OWNERS = {
    "form": ("mobilenet_v2",),
    "width": ("mobilenet_v2",),
    "first_projection": ("resnet20",),
    "initialisation": ("resnet20",),
    "batch_norm_momentum": ("mobilenet_v2", "resnet20"),
}
"""Setting → the networks that have it."""


@dataclass(frozen=True)
class Network:
    """Which network a study trains.

    Parameters
    ----------
    name : str
        One of `NETWORKS`, or a function of one's own, of (shape, classes).
    form : {"imagenet", "small"}
        MobileNetV2's strides: those for 224 pixels (32 in all, so that a 32-pixel image ends
        as one pixel), or stem and first strided stage at stride 1.
    width : float
        Multiplier of MobileNetV2's channels, more than 0.
    first_projection : bool
        Whether ResNet-20's first block, which changes no shape, has a 1×1 convolution as its
        shortcut, too, as in the code of Renda et al. 2020; it has 272,762 parameters then.
    initialisation : {"default", "variance_scaling"}
        The network's own; or, of ResNet-20, that of their code: convolutions normal, truncated at
        two deviations, with variance 1 / fan-in after that; the classifier normal with deviation
        0.01, its biases 0.
    batch_norm_momentum : float
        Share of a batch in the running statistics of batch norm, in (0, 1]; TensorFlow's decay is
        1 less this.
    """

    name: str
    form: Literal["imagenet", "small"] = "imagenet"
    width: float = 1.0
    first_projection: bool = False
    initialisation: Literal["default", "variance_scaling"] = "default"
    batch_norm_momentum: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", chosen("network", self.name, NETWORKS))
        for key, owners in OWNERS.items():
            if self.name not in owners and getattr(self, key) != getattr(type(self), key):
                raise ValueError(
                    f"{key} belongs to {' and '.join(owners)}; {plain(self.name)} does not have it"
                )
        if not 0 < self.width <= 4:
            raise ValueError(f"width must be above 0 and at most 4; got {self.width}")
        if not 0 < self.batch_norm_momentum <= 1:
            raise ValueError(
                f"batch_norm_momentum must be above 0 and at most 1; got {self.batch_norm_momentum}"
            )


def build(network: Network, shape: Shape, classes: int) -> nn.Module:
    """Return `network` with freshly drawn weights, from torch's global random state.

    Parameters
    ----------
    network : Network
        Which one.
    shape : tuple of int
        Shape of one input; of an image, channels (1 or 3), height and width.
    classes : int
        Number of outputs.
    """
    if not is_own(network.name):
        make = NETWORKS[network.name]
        settings = [*inspect.signature(make).parameters][2:]
        known = make(shape, classes, **{key: getattr(network, key) for key in settings})
        for layer in known.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = network.batch_norm_momentum
        return known
    built = function(network.name)(shape, classes)
    if not isinstance(built, nn.Module):
        raise InputError(
            f"the network of {file_of(network.name)} must be a torch.nn.Module; got {type(built)}"
        )
    return built


@functools.cache  # torchvision takes 0.1 s to build MobileNetV2
def on_meta(network: Network, shape: Shape, classes: int) -> nn.Module:
    """Return `network` without storage: names and shapes only. It is shared; copy to change it."""
    if is_own(network.name):  # whose code may ask for values
        with torch.random.fork_rng(devices=[]):
            return build(network, shape, classes)
    with torch.device("meta"):
        return build(network, shape, classes)
