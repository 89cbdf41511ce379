"""Imported by every Python of a scene: breaks one that touches a file, as $TRAP says.

A trap is ``{"do": what, "at": part of a path, "times": number}``, and, where only one worker
springs it, its ``worker``. What it does is a signal, an error of the operating system, or an
exception.
"""

import builtins
import errno
import json
import os
import signal
import sys
import time

trap, home = json.loads(os.environ.get("TRAP", "null")), os.environ.get("SCENE")
if shift := float(os.environ.get("CLOCK", 0)):
    clock = time.time
    time.time = lambda: clock() + shift


def elsewhere():
    """Return whether another process than the worker that is meant runs this."""
    from distributed import get_worker

    try:
        return get_worker().name != trap["worker"]
    except ValueError:  # the driver, and threads of a worker that run no task
        return True


def spring(event, arguments):
    """Break this process if it touches the file."""
    path = str(arguments[0]) if event in ("open", "os.rename", "os.remove") and arguments else ""
    if trap["at"] not in path or home + "/marks" in path:
        return
    if not os.path.exists(home + "/marks/set") or ("worker" in trap and elsewhere()):
        return
    for number in range(trap["times"]):
        try:
            os.close(os.open(f"{home}/marks/{number}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        do = trap["do"]
        if do.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, do))
        elif hasattr(errno, do):
            raise OSError(getattr(errno, do), os.strerror(getattr(errno, do)), path)
        raise getattr(builtins, do)("sprung by a trap")


if trap:
    sys.addaudithook(spring)
