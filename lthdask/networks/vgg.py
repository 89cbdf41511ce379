"""VGGs for small images, and the small ones of the first paper: Conv-2, -4 and -6."""

import math
from collections import OrderedDict

from torch import nn

from lthdask.networks.images import glorot_normal_, require_images, takes_grey_images

STAGES = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Depth → convolutions of each stage."""
WIDTHS = (64, 128, 256, 512, 512)


def conv(depth: int, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return Conv-2, Conv-4 or Conv-6 (Frankle & Carbin 2019, figure 2).

    Two 3×3 convolutions and a max pool for each width, then three linear layers; no batch norm. On
    CIFAR-10 they have 4,301,642, 2,425,930 and 2,262,602 parameters. The paper says 4.3, 2.4 and
    1.7 million; the last is not what its layers have, whose 1.1 million in convolutions agree.
    """
    features: list[nn.Module] = []
    before, widths = 3, WIDTHS[: depth // 2]
    require_images(shape, least=2 ** len(widths))
    for width in widths:
        for inputs in (before, width):
            features += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
        features.append(nn.MaxPool2d(2))
        before = width
    pixels = math.prod(size // 2 ** len(widths) for size in shape[1:])
    classifier = (nn.Linear(before * pixels, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
    return _network(features, nn.Flatten(), nn.Sequential(*classifier, nn.Linear(256, classes)))


def vgg(depth: int, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return VGG-16 or VGG-19 (Simonyan & Zisserman 2015) for small images, as Liu et al. 2019 do.

    With batch norm, four max pools, a mean over what is left of the image, and one linear layer:
    14,724,042 or 20,035,018 parameters with 10 classes.
    """
    require_images(shape, least=16)
    features: list[nn.Module] = []
    before = 3
    for width, convolutions in zip(WIDTHS, STAGES[depth], strict=True):
        for _ in range(convolutions):
            convolution = nn.Conv2d(before, width, 3, padding=1, bias=False)
            features += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        features.append(nn.MaxPool2d(2))
    mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return _network(features[:-1], mean, nn.Linear(before, classes))


def _network(features: list[nn.Module], between: nn.Module, classifier: nn.Module) -> nn.Module:
    parts = {"features": nn.Sequential(*features), "between": between, "classifier": classifier}
    return glorot_normal_(takes_grey_images(nn.Sequential(OrderedDict(parts))))
