"""Making a prepared copy of a folder of images, by the workers of a queue."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lthdask.cluster.deaths import allowing
from lthdask.cluster.queue import Queue, Task
from lthdask.data.copies import Form, Header, beginning_of, header_of, is_copy
from lthdask.data.readers import DataSource, require_folder
from lthdask.driver.copy_folder import (
    Plan,
    complete,
    is_made,
    remove_torn,
    require_nobody,
    require_place,
    require_room,
    require_unchanged,
    tidy,
)
from lthdask.driver.full_disk import is_unusable, said_when_full
from lthdask.errors import ExhaustedError, InputError, as_path
from lthdask.own import plain
from lthdask.storage.driver import driving
from lthdask.storage.files import write_whole
from lthdask.worker.copying import Copying, Listed, list_images, make_file

ATTEMPTS = 3

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
    require_place(work)
    require_nobody(work.out)
    return work


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
    with said_when_full(work.out):
        work.out.mkdir(parents=True, exist_ok=True)
        require_nobody(work.out)
        with driving(work.out):
            require_place(work)
            remove_torn(work.out)
            if not header_of(work.out).exists():
                write_whole(beginning_of(work.out), Header(work.form).to_json())
            listed = _listed(work, queue)
            plan = Plan.of(work.out)
            if header_of(work.out).exists():
                tidy(work.out)
                require_unchanged(work, plan)
                kept = len(plan)
            else:
                kept = _make_missing(work, queue, listed, plan, tell)
                complete(work, listed, plan)
                tidy(work.out)
    size = sum(path.stat().st_size for path in work.out.glob("*.pixels"))
    return Copied(len(plan), size, kept)


def _listed(work: Copying, queue: Queue) -> Listed:
    """Have a worker list the images."""
    found: list[Any] = []
    _run(work, queue, [Task("list", list_images, (work,), then=found.append)])
    listed: Listed = found[0]
    return listed


def _make_missing(
    work: Copying, queue: Queue, listed: Listed, plan: Plan, tell: Callable[[int, int], None]
) -> int:
    """Make the files that are not there; return how many images were there before."""
    missing = {file: of for file, of in plan.files.items() if not is_made(work.out, *file, of)}
    done = kept = len(plan) - sum(map(len, missing.values()))
    require_room(work, sum(listed.size[part] * len(of) for (part, _), of in missing.items()))
    tell(done, len(plan))

    def note(some: int, outcome: Any) -> None:
        nonlocal done
        done += some
        tell(done, len(plan))

    _run(
        work,
        queue,
        [
            Task(
                f"prepare-{part}-{number}",
                make_file,
                (work, part, number, plan.images[part]),
                length=len(of),
                then=partial(note, len(of)),
            )
            for (part, number), of in missing.items()
        ],
    )
    return kept


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
