"""Errors whose message is for the user: what was wrong, what was given, what to do.

A message marks a parameter with backticks: "choose another folder with `out`". That is how
it reads in Python. `on_command_line` turns parameters into options: ``--out``.
"""

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

OPTIONS = {
    "adaptive": "--adaptive",
    "allow_origin": "--allow-origin",
    "cluster": "--cluster",
    "code": "--code",
    "data": "--data",
    "deployment": "--deploy",
    "device": "--device",
    "download": "--download",
    "fraction": "--fraction",
    "iterative": "--iterative",
    "keep": "--keep",
    "keep_rewound": "--keep-rewound",
    "masks_only": "--masks-only",
    "max_attempts": "--max-attempts",
    "out": "--out",
    "port": "--port",
    "results": "--results",
    "retry_failed": "--retry-failed",
    "scheduler": "--scheduler",
    "study": "--study",
    "ticket": "--ticket",
    "upload": "--upload",
    "width": "--width",
    "workers": "--workers",
}
"""The parameters that messages name: in Python → on the command line."""


SHOWN = 100
"""Characters of a path that a message shows."""


class InputError(ValueError):
    """Something that the user gave cannot be used; the message tells them in one sentence.

    Examples
    --------
    >>> import lthdask
    >>> try:
    ...     lthdask.Study.read("digit")
    ... except lthdask.InputError as error:
    ...     print(error)
    unknown study 'digit'; did you mean 'digits'? known: ...
    """

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows of it: the sentence, without its way through lthdask."""
        return [f"{type(self).__name__}: {self}", *getattr(self, "__notes__", ())]


class FinalError(RuntimeError):
    """The end of a run, wherever it is trained: its place is not to blame."""


class ExhaustedError(FinalError):
    """A run was started too often without getting any further."""


class OtherData(InputError):  # noqa: N818 - it names what was found
    """The data that a worker reads are not those of the study: the run stops."""


class ForbiddenError(InputError):
    """Something may not be read or written by this user, which is no damage."""


def may(path: str | Path, how: int) -> bool:
    """Return whether this user may do with a file what `how` says, such as ``os.R_OK``."""
    return os.access(path, how, effective_ids=os.access in os.supports_effective_ids)


def forbidden(path: Path) -> ForbiddenError:
    """Return the error that a file may not be read, or else written, and who can allow it."""
    above = (place for place in reversed(path.parents) if not may(place, os.X_OK))
    barred, how = next(above, path), "a+x"
    if barred == path and (may(path, os.R_OK) or not path.exists()):
        barred = path if path.exists() else path.parent
        return ForbiddenError(
            f"{path} may not be written by this user; {barred} belongs to {_owner(barred)}"
        )
    if barred == path:
        barred, how = path.parent, "-R a+rX"
    return ForbiddenError(
        f"{path} may not be read by this user; it is {_owner(barred)} who can allow it, with: "
        f"chmod {how} {barred}"
    )


@contextmanager
def permitted(path: Path | None = None) -> Iterator[None]:
    """Say in one sentence that something may not be read or written; it is no damage.

    Raises
    ------
    ForbiddenError
        It names the file that the operating system names, or `path`.
    """
    try:
        yield
    except PermissionError as error:
        name: Any = error.filename or path
        if name is None:  # it is of no file
            raise
        raise forbidden(Path(os.fsdecode(name)).absolute()) from None


def _owner(path: Path) -> str:
    import pwd

    try:
        number = path.stat().st_uid
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
    except OSError:
        return "somebody else"


def on_command_line(text: str) -> str:
    """Return a text for users with the command line's options in place of parameters.

    Anything else in backticks stays as it is.

    Examples
    --------
    >>> on_command_line("choose another folder with `out`; `lthdask status` tells more")
    'choose another folder with --out; `lthdask status` tells more'
    """
    return re.sub(r"`(\w+)`", lambda found: OPTIONS.get(found[1], found[0]), text)


def one_of(what: str, given: str, known: "list[str] | tuple[str, ...]") -> InputError:
    """Return the error for a name that is not among the known ones."""
    asked = given.casefold()
    begun = [name for name in sorted(known) if asked and name.startswith(asked)]
    close = begun or get_close_matches(asked, known, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return InputError(f"unknown {what} {given!r}; {hint}known: {', '.join(sorted(known))}")


def listed(values: Iterable[object]) -> str:
    """Return values as a message lists them."""
    return ", ".join(str(value) for value in values)


OF_FILES = FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError
"""What is wrong with a file, or its place. Anything else is wrong with the process or the disk."""


def is_of_file(error: Exception) -> bool:
    """Return whether an error is of a file, or its place, and not of the process or the disk."""
    return isinstance(error, OF_FILES) or getattr(error, "errno", None) in (
        *(errno.ELOOP, errno.ENAMETOOLONG),
    )


def is_there(path: Path) -> bool:
    """Return whether there is something at a path, which may be one that no file can have.

    Raises
    ------
    PermissionError
        If this user may not know.
    """
    try:
        os.stat(path)
    except PermissionError:
        raise
    except (OSError, ValueError):
        return False
    return True


def require_regular(path: Path) -> None:
    """Refuse what would be waited for, or has no end, such as a pipe or a device.

    Raises
    ------
    ValueError
        If it is one.
    """
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise ValueError("it is no regular file")


def as_path(given: object) -> Path:
    """Return a path that was given, with ``~`` as the home it stands for; nothing need be there.

    Raises
    ------
    InputError
        If it cannot be a path.
    """
    text = str(given) if isinstance(given, os.PathLike) else given
    shown = text if len(str(text)) < SHOWN else f"{str(text)[:SHOWN]}..."
    try:
        path = Path(given).expanduser()  # type: ignore[arg-type]
        path.lstat()
    except RuntimeError:
        raise InputError(f"{shown!r} is no path: there is no such user") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"{shown!r} is no path: {error}") from None
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise InputError(f"{shown!r} is no path: {error.strerror}") from None
    return path


def require_working_directory() -> None:
    """Refuse a working directory that is gone, or may not be entered.

    Raises
    ------
    InputError
        If it is one.
    """
    try:
        os.stat(os.path.join(os.getcwd(), "."))
    except OSError as error:
        raise InputError(
            f"the working directory cannot be used: {error.strerror}; change into another one"
        ) from None


def first_sentence(error: Exception) -> str:
    """Return the beginning of what an error of another library says, or its kind."""
    return str(error).strip().split(". ")[0].partition("\n")[0].rstrip(".") or type(error).__name__
