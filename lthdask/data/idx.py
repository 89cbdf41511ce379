"""MNIST and the data sets in its format, read from their IDX files wherever those lie.

https://yann.lecun.com/exdb/mnist describes the format: two zeros, the type, the number of
dimensions, their sizes as big-endian numbers of 4 bytes, then the values.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lthdask.data.batches import Images
from lthdask.errors import OF_FILES, InputError, require_regular

BYTES = 8
"""The type of unsigned bytes."""
AT_ONCE = 2**20


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_idx(name: str, folder: Path) -> tuple[Images, Images]:
    """Return training and test images of a data set, from plain or compressed files.

    Parameters
    ----------
    name : str
        torchvision's, which names the folder of its files.
    folder : Path
        The data folder.

    Raises
    ------
    InputError
        If a file is missing, or is not what it should be.
    """
    parts = []
    for part in ("train", "t10k"):
        images, labels = (
            _values(_path(name, folder, file), name, folder)
            for file in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
        )
        if (images.ndim, labels.ndim) != (3, 1):
            raise InputError(
                f"no usable {name} in {folder}: {part} has images of {images.ndim - 1} dimensions "
                f"and labels of {labels.ndim - 1}, not 2 and 0"
            )
        if len(images) and not images.numel():
            raise InputError(f"no usable {name} in {folder}: {part} has images without pixels")
        parts.append(Images(images[:, None], labels.long()))
    return parts[0], parts[1]


def _places(name: str, folder: Path) -> list[Path]:
    """Return where its files may lie: as torchvision has them, flat, or as Debian has them."""
    return [folder / name / "raw", folder / name, folder / "raw", folder]


def _path(name: str, folder: Path, file: str) -> Path:
    places = _places(name, folder)
    # Those of one place: files in two of them may be of two data sets.
    place = next((place for place in places if any(place.glob("*-ubyte*"))), folder)
    for path in (place / file, place / f"{file}.gz"):
        if path.exists():
            return path
    raise InputError(
        f"no usable {name} in {folder}: there is no {file} or {file}.gz in "
        f"{', '.join(map(str, places))}; put its four files into one of them, or set `download`"
    )


def _values(path: Path, name: str, folder: Path) -> Tensor:
    try:
        require_regular(path)
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            zeros, kind, dimensions = struct.unpack(">HBB", file.read(4))
            if zeros or kind != BYTES or dimensions > 3:
                raise ValueError("it does not begin as an IDX file of bytes")
            shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
            content = _at_most(file, math.prod(shape) + 1)
        if len(content) != math.prod(shape):
            raise ValueError(f"it does not hold the {math.prod(shape):,} values that it announces")
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        if getattr(error, "errno", None) and not isinstance(error, OF_FILES):
            raise  # which is no fault of the file
        raise InputError(
            f"no usable {name} in {folder}: its file {path.relative_to(folder)} cannot be read "
            f"({getattr(error, 'strerror', None) or error}); replace it"
        ) from error
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy()).reshape(shape)


def _at_most(file: _Readable, count: int) -> bytes:
    """Return what is left of a file, up to `count` bytes; a header may announce anything."""
    parts = list[bytes]()
    while count > 0 and (part := file.read(min(count, AT_ONCE))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
