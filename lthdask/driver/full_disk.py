"""A disk that is full, or may not be written: the run ends in one sentence, and loses nothing."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lthdask.errors import InputError

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def raise_if_full(outcome: Exception) -> None:
    """Raise what came of a task if that is no fault of the task, but of the disk."""
    if isinstance(outcome, OSError) and outcome.errno in NO_ROOM:
        raise outcome


@contextmanager
def said_when_full(folder: Path) -> Iterator[None]:
    """Say in one sentence that nothing can be written any more."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise InputError(
            f"cannot write to {error.filename or folder}: {error.strerror}; make room, and "
            f"run the same command again; what is done is kept"
        ) from None
