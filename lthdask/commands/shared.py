"""What every command does: speak, and end with an exit code."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import rich_click as click
from rich.console import Console

from lthdask.errors import InputError, on_command_line


def exit_with(console: Console, body: Callable[[], int], resumes: bool = False) -> None:
    """Run the body of a command and exit with its code: 2 for bad input, 130 if stopped.

    One that `resumes` picks up where it left off.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(body())
    except InputError as error:
        say(Console(stderr=True), f"error: {error}")
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise
        say(Console(stderr=True), f"error: {error.filename}: {error.strerror}")
        sys.exit(2)
    except KeyboardInterrupt:
        more = "; the same command picks up where it left off" if resumes else ""
        say(console, f"stopped{more}")
        sys.exit(130)


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


def say(console: Console, line: str) -> None:
    """Print a line as it is, but for parameters in backticks: here they are options."""
    console.print(on_command_line(line), highlight=False, soft_wrap=True, markup=False)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where that is right."""
    return f"{number} {noun}{'s' * (number != 1)}"
