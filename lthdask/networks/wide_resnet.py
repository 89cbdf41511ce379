"""Wide residual networks for small images."""

import torch.nn.functional as F
from torch import Tensor, nn

from lthdask.networks.images import require_images


class WideBlock(nn.Module):
    """Two 3×3 convolutions, each after batch norm and ReLU, and a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        projected = before != after
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if projected else None

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's features."""
        normed = F.relu(self.bn1(images))
        kept = images if self.shortcut is None else self.shortcut(normed)
        features: Tensor = self.conv2(F.relu(self.bn2(self.conv1(normed))))
        return features + kept


class WideResNet(nn.Module):
    """WRN-depth-width (Zagoruyko & Komodakis 2016), without dropout.

    Its layers and their initialisation are those of the authors' code. With 10 classes, WRN-16-8
    has 10,961,370 parameters, and WRN-28-10 36,479,194.
    """

    def __init__(self, depth: int, width: int, classes: int) -> None:
        super().__init__()
        blocks, before = [], 16
        for after, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            for place in range((depth - 4) // 6):
                blocks.append(WideBlock(before, after, 1 if place else stride))
                before = after
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(before)
        self.classifier = nn.Linear(before, classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of a batch."""
        features = self.bn(self.blocks(self.stem(images.expand(-1, 3, -1, -1))))
        logits: Tensor = self.classifier(F.relu(features).mean((2, 3)))
        return logits


def wide_resnet(depth: int, width: int, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return WRN-depth-width."""
    require_images(shape)
    return WideResNet(depth, width, classes)
