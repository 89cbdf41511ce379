"""Image files: decoded, cut, and brought to size."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from lthdask.errors import InputError, is_of_file, require_regular

if TYPE_CHECKING:
    from PIL.Image import Image

Decoding = Literal["full", "scaled"]
MIDDLE = (-1.0,) * 4
"""In place of a part of an image that was drawn."""
Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""
Pixels = NDArray[np.uint8]
"""An image, (H, W, 3)."""


@dataclass(frozen=True)
class View:
    """How images of files are shown.

    Attributes
    ----------
    size : int
        Pixels of both sides.
    decoding : {"full", "scaled"}
    shorter_side : int, optional
        Both as in `lthdask.data.readers.DataSource`.
    """

    size: int
    decoding: Decoding = "full"
    shorter_side: int | None = None

    def shown(self, path: Path, part: Sequence[float]) -> Pixels:
        """Return a part of an image, (size, size, 3): one that was drawn for `box_of`, or `MIDDLE`.

        Raises
        ------
        InputError
            As for :func:`decoded`.
        """
        if self.shorter_side:
            return self.part_of(self.whole(path), part)
        if self.decoding == "full":
            image, (width, height) = decoded(path)
            return _by_pillow(image, box_of(width, height, part), (self.size, self.size))
        image, (width, height) = decoded(path, partial(self._smallest, part))
        across, down = image.width / width, image.height / height
        left, top, right, bottom = box_of(width, height, part)
        box = (left * across, top * down, right * across, bottom * down)
        return _by_pytorch(np.array(image.crop(_cut(box, *image.size))), (self.size, self.size))

    def whole(self, path: Path) -> Pixels:
        """Return an image whose shorter side has `shorter_side` pixels, or fewer if it had.

        Raises
        ------
        InputError
            As for :func:`decoded`.
        """
        scaled = self.decoding == "scaled" and self.shorter_side
        image, size = decoded(path, self._brought_to if scaled else None)
        if (there := self._brought_to(*size)) == image.size:
            return np.asarray(image)
        if self.decoding == "full":
            return _by_pillow(image, (0, 0, *image.size), there)
        return _by_pytorch(np.array(image), there)

    def part_of(self, pixels: Pixels, part: Sequence[float]) -> Pixels:
        """Return a part of a whole image that is decoded already."""
        from PIL import Image

        box = box_of(pixels.shape[1], pixels.shape[0], part)
        if self.decoding == "full":
            return _by_pillow(Image.fromarray(pixels), box, (self.size, self.size))
        left, top, right, bottom = _cut(box, pixels.shape[1], pixels.shape[0])
        return _by_pytorch(pixels[top:bottom, left:right].copy(), (self.size, self.size))

    def _smallest(self, part: Sequence[float], width: int, height: int) -> tuple[int, int]:
        """Return at which size a part of an image still has as many pixels as it is to have."""
        left, top, right, bottom = box_of(width, height, part)
        across, down = (self.size / side for side in (right - left, bottom - top))
        return math.ceil(width * across), math.ceil(height * down)

    def _brought_to(self, width: int, height: int) -> tuple[int, int]:
        share = min(1, (self.shorter_side or width) / min(width, height))
        return round(width * share), round(height * share)


def box_of(width: int, height: int, part: Sequence[float]) -> Box:
    """Return which part of an image is shown.

    Its middle is 7/8 of the shorter side: the usual 224 pixels of 256.

    Parameters
    ----------
    width, height : int
    part : sequence of float
        Share of the area, logarithm of the ratio of the sides, and where it lies from left to right
        and from top to bottom, in 0..1; or `MIDDLE`.
    """
    area, log_ratio, x, y = part
    if area < 0:
        across = down = min(width, height) * 7 / 8
        x = y = 0.5
    else:
        across = min(width, (width * height * area * np.exp(log_ratio)) ** 0.5)
        down = min(height, (width * height * area / np.exp(log_ratio)) ** 0.5)
    left, top = x * (width - across), y * (height - down)
    return left, top, left + across, top + down


def _by_pillow(image: "Image", box: Box, size: tuple[int, int]) -> Pixels:
    """Return a part of an image brought to (width, height)."""
    from PIL import Image

    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box))


def _cut(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """Return a part of an image that begins and ends between two pixels."""
    left, top = min(round(box[0]), width - 1), min(round(box[1]), height - 1)
    return left, top, max(left + 1, round(box[2])), max(top + 1, round(box[3]))


def _by_pytorch(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Return an image brought to (width, height).

    It takes a third of Pillow's time, and gives the same bits with AVX2, AVX-512, or neither.
    """
    # In this order, or PyTorch does not see that channels come last, and takes twice the time.
    image = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    whole = F.interpolate(image, size[::-1], mode="bilinear", antialias=True)
    return whole.permute(0, 2, 3, 1)[0].numpy()


def decoded(
    path: Path, smallest: Callable[[int, int], tuple[int, int]] | None = None
) -> tuple["Image", tuple[int, int]]:
    """Return an image in RGB, and the width and height of its file.

    Parameters
    ----------
    path : Path
    smallest : callable, optional
        (width, height) → what is needed of them: a JPEG is decoded at a half, a quarter or an
        eighth of its size where that is no less.

    Raises
    ------
    InputError
        If it is missing, may not be read, or is damaged. What else the operating system says, of a
        process with too many open files for example, is no fault of the image.
    """
    from PIL import Image

    try:
        require_regular(path)
        with Image.open(path) as file:
            size = file.size
            if smallest:
                file.draft(None, smallest(*size))
            image = _in_bytes(file)
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB"), size
    except Exception as error:  # a damaged file can be wrong in any way
        if is_of_file(error):
            raise InputError(
                f"cannot read the image {path}: {os.strerror(getattr(error, 'errno', 0))}; every "
                f"image of the data folder must be there, and readable"
            ) from error
        if isinstance(error, MemoryError) or getattr(error, "errno", None):
            raise
        why = str(error).partition("\n")[0].partition(f" {str(path)!r}")[0] or type(error).__name__
        raise InputError(
            f"the image {path} cannot be decoded ({why}); replace it, or take it out of the data "
            f"folder"
        ) from error


def _in_bytes(image: "Image") -> "Image":
    """Return an image whose pixels are bytes; of 16 bits, they are scaled, which Pillow does not.

    Raises
    ------
    ValueError
        If its pixels have no range that their type tells.
    """
    from PIL import Image

    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    if sixteen:
        return Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.mode in ("I", "F"):
        kind = {"I": "of 32 bits", "F": "floats"}[image.mode]
        raise ValueError(f"its pixels are {kind}, without a range; convert it to 8 or 16 bits")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA")  # or Pillow warns that it leaves the transparency out
    return image
