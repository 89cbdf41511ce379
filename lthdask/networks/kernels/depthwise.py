"""The depthwise convolution: 3×3, over a border of one zero, forwards and backwards."""

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
def _under_tap(row, rows, i, j, H, W, STRIDE: tl.constexpr):
    """The pixel under tap (i, j) of an output pixel, and whether it is in the image."""
    height, width = (H - 1) // STRIDE + 1, (W - 1) // STRIDE + 1
    h, w = row // width % height * STRIDE + i - 1, row % width * STRIDE + j - 1
    inside = (row < rows) & (h >= 0) & (h < H) & (w >= 0) & (w < W)
    return (row // (height * width) * H + h) * W + w, inside


@triton.jit
def _over_tap(row, rows, i, j, H, W, STRIDE: tl.constexpr):
    """The output pixel whose tap (i, j) is over a pixel, and whether there is one."""
    height, width = (H - 1) // STRIDE + 1, (W - 1) // STRIDE + 1
    h, w = row // W % H + 1 - i, row % W + 1 - j
    inside = (row < rows) & (h >= 0) & (w >= 0) & (h % STRIDE == 0) & (w % STRIDE == 0)
    h, w = h // STRIDE, w // STRIDE
    inside = inside & (h < height) & (w < width)
    return (row // (H * W) * height + h) * width + w, inside


@triton.jit
def _convolve(
    x, taps, y, rows, channels, H, W, STRIDE: tl.constexpr, BACK: tl.constexpr,
    R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Write x under the taps; or, backwards, the gradient of what was under them."""
    row = tl.program_id(0) * R + tl.arange(0, R)
    channel, there = columns_at(1, channels, C)
    total = tl.zeros((R, C), tl.float32)
    for i in tl.static_range(3):
        for j in tl.static_range(3):
            if BACK:
                source, inside = _over_tap(row, rows, i, j, H, W, STRIDE)
            else:
                source, inside = _under_tap(row, rows, i, j, H, W, STRIDE)
            at = source.to(tl.int64)[:, None] * channels + channel[None, :]
            pixel = tl.load(x + at, inside[:, None] & there[None, :], 0.0).to(tl.float32)
            tap = tl.load(taps + channel * 9 + (3 * i + j), there, 0.0).to(tl.float32)
            total += pixel * tap[None, :]
    at, inside = tile_at(row, rows, channel, channels)
    tl.store(y + at, total.to(y.dtype.element_ty), inside)


@triton.jit
def _pixels_under_tap(x, row, rows, i, j, channel, there, channels, H, W, STRIDE: tl.constexpr):
    source, inside = _under_tap(row, rows, i, j, H, W, STRIDE)
    at = source.to(tl.int64)[:, None] * channels + channel[None, :]
    return tl.load(x + at, inside[:, None] & there[None, :], 0.0).to(tl.float32)


@triton.jit
def _taps(
    x, gradient, parts, rows, share, channels, H, W, STRIDE: tl.constexpr,
    R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """A part of the gradient of one row of taps."""
    i = tl.program_id(0)
    channel, there = columns_at(2, channels, C)
    left = tl.zeros((R, C), tl.float32)
    middle = tl.zeros((R, C), tl.float32)
    right = tl.zeros((R, C), tl.float32)
    first = tl.program_id(1) * share
    for before in range(first, tl.minimum(first + share, rows), R):
        row = before + tl.arange(0, R)
        at, inside = tile_at(row, rows, channel, channels)
        of = tl.load(gradient + at, inside, 0.0).to(tl.float32)
        left += of * _pixels_under_tap(x, row, rows, i, 0, channel, there, channels, H, W, STRIDE)
        middle += of * _pixels_under_tap(x, row, rows, i, 1, channel, there, channels, H, W, STRIDE)
        right += of * _pixels_under_tap(x, row, rows, i, 2, channel, there, channels, H, W, STRIDE)
    at = parts + (tl.program_id(1).to(tl.int64) * channels + channel) * 9 + 3 * i
    tl.store(at, tl.sum(left, 0), there)
    tl.store(at + 1, tl.sum(middle, 0), there)
    tl.store(at + 2, tl.sum(right, 0), there)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: int) -> Tensor:
        (count, channels, height, width), weight = images.shape, weight.contiguous()
        down, across = (height - 1) // stride + 1, (width - 1) // stride + 1
        rows = as_rows(images)
        found = rows.new_empty(count * down * across, channels)
        sizes = (len(found), channels, height, width, stride)
        _convolve[tiles(found)](rows, weight, found, *sizes, False, *TILE)
        ctx.save_for_backward(rows, weight)
        ctx.sizes = channels, height, width, stride
        return as_images(found, down, across)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (rows, weight), sizes = ctx.saved_tensors, ctx.sizes
        of, back = as_rows(gradient), torch.empty_like(rows)
        _convolve[tiles(back)](of, weight, back, len(back), *sizes, True, *TILE)
        several, columns, share = parts_of(of)
        parts = torch.empty(several, *weight.shape, device=rows.device)
        _taps[3, several, columns](rows, of, parts, len(of), share, *sizes, *PART)
        return as_images(back, *sizes[1:3]), parts.sum(0).to(weight.dtype), None


def depthwise(images: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return images (N, C, H, W) under 3×3 weights (C, 3, 3), with a border of one zero."""
    found: Tensor = _Depthwise.apply(images, weight, stride)
    return found
