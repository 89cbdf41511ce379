"""A prepared copy of a folder of images: what is there of it, and what is left to make."""

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lthdask.cluster.deaths import allowing
from lthdask.cluster.queue import Queue, Task
from lthdask.data.copies import (
    Form,
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
from lthdask.data.readers import DataSource, require_folder
from lthdask.driver.full_disk import is_unusable, said_when_full
from lthdask.errors import ExhaustedError, InputError, as_path, may
from lthdask.own import plain
from lthdask.storage.driver import driver_of, driving
from lthdask.storage.files import write_whole
from lthdask.worker.copying import (
    Copying,
    Listed,
    index_of,
    list_images,
    listing_of,
    make_file,
    write_rows,
)

ATTEMPTS = 3
GIB = 2**30
KNOWN = ("name", "label", "size", "modified")
"""What is known of an image before it is decoded, and tells whether it has changed."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Copied:
    """What a copy has.

    Attributes
    ----------
    images, size : int
        How many, and how many bytes their pixels take.
    kept : int
        Of the images, those that had been made before.
    """

    images: int
    size: int
    kept: int


def copying_of(source: DataSource, data: str | Path | None, out: str | Path) -> Copying:
    """Return what is to be made of which folder, and write nothing.

    Parameters
    ----------
    source : DataSource
        That of a study, which says how images are shown, and whether parts of them are.
    data, out : path
        The folder of images, and that of the copy.

    Raises
    ------
    InputError
        If there is nothing to prepare, or there can be no copy in `out`.
    """
    if source.name != "folder":
        raise InputError(
            f"{plain(source.name)} is not prepared, only a folder of images is; give a `study` "
            f"whose data.name is folder"
        )
    if source.crops and source.decoding == "scaled" and not source.shorter_side:
        raise InputError(
            "with data.decoding scaled, each random part of an image is decoded at a size of its "
            "own; set data.shorter_side, or leave out data.decoding"
        )
    require_folder(source, None if data is None else as_path(data))
    work = Copying(
        as_path(data).absolute(), as_path(out).absolute(), Form(source.view, source.crops)
    )
    if is_copy(work.data):
        raise InputError(f"{work.data} is a prepared copy itself; give the folder of images")
    if work.out.resolve().is_relative_to(work.data.resolve()):
        raise InputError(
            f"{work.out} lies in the data folder, where it would be read as data; choose another "
            f"folder with `out`"
        )
    _require_place(work)
    return work


def _require_place(work: Copying) -> None:
    """Refuse a folder that cannot be written, or has something else than this copy."""
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


def make_copy(
    work: Copying, queue: Queue, tell: Callable[[int, int], None] = lambda done, of: None
) -> Copied:
    """Make what is missing of a copy, by the workers of a queue.

    `tell` is called with the number of images that are done, and of all.

    Raises
    ------
    InputError
        If something cannot be read or written, or there is no room. What is made is kept.
    """
    if driver := driver_of(work.out):
        raise InputError(
            f"the copy in {work.out} is being made by {driver}; wait for it, or choose another "
            f"folder with `out`"
        )
    with said_when_full(work.out):
        work.out.mkdir(parents=True, exist_ok=True)
        with driving(work.out):
            _require_place(work)
            for left in work.out.glob(".*.*.*"):  # of processes that were killed
                if not left.name.startswith(".driver"):
                    left.unlink()
            if not header_of(work.out).exists():
                write_whole(beginning_of(work.out), Header(work.form).to_json())
            listed = _asked(work, queue)
            rows = {part: np.load(listing_of(work.out, part)) for part in PARTS}
            images = {part: images_in_a_file(len(of)) for part, of in rows.items()}
            if header_of(work.out).exists():
                _tidy(work.out)
                kept = _require_unchanged(work, rows)
            else:
                kept = _make_missing(work, queue, listed, rows, images, tell)
                _finish(work, listed, rows, images)
                _tidy(work.out)
    size = sum(path.stat().st_size for path in work.out.glob("*.pixels"))
    return Copied(sum(map(len, rows.values())), size, kept)


def _asked(work: Copying, queue: Queue) -> Listed:
    """Have a worker list the images."""
    found: list[Any] = []
    _run(work, queue, [Task("list", list_images, (work,), then=found.append)])
    listed: Listed = found[0]
    return listed


def _make_missing(
    work: Copying,
    queue: Queue,
    listed: Listed,
    rows: dict[str, Rows],
    images: dict[str, int],
    tell: Callable[[int, int], None],
) -> int:
    """Make the files that are not there; return how many images were there before."""
    every = {
        (part, number): of[first : first + images[part]]
        for part, of in rows.items()
        for number, first in enumerate(range(0, len(of), images[part]))
    }
    missing = {name: of for name, of in every.items() if not _is_made(work.out, *name, of)}
    count = sum(map(len, every.values()))
    done = kept = count - sum(map(len, missing.values()))
    _require_room(work, sum(listed.size[part] * len(of) for (part, _), of in missing.items()))
    tell(done, count)

    def note(some: int, outcome: Any) -> None:
        nonlocal done
        done += some
        tell(done, count)

    _run(
        work,
        queue,
        [
            Task(
                f"prepare-{part}-{number}",
                make_file,
                (work, part, number, images[part]),
                length=len(of),
                then=partial(note, len(of)),
            )
            for (part, number), of in missing.items()
        ],
    )
    return kept


def _is_made(out: Path, part: str, number: int, listed: Rows) -> bool:
    """Return whether a file of pixels is whole, and of the images as they are now."""
    try:
        rows = np.load(index_of(out, part, number))
        same = all(np.array_equal(rows[name], listed[name]) for name in KNOWN)
        return same and bool(pixels_of(out, part, number).stat().st_size == sizes_of(rows).sum())
    except (FileNotFoundError, ValueError, EOFError):
        return False


def _require_room(work: Copying, needed: float) -> None:
    """Refuse a disk on which there is no room for what is missing."""
    free = shutil.disk_usage(work.out).free
    if needed > free:
        raise InputError(
            f"{work.form} take {needed / GIB:,.1f} GiB, but there is room for {free / GIB:,.1f} at "
            f"{work.out}; make room, or choose another folder with `out`"
        )


def _run(work: Copying, queue: Queue, tasks: Iterable[Task]) -> None:
    """Run tasks; one that fails by its place is tried again."""
    failed = Counter[str]()

    def add(task: Task) -> None:
        queue.add(replace(task, then=partial(landed, task)))

    def landed(task: Task, outcome: Any) -> None:
        if not isinstance(outcome, Exception):
            task.then(outcome)
            return
        if isinstance(outcome, ExhaustedError):
            raise InputError(
                "worker after worker died as it made the copy, for example because memory is "
                "short; choose fewer `workers`, or give them more memory"
            )
        failed[task.name] += 1
        is_final = isinstance(outcome, InputError) or is_unusable(work.out, outcome)
        if is_final or failed[task.name] == ATTEMPTS:
            raise outcome
        log.warning("%s failed, and is tried again: %r", task.name, outcome)
        add(task)

    for task in tasks:
        add(task)
    with allowing(ATTEMPTS, queue.client):
        queue.run()


def _require_unchanged(work: Copying, listed: dict[str, Rows]) -> int:
    """Refuse a complete copy of images that have changed since; return how many it has."""
    for part, now in listed.items():
        rows = np.load(work.out / f"{part}.npy")
        if len(rows) == len(now):
            odd = np.zeros(len(rows), bool)
            for name in KNOWN:
                odd |= rows[name] != now[name]
            if not odd.any():
                continue
        raise InputError(
            f"{work.data / part} has changed since the copy in {work.out} was made; choose another "
            f"folder with `out`, or remove that one"
        )
    return sum(map(len, listed.values()))


def _finish(work: Copying, listed: Listed, rows: dict[str, Rows], images: dict[str, int]) -> None:
    """Write down what the copy is, once all of it is there."""
    digests = {}
    for part, of in rows.items():
        numbers = range(len(range(0, len(of), images[part])))
        found = np.concatenate([np.load(index_of(work.out, part, number)) for number in numbers])
        digests[part] = write_rows(work.out / f"{part}.npy", found)
    header = Header(work.form, listed.classes, images, digests, listed.versions)
    write_whole(header_of(work.out), header.to_json())


def _tidy(out: Path) -> None:
    """Remove what a complete copy does not need."""
    beginning_of(out).unlink(missing_ok=True)
    for part in PARTS:
        listing_of(out, part).unlink(missing_ok=True)
        for index in out.glob(f"{part}-*.npy"):
            index.unlink()
