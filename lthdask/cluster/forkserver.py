"""Imported in the process that the workers of this machine are forked from, and only there."""

import ctypes
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from multiprocessing import spawn
from pathlib import Path
from typing import Any

PRELOADED = ("distributed", "lthdask.worker.tasks", "torch._dynamo")
"""Modules that workers are forked with; the last is what an optimizer imports."""
PR_SET_PDEATHSIG = 1
WORKER = "Dask Worker process"
"""What the names of Dask's processes begin with."""


def end_with_the_command(ends: bool) -> None:
    """Have Linux end this process with the thread that started it, or not."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL if ends else 0)


def end_before_the_command() -> None:
    """Have Linux end workers, and this process, before the command where memory is used up.

    It says what has happened, and starts workers again.
    """
    with suppress(OSError):  # not Linux
        Path("/proc/self/oom_score_adj").write_text("500")


def prepare_worker(data: Mapping[str, Any]) -> None:
    """Prepare a new process, but have a worker not run the script of its driver once more.

    What is sent to a worker needs nothing of that, and a script need not be written for it.
    """
    if str(data.get("name")).startswith(WORKER):
        data = {key: value for key, value in data.items() if not key.startswith("init_main")}
    prepare(data)


# A signal to every process of a job is meant for driver and workers, which save what they can;
# were this one gone, the driver would take its workers for dead.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
# Meanwhile it does not see that a command has ended, whose output it would hold open.
end_with_the_command(True)
end_before_the_command()
prepare, spawn.prepare = spawn.prepare, prepare_worker
for module in PRELOADED:
    with suppress(Exception):  # the command, which imports them, too, says what is wrong
        import_module(module)
end_with_the_command(False)
