"""What every command does: speak, and end with an exit code."""

import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

import rich_click as click
from rich.console import Console

from lthdask.errors import InputError, on_command_line, permitted, require_working_directory
from lthdask.limits import few_threads, lacking, require_files, require_mask
from lthdask.surroundings import hidden_by, told_by

GONE = errno.EPIPE, errno.EIO
"""What writing to a pipe that nobody reads ends with, and to a terminal that was closed."""
FILES = 16
"""Files that every command opens at once."""
UNWRITABLE = "cannot write to standard output"
ENDING = signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU
"""Signals that end a command as Ctrl-C does: of a terminal that is closed, of a limit of time."""


class Output(Console):
    """A console whose command outlives it: once nothing can be written, it goes on in silence."""

    @property
    def file(self) -> IO[str]:
        """The stream that it writes to."""
        return cast(IO[str], _Lasting(super().file))

    @file.setter
    def file(self, stream: IO[str]) -> None:
        self._file = stream


class _Lasting:
    """A stream that goes nowhere any more once it cannot be written, which is said once."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        with self._lasting():
            self._stream.write(text)

    def flush(self) -> None:
        with self._lasting():
            self._stream.flush()

    @contextmanager
    def _lasting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if error.errno not in GONE and self._stream is sys.stdout:
                with suppress(OSError):
                    say(Console(stderr=True), f"{UNWRITABLE}: {error.strerror}; it goes on")


def exit_with(console: Console, body: Callable[[], int], resumes: bool = False) -> None:
    """Run the body of a command and exit with its code: 2 for bad input, 130 if stopped.

    One that `resumes` picks up where it left off.
    """
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name of a file may have what it cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        require_working_directory()
        require_mask()
        require_files(FILES)
        with permitted():
            sys.exit(body())
    except InputError as error:
        say(Console(stderr=True), f"error: {error}")
        sys.exit(2)
    except Exception as error:
        if (problem := _in_a_sentence(error)) is None:
            raise
        if isinstance(error, OSError) and error.filename is None:  # what is left in buffers
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        with suppress(OSError):
            say(Console(stderr=True), f"error: {problem}")
        sys.exit(2)
    except KeyboardInterrupt:
        if problem := few_threads(1):  # then OpenBLAS, too, interrupts
            say(Console(stderr=True), f"error: {problem}")
            sys.exit(2)
        more = "; the same command picks up where it left off" if resumes else ""
        say(console, f"stopped{more}")
        sys.exit(130)


def _in_a_sentence(error: Exception) -> str | None:
    """Return what was wrong with the machine, or its settings; None if it was something else."""
    if problem := lacking(error) or hidden_by(error):
        return problem
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, *GONE):
        return f"{UNWRITABLE}: {error.strerror}"
    from lthdask.cluster.ambient import malformed

    return malformed() or told_by(error)


def folder_of(folder: Path | None, study: str, out: Path | None) -> Path:
    """Return the folder that is meant: by itself, or the usual one of a study."""
    if folder and out:
        raise click.UsageError("give the study's folder once: as DIR, or with --out")
    if chosen := folder or out:
        return chosen
    from lthdask.reading import study_text, yaml_mapping

    name = yaml_mapping(study_text(study), study).get("name")
    if not isinstance(name, str):
        raise InputError(f"{study}: the key 'name' is missing")
    return Path("runs") / name


def rewind_epoch_of(given: str | None) -> float | None:
    """Return the k that ``--rewind-epoch`` was given, as axes of results have it.

    Raises
    ------
    InputError
        If it cannot be one.
    """
    if given is None:
        return None
    from lthdask.grid import KS
    from lthdask.reading import value_of
    from lthdask.rewinding import number, rewind

    try:
        return number(rewind(value_of(given, False, "--rewind-epoch")))
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"--rewind-epoch takes {KS}; got {given!r}") from None


def say(console: Console, line: str) -> None:
    """Print a line as it is, but for parameters in backticks: here they are options."""
    console.print(on_command_line(line), highlight=False, soft_wrap=True, markup=False)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where that is right."""
    return f"{number} {noun}{'s' * (number != 1)}"
