"""ResNets: the thin ones for small images, and ResNet-18 in two forms."""

import torch.nn.functional as F
from torch import Tensor, nn

from lthdask.networks.images import require_images, takes_grey_images

TRUNCATED = 0.87962566103423978
"""Standard deviation of a standard normal that is truncated at two deviations."""


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


class ThinResNet(nn.Module):
    """ResNet-20, -32, -44, -56 or -110 for small images (He et al. 2016, section 4.2).

    The two shortcuts that change shape are 1×1 convolutions, as in the lottery ticket
    literature's code, which makes 272,474, 466,906, 661,338, 855,770 or 1,730,714 parameters with
    10 classes. Weights are initialised as in He et al. 2015. The settings of a study say what can
    be otherwise. (The Resnet-18 of Frankle & Carbin 2019, with 274,000 parameters, is ResNet-20.)
    """

    def __init__(
        self, depth: int, classes: int, first_projection: bool, initialisation: str
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        more = (depth - 2) // 6 - 1
        shapes = [(16, 16, 1)] * (1 + more) + [(16, 32, 2)] + [(32, 32, 1)] * more
        shapes += [(32, 64, 2)] + [(64, 64, 1)] * more
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(*shape, shape[2] > 1 or (not place and first_projection))
                for place, shape in enumerate(shapes)
            )
        )
        self.classifier = nn.Linear(64, classes)
        scaled = initialisation == "variance_scaling"
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


def thin_resnet(
    depth: int,
    shape: tuple[int, ...],
    classes: int,
    first_projection: bool,
    initialisation: str,
) -> nn.Module:
    """Return a ResNet for small images."""
    require_images(shape)
    return ThinResNet(depth, classes, first_projection, initialisation)


def resnet18(shape: tuple[int, ...], classes: int, form: str) -> nn.Module:
    """Return torchvision's ResNet-18 (He et al. 2016, table 1), as it initialises it.

    There are 11,689,512 parameters with 1000 classes. The small form has a 3×3 stem at stride 1 and
    no max pool, so that a 32-pixel image ends as 4×4, and 11,173,962 parameters with 10 classes.
    """
    import torchvision.models  # here: it takes as long as torch, and the driver can do without

    require_images(shape)
    model = torchvision.models.resnet18(num_classes=classes)
    if form == "small":
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    return takes_grey_images(model)
