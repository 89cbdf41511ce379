"""The driver of a study: the one command that runs it now.

.driver.lock    locked by the driver; who may not write the folder cannot open it
.driver.json    who the driver is; locked by it, too, so that a reader sees whether it lives

Both go with the driver. Where the file system has no locks, the second stands for one.
"""

import errno
import fcntl
import json
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from lthdask.errors import InputError, permitted
from lthdask.storage.files import read_json

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
"""What the operating system says where a file system has no locks, such as an NFS without lockd."""
HELD = {errno.EAGAIN, errno.EACCES}

log = logging.getLogger(__name__)


@contextmanager
def driving(folder: Path) -> Iterator[None]:
    """Keep other drivers off the study in a folder for as long as the context is open.

    The operating system releases the lock when its holder dies. On shared file
    systems, the lock holds between machines as far as they support ``flock``. Where there are no
    locks, a file stands for one, and a dead driver is known on its own machine alone.

    Raises
    ------
    InputError
        If another driver is at work, or the folder may not be written.
    """
    with permitted(folder):  # such as what another command left here that was killed
        lock = _locked(folder)
        try:
            name = _named(folder, lock)
        except BaseException:
            os.close(lock)
            raise
    try:
        yield
    finally:
        with suppress(OSError):  # the folder may be gone
            _name_of(folder).unlink(missing_ok=True)
            _lock_of(folder).unlink(missing_ok=True)
        os.close(name)
        os.close(lock)


def driver_of(folder: Path) -> str | None:
    """Return who runs the study in a folder now, or None; nothing is written."""
    try:
        name = os.open(_name_of(folder), os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        return "a process of another user"
    try:
        is_over = _lock(name, fcntl.LOCK_SH)
    finally:
        os.close(name)
    if is_over or (is_over is None and not _may_live(folder)):
        return None
    return _described(folder)


def no_study(folder: Path) -> InputError:
    """Return the error that there is no study in a folder, or that it has only just been begun."""
    if driver := driver_of(folder):
        return InputError(
            f"nothing is known yet of the study in {folder}: it is being prepared by {driver}; "
            f"look again once its first worker has started"
        )
    return InputError(f"there is no study in {folder}; give the folder of one")


def _driven_by(folder: Path, driver: str, more: str = "") -> InputError:
    return InputError(
        f"the study in {folder} is being run by {driver}; wait for it, stop it, or choose "
        f"another folder with `out`{more}"
    )


def _lock_of(folder: Path) -> Path:
    return folder / ".driver.lock"


def _name_of(folder: Path) -> Path:
    return folder / ".driver.json"


def _described(folder: Path) -> str:
    found = {"pid": "?", "host": "another machine", "since": "?"} | read_json(_name_of(folder))
    return "process {pid} on {host}, since {since}".format_map(found)


def _locked(folder: Path) -> int:
    """Return the lock file, open, and locked where the file system has locks."""
    path = _lock_of(folder)
    while True:
        # Made for those who may write, and readable for none: nobody else may hold its lock.
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o222)
        is_ours = _lock(file, fcntl.LOCK_EX)
        if is_ours is False:
            os.close(file)
            before = driver_of(folder) or "another driver, which may just have ended"
            raise _driven_by(folder, before)
        found = os.fstat(file)
        if is_ours is None or _is_at(path, found):
            break
        os.close(file)  # the driver before has removed it meanwhile
    writable = found.st_mode & 0o222
    if found.st_uid == os.geteuid():  # who may write may copy the folder, too
        os.fchmod(file, writable | writable << 1)
    return file


def _named(folder: Path, lock: int) -> int:
    """Write down who the driver is, and return that file, open, and locked likewise."""
    me = {
        "host": platform.node(),
        "pid": os.getpid(),
        "since": datetime.now().astimezone().isoformat(" ", "seconds"),
    }
    path, new = _name_of(folder), folder / ".driver.json.new"
    has_locks = _lock(lock, fcntl.LOCK_EX) is not None
    if has_locks:
        new.unlink(missing_ok=True)
    else:
        new = path
        _require_nobody(folder)
    try:
        file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:  # without locks, another one has begun in the same moment
        raise _driven_by(folder, _described(folder)) from None
    os.write(file, json.dumps(me).encode())
    if has_locks:
        _lock(file, fcntl.LOCK_EX)  # before anybody sees it
        os.replace(new, path)
    return file


def _require_nobody(folder: Path) -> None:
    """Refuse to run beside another driver, as far as its file tells, and say that this is all.

    Two that begin in the same moment on one machine, after a third was killed, are not noticed.
    """
    path = _name_of(folder)
    if _may_live(folder):
        more = f"; this file system has no locks: if that process was killed, remove {path}"
        raise _driven_by(folder, _described(folder), more)
    path.unlink(missing_ok=True)
    log.warning(
        "the file system of %s has no locks; %s stands for one, so that no second command runs "
        "the study: remove it where a command was killed on another machine",
        folder,
        path.name,
    )


def _may_live(folder: Path) -> bool:
    """Return whether the driver that is written down may be alive; only here can it be seen."""
    if not _name_of(folder).exists():
        return False
    found: dict[str, Any] = read_json(_name_of(folder))
    if found.get("host") != platform.node():
        return True
    try:
        os.kill(int(found["pid"]), 0)
    except (ProcessLookupError, ValueError, LookupError, TypeError):
        return False
    except PermissionError:  # of another user
        return True
    return True


def _lock(file: int, how: int) -> bool | None:
    """Lock an open file; return whether that could be, and None where there are no locks."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            return False
        if error.errno in NO_LOCKS:
            return None
        raise
    return True


def _is_at(path: Path, found: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), found)
    except FileNotFoundError:
        return False
