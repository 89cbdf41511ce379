"""How a tensor is shared among the programs of a kernel.

A tensor is seen as rows of pixels and columns of channels, those of all models side by side. A
program works on a tile of it. Sums over rows are made in parts, and in the same order each time.
"""

import triton
import triton.language as tl
from torch import Tensor

TILE = (32, 128)
"""Rows and columns that a program works on at once. This and the next two measured fastest, or
nearly so, on an H100, for four layers of MobileNetV2 at 32×32 pixels and 16 models."""
PART = (32, 64)
"""The same for a program that adds up rows."""
PROGRAMS = 1024
"""Programs that share a sum over many rows."""
FEWEST = 4
"""Tiles that each of them adds up at least, if there are that many."""


@triton.jit
def columns_at(axis: tl.constexpr, channels, C: tl.constexpr):
    """The channels of a program, and which of them there are."""
    channel = tl.program_id(axis) * C + tl.arange(0, C)
    return channel, channel < channels


@triton.jit
def tile_at(row, rows, channel, channels):
    """Where a tile lies, and what of it is there."""
    at = row.to(tl.int64)[:, None] * channels + channel[None, :]
    return at, (row < rows)[:, None] & (channel < channels)[None, :]


def as_rows(images: Tensor) -> Tensor:
    """Return (N, C, H, W) as (N·H·W, C), without a copy where it is in channels_last."""
    return images.permute(0, 2, 3, 1).contiguous().flatten(0, 2)


def as_images(rows: Tensor, height: int, width: int) -> Tensor:
    """Return (N·H·W, C) as (N, C, H, W)."""
    return rows.view(-1, height, width, rows.shape[1]).permute(0, 3, 1, 2)


def tiles(rows: Tensor) -> tuple[int, int]:
    """Return how many programs there are over the rows, and over the columns."""
    return triton.cdiv(rows.shape[0], TILE[0]), triton.cdiv(rows.shape[1], TILE[1])


def parts_of(rows: Tensor) -> tuple[int, int, int]:
    """Return how many programs share the rows and the columns, and the rows of each."""
    count, columns = rows.shape[0], triton.cdiv(rows.shape[1], PART[1])
    share = triton.cdiv(count, max(1, PROGRAMS // columns))
    share = max(FEWEST, triton.cdiv(share, PART[0])) * PART[0]
    return triton.cdiv(count, share), columns, share
