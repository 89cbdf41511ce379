"""Prepared copies: the images of a folder as bytes, decoded once, and mapped into memory.

COPY/
    prepared.json           what it is; written last
    preparing.json          in its place, as long as it is being made
    train.npy, val.npy      a row for each image, in the order of the folder
    train-00000.pixels ...  the pixels of some images each, one behind the other, (H, W, 3)

It shows what the folder shows, bit for bit, and is known by the files that it was made of.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lthdask.data.decoding import MIDDLE, Pixels, View
from lthdask.errors import InputError, OtherData, permitted

FORMAT = 1
MOST_FILES, FEWEST_IMAGES = 256, 1000
"""Of a split: most files of pixels, each of which is held open; fewest images in one."""

Rows = NDArray[np.void]


@dataclass(frozen=True)
class Form:
    """What a copy has of each image.

    Attributes
    ----------
    view : View
        How they are shown.
    whole : bool
        Whole images, out of which random parts are cut; or their middles, as they are shown.
    """

    view: View
    whole: bool

    def made(self, path: Path) -> Pixels:
        """Return what the copy has of an image.

        Raises
        ------
        InputError
            If it cannot be read.
        """
        return self.view.whole(path) if self.whole else self.view.shown(path, MIDDLE)

    def __str__(self) -> str:
        """Return what it is in a few words."""
        view, decoding = self.view, f"data.decoding {self.view.decoding}"
        side = f", data.shorter_side {view.shorter_side}" if view.shorter_side else ""
        if self.whole:
            return f"whole images ({decoding}{side})"
        return f"images of {view.size} by {view.size} pixels ({decoding}{side})"

    def require_for(self, view: View, crops: bool, folder: Path) -> None:
        """Refuse to be shown otherwise than the files would be.

        Raises
        ------
        InputError
            If it is so.
        """
        mine = replace(self.view, size=view.size) if self.whole else self.view
        odd = [
            f"data.{name} is {asked}"
            for name, field in (
                ("image_size", "size"),
                ("decoding", "decoding"),
                ("shorter_side", "shorter_side"),
            )
            if (asked := getattr(view, field)) != getattr(mine, field)
        ]
        if crops and not self.whole:
            odd.append("data.augmentation has resized_crop, which needs whole images")
        if odd:
            raise InputError(
                f"the copy in {folder} has {self}, but {' and '.join(odd)}; prepare another one, "
                f"or give the folder of images with `data`"
            )


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
    @permitted()
    def read(cls, path: Path) -> "Header":
        """Read it from a file.

        Raises
        ------
        InputError
            If it is none, may not be read, or a newer version of lthdask wrote it.
        """
        try:
            values: dict[str, Any] = json.loads(path.read_bytes())
            if (number := values.pop("format")) != FORMAT:
                raise InputError(
                    f"{path} has format {number!r}, but this version of lthdask knows only "
                    f"{FORMAT}; update lthdask, or prepare the copy again"
                )
            form = values.pop("form")
            return cls(Form(View(**form.pop("view")), **form), **values)
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


@permitted()
def is_copy(folder: Path) -> bool:
    """Return whether a folder is a prepared copy, or will be one.

    Raises
    ------
    ForbiddenError
        If this user may not know.
    """
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


def damaged(folder: Path, what: str) -> OtherData:
    """Return the error that a copy is not as it was made: a run stops, and no cell is to blame."""
    return OtherData(
        f"the copy in {folder} is damaged: {what}; remove the folder, and prepare it again"
    )
