"""What stands in the script of a job; a path or a value of the user runs no command there.

Dask-jobqueue puts values into the script as they are.
"""

import os
import re
import shlex
import socket
import sys
from pathlib import Path
from typing import Any

import dask

from lthdask.cluster.overrides import MEMORY, SAMPLING
from lthdask.cluster.settings import Settings
from lthdask.errors import InputError, as_path

NAME = "lthdask"
"""Of jobs, where the cluster file has none."""
SCRATCH = (
    'scratch="${TMPDIR:-/tmp}/lthdask-$(id -u)"',
    'mkdir -m 700 "$scratch" 2>/dev/null',
    '[ -O "$scratch" ] && [ ! -L "$scratch" ] || scratch=$(mktemp -d)',
    'export DASK_TEMPORARY_DIRECTORY="${DASK_TEMPORARY_DIRECTORY:-$scratch}"',
)
"""Lines of a job that give its workers a folder that nobody else has made: Dask imports from it."""
PLAIN = re.compile(r"(?:[\w@%+=:,./~-]|\$\w+|\$\{\w+\})+", re.ASCII)
"""A word that means to a shell what it says; it may name variables of the node, such as $TMPDIR."""
VARIABLE = re.compile(r"\$\w|\$\{\w+\}", re.ASCII)


def quoted(word: str) -> str:
    r"""Return a word as a shell takes it, in which only variables are replaced.

    Examples
    --------
    >>> print(quoted("$HOME/bin/python"), quoted("a $(date)"), quoted("$HOME/a $(date)"))
    $HOME/bin/python 'a $(date)' "$HOME/a \$(date)"
    """
    if PLAIN.fullmatch(word):
        return word
    word = os.path.expanduser(word)
    if os.path.exists(word) or not VARIABLE.search(word):
        return shlex.quote(word)
    return '"' + re.sub(r'[\\"`]|\$(?!\w|\{\w+\})', r"\\\g<0>", word) + '"'


def arguments_of_queue(queue: str, settings: Settings, threads: int) -> dict[str, Any]:
    """Return the arguments of a queue's cluster; nothing is made for them.

    Raises
    ------
    InputError
        If the cluster file lacks something, or something in it cannot stand in a script.
    """
    given = settings.queue(queue)
    processes = given["processes"] = given.get("processes") or 1
    given["cores"] = given.get("cores") or processes
    if given["cores"] < processes:
        raise InputError(
            f"{settings.file}: jobqueue.{queue}.cores is {given['cores']}, but each of its "
            f"{processes} processes needs a thread; set cores: {processes}, or leave it out"
        )
    if queue == "slurm":
        given["job_cpu"] = given.get("job_cpu") or processes * threads
    if given.get("memory") is None:
        raise InputError(
            f"{settings.file}: jobqueue.{queue}.memory is missing; set it, e.g. memory: 32GiB"
        )
    name = given.get("name") or NAME
    if logs := given.pop("log_directory", None):
        _add(given, _directives(queue, one_line(absolute(logs)), name))
    if queue != "htcondor":  # its lines are not read as a shell does
        for key in ("name", "queue", "account"):
            given[key] = shlex.quote(str(given[key])) if given.get(key) else None
    return arguments(given, settings, settings.lifetime(queue))


def arguments(
    given: dict[str, Any], settings: Settings, lifetime: tuple[float, float] | None
) -> dict[str, Any]:
    """Return the arguments of a cluster of dask-jobqueue, by what a section of the file says."""
    there = [name for _, name in socket.if_nameindex()]
    if (interface := given.get("interface")) and interface not in there:
        raise InputError(
            f"{settings.file}: this machine has no network interface {interface!r}, where its "
            f"scheduler would listen; it has {', '.join(there)}"
        )
    given["job_name"] = given.pop("name", None) or NAME
    shared = absolute(given.get("shared_temp_directory") or "~/.lthdask")
    given["shared_temp_directory"] = one_line(shared)
    if logs := given.get("log_directory"):
        given["log_directory"] = str(absolute(logs))
    for key in ("local_directory", "death_timeout"):
        given[key] = quoted(str(given[key])) if given.get(key) else None
    # exec: Slurm's SIGTERM reaches the first process of a job only, and the time it then
    # leaves is that process's; a shell that waits for the worker would waste both.
    python = _words(given.get("python"), settings) or [shlex.quote(one_line(Path(sys.executable)))]
    given["python"] = " ".join(["exec", *python])
    file = one_line(settings.file) if settings.file else None
    given["job_script_prologue"] = [
        *(given.get("job_script_prologue") or []),
        "export PYTHONSAFEPATH=1",  # a random.py where the job begins is not Python's
        *(f"export {key}={value}" for key, value in MEMORY.items()),
        # Dask's settings stay with the driver, and the file may have others: those in force.
        *(f"export {_variable(key)}={shlex.quote(dask.config.get(key))}" for key in SAMPLING),
        *([f"export DASK_CONFIG={shlex.quote(file)}"] if file else []),
        *(() if settings.values.get("temporary-directory") else SCRATCH),
    ]
    extra = given.get("worker_extra_args") or []
    more = [word for argument in extra for word in _words(argument, settings)]
    given["worker_extra_args"] = _worker_arguments(more, lifetime)
    return {key: value for key, value in given.items() if value is not None}


def absolute(folder: str) -> Path:
    """Return a folder of the cluster file, wherever a job begins."""
    return as_path(folder).absolute()


def one_line(path: Path) -> str:
    """Return a path as text.

    Raises
    ------
    InputError
        If it has a line break, after which a script would go on with a command.
    """
    if len(str(path).splitlines()) > 1:
        raise InputError(f"a job script cannot hold a path with a line break; got {str(path)!r}")
    return str(path)


def _directives(queue: str, folder: str, name: str) -> list[str] | dict[str, Any]:
    """Return the lines of a queue that say where the output goes: it reads them as a shell does."""
    if queue == "htcondor":
        of_job = {"Output": "worker-$F(MY.JobId).out", "Error": "worker-$F(MY.JobId).err"}
        files = of_job | {"Log": "worker-$(ClusterId).log"}
        within = {key: f"$(LogDirectory)/{file}" for key, file in files.items()}
        return {"LogDirectory": folder, **within, "Stream_Output": True, "Stream_Error": True}
    if queue in ("pbs", "sge"):
        return [f"{option} {shlex.quote(folder + '/')}" for option in ("-e", "-o")]
    file = shlex.quote(f"{folder}/{name}-%J")
    return [f"-o {file}.out", f"-e {file}.err"]


def _add(given: dict[str, Any], lines: list[str] | dict[str, Any]) -> None:
    """Add directives before those that are given, which count."""
    more: Any = given.get("job_extra_directives")
    if isinstance(lines, dict):
        given["job_extra_directives"] = lines | (more or {})
    else:
        given["job_extra_directives"] = [*lines, *(more or [])]


def _words(text: str | None, settings: Settings) -> list[str]:
    """Return the words of a command or an argument, quoted; the name of a file is one word."""
    if not text:
        return []
    try:
        return [quoted(word) for word in ([text] if os.path.exists(text) else shlex.split(text))]
    except ValueError:
        raise InputError(f"{settings.file}: a quotation mark has no partner in {text!r}") from None


def _variable(key: str) -> str:
    """Return the environment variable from which Dask reads a setting."""
    return "DASK_" + key.upper().replace(".", "__")


def _worker_arguments(given: list[str], lifetime: tuple[float, float] | None) -> list[str]:
    """Return the worker's arguments, with those that make it leave before its job is killed."""
    more = [*given, "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    if "--nthreads" not in given:
        more += ["--nthreads", "1"]  # two cells never share a GPU, whatever `cores` says
    if "--memory-limit" not in given:
        more += ["--memory-limit", "0"]  # the queue fences memory already
    if lifetime and "--lifetime" not in given:
        more += ["--lifetime", f"{lifetime[0]:g}s"]
        more += ["--lifetime-stagger", f"{lifetime[1]:g}s"]
    return more
