"""Images of a prepared copy, mapped into memory."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lthdask.data.copies import (
    Form,
    Header,
    Rows,
    damaged,
    header_of,
    pixels_of,
    sizes_of,
)
from lthdask.data.decoding import Pixels, View
from lthdask.data.digest import (
    READ_WHOLE,
    SAMPLE,
    SplitDigest,
    of_contents,
    of_numbers,
    what_is_read,
)
from lthdask.data.streamed import Streamed, threads
from lthdask.errors import InputError, permitted


@permitted()
def read_copy(
    folder: Path, view: View, crops: bool
) -> tuple["PreparedImages", "PreparedImages", int]:
    """Return training and test images of a copy, and the number of classes.

    Raises
    ------
    InputError
        If it is not complete, damaged, may not be read, or was prepared for something else.
    """
    if not header_of(folder).exists():
        raise InputError(
            f"the copy in {folder} is not complete; run the command `lthdask prepare` that makes "
            f"it again, and it goes on"
        )
    header = Header.read(header_of(folder))
    header.form.require_for(view, crops, folder)
    train, test = (Part.opened(folder, header, part) for part in ("train", "val"))
    return (
        PreparedImages(train, np.arange(len(train.rows)), view),
        PreparedImages(test, np.arange(len(test.rows)), view),
        len(header.classes),
    )


@dataclass(frozen=True)
class Part:
    """The images of the folder ``train`` or ``val`` in a copy, mapped into memory."""

    folder: Path
    form: Form
    rows: Rows
    images: int
    shapes: NDArray[np.int32]
    starts: NDArray[np.int64]
    files: Sequence[NDArray[np.uint8]]

    @classmethod
    def opened(cls, folder: Path, header: Header, name: str) -> "Part":
        """Open a part of a copy.

        Raises
        ------
        InputError
            If one of its files is not as it was made, by its size.
        """
        path = folder / f"{name}.npy"
        try:
            images = header.images[name]
            if sha256(path.read_bytes()).hexdigest() != header.rows[name]:
                raise damaged(folder, f"{path.name} has changed")
            rows = np.load(path, mmap_mode="r")
            sizes = sizes_of(rows)
            files = []
            for number, first in enumerate(range(0, len(rows), images)):
                path, size = pixels_of(folder, name, number), sizes[first : first + images].sum()
                if path.stat().st_size != size:
                    raise damaged(folder, f"{path.name} does not have {size:,} bytes")
                files.append(np.memmap(path, np.uint8, "r"))
        except FileNotFoundError:
            raise damaged(folder, f"{path.name} is missing") from None
        except (KeyError, TypeError):
            raise damaged(folder, f"{header_of(folder).name} cannot be read") from None
        ends = sizes.cumsum()
        starts = ends - sizes
        starts -= np.repeat(starts[::images], images)[: len(rows)]
        shapes = np.stack([rows["height"], rows["width"]], 1)
        return cls(folder, header.form, rows, images, shapes, starts, files)

    def pixels(self, row: int) -> Pixels:
        """Return an image as it lies there."""
        (height, width), start = self.shapes[row].tolist(), self.starts[row]
        flat = self.files[row // self.images][start : start + height * width * 3]
        return flat.reshape(height, width, 3)

    def require_whole(self, rows: NDArray[np.int64]) -> None:
        """Refuse images that are not as they were made; of more than 1 GiB, some are looked at."""
        if sizes_of(self.rows[rows]).sum() > READ_WHOLE:
            rows = rows[:: math.ceil(len(rows) / SAMPLE)]

        def require(row: int) -> None:
            if sha256(self.pixels(row).data).digest() != self.rows["pixels"][row].tobytes():
                name = self.rows["name"][row].decode(errors="backslashreplace")
                raise damaged(self.folder, f"the pixels of {name} have changed")

        with ThreadPoolExecutor(threads()) as pool:
            list(pool.map(require, rows.tolist()))


class PreparedImages(Streamed):
    """Images of one split, in a prepared copy.

    Parameters
    ----------
    part : Part
    places : array of int64, (N,)
        Which rows of the part they are.
    view : View
    """

    def __init__(self, part: Part, places: NDArray[np.int64], view: View) -> None:
        super().__init__(torch.from_numpy(part.rows["label"][places]), view.size)
        self.part, self.places, self.view = part, places, view

    def subset(self, indices: Tensor) -> "PreparedImages":
        """Return the images at `indices`."""
        return PreparedImages(self.part, self.places[indices.numpy()], self.view)

    def shown(self, index: int, part: Sequence[float]) -> Pixels:
        """Return one image as bytes, (H, W, 3): its middle, or the `part` that was drawn."""
        pixels = self.part.pixels(int(self.places[index]))
        return self.view.part_of(pixels, part) if self.part.form.whole else pixels

    def digest(self) -> SplitDigest:
        """Return what identifies these images, which is that of their files.

        Raises
        ------
        InputError
            If the copy is damaged.
        """
        self.part.require_whole(self.places)
        rows, labels = self.part.rows, of_numbers(self.labels.numpy())
        sizes = rows["size"][self.places].tolist()
        step, most = what_is_read(sizes)
        contents = rows["content" if most < 0 else "beginning"][self.places[::step]]
        names = (name for name in rows["name"][self.places].tolist())
        inputs = of_contents(names, sizes, (content.tobytes() for content in contents))
        return SplitDigest(len(self), labels, inputs)
