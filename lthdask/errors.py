"""Errors whose message is for the user: what was wrong, what was given, what to do.

A message marks a parameter with backticks: "choose another folder with `out`". That is how
it reads in Python. `on_command_line` turns parameters into options: ``--out``.
"""

import os
import re
from collections.abc import Iterable
from errno import ELOOP, ENAMETOOLONG
from pathlib import Path

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
    "width": "--width",
    "workers": "--workers",
}
"""The parameters that messages name: in Python → on the command line."""


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
    return InputError(f"unknown {what} {given!r}; known: {', '.join(sorted(known))}")


def listed(values: Iterable[object]) -> str:
    """Return values as a message lists them."""
    return ", ".join(str(value) for value in values)


OF_FILES = FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError
"""What is wrong with a file, or its place. Anything else is wrong with the process or the disk."""


def is_of_file(error: Exception) -> bool:
    """Return whether an error is of a file, or its place, and not of the process or the disk."""
    return isinstance(error, OF_FILES) or getattr(error, "errno", None) in (ELOOP, ENAMETOOLONG)


def require_regular(path: Path) -> None:
    """Refuse what would be waited for, or has no end, such as a pipe or a device.

    Raises
    ------
    ValueError
        If it is one.
    """
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise ValueError("it is no regular file")


def first_sentence(error: Exception) -> str:
    """Return the beginning of what an error of another library says, or its kind."""
    return str(error).strip().split(". ")[0].partition("\n")[0].rstrip(".") or type(error).__name__
