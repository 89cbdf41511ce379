"""What the machine, or a limit of its user, does not let a process have, in a sentence.

That is no fault of a study, and a traceback says less.
"""

import errno
import os
import resource
import threading
from dataclasses import dataclass

from lthdask.errors import InputError


@dataclass(frozen=True)
class _Limit:
    """A limit that ``ulimit`` sets, in so many bytes, or one by one."""

    says: str
    option: str
    number: int
    unit: int = 1

    def __str__(self) -> str:
        if not self.is_set:
            return f"{self.says}; end what else runs here"
        shown = resource.getrlimit(self.number)[0] // self.unit
        return f"{self.says}; raise the limit, which `ulimit {self.option}` shows as {shown}"

    @property
    def is_set(self) -> bool:
        """Whether there is such a limit."""
        return resource.getrlimit(self.number)[0] != resource.RLIM_INFINITY


MEMORY = _Limit("there is no more memory for a process", "-v", resource.RLIMIT_AS, 1024)
FILES = _Limit("a process may open no more files", "-n", resource.RLIMIT_NOFILE)
THREADS = _Limit("no more threads or processes may be started", "-u", resource.RLIMIT_NPROC)
SIZE = _Limit("a process may write no larger file", "-f", resource.RLIMIT_FSIZE, 1024)
MANY = 4096
"""Files that a process may open once it has found that it needs more."""
OF_ERRORS = {
    errno.ENOMEM: MEMORY,
    errno.EMFILE: FILES,
    errno.ENFILE: FILES,
    errno.EFBIG: SIZE,
}
OF_MESSAGES = {
    "failed to map segment": MEMORY,
    "annot allocate memory": MEMORY,
    "can't start new thread": THREADS,
}


def lacking(error: BaseException | None) -> str | None:
    """Return which limit an error, or one that caused it, comes from; None if it is none."""
    while error:
        if isinstance(error, MemoryError):
            return str(MEMORY)
        if isinstance(error, OSError) and error.errno in OF_ERRORS:
            return str(OF_ERRORS[error.errno])
        if isinstance(error, FileNotFoundError) and "temporary directory" in str(error.strerror):
            return f"{error.strerror}; give a folder with the environment variable TMPDIR"
        for text, limit in OF_MESSAGES.items():
            if text in str(error):
                return str(limit)
        error = error.__cause__ or error.__context__
    return None


def require_files(count: int) -> None:
    """Have this process, and those that it starts, open more files where so many are not allowed.

    Raises
    ------
    InputError
        If it may not.
    """
    now, most = resource.getrlimit(FILES.number)
    if now in range(count):  # which infinity is not, being -1
        now = MANY if most == resource.RLIM_INFINITY else min(most, MANY)
        resource.setrlimit(FILES.number, (now, most))
    if now in range(count):
        raise InputError(f"{FILES}; a run needs {count}")


def few_threads(count: int) -> str | None:
    """Return that this process cannot start so many more threads, which is found by trying."""
    over, begun = threading.Event(), list[threading.Thread]()
    try:
        for _ in range(count):
            thread = threading.Thread(target=over.wait)
            thread.start()
            begun.append(thread)
    except RuntimeError:
        return f"{THREADS}; a run needs {count}"
    finally:
        over.set()
        for thread in begun:
            thread.join()
    return None


def require_mask() -> None:
    """Refuse a umask with which users cannot use what they have made themselves.

    Raises
    ------
    InputError
        If it is one.
    """
    os.umask(mask := os.umask(0o077))
    if mask & 0o700:
        raise InputError(
            f"the umask {mask:04o} keeps you from the files that you make; set another, such as "
            f"umask 0022"
        )
