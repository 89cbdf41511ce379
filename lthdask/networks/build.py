"""Networks by name, fitted to the shape of an input and the number of classes.

The convolutional ones take images of one or three channels; a single channel is shown to
every channel of a three-channel stem, so a network has the same weights whatever the data.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from lthdask.arguments import block
from lthdask.errors import InputError, listed, one_of
from lthdask.networks import zoo
from lthdask.networks.lenet import lenet_300_100
from lthdask.networks.mobilenet import mobilenet_v2
from lthdask.networks.resnet import resnet18, thin_resnet
from lthdask.networks.vgg import conv, vgg
from lthdask.networks.wide_resnet import wide_resnet
from lthdask.own import chosen, file_of, function, is_own, plain

Shape = tuple[int, ...]
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "lenet_300_100": lenet_300_100,
    "conv2": partial(conv, 2),
    "conv4": partial(conv, 4),
    "conv6": partial(conv, 6),
    "vgg16": partial(vgg, 16),
    "vgg19": partial(vgg, 19),
    "resnet18": resnet18,
    "resnet20": partial(thin_resnet, 20),
    "resnet32": partial(thin_resnet, 32),
    "resnet44": partial(thin_resnet, 44),
    "resnet56": partial(thin_resnet, 56),
    "resnet110": partial(thin_resnet, 110),
    "wrn_16_4": partial(wide_resnet, 16, 4),
    "wrn_16_8": partial(wide_resnet, 16, 8),
    "wrn_22_2": partial(wide_resnet, 22, 2),
    "wrn_22_8": partial(wide_resnet, 22, 8),
    "wrn_28_10": partial(wide_resnet, 28, 10),
    "wrn_40_2": partial(wide_resnet, 40, 2),
    "wrn_40_4": partial(wide_resnet, 40, 4),
    "mobilenet_v2": mobilenet_v2,
}
"""The known networks: name → function of (shape, classes), and of settings by their names."""
SETTINGS = ("form", "width", "first_projection", "initialisation")


@block
@dataclass(frozen=True)
class Network:
    """Which network a study trains.

    Parameters
    ----------
    name : str
        One of `NETWORKS`; one of torchvision's or timm's, such as ``torchvision/resnet50``; or a
        function of one's own, of (shape, classes).
    form : {"imagenet", "small"}
        Of MobileNetV2 and ResNet-18: strides for 224 pixels (32 in all, so that a 32-pixel image
        ends as one pixel), or those that leave 4×4 of it: MobileNetV2's stem and first strided
        stage at stride 1; ResNet-18 with a 3×3 stem at stride 1, and no max pool.
    width : float
        Multiplier of MobileNetV2's channels, more than 0.
    first_projection : bool
        Of ResNet-20 to -110: whether the first block, which changes no shape, has a 1×1
        convolution as its shortcut, too, as in the code of Renda et al. 2020; ResNet-20 has
        272,762 parameters then.
    initialisation : {"default", "variance_scaling"}
        The network's own; or, of ResNet-20 to -110, that of their code: convolutions normal,
        truncated at two deviations, with variance 1 / fan-in after that; the classifier normal
        with deviation 0.01, its biases 0.
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
        object.__setattr__(self, "name", _chosen(self.name))
        for key in SETTINGS:
            owners = [name for name in NETWORKS if key in _settings(name)]
            if self.name not in owners and getattr(self, key) != getattr(type(self), key):
                raise ValueError(
                    f"{key} belongs to {listed(owners)}; {plain(self.name)} does not have it"
                )
        if not 0 < self.width <= 4:
            raise ValueError(f"width must be above 0 and at most 4; got {self.width}")
        if not 0 < self.batch_norm_momentum <= 1:
            raise ValueError(
                f"batch_norm_momentum must be above 0 and at most 1; got {self.batch_norm_momentum}"
            )
        if self.batch_norm_momentum != type(self).batch_norm_momentum and not _has_batch_norm(self):
            raise ValueError(
                f"batch_norm_momentum belongs to known networks with batch norm; "
                f"{plain(self.name)} is none"
            )

    def settings(self) -> dict[str, Any]:
        """Return the settings that a known network takes; others take none."""
        return {key: getattr(self, key) for key in _settings(self.name)} if is_known(self) else {}


def _chosen(given: str) -> str:
    """Return the name of a network: a known one, a library's, or a function of one's own."""
    if isinstance(given, str) and zoo.is_of_zoo(given):
        zoo.require_listed(given)
        return given
    if isinstance(given, str) and given not in NETWORKS and not is_own(given):
        raise InputError(f"{one_of('network', given, [*NETWORKS])}; {zoo.hint(given)}")
    return chosen("network", given, NETWORKS)


def is_known(network: Network) -> bool:
    """Return whether a network is one of `NETWORKS`, of which all is known."""
    return network.name in NETWORKS


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

    Raises
    ------
    InputError
        If it takes no such inputs.
    """
    if zoo.is_of_zoo(network.name):
        return zoo.build(network.name, shape, classes)
    if not is_own(network.name):
        try:
            known = NETWORKS[network.name](shape, classes, **network.settings())
        except InputError as problem:
            raise InputError(f"{network.name} {problem}") from None
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


@functools.cache
def _settings(name: str) -> list[str]:
    """Return the settings that a known network takes."""
    return [*inspect.signature(NETWORKS[name]).parameters][2:]


def _has_batch_norm(network: Network) -> bool:
    if not is_known(network):
        return False
    usual = replace(network, batch_norm_momentum=Network.batch_norm_momentum)
    layers = on_meta(usual, (3, 32, 32), 10).modules()
    return any(isinstance(layer, nn.BatchNorm2d) for layer in layers)


@functools.cache  # torchvision takes 0.1 s to build MobileNetV2
def on_meta(network: Network, shape: Shape, classes: int) -> nn.Module:
    """Return `network` without storage: names and shapes only. It is shared; copy to change it."""
    if zoo.is_of_zoo(network.name):
        return zoo.outline(network.name, shape, classes)
    if is_own(network.name):  # whose code may ask for values
        with torch.random.fork_rng(devices=[]):
            return build(network, shape, classes)
    with torch.device("meta"):
        return build(network, shape, classes)
