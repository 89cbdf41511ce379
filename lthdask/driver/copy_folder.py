"""The folder of a prepared copy, as the driver finds it, and as it leaves it."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.filesize import decimal

from lthdask.data.copies import (
    Header,
    Rows,
    beginning_of,
    header_of,
    images_in_a_file,
    is_copy,
    pixels_of,
    sizes_of,
)
from lthdask.data.folders import PARTS
from lthdask.data.prepared import Part
from lthdask.errors import InputError, may
from lthdask.storage.driver import driver_of
from lthdask.storage.files import write_whole
from lthdask.worker.copying import Copying, Listed, index_of, listing_of, write_rows

KNOWN = ("name", "label", "size", "modified")
"""What is known of an image before it is decoded, and tells whether it has changed."""

Files = Mapping[tuple[str, int], Rows]
"""Part and number of a file of pixels → the rows of its images."""


@dataclass(frozen=True)
class Plan:
    """Which files a copy is to have.

    Attributes
    ----------
    images : mapping of str to int
        Part → how many images are in one of its files.
    files : mapping
    """

    images: Mapping[str, int]
    files: Files

    @classmethod
    def of(cls, out: Path) -> "Plan":
        """Return what the images need that a worker has listed."""
        images, files = {}, {}
        for part in PARTS:
            rows = np.load(listing_of(out, part))
            images[part] = images_in_a_file(len(rows))
            for number, first in enumerate(range(0, len(rows), images[part])):
                files[part, number] = rows[first : first + images[part]]
        return cls(images, files)

    def __len__(self) -> int:
        return sum(map(len, self.files.values()))


def require_place(work: Copying) -> None:
    """Refuse a folder that cannot be written, or has something other than this copy.

    Raises
    ------
    InputError
        If it is one.
    """
    out = work.out
    there = next(path for path in (out, *out.parents) if os.path.lexists(path))
    if not there.is_dir() or not may(there, os.W_OK | os.X_OK):
        reason = "is not writable" if there.is_dir() else "is not a folder"
        raise InputError(f"cannot write to {out}: {there} {reason}; choose another one with `out`")
    if there != out:
        return
    if is_copy(out):
        complete = header_of(out)
        before = Header.read(complete if complete.exists() else beginning_of(out)).form
        if before != work.form:
            raise InputError(
                f"the copy in {out} has {before}, not {work.form}; choose another folder with `out`"
            )
    elif holds := [path.name for path in out.iterdir() if path.name[0] != "."]:
        raise InputError(
            f"the folder {out} contains something other than a prepared copy, such as {holds[0]}; "
            f"choose another one with `out`"
        )


def require_nobody(out: Path) -> None:
    """Refuse a copy that another command makes.

    Raises
    ------
    InputError
        If it is one.
    """
    if driver := driver_of(out):
        raise InputError(
            f"the copy in {out} is being made by {driver}; wait for it, or choose another folder "
            f"with `out`"
        )


def require_room(work: Copying, needed: float) -> None:
    """Refuse a disk on which there is no room for so many bytes.

    Raises
    ------
    InputError
        If it is one.
    """
    free = shutil.disk_usage(work.out).free
    if needed > free:
        raise InputError(
            f"{work.form} take {decimal(int(needed))}, but there is room for {decimal(free)} at "
            f"{work.out}; make room, or choose another folder with `out`"
        )


def require_unchanged(work: Copying, plan: Plan) -> None:
    """Refuse a complete copy that is damaged, or of images that have changed since.

    Raises
    ------
    InputError
        If it is one.
    """
    header = Header.read(header_of(work.out))
    for part in PARTS:
        rows = Part.opened(work.out, header, part).rows
        now = np.concatenate([of for (name, _), of in plan.files.items() if name == part])
        if not _are_the_same(rows, now):
            raise InputError(
                f"{work.data / part} has changed since the copy in {work.out} was made; choose "
                f"another folder with `out`, or remove that one"
            )


def is_made(out: Path, part: str, number: int, listed: Rows) -> bool:
    """Return whether a file of pixels is whole, and of the images as they are now."""
    try:
        rows = np.load(index_of(out, part, number))
        size = pixels_of(out, part, number).stat().st_size
        return _are_the_same(rows, listed) and bool(size == sizes_of(rows).sum())
    except (FileNotFoundError, ValueError, EOFError):
        return False


def _are_the_same(rows: Rows, others: Rows) -> bool:
    return all(np.array_equal(rows[name], others[name]) for name in KNOWN)


def complete(work: Copying, listed: Listed, plan: Plan) -> None:
    """Write down what the copy is, once all of it is there, and remove files of other images."""
    wanted = {pixels_of(work.out, *file) for file in plan.files}
    for left in set(work.out.glob("*.pixels")) - wanted:
        left.unlink()
    digests = {}
    for part in PARTS:
        found = [np.load(index_of(work.out, *file)) for file in plan.files if file[0] == part]
        digests[part] = write_rows(work.out / f"{part}.npy", np.concatenate(found))
    header = Header(work.form, listed.classes, plan.images, digests, listed.versions)
    write_whole(header_of(work.out), header.to_json())


def tidy(out: Path) -> None:
    """Remove what a complete copy does not need."""
    beginning_of(out).unlink(missing_ok=True)
    for part in PARTS:
        listing_of(out, part).unlink(missing_ok=True)
        for index in out.glob(f"{part}-*.npy"):
            index.unlink()
    remove_torn(out)


def remove_torn(out: Path) -> None:
    """Remove what was being written by processes that were killed."""
    for left in out.glob(".*.*.*"):
        if not left.name.startswith(".driver"):
            left.unlink()
