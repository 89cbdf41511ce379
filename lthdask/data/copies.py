"""Prepared copies: the images of a folder as bytes, decoded once, and mapped into memory.

COPY/
    prepared.json           what it is; written last
    preparing.json          in its place, as long as it is being made
    train.npy, val.npy      a row for each image, in the order of the folder
    train-00000.pixels ...  the pixels of some images each, one behind the other, (H, W, 3)

A copy is known by the files that it was made of, as the folder is.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lthdask.data.decoding import MIDDLE, Decoding, Pixels, reduced, shown
from lthdask.errors import InputError

FORMAT = 1
MOST_FILES, FEWEST_IMAGES = 256, 1000
"""Of a split: most files of pixels, each of which is held open; fewest images in one."""

Rows = NDArray[np.void]


@dataclass(frozen=True)
class Form:
    """What a copy has of each image.

    Attributes
    ----------
    size : int
        Pixels of both sides; of whole images, of the shorter one.
    whole : bool
        Whole images, for random crops; or their middles, as they are trained on.
    decoding : {"full", "scaled"}
        How files were decoded, and how parts of whole images are brought to size.
    """

    size: int
    whole: bool
    decoding: Decoding

    def made(self, path: Path) -> Pixels:
        """Return what the copy has of an image.

        Raises
        ------
        InputError
            If it cannot be read.
        """
        if self.whole:
            return reduced(path, self.size, self.decoding)
        return shown(path, MIDDLE, self.size, self.decoding)

    def __str__(self) -> str:
        """Return what it is in a few words."""
        if self.whole:
            return f"whole images whose shorter side has {self.size} pixels"
        return f"images of {self.size} by {self.size} pixels"

    def require_for(self, image_size: int, decoding: Decoding, crops: bool, folder: Path) -> None:
        """Refuse to be shown as something that it was not prepared for.

        Raises
        ------
        InputError
            If it is so.
        """
        if crops and not self.whole:
            lacks = "data.augmentation has resized_crop, which needs whole images"
        elif self.whole and self.size < (least := whole_side(image_size)):
            lacks = f"data.image_size {image_size} needs {least} pixels"
        elif not self.whole and self.size != image_size:
            lacks = f"data.image_size is {image_size}"
        elif self.decoding != decoding:
            lacks = f"data.decoding is {decoding}"
        else:
            return
        raise InputError(
            f"the copy in {folder} has {self}, with data.decoding {self.decoding}, but {lacks}; "
            f"prepare one for this study, or give the folder of images with `data`"
        )


def whole_side(image_size: int) -> int:
    """Return how long the shorter side of a whole image must be: its middle is 7/8 of it."""
    return math.ceil(image_size * 8 / 7)


def rows_of(names: Sequence[bytes]) -> Rows:
    """Return a row for each image, of which no more than the names is known."""
    fields = [
        ("name", f"S{max(map(len, names))}"),
        *((name, "<i8") for name in ("label", "size", "modified")),
        *((name, "u1", 32) for name in ("content", "beginning", "pixels")),
        *((name, "<i4") for name in ("height", "width")),
    ]
    rows = np.zeros(len(names), fields)
    rows["name"] = names
    return rows


@dataclass(frozen=True)
class Header:
    """What a copy is.

    Attributes
    ----------
    form : Form
    classes : sequence of str
    images : mapping of str to int
        Part → how many images are in one of its files.
    rows : mapping of str to str
        Part → SHA-256 of the file of its rows.
    versions : mapping of str to str
        What decoded it.
    """

    form: Form
    classes: Sequence[str] = ()
    images: Mapping[str, int] = field(default_factory=dict)
    rows: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return it as a file has it."""
        return json.dumps({"format": FORMAT} | asdict(self), indent=2).encode()

    @classmethod
    def read(cls, path: Path) -> "Header":
        """Read it from a file.

        Raises
        ------
        InputError
            If it is none, or a newer version of lthdask wrote it.
        """
        try:
            values: dict[str, Any] = json.loads(path.read_bytes())
            if (number := values.pop("format")) != FORMAT:
                raise InputError(
                    f"{path} has format {number!r}, but this version of lthdask knows only "
                    f"{FORMAT}; update lthdask, or prepare the copy again"
                )
            return cls(Form(**values.pop("form")), **values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise damaged(path.parent, f"{path.name} cannot be read") from None


def header_of(folder: Path) -> Path:
    """Return the file that says what a complete copy is."""
    return folder / "prepared.json"


def beginning_of(folder: Path) -> Path:
    """Return the file that says what a copy is to be, as long as it is being made."""
    return folder / "preparing.json"


def is_copy(folder: Path) -> bool:
    """Return whether a folder is a prepared copy, or will be one."""
    return header_of(folder).exists() or beginning_of(folder).exists()


def pixels_of(folder: Path, part: str, number: int) -> Path:
    """Return a file of pixels."""
    return folder / f"{part}-{number:05}.pixels"


def sizes_of(rows: Rows) -> NDArray[np.int64]:
    """Return how many bytes the pixels of each image take."""
    sizes: NDArray[np.int64] = rows["height"].astype(np.int64) * rows["width"] * 3
    return sizes


def images_in_a_file(count: int) -> int:
    """Return how many images one file of pixels has, if there are so many in all."""
    return max(FEWEST_IMAGES, math.ceil(count / MOST_FILES))


def damaged(folder: Path, what: str) -> InputError:
    """Return the error that a copy is not as it was made."""
    return InputError(
        f"the copy in {folder} is damaged: {what}; remove the folder, and prepare it again"
    )
