"""A folder that cannot be used any more, such as on a full disk: one sentence, and nothing lost.

A worker may be alone in that, as one that has lost a mount. Then it is sick, and the run goes on.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lthdask.errors import InputError
from lthdask.limits import SIZE
from lthdask.storage.files import write_whole

NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
LOST = {
    *(errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.EREMOTEIO, errno.ESHUTDOWN),
    *(errno.ENOTCONN, errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
}
UNUSABLE = NO_ROOM | FORBIDDEN | LOST | {errno.EFBIG}
"""What the operating system says of a folder. A process out of files or memory is not among it."""
PROBE = bytes(2**20)


def is_unusable(folder: Path, problem: Exception) -> bool:
    """Return whether an error says that a folder cannot be used; writing names no file."""
    if not isinstance(problem, OSError) or problem.errno not in UNUSABLE:
        return False
    name = problem.filename
    return name is None or Path(os.fsdecode(name)).is_relative_to(folder)


def raise_if_full(folder: Path, outcome: Exception) -> None:
    """Raise what the operating system says of a folder that this process cannot use either.

    Where it can, only the worker has lost it, whose task ended with this outcome.
    """
    if not is_unusable(folder, outcome):
        return
    if getattr(outcome, "errno", None) == errno.EFBIG and SIZE.is_set:  # workers have inherited it
        raise outcome
    probe = folder / ".probe"
    write_whole(probe, PROBE)
    probe.unlink()


@contextmanager
def said_when_full(folder: Path) -> Iterator[None]:
    """Say in one sentence that the folder cannot be used any more."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNUSABLE:
            raise
        where, why = error.filename or folder, error.strerror
        if error.errno in NO_ROOM:
            what, then = f"cannot write to {where}: {why}", "make room, and run"
        elif error.errno == errno.EFBIG:
            what, then = f"cannot write to {where}: {SIZE}", "run"
        elif error.errno in FORBIDDEN:
            what, then = f"{where} may not be read or written: {why}", "allow it, and run"
        else:
            what, then = f"cannot use {where}: {why}", "once it can be used again, run"
        raise InputError(f"{what}; {then} the same command again; what is done is kept") from None
