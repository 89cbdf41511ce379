"""The driver of a study: the one command that runs it now."""

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from lthdask.errors import InputError
from lthdask.storage.files import read_json, write_whole


@contextmanager
def driving(folder: Path) -> Iterator[None]:
    """Keep other drivers off the study in a folder for as long as the context is open.

    The operating system releases the lock when its holder dies. On shared file
    systems, the lock holds between machines as far as they support ``flock``.

    Raises
    ------
    InputError
        If another driver is at work.
    """
    with _lock(folder, patience=1) as acquired:
        if not acquired:
            raise _driven_by(
                folder, driver_of(folder) or "another driver, which may just have ended"
            )
        me = {
            "host": platform.node(),
            "pid": os.getpid(),
            "since": datetime.now().astimezone().isoformat(" ", "seconds"),
        }
        write_whole(_name_of(folder), json.dumps(me).encode())
        try:
            yield
        finally:
            _name_of(folder).unlink(missing_ok=True)


def driver_of(folder: Path) -> str | None:
    """Return who runs the study in a folder now, or None."""
    if not (folder / ".driver.lock").exists():
        return None
    with _lock(folder) as acquired:
        if acquired:
            return None
    found = {"pid": "?", "host": "another machine", "since": "?"} | read_json(_name_of(folder))
    return "process {pid} on {host}, since {since}".format_map(found)


def no_study(folder: Path) -> InputError:
    """Return the error that there is no study in a folder, or that it has only just been begun."""
    if driver := driver_of(folder):
        return InputError(
            f"nothing is known yet of the study in {folder}: it is being prepared by {driver}; "
            f"look again once its first worker has started"
        )
    return InputError(f"there is no study in {folder}; give the folder of one")


def _driven_by(folder: Path, driver: str) -> InputError:
    return InputError(
        f"the study in {folder} is being run by {driver}; wait for it, stop it, or choose "
        f"another folder with `out`"
    )


def _name_of(folder: Path) -> Path:
    return folder / ".driver.json"


@contextmanager
def _lock(folder: Path, patience: float = 0) -> Iterator[bool]:
    lock = FileLock(folder / ".driver.lock", timeout=patience)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
