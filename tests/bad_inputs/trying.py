"""One bad input is tried, in this process, and what became of it is told in a word."""

import os
import re
import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from lthdask.commands.main import main
from lthdask.errors import InputError

CLEAR, ACCEPTED = "clear sentence", "accepted rightly"
TRACEBACK, HANG, WRONGLY, UNCLEAR = "traceback", "hang", "wrongly accepted", "unclear sentence"
OUTCOMES = (CLEAR, ACCEPTED, TRACEBACK, HANG, WRONGLY, UNCLEAR)
SECONDS = 20
ROOM = 4 * 2**30
"""Bytes that may be asked for beyond what the process has: an absurd size is not allocated."""


@dataclass(frozen=True)
class Bad:
    """An input, how it is given, and a part of what is said; None if it is to be accepted."""

    kind: str
    given: str
    attempt: Callable[[Path], object]
    told: str | None
    starts: bool = False
    """Whether processes may be started, which would have as little memory."""
    slow: bool = False
    """Whether it is left out of the default tests, which are to be quick."""

    def __str__(self) -> str:
        shown = re.sub(r"[^\w.,:;=+*/(){}' -]+", "_", self.given)[:60]
        return f"{self.kind}: {shown}".replace("[", "(").replace("]", ")")


class _TooLong(BaseException):
    pass


def tried(bad: Bad, folder: Path, seconds: float = SECONDS) -> tuple[str, str]:
    """Try an input in an empty folder; return what became of it, and what was said."""
    before = Path.cwd()
    folder.mkdir(parents=True)
    os.chdir(folder)
    try:
        with (
            _at_most(3 * seconds if bad.starts else seconds),
            nullcontext() if bad.starts else _little_memory(),
        ):
            bad.attempt(folder)
    except _TooLong:
        return HANG, f"more than {seconds} s"
    except InputError as error:
        said = str(error)
        clear = bad.told is not None and bad.told in said and "\n" not in said
        return CLEAR if clear else UNCLEAR, said
    except BaseException:
        return TRACEBACK, traceback.format_exc()
    finally:
        os.chdir(before)
    return (ACCEPTED, "") if bad.told is None else (WRONGLY, "")


def on_command_line(*arguments: str) -> None:
    """Run a command in this process; what it refuses with exit code 2 is an InputError."""
    done = CliRunner().invoke(main, list(arguments))
    said = " ".join(done.output.replace("│", " ").split())
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    if done.exit_code == 2:
        raise InputError(said)


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    def end(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _little_memory() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
