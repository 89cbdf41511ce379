"""A network as B models side by side, for a GPU that one small model leaves idle.

The models share every kernel. Their activations are one tensor, (N, B·C, H, W), on which the
network's own forward runs with its layers exchanged: a 1×1 convolution becomes a batched
matrix product, a depthwise one stays depthwise over B·C channels, batch norm is one over
B·C; what works on each channel alone needs no change. On a CPU, which one model keeps busy, it
does not pay.
"""

import functools
import warnings
from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call, vmap

from lthdask.networks.mobilenet import (
    ConvNormReLU6,
    Depthwise,
    Pointwise,
    has_few_pixels,
    written_out,
)
from lthdask.networks.resnet import ResidualBlock, ThinResNet
from lthdask.networks.wide_resnet import WideBlock, WideResNet


class Stack:
    """B models of one network.

    Attributes
    ----------
    network : Module
        Holds the parameters and buffers of all models, (B, ...), by the network's own names.
    models : int
        B, at least 1.
    layered : bool
        Whether the layers were exchanged; else the network is mapped over the models
        (`torch.func.vmap`), which is right for every network and slow for convolutions.
    fused : bool
        Whether some of them run in `lthdask.networks.kernels`.
    """

    def __init__(self, network: nn.Module, models: int, layered: bool, fused: bool = False) -> None:
        self.network, self.models = deepcopy(network), models
        self.layered, self.fused = layered, fused
        for layer in self.network.modules():
            if layered and type(layer) in LAYERS:
                layer.__class__ = LAYERS[type(layer)]
            if fused:
                _fuse(layer)
            for name, parameter in layer.named_parameters(recurse=False):
                copies = stacked([parameter.detach()] * models)
                setattr(layer, name, nn.Parameter(copies, parameter.requires_grad))
            for name, buffer in layer.named_buffers(recurse=False):
                setattr(layer, name, stacked([buffer] * models))

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits of all models, (B, N, classes), for images (N, C, H, W)."""
        if self.layered:
            return _apart(self.network(images), self.models)

        def logits(weights: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
            found: Tensor = functional_call(self.network, (weights, buffers), (images,))
            return found

        network = self.network
        return vmap(logits)(dict(network.named_parameters()), dict(network.named_buffers()))


def layers_are_known(network: nn.Module) -> bool:
    """Return whether every layer keeps models apart, and draws no random numbers."""
    return all(map(_is_known, network.modules()))


def stack(network: nn.Module, models: int, kernels: bool = True) -> Stack:
    """Return `models` copies of a network side by side, on its device.

    Its layers are exchanged where every part of it is known to keep the models apart. On a
    GPU, `kernels` exchanges some for our own kernels, where those do what PyTorch's do.
    """
    layered = layers_are_known(network)
    like = next(network.parameters())
    fused = kernels and layered and like.is_cuda and like.dtype == torch.float32
    return Stack(network, models, layered, fused and _kernels_are_right(like.device))


@functools.cache
def _kernels_are_right(device: torch.device) -> bool:
    """Return whether `lthdask.networks.kernels` does there what PyTorch does; warn if not."""
    try:
        from lthdask.networks.kernels import require_right

        require_right(device)
    except Exception as problem:  # no Triton, no compiler for it, or an unknown GPU
        warnings.warn(f"cohorts are trained without our own kernels: {problem}", stacklevel=2)
        return False
    return True


def stacked(tensors: list[Tensor]) -> Tensor:
    """Return equal shapes as one tensor, (B, ...), each slice in the layout of channels_last."""
    if tensors[0].dim() == 4:
        return torch.stack([t.permute(0, 2, 3, 1) for t in tensors]).permute(0, 1, 4, 2, 3)
    return torch.stack(tensors)


class _Product(torch.autograd.Function):
    """(R, B·I) through the weights (B, O, I): the product of each model, (R, B·O).

    `torch.bmm` alone would return (B, R, O), to be copied into this order, and the gradient
    back again: two more passes over the activations, on which memory bandwidth is spent.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _product(rows, weight.mT)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        rows, weight = ctx.saved_tensors
        models = len(weight)
        for_weight = torch.bmm(_apart(gradient, models).mT, _apart(rows, models))
        return _product(gradient, weight), for_weight


def _product(rows: Tensor, matrices: Tensor) -> Tensor:
    models, _, outputs = matrices.shape
    products = rows.new_empty(len(rows), models * outputs)
    torch.bmm(_apart(rows, models), matrices, out=_apart(products, models))
    return products


def _apart(rows: Tensor, models: int) -> Tensor:
    """Return (R, B·I) as (B, R, I), without a copy."""
    apart: Tensor = rows.unflatten(1, (models, -1))
    return apart.transpose(0, 1)


def _products(rows: Tensor, weight: Tensor) -> Tensor:
    """Return (R, B·I) through the matrices (B, O, I), in the precision of a convolution."""
    if torch.is_autocast_enabled(rows.device.type):
        kind = torch.get_autocast_dtype(rows.device.type)
        rows, weight = rows.to(kind), weight.to(kind)
    products: Tensor = _Product.apply(rows, weight)
    return products


def _own(images: Tensor, channels: int, models: int) -> Tensor:
    """Return (N, C, ...), which all models share, as (N, B·C, ...)."""
    return images.repeat(1, models, 1, 1) if images.shape[1] == channels else images


class _Conv2d(nn.Conv2d):
    def forward(self, images: Tensor) -> Tensor:
        models, flat = len(self.weight), self.weight.flatten(0, 1)
        bias = None if self.bias is None else self.bias.flatten()
        if images.shape[1] == self.in_channels and self.groups == 1:
            # The first layer: what all models share is read once.
            return F.conv2d(images, flat, bias, self.stride, self.padding, self.dilation)
        if self.kernel_size == (1, 1) and self.padding == (0, 0) and self.groups == 1:
            down, across = self.stride
            pixels = images[:, :, ::down, ::across].permute(0, 2, 3, 1)
            products = _products(pixels.flatten(0, 2), self.weight.flatten(2))
            products = products if bias is None else products + bias.to(products.dtype)
            return products.view(*pixels.shape[:3], -1).permute(0, 3, 1, 2)
        images = _own(images, self.in_channels, models)
        groups = models * self.groups
        return F.conv2d(images, flat, bias, self.stride, self.padding, self.dilation, groups)


class _Depthwise(_Conv2d):
    def forward(self, images: Tensor) -> Tensor:
        if has_few_pixels(images):
            images = _own(images, self.in_channels, len(self.weight))
            return written_out(images, self.weight.flatten(0, 1)[:, 0], self.stride[0])
        return super().forward(images)


class _BatchNorm2d(nn.BatchNorm2d):
    def forward(self, images: Tensor) -> Tensor:
        mean, var, count = self.running_mean, self.running_var, self.num_batches_tracked
        assert mean is not None
        assert var is not None
        assert count is not None
        if self.training:
            count.add_(1)
        images = _own(images, self.num_features, len(mean))
        of_channels = (mean, var, self.weight, self.bias)
        return self._normalised(images, *(values.view(-1) for values in of_channels))

    def _normalised(
        self, images: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        momentum = self.momentum or 0.0
        return F.batch_norm(images, mean, var, weight, bias, self.training, momentum, self.eps)


class _FusedDepthwise(_Depthwise):
    def forward(self, images: Tensor) -> Tensor:
        from lthdask.networks.kernels import depthwise

        images = _own(images, self.in_channels, len(self.weight))
        return depthwise(images, self.weight.flatten(0, 2), self.stride[0])


class _FusedBatchNorm2d(_BatchNorm2d):
    relu6 = False
    """Whether a ReLU6 comes after it."""

    def _normalised(
        self, images: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        if not self.training:
            images = super()._normalised(images, mean, var, weight, bias)
            return F.relu6(images) if self.relu6 else images
        from lthdask.networks.kernels import batch_norm

        momentum = self.momentum or 0.0
        return batch_norm(images, weight, bias, mean, var, momentum, self.eps, self.relu6)


def _fuse(layer: Any) -> None:
    """Exchange a layer for one that runs in one of our own kernels."""
    if isinstance(layer, _Depthwise):
        layer.__class__ = _FusedDepthwise
    elif isinstance(layer, nn.BatchNorm2d):
        layer.__class__ = _FusedBatchNorm2d
    elif isinstance(layer, nn.Sequential):
        for place, (norm, relu6) in enumerate(pairwise(list(layer))):
            if isinstance(norm, nn.BatchNorm2d) and isinstance(relu6, nn.ReLU6):
                norm.relu6 = True  # type: ignore[assignment]
                layer[place + 1] = nn.Identity()


class _Linear(nn.Linear):
    def forward(self, rows: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.flatten()
        if rows.shape[1] == self.in_features:
            return F.linear(rows, self.weight.flatten(0, 1), bias)
        products = _products(rows, self.weight)
        return products if bias is None else products + bias.to(products.dtype)


LAYERS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: _Conv2d,
    Pointwise: _Conv2d,
    Depthwise: _Depthwise,
    nn.BatchNorm2d: _BatchNorm2d,
    nn.Linear: _Linear,
}
"""Layer → the same layer of B models."""

CHANNELWISE = (nn.ReLU, nn.ReLU6, nn.Identity, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
CONTAINERS = (nn.Sequential, ConvNormReLU6, ResidualBlock, ThinResNet, WideBlock, WideResNet)
TORCHVISION = (
    "MobileNetV2",
    "InvertedResidual",
    "Conv2dNormActivation",
    "ResNet",
    "BasicBlock",
)


def _is_known(module: nn.Module) -> bool:
    """Whether a module, run on (N, B·C, H, W), keeps the models apart."""
    match module:
        case nn.Conv2d():
            return type(module) in LAYERS and module.padding_mode == "zeros"
        case nn.BatchNorm2d():
            usual = module.affine and module.track_running_stats and module.momentum is not None
            return type(module) in LAYERS and usual
        case nn.Flatten():
            return (module.start_dim, module.end_dim) == (1, -1)
        case nn.Dropout():
            return module.p == 0
    # torchvision's are known by name: importing it takes as long as importing torch.
    kind = type(module)
    of_torchvision = kind.__module__.startswith("torchvision.") and kind.__name__ in TORCHVISION
    return of_torchvision or kind in (*LAYERS, *CHANNELWISE, *CONTAINERS)
