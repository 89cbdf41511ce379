"""MobileNetV2 for images, with convolutions that are fast on a CPU."""

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthdask.networks.images import require_images, takes_grey_images

SEVEN_STAGES = [  # expansion, channels, blocks, stride: Sandler et al. 2018, table 2
    [1, 16, 1, 1],
    [6, 24, 2, 2],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
]


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
    convolution is a single product on any device. On the device ``meta``, all of it is counted.
    """
    return not images.is_meta and images.shape[2:].numel() <= (4 if images.is_cpu else 1)


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


class NormReLU6(torch.autograd.Function):
    """Batch norm in training, and ReLU6, with one tensor kept of the two: 1.25 times as fast.

    The bits are those of both alone, where ReLU6 in place first copies what it overwrites, for a
    gradient that can be had from its result.
    """

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, norm: Any, top: float
    ) -> Tensor:
        """Return the normalised images, clamped; the running statistics of `norm` move on."""
        running = norm.running_mean, norm.running_var
        found, mean, invstd = torch.native_batch_norm(
            images, weight, bias, *running, True, norm.momentum, norm.eps
        )
        ctx.save_for_backward(images, weight, mean, invstd, found.clamp_(0, top))
        ctx.norm, ctx.top = norm, top
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients by images, weight and bias."""
        images, weight, mean, invstd, found = ctx.saved_tensors
        masked, of = torch.ops.aten.hardtanh_backward, (found, 0.0, ctx.top)
        if torch.is_grad_enabled() or gradient.stride() != found.stride():
            gradient = masked(gradient, *of)
        else:  # in place: it was made by the one convolution that reads `found`, for us alone
            masked.grad_input(gradient, *of, grad_input=gradient)
        running = ctx.norm.running_mean, ctx.norm.running_var
        return (
            *torch.ops.aten.native_batch_norm_backward(
                gradient, images, weight, *running, mean, invstd, True, ctx.norm.eps, [True] * 3
            ),
            None,
            None,
        )


class ConvNormReLU6(nn.Sequential):
    """A convolution, batch norm and ReLU6: torchvision's, with the last two as `NormReLU6`."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the features."""
        convolution, norm, relu6 = self
        found: Tensor = convolution(images)
        usual = type(norm) is nn.BatchNorm2d and norm.training and norm.momentum is not None
        if not (usual and found.is_cpu):  # also where models stand side by side
            found = relu6(norm(found))
        else:
            count: Any = norm.num_batches_tracked
            count.add_(1)
            found = NormReLU6.apply(found, norm.weight, norm.bias, norm, relu6.max_val)
        return found


def mobilenet_v2(shape: tuple[int, ...], classes: int, form: str, width: float) -> nn.Module:
    """Return torchvision's MobileNetV2 (Sandler et al. 2018), without dropout.

    Dropout would tie the network's result to how often it has been called, and a resumed run
    must equal an undisturbed one. There are 2,236,682 parameters at width 1 with 10 classes.
    """
    import torchvision.models  # here: it takes as long as torch, and the driver can do without

    require_images(shape)
    stages = [list(stage) for stage in SEVEN_STAGES]
    if form == "small":
        stages[1][3] = 1
    model: nn.Module = torchvision.models.MobileNetV2(classes, width, stages, dropout=0.0)
    if form == "small":
        stem = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
        stem.stride = (1, 1)
    for layer in model.modules():
        if type(layer) is torchvision.ops.misc.Conv2dNormActivation:
            layer.__class__ = ConvNormReLU6
        elif isinstance(layer, nn.Conv2d):
            if layer.kernel_size == (1, 1):
                layer.__class__ = Pointwise
            elif layer.groups == layer.in_channels:
                layer.__class__ = Depthwise
    return takes_grey_images(model)
