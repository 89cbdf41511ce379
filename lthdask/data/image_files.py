"""Images of a folder, decoded from their files as they are needed."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lthdask.data.digest import SplitDigest, of_files, of_numbers
from lthdask.errors import InputError, is_of_file, require_regular

if TYPE_CHECKING:
    from PIL.Image import Image


class ImageFiles:
    """Images of one split, decoded from their files when they are needed.

    Threads decode the next batch while the current one is trained on. They are not processes,
    because a Dask worker under its nanny cannot have children.

    Parameters
    ----------
    paths : list of Path
        Absolute, or relative as `root` is.
    labels : Tensor of int64, (N,)
    image_size : int
    root : Path
        Folder below which their names identify the files.
    """

    decoders = 8

    def __init__(self, paths: list[Path], labels: Tensor, image_size: int, root: Path) -> None:
        self.paths, self.labels, self.image_size, self.root = paths, labels, image_size, root

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width of an image as it is trained on."""
        return 3, self.image_size, self.image_size

    def to(self, device: torch.device) -> "ImageFiles":
        """Return self: files stay on disk."""
        return self

    def subset(self, indices: Tensor) -> "ImageFiles":
        """Return the images at `indices`."""
        paths = [self.paths[i] for i in indices.tolist()]
        return ImageFiles(paths, self.labels[indices], self.image_size, self.root)

    def digest(self) -> SplitDigest:
        """Return what identifies these images; see :func:`lthdask.data.digest.of_files`."""
        labels = of_numbers(self.labels.numpy())
        return SplitDigest(len(self), labels, of_files(self.paths, self.root))

    def batches(
        self, batches: list[Tensor], device: torch.device, resized_crop: list[Tensor] | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, labels) of each batch of indices, one batch read ahead."""
        places = resized_crop or [torch.full((len(b), 4), -1.0) for b in batches]
        with ThreadPoolExecutor(self.decoders) as pool:

            def start(number: int) -> Iterator[Tensor]:
                return pool.map(self._decode, batches[number].tolist(), places[number].tolist())

            ahead = start(0) if batches else iter(())
            for number, indices in enumerate(batches):
                images, ahead = ahead, start(number + 1) if number + 1 < len(batches) else iter(())
                stacked = torch.stack(list(images)).to(device, non_blocking=True)
                yield stacked, self.labels[indices].to(device)

    def require_readable(self, most: int = 64) -> None:
        """Decode some images, spread evenly.

        Raises
        ------
        InputError
            If one of them cannot be read.
        """
        with ThreadPoolExecutor(self.decoders) as pool:
            list(pool.map(_decoded, self.paths[:: max(1, len(self) // most)]))

    def _decode(self, index: int, part: list[float]) -> Tensor:
        """Return one image as bytes, (3, H, W): its middle, or the `part` that was drawn."""
        from PIL import Image

        image = _decoded(self.paths[index])
        width, height = image.size
        if part[0] < 0:
            # The middle 7/8 of the shorter side: the usual 224 pixels of 256.
            across = down = min(width, height) * 7 / 8
            left, top = (width - across) / 2, (height - down) / 2
        else:
            area, log_ratio, x, y = part
            across = min(width, (width * height * area * np.exp(log_ratio)) ** 0.5)
            down = min(height, (width * height * area / np.exp(log_ratio)) ** 0.5)
            left, top = x * (width - across), y * (height - down)
        box = (left, top, left + across, top + down)
        size = (self.image_size, self.image_size)
        resized = image.resize(size, Image.Resampling.BILINEAR, box=box)
        return torch.from_numpy(np.asarray(resized).copy()).permute(2, 0, 1)


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
    return image


def _decoded(path: Path) -> "Image":
    """Return an image in RGB.

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
            return _in_bytes(file).convert("RGB")
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
