"""Batch norm in training, and the ReLU6 after it."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from lthdask.networks.kernels.tiles import (
    PART,
    TILE,
    as_images,
    as_rows,
    columns_at,
    parts_of,
    tile_at,
    tiles,
)


@triton.jit
def _moments(x, parts, rows, share, channels, R: tl.constexpr, C: tl.constexpr):
    """Add up a part of x and of its squares, less the first row: it is near the mean."""
    channel, there = columns_at(1, channels, C)
    origin = tl.load(x + channel, there, 0.0).to(tl.float32)[None, :]
    sums = tl.zeros((R, C), tl.float32)
    squares = tl.zeros((R, C), tl.float32)
    first = tl.program_id(0) * share
    for before in range(first, tl.minimum(first + share, rows), R):
        at, inside = tile_at(before + tl.arange(0, R), rows, channel, channels)
        value = tl.load(x + at, inside, 0.0).to(tl.float32)
        value = tl.where(inside, value - origin, 0.0)
        sums += value
        squares += value * value
    at = parts + tl.program_id(0) * 2 * channels + channel
    tl.store(at, tl.sum(sums, 0), there)
    tl.store(at + channels, tl.sum(squares, 0), there)


@triton.jit
def _statistics(
    x, parts, mean, scale, running_mean, running_var, rows, several, channels, momentum, eps,
    R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Mean and 1 / standard deviation of each channel, and the running ones."""
    channel, there = columns_at(0, channels, C)
    sums = tl.zeros((R, C), tl.float32)
    squares = tl.zeros((R, C), tl.float32)
    for before in range(0, several, R):
        part = before + tl.arange(0, R)
        at = parts + part[:, None] * 2 * channels + channel[None, :]
        inside = (part < several)[:, None] & there[None, :]
        sums += tl.load(at, inside, 0.0)
        squares += tl.load(at + channels, inside, 0.0)
    one = tl.sum(sums, 0) / rows
    two = tl.sum(squares, 0) / rows
    middle = tl.load(x + channel, there, 0.0).to(tl.float32) + one
    variance = tl.maximum(two - one * one, 0.0)
    variance = tl.where(two == two, variance, two)  # NaN stays NaN
    tl.store(mean + channel, middle, there)
    tl.store(scale + channel, 1.0 / tl.sqrt(variance + eps), there)
    before = tl.load(running_mean + channel, there, 0.0)
    tl.store(running_mean + channel, before + momentum * (middle - before), there)
    before, unbiased = tl.load(running_var + channel, there, 0.0), variance * rows / (rows - 1)
    tl.store(running_var + channel, before + momentum * (unbiased - before), there)


@triton.jit
def _of_channels(mean, scale, weight, bias, channel, there):
    middle, factor = tl.load(mean + channel, there, 0.0), tl.load(scale + channel, there, 0.0)
    gain, offset = tl.load(weight + channel, there, 0.0), tl.load(bias + channel, there, 0.0)
    return middle, factor, gain, offset


@triton.jit
def _normalise(
    x, y, mean, scale, weight, bias, rows, channels, RELU6: tl.constexpr,
    R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    channel, there = columns_at(1, channels, C)
    at, inside = tile_at(tl.program_id(0) * R + tl.arange(0, R), rows, channel, channels)
    middle, factor, gain, offset = _of_channels(mean, scale, weight, bias, channel, there)
    value = (tl.load(x + at, inside, 0.0).to(tl.float32) - middle[None, :]) * factor[None, :]
    value = value * gain[None, :] + offset[None, :]
    if RELU6:  # NaN stays NaN
        value = tl.where(value < 0.0, 0.0, tl.where(value > 6.0, 6.0, value))
    tl.store(y + at, value.to(y.dtype.element_ty), inside)


@triton.jit
def _value_and_gradient(
    x, gradient, at, inside, middle, factor, gain, offset, RELU6: tl.constexpr
):  # fmt: skip
    """What was normalised, and the gradient of what was made of it by gain and offset."""
    value = (tl.load(x + at, inside, 0.0).to(tl.float32) - middle[None, :]) * factor[None, :]
    of = tl.load(gradient + at, inside, 0.0).to(tl.float32)
    if RELU6:
        cut = value * gain[None, :] + offset[None, :]
        of = tl.where((cut <= 0.0) | (cut >= 6.0), 0.0, of)
    return value, of


@triton.jit
def _gradient_sums(
    x, gradient, parts, mean, scale, weight, bias, rows, share, channels, RELU6: tl.constexpr,
    R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Add up a part of the gradients of offset and gain."""
    channel, there = columns_at(1, channels, C)
    middle, factor, gain, offset = _of_channels(mean, scale, weight, bias, channel, there)
    of_offset = tl.zeros((R, C), tl.float32)
    of_gain = tl.zeros((R, C), tl.float32)
    first = tl.program_id(0) * share
    for before in range(first, tl.minimum(first + share, rows), R):
        at, inside = tile_at(before + tl.arange(0, R), rows, channel, channels)
        value, of = _value_and_gradient(
            x, gradient, at, inside, middle, factor, gain, offset, RELU6
        )
        of_offset += of
        of_gain += of * value
    at = parts + tl.program_id(0) * 2 * channels + channel
    tl.store(at, tl.sum(of_offset, 0), there)
    tl.store(at + channels, tl.sum(of_gain, 0), there)


@triton.jit
def _gradient(
    x, gradient, back, sums, mean, scale, weight, bias, rows, channels, RELU6: tl.constexpr,
    R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    channel, there = columns_at(1, channels, C)
    at, inside = tile_at(tl.program_id(0) * R + tl.arange(0, R), rows, channel, channels)
    middle, factor, gain, offset = _of_channels(mean, scale, weight, bias, channel, there)
    one = tl.load(sums + channel, there, 0.0) / rows
    two = tl.load(sums + channels + channel, there, 0.0) / rows
    value, of = _value_and_gradient(x, gradient, at, inside, middle, factor, gain, offset, RELU6)
    found = (of - one[None, :] - value * two[None, :]) * (gain * factor)[None, :]
    tl.store(back + at, found.to(back.dtype.element_ty), inside)


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
        relu6: bool,
    ) -> Tensor:
        rows, channels = as_rows(images), images.shape[1]
        several, columns, share = parts_of(rows)
        parts = torch.empty(several, 2, channels, device=rows.device)
        mean, scale = torch.empty_like(running_mean), torch.empty_like(running_mean)
        _moments[several, columns](rows, parts, len(rows), share, channels, *PART)
        _statistics[(columns,)](
            rows, parts, mean, scale, running_mean, running_var, len(rows), several, channels,
            momentum, eps, *PART,
        )  # fmt: skip
        found, by_channel = torch.empty_like(rows), (mean, scale, weight, bias)
        _normalise[tiles(rows)](rows, found, *by_channel, *rows.shape, relu6, *TILE)
        ctx.save_for_backward(rows, *by_channel)
        ctx.relu6 = relu6
        return as_images(found, *images.shape[2:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, *by_channel = ctx.saved_tensors
        of, back = as_rows(gradient), torch.empty_like(rows)
        several, columns, share = parts_of(rows)
        parts = torch.empty(several, 2, rows.shape[1], device=rows.device)
        _gradient_sums[several, columns](
            rows, of, parts, *by_channel, len(rows), share, rows.shape[1], ctx.relu6, *PART
        )
        sums = parts.sum(0)
        _gradient[tiles(rows)](rows, of, back, sums, *by_channel, *rows.shape, ctx.relu6, *TILE)
        return as_images(back, *gradient.shape[2:]), sums[1], sums[0], *[None] * 5


def batch_norm(
    images: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
    relu6: bool,
) -> Tensor:
    """Return images (N, C, H, W) as batch norm makes them in training, through ReLU6 if asked.

    `running_mean` and `running_var` go on; they, `weight` and `bias` are float32, (C,).
    """
    found: Tensor = _BatchNorm.apply(
        images, weight, bias, running_mean, running_var, momentum, eps, relu6
    )
    return found
