"""What a value of the cluster file may be: what its default is of the kind of.

Dask looks at a value when it needs it, which can be in the middle of a run.
"""

import logging
import math
import os
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

from dask.utils import parse_bytes, parse_timedelta

from lthdask.cluster.places import DEPLOYMENTS

WALLTIME = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d\d)")
"""[days-][hours:]minutes:seconds"""
MEASURES = ("process", "optimistic", "managed", "managed_spilled", "unmanaged", "spilled")
COUNTS = ("cores", "processes", "job-cpu")
TIMES = ("idle-timeout", "no-workers-timeout", "duration", "death-timeout")
SIZES = ("memory", "job-mem", "pool-size")
TEXTS = (
    *("scheduler", "interface", "python", "ciphers", "ca-file", "cert", "key"),
    *("local-directory", "log-directory", "shared-temp-directory", "temporary-directory"),
)
NAMES = ("name", "queue", "account")
"""Keys whose value is taken as it is written: a partition can be called 008."""
FLAGS = ("require-encryption",)
"""Keys whose default, if they have one, does not tell what they are."""
MORE_THAN_NOTHING = ("patience", "death-timeout", "connect", "tcp", "shard", *SIZES)
PERIODS = ("interval", "cycle", "heartbeat")
"""Ends of keys of what is done again and again, which Dask cannot do every 0 seconds."""
CHOICES: dict[str, tuple[Any, ...]] = {
    "distributed.version": (2,),
    "distributed.comm.default-scheme": ("tcp", "tls", "inproc", "ucx", "ws", "wss"),
    "distributed.comm.tls.min-version": (1.2, 1.3),
    "distributed.comm.tls.max-version": (1.2, 1.3),
    "distributed.worker.multiprocessing-method": ("spawn", "fork", "forkserver"),
    "distributed.worker.memory.rebalance.measure": MEASURES,
    "distributed.scheduler.active-memory-manager.measure": MEASURES,
    "distributed.admin.event-loop": ("tornado", "asyncio", "uvloop"),
}
"""Keys that take a few words or numbers."""
FRACTIONS = ("bandwidth", "threshold", "ave-width")
"""Keys whose default is a whole number, and which take others as well."""
LINES = ("job-script-prologue", "env-extra")
"""Keys of a queue whose texts are lines of a script, and may have several."""
FILES = ("ca-file", "cert", "key")
OR_ANOTHER = ("max-spill",)
"""Keys whose default is true or false, and which take other values as well."""
OR_FALSE = ("transfer", "target", "spill", "pause", "terminate", "offload")
"""Shares of memory, and a size, which can be switched off."""
OR_WORD = {"worker-saturation": "inf", "threads": -1}
"""Values outside of the range of a key, which Dask knows."""
LEAST_MEMORY = 2**20


def problem_of(key: str, value: Any, default: Any) -> str | None:
    """Return what is wrong with the value of a dotted key, if anything is."""
    section, _, name = key.rpartition(".")
    if value is None or OR_WORD.get(name) == value:
        return None
    if name == "deployment":
        known = ", ".join(DEPLOYMENTS)
        return None if value in DEPLOYMENTS else f"must be one of {known}"
    of_script = section.startswith("jobqueue") and name not in LINES
    if of_script and any(len(f"{text}.".splitlines()) > 1 for text in _texts(value)):
        return "must hold single lines" if isinstance(value, list) else "must be one line"
    if name == "walltime":
        return _walltime(f"{value}:00" if section == "jobqueue.lsf" else value)
    if isinstance(default, dict):
        return _section(name, value)
    if isinstance(default, list) or name in ("extra", "env-extra", "job-extra"):
        return _list(value, default or []) or _special(key, value)
    if isinstance(value, list | dict):
        return "must be one value"
    if (known_here := _choices(key)) and (value not in known_here or value is True):
        return f"must be one of {', '.join(map(_written, known_here))}"
    return None if known_here else _scalar(name, value, default) or _special(key, value)


def _choices(key: str) -> tuple[Any, ...]:
    """Return the values that a key takes, if they are few."""
    if not key.endswith("compression") or key.startswith("dataframe."):
        return CHOICES.get(key, ())
    from distributed.protocol.compression import compressions  # those that are installed

    return (False, *(name for name in compressions if name))


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _section(name: str, value: Any) -> str | None:
    """Return what is wrong with a section whose keys are free."""
    if not isinstance(value, dict):
        return "must be a section of keys and values"
    wanted = {"resources": "numbers, 0 or more", "default-task-durations": "times"}.get(
        name, "texts and numbers"
    )
    right: Callable[[Any], bool] = {
        "resources": lambda one: _number(name, one, 0.5) is None,
        "default-task-durations": lambda one: _quantity(one, "", parse_timedelta, name) is None,
    }.get(name, lambda one: isinstance(one, str | int | float))
    odd = [one for one in value.values() if not right(one)]
    return f"must hold {wanted}, not {odd[0]!r}" if odd else None


def _special(key: str, value: Any) -> str | None:
    """Return what is wrong with a value that Dask would only find out in the middle of its work."""
    section, _, name = key.rpartition(".")
    texts = _texts(value)
    if ".tls" in section and name in FILES:  # the text of a certificate has lines
        missing = [
            one for one in texts if "\n" not in one and not os.path.isfile(os.path.expanduser(one))
        ]
        return "is no file that is here" if missing else None
    try:
        if name == "routes":
            for one in texts:
                import_module(one)
        elif name == "policies":
            _require_policies(value)
        elif name == "log-format":
            logging.Formatter(value).format(logging.makeLogRecord({}))
        elif key == "distributed.dashboard.link":
            value.format(**os.environ | {"scheme": "", "host": "", "port": ""})
    except Exception as error:
        return f"cannot be used ({type(error).__name__}: {error})"
    return None


def _require_policies(policies: list[Any]) -> None:
    from distributed.active_memory_manager import ActiveMemoryManagerPolicy

    for one in policies:
        module, _, name = dict(one)["class"].rpartition(".")
        if not issubclass(getattr(import_module(module), name), ActiveMemoryManagerPolicy):
            raise TypeError(f"{one['class']} is no policy")


def _scalar(name: str, value: Any, default: Any) -> str | None:
    """Return what is wrong with a number, a text, true or false."""
    if name in OR_FALSE and value is False:
        return None
    flag = isinstance(default, bool) and name not in OR_ANOTHER
    if flag or name in FLAGS:
        return None if isinstance(value, bool) else "must be true or false"
    if name in COUNTS:
        whole = type(value) is int and value > 0
        return None if whole else "must be a whole number above 0"
    if name in TIMES or (isinstance(default, str) and _reads(parse_timedelta, default)):
        return _quantity(value, "a time, such as 30 seconds", parse_timedelta, name)
    if name in SIZES or (isinstance(default, str) and _reads(parse_bytes, default)):
        return _quantity(value, "a size, such as 32GiB", parse_bytes, name)
    if isinstance(default, int | float) and not isinstance(default, bool):
        return _number(name, value, default)
    if (isinstance(default, str) or name in TEXTS) and not isinstance(value, str):
        return "must be text"
    return "must not be empty" if value == "" else None


def _number(name: str, value: Any, default: float) -> str | None:
    if isinstance(value, str) and _reads(parse_bytes, value):  # as of a bandwidth
        value = parse_bytes(value)
    if isinstance(value, bool | str) or math.isnan(value) or value < 0:
        return "must be a number, 0 or more"
    if type(default) is int and name not in FRACTIONS and value != int(min(value, 2**63)):
        return "must be a whole number, 0 or more"
    if type(default) is float and 0 < default < 1 and value > 1:
        return "must be a share, 0 to 1"
    if name == "worker-saturation" and not value:
        return "must be more than 0"
    return "must be 22 at most" if name == "level" and value > 22 else None


def _quantity(value: Any, wanted: str, parse: Callable[[Any], Any], name: str) -> str | None:
    if isinstance(value, bool) or not _reads(parse, value):
        return f"must be {wanted}"
    if name in ("memory", "job-mem") and 0 < parse(value) < LEAST_MEMORY:
        return f"must be {wanted}, with a unit; this one is {parse(value)} bytes"
    if name == "job-mem" and " " in str(value):
        return "stands in the job script as it is, where no space may be"
    above = name in MORE_THAN_NOTHING or name.endswith(PERIODS)
    if 0 < parse(value) < math.inf or (parse(value) == 0 and not above):
        return None
    return f"must be {wanted}, {'more than 0' if above else '0 or more'}"


def _reads(parse: Callable[[Any], Any], value: Any) -> bool:
    try:
        return parse(value) is not None
    except (ValueError, TypeError, KeyError, OverflowError):
        return False


def _list(value: Any, default: list[Any]) -> str | None:
    """Return what is wrong with a list of texts and numbers, or of what its default holds."""
    if not isinstance(value, list):
        return "must be a list"
    kinds = (str, int, float, *map(type, default))
    odd = [one for one in value if not isinstance(one, kinds) or isinstance(one, bool)]
    return f"must hold texts, not {odd[0]!r}" if odd else None


def _texts(value: Any) -> list[str]:
    """Return the texts in a value."""
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]


def _walltime(value: Any) -> str | None:
    if not isinstance(value, str):
        return 'must be text such as "04:00:00"'
    try:
        return None if seconds(value) >= 60 else "must be at least a minute"
    except ValueError as error:
        return f"cannot be read ({error})"


def seconds(walltime: str) -> int:
    """Return a wall-time such as ``04:00:00`` or ``2-12:00:00`` in seconds."""
    found = WALLTIME.fullmatch(walltime)
    if not found:
        raise ValueError(f"a wall-time must be [days-]hours:minutes:seconds; got {walltime!r}")
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return 86400 * days + 3600 * hours + 60 * minutes + rest
