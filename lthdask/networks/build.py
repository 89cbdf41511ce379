"""Networks by name, fitted to the shape of an input and the number of classes.

The convolutional ones take images of one or three channels; a single channel is shown to
every channel of a three-channel stem, so a network has the same weights whatever the data.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthdask.arguments import block
from lthdask.errors import InputError
from lthdask.own import chosen, file_of, function, is_own, plain

Shape = tuple[int, ...]
SEVEN_STAGES = [  # expansion, channels, blocks, stride: Sandler et al. 2018, table 2
    [1, 16, 1, 1],
    [6, 24, 2, 2],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
]
OWNERS = {
    "form": ("mobilenet_v2",),
    "width": ("mobilenet_v2",),
    "first_projection": ("resnet20",),
    "initialisation": ("resnet20",),
    "batch_norm_momentum": ("mobilenet_v2", "resnet20"),
}
"""Setting → the networks that have it."""
TRUNCATED = 0.87962566103423978
"""Standard deviation of a standard normal that is truncated at two deviations."""


@block
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
        known = NETWORKS[network.name](network, shape, classes)
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


class Pointwise(nn.Conv2d):
    """A 1×1 convolution as the matrix product that it is: 1.15 times as fast a step on a CPU."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the convolved images, in channels_last."""
        pixels = F.linear(images.permute(0, 2, 3, 1), self.weight.flatten(1))
        return pixels.permute(0, 3, 1, 2)


class Depthwise(nn.Conv2d):
    """A depthwise 3×3 convolution with a border of one zero."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the convolved images."""
        if has_few_pixels(images):
            return written_out(images, self.weight[:, 0], self.stride[0])
        return super().forward(images)


def has_few_pixels(images: Tensor) -> bool:
    """Return whether a depthwise convolution of these images is better written out.

    On a CPU, its gradient over 2×2 pixels otherwise takes ten times as long (oneDNN in PyTorch
    2.15), and over one pixel it reads uninitialised memory in bfloat16. Over one pixel, the
    convolution is a single product on any device.
    """
    return images.shape[2:].numel() <= (4 if images.is_cpu else 1)


def written_out(images: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return images (N, C, H, W) under 3×3 weights (C, 3, 3), as a sum of products.

    There is one term for each output pixel and each input pixel next to it.
    """
    if images.shape[2:] == (1, 1):
        return (images * weight[:, 1, 1, None, None]).to(images.dtype)
    taps, (height, width) = weight.permute(1, 2, 0).contiguous(), images.shape[2:]
    places = list(product(range(height), range(width)))
    pixels = dict(zip(places, images.permute(0, 2, 3, 1).flatten(1, 2).unbind(1), strict=True))
    sums = []
    for row, column in product(range(0, height, stride), range(0, width, stride)):
        total = pixels[row, column] * taps[1, 1]
        for (i, j), pixel in pixels.items():
            down, across = i - row, j - column
            if max(abs(down), abs(across)) == 1:
                total = torch.addcmul(total, pixel, taps[1 + down, 1 + across])
        sums.append(total)
    rows, columns = -(-height // stride), -(-width // stride)
    channels_last = torch.stack(sums, 1).view(len(images), rows, columns, len(weight))
    return channels_last.permute(0, 3, 1, 2).to(images.dtype)


def mobilenet_v2(network: Network, shape: Shape, classes: int) -> nn.Module:
    """Return torchvision's MobileNetV2 (Sandler et al. 2018), without dropout.

    Dropout would tie the network's result to how often it has been called, and a resumed run
    must equal an undisturbed one. There are 2,236,682 parameters at width 1 with 10 classes.
    """
    import torchvision.models  # here: it takes as long as torch, and the driver can do without

    stages = [list(stage) for stage in SEVEN_STAGES]
    if network.form == "small":
        stages[1][3] = 1
    model: nn.Module = torchvision.models.MobileNetV2(classes, network.width, stages, dropout=0.0)
    model.register_forward_pre_hook(_as_three_channels)
    if network.form == "small":
        stem = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
        stem.stride = (1, 1)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            if layer.kernel_size == (1, 1):
                layer.__class__ = Pointwise
            elif layer.groups == layer.in_channels:
                layer.__class__ = Depthwise
    return model


def _as_three_channels(network: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].expand(-1, 3, -1, -1),)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al. 2016, section 3.3)."""

    def __init__(self, before: int, after: int, stride: int, projection: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Sequential()
        if projection:
            convolution = nn.Conv2d(before, after, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(after))

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's features."""
        features = F.relu(self.bn1(self.conv1(images)))
        return F.relu(self.bn2(self.conv2(features)) + self.shortcut(images))


class ResNet20(nn.Module):
    """ResNet-20 for small images (He et al. 2016, section 4.2).

    The two shortcuts that change shape are 1×1 convolutions, as in the lottery ticket
    literature's code, which makes 272,474 parameters with 10 classes. Weights are initialised
    as in He et al. 2015. `Network` says what can be otherwise.
    """

    def __init__(self, network: Network, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        shapes = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2
        shapes += [(32, 64, 2)] + [(64, 64, 1)] * 2
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(*shape, shape[2] > 1 or (not place and network.first_projection))
                for place, shape in enumerate(shapes)
            )
        )
        self.classifier = nn.Linear(64, classes)
        scaled = network.initialisation == "variance_scaling"
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                if scaled:
                    drawn = module.weight[0].numel() ** -0.5 / TRUNCATED
                    nn.init.trunc_normal_(module.weight, 0.0, drawn, -2 * drawn, 2 * drawn)
                else:
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if scaled:
            nn.init.normal_(self.classifier.weight, std=0.01)
            nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of a batch."""
        features = self.blocks(F.relu(self.stem(images.expand(-1, 3, -1, -1))))
        logits: Tensor = self.classifier(features.mean((2, 3)))
        return logits


def resnet20(network: Network, shape: Shape, classes: int) -> nn.Module:
    """Return ResNet-20."""
    return ResNet20(network, classes)


def lenet_300_100(network: Network, shape: Shape, classes: int) -> nn.Module:
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


NETWORKS: dict[str, Callable[[Network, Shape, int], nn.Module]] = {
    "mobilenet_v2": mobilenet_v2,
    "resnet20": resnet20,
    "lenet_300_100": lenet_300_100,
}
"""The known networks: name → function of (network, shape of an input, classes)."""


@functools.cache  # torchvision takes 0.1 s to build MobileNetV2
def on_meta(network: Network, shape: Shape, classes: int) -> nn.Module:
    """Return `network` without storage: names and shapes only. It is shared; copy to change it."""
    if is_own(network.name):  # whose code may ask for values
        with torch.random.fork_rng(devices=[]):
            return build(network, shape, classes)
    with torch.device("meta"):
        return build(network, shape, classes)
