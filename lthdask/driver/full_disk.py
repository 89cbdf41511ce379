"""A disk that is full or not writable: the run ends with one sentence, and loses nothing."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lthdask.errors import InputError

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def raise_if_full(outcome: Exception) -> None:
    """Raise a task's error if the disk is to blame, and not the task."""
    if isinstance(outcome, OSError) and outcome.errno in NO_ROOM:
        raise outcome


@contextmanager
def said_when_full(folder: Path) -> Iterator[None]:
    """Say in one sentence that nothing more can be written."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise InputError(
            f"cannot write to {error.filename or folder}: {error.strerror}; make room, and "
            f"run the same command again; what is done is kept"
        ) from None
