"""What a worker does for a prepared copy: list the images of a folder, make a file of pixels."""

import io
import os
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lthdask.data.copies import Form, Rows, pixels_of, rows_of
from lthdask.data.decoding import Pixels
from lthdask.data.digest import BEGINNING, THREADS, names_of, of_each
from lthdask.data.folders import PARTS, read_files
from lthdask.data.image_files import ImageFiles
from lthdask.data.streamed import threads
from lthdask.errors import InputError
from lthdask.events import Stopped, TaskContext
from lthdask.storage.files import write_whole, written_whole

AT_ONCE = 64
"""Images between two looks at whether the worker has to go."""
SAMPLE = 64
"""Images of a part that tell how large the whole ones are."""


@dataclass(frozen=True)
class Copying:
    """What every task that makes a copy needs to know.

    Attributes
    ----------
    data, out : Path
        The folder of images, and that of the copy; absolute.
    form : Form
    """

    data: Path
    out: Path
    form: Form


@dataclass(frozen=True)
class Listed:
    """What a worker has found in a folder of images; the rows of a part lie in a file.

    Attributes
    ----------
    classes : sequence of str
    size : mapping of str to float
        Part → how many bytes an image takes in the copy, on average.
    versions : mapping of str to str
        Of the packages that decode.
    """

    classes: Sequence[str]
    size: Mapping[str, float]
    versions: Mapping[str, str]


def listing_of(out: Path, part: str) -> Path:
    """Return the file that lists the images of a part, until the copy is complete."""
    return out / f"{part}.listed.npy"


def index_of(out: Path, part: str, number: int) -> Path:
    """Return the file of the rows of a file of pixels; it is written after that one."""
    return pixels_of(out, part, number).with_suffix(".npy")


def write_rows(path: Path, rows: Rows) -> str:
    """Write rows, and return the digest of the file."""
    file = io.BytesIO()
    np.save(file, rows)
    write_whole(path, file.getvalue())
    return sha256(file.getvalue()).hexdigest()


def list_images(work: Copying, here: TaskContext) -> Listed:
    """List the images of a folder, and write their rows as far as they are known.

    Raises
    ------
    InputError
        If this worker does not see both folders, the data are laid out otherwise, or one of some
        images cannot be read.
    """
    for folder in (work.out, work.data):
        if not folder.is_dir():
            raise InputError(f"the worker on {platform.node()} does not see the folder {folder}")
    *parts, classes = read_files(work.data, work.form.view)
    size = {}
    for part, files in zip(PARTS, parts, strict=True):
        rows = rows_of([*names_of(files.paths, files.root)])
        with ThreadPoolExecutor(THREADS) as pool:
            found = of_each(pool, os.stat, files.paths)
        rows["label"] = files.labels
        rows["size"] = [of.st_size for of in found]
        rows["modified"] = [of.st_mtime_ns for of in found]
        write_rows(listing_of(work.out, part), rows)
        size[part] = _size(work.form, files)
    return Listed(classes, size, {name: version(name) for name in ("pillow", "torch")})


def _size(form: Form, files: ImageFiles) -> float:
    """Return how many bytes an image takes, on average, by some of them."""
    if not form.whole:
        return 3.0 * form.view.size**2
    some = files.paths[:: max(1, len(files) // SAMPLE)]
    with ThreadPoolExecutor(threads()) as pool:
        return float(np.mean([pixels.nbytes for pixels in pool.map(form.made, some)]))


def make_file(work: Copying, part: str, number: int, images: int, here: TaskContext) -> None:
    """Make a file of pixels, of at most so many images, and then write their rows.

    Raises
    ------
    InputError
        If an image cannot be read, or has changed since it was listed.
    """
    first = number * images
    rows = np.load(listing_of(work.out, part), mmap_mode="r")[first : first + images].copy()
    make = partial(_made, work.form, work.data / part)
    with (
        ThreadPoolExecutor(threads()) as pool,
        written_whole(pixels_of(work.out, part, number)) as file,
    ):
        for begin in range(0, len(rows), AT_ONCE):
            if here.should_stop():
                raise Stopped
            for pixels in pool.map(make, rows[begin : begin + AT_ONCE]):
                file.write(pixels.data)
    write_rows(index_of(work.out, part, number), rows)


def _made(form: Form, root: Path, row: np.void) -> Pixels:
    """Return the pixels of an image, and complete its row."""
    path = root / os.fsdecode(row["name"])
    pixels = np.ascontiguousarray(form.made(path))
    content, found = path.read_bytes(), path.stat()
    now = len(content), found.st_size, found.st_mtime_ns
    if now != (row["size"], row["size"], row["modified"]):
        raise InputError(
            f"the image {path} has changed while the copy was made; run the same command again"
        )
    row["height"], row["width"] = pixels.shape[:2]
    known: dict[str, Any] = {"content": content, "beginning": content[:BEGINNING], "pixels": pixels}
    for name, of in known.items():
        row[name] = np.frombuffer(sha256(of).digest(), np.uint8)
    return pixels
