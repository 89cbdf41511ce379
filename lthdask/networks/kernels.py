"""Kernels for a GPU, in Triton: the depthwise convolution, and batch norm with its ReLU6.

They are where a cohort's step spends its bytes. cuDNN takes a hundred times as long for some
depthwise convolutions of many models, and PyTorch's batch norm and ReLU6 pass thirteen times over
what eight passes can do. :func:`require_right` compares them with PyTorch's on the device.

A tensor is seen as rows of pixels and columns of channels, those of all models side by side. A
program works on a tile of it. Sums over rows are made in parts, and in the same order each time.
"""

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = (32, 128)
"""Rows and columns that a program works on at once. This and the next two measured fastest, or
nearly so, on an H100, for four layers of MobileNetV2 at 32×32 pixels and 16 models."""
PART = (32, 64)
"""The same for a program that adds up rows."""
PROGRAMS = 1024
"""Programs that share a sum over many rows."""
FEWEST = 4
"""Tiles that each of them adds up at least, if there are that many."""
CLOSE = {torch.float32: 5e-3, torch.bfloat16: 2e-2}
"""How far a kernel may be from PyTorch's in float32: some of those multiply in TF32."""


@triton.jit
def _columns(axis: tl.constexpr, channels, C: tl.constexpr):
    channel = tl.program_id(axis) * C + tl.arange(0, C)
    return channel, channel < channels


@triton.jit
def _tile(row, rows, channel, channels):
    """Where a tile lies, and what of it is there."""
    at = row.to(tl.int64)[:, None] * channels + channel[None, :]
    return at, (row < rows)[:, None] & (channel < channels)[None, :]


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
    channel, there = _columns(1, channels, C)
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
    at, inside = _tile(row, rows, channel, channels)
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
    channel, there = _columns(2, channels, C)
    left = tl.zeros((R, C), tl.float32)
    middle = tl.zeros((R, C), tl.float32)
    right = tl.zeros((R, C), tl.float32)
    first = tl.program_id(1) * share
    for before in range(first, tl.minimum(first + share, rows), R):
        row = before + tl.arange(0, R)
        at, inside = _tile(row, rows, channel, channels)
        of = tl.load(gradient + at, inside, 0.0).to(tl.float32)
        left += of * _pixels_under_tap(x, row, rows, i, 0, channel, there, channels, H, W, STRIDE)
        middle += of * _pixels_under_tap(x, row, rows, i, 1, channel, there, channels, H, W, STRIDE)
        right += of * _pixels_under_tap(x, row, rows, i, 2, channel, there, channels, H, W, STRIDE)
    at = parts + (tl.program_id(1).to(tl.int64) * channels + channel) * 9 + 3 * i
    tl.store(at, tl.sum(left, 0), there)
    tl.store(at + 1, tl.sum(middle, 0), there)
    tl.store(at + 2, tl.sum(right, 0), there)


def _rows(images: Tensor) -> Tensor:
    """Return (N, C, H, W) as (N·H·W, C), without a copy where it is in channels_last."""
    return images.permute(0, 2, 3, 1).contiguous().flatten(0, 2)


def _images(rows: Tensor, height: int, width: int) -> Tensor:
    """Return (N·H·W, C) as (N, C, H, W)."""
    return rows.view(-1, height, width, rows.shape[1]).permute(0, 3, 1, 2)


def _tiles(rows: Tensor) -> tuple[int, int]:
    return triton.cdiv(rows.shape[0], TILE[0]), triton.cdiv(rows.shape[1], TILE[1])


def _parts(rows: Tensor) -> tuple[int, int, int]:
    """Return how many programs share the rows and the columns, and the rows of each."""
    count, columns = rows.shape[0], triton.cdiv(rows.shape[1], PART[1])
    share = triton.cdiv(count, max(1, PROGRAMS // columns))
    share = max(FEWEST, triton.cdiv(share, PART[0])) * PART[0]
    return triton.cdiv(count, share), columns, share


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: int) -> Tensor:
        (count, channels, height, width), weight = images.shape, weight.contiguous()
        down, across = (height - 1) // stride + 1, (width - 1) // stride + 1
        rows = _rows(images)
        found = rows.new_empty(count * down * across, channels)
        sizes = (len(found), channels, height, width, stride)
        _convolve[_tiles(found)](rows, weight, found, *sizes, False, *TILE)
        ctx.save_for_backward(rows, weight)
        ctx.sizes = channels, height, width, stride
        return _images(found, down, across)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (rows, weight), sizes = ctx.saved_tensors, ctx.sizes
        of, back = _rows(gradient), torch.empty_like(rows)
        _convolve[_tiles(back)](of, weight, back, len(back), *sizes, True, *TILE)
        several, columns, share = _parts(of)
        parts = torch.empty(several, *weight.shape, device=rows.device)
        _taps[3, several, columns](rows, of, parts, len(of), share, *sizes, *PART)
        return _images(back, *sizes[1:3]), parts.sum(0).to(weight.dtype), None


def depthwise(images: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return images (N, C, H, W) under 3×3 weights (C, 3, 3), with a border of one zero."""
    found: Tensor = _Depthwise.apply(images, weight, stride)
    return found


@triton.jit
def _moments(x, parts, rows, share, channels, R: tl.constexpr, C: tl.constexpr):
    """Add up a part of x and of its squares, less the first row: it is near the mean."""
    channel, there = _columns(1, channels, C)
    origin = tl.load(x + channel, there, 0.0).to(tl.float32)[None, :]
    sums = tl.zeros((R, C), tl.float32)
    squares = tl.zeros((R, C), tl.float32)
    first = tl.program_id(0) * share
    for before in range(first, tl.minimum(first + share, rows), R):
        at, inside = _tile(before + tl.arange(0, R), rows, channel, channels)
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
    channel, there = _columns(0, channels, C)
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
    channel, there = _columns(1, channels, C)
    at, inside = _tile(tl.program_id(0) * R + tl.arange(0, R), rows, channel, channels)
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
    channel, there = _columns(1, channels, C)
    middle, factor, gain, offset = _of_channels(mean, scale, weight, bias, channel, there)
    of_offset = tl.zeros((R, C), tl.float32)
    of_gain = tl.zeros((R, C), tl.float32)
    first = tl.program_id(0) * share
    for before in range(first, tl.minimum(first + share, rows), R):
        at, inside = _tile(before + tl.arange(0, R), rows, channel, channels)
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
    channel, there = _columns(1, channels, C)
    at, inside = _tile(tl.program_id(0) * R + tl.arange(0, R), rows, channel, channels)
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
        rows, channels = _rows(images), images.shape[1]
        several, columns, share = _parts(rows)
        parts = torch.empty(several, 2, channels, device=rows.device)
        mean, scale = torch.empty_like(running_mean), torch.empty_like(running_mean)
        _moments[several, columns](rows, parts, len(rows), share, channels, *PART)
        _statistics[(columns,)](
            rows, parts, mean, scale, running_mean, running_var, len(rows), several, channels,
            momentum, eps, *PART,
        )  # fmt: skip
        found, by_channel = torch.empty_like(rows), (mean, scale, weight, bias)
        _normalise[_tiles(rows)](rows, found, *by_channel, *rows.shape, relu6, *TILE)
        ctx.save_for_backward(rows, *by_channel)
        ctx.relu6 = relu6
        return _images(found, *images.shape[2:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, *by_channel = ctx.saved_tensors
        of, back = _rows(gradient), torch.empty_like(rows)
        several, columns, share = _parts(rows)
        parts = torch.empty(several, 2, rows.shape[1], device=rows.device)
        _gradient_sums[several, columns](
            rows, of, parts, *by_channel, len(rows), share, rows.shape[1], ctx.relu6, *PART
        )
        sums = parts.sum(0)
        _gradient[_tiles(rows)](rows, of, back, sums, *by_channel, *rows.shape, ctx.relu6, *TILE)
        return _images(back, *gradient.shape[2:]), sums[1], sums[0], *[None] * 5


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


def require_right(device: torch.device) -> None:
    """Run the kernels on a little data, and compare the results with PyTorch's.

    Raises
    ------
    RuntimeError
        If one of them is not right. If one cannot be built, what Triton raises.
    """
    random = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(device).requires_grad_()

    taps, gain, offset = drawn(70, 3, 3), drawn(70), drawn(70)
    for kind, size, stride, relu6 in (
        (torch.bfloat16, 4, 1, True),  # 320 rows, which several programs share
        (torch.bfloat16, 4, 2, False),
        (torch.bfloat16, 1, 1, True),
        (torch.float32, 2, 2, True),
    ):
        images = drawn(20, 70, size, size).to(kind).detach().requires_grad_()
        same = images.detach().float().requires_grad_()
        ours, theirs = (
            (torch.zeros(70, device=device), torch.ones(70, device=device)) for _ in range(2)
        )
        convolved = F.conv2d(same, taps[:, None], None, stride, 1, 1, 70)
        plain = F.batch_norm(same, *theirs, gain, offset, True)
        found = batch_norm(images, gain, offset, *ours, 0.1, 1e-5, relu6)
        _require_close(depthwise(images, taps, stride), convolved, images, same, taps)
        _require_close(found, F.relu6(plain) if relu6 else plain, images, same, gain, offset)
        for one, other in zip(ours, theirs, strict=True):
            _require_close(one, other)


def _require_close(
    ours: Tensor, theirs: Tensor, images: Tensor | None = None, *given: Tensor
) -> None:
    """Compare two results, and their gradients by `images` or what they equal, and by the rest."""
    pairs = [(ours, theirs)]
    if images is not None:
        same, *rest = given
        counts = torch.linspace(-1, 1, theirs.numel(), device=theirs.device).view_as(theirs)
        of_ours = torch.autograd.grad(ours, (images, *rest), counts.to(ours.dtype))
        of_theirs = torch.autograd.grad(theirs, (same, *rest), counts)
        pairs += zip(of_ours, of_theirs, strict=True)
    for one, other in pairs:
        off = ((one.float() - other).norm() / other.norm()).item()
        if not off < CLOSE[ours.dtype]:
            raise RuntimeError(f"a kernel is off by {off:.1%} from what PyTorch computes")
