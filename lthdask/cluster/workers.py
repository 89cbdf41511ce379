"""Workers, wherever they are: one GPU each, what they pass on, and how they leave."""

import asyncio
import glob
import logging
import os
import platform
import re
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import astuple
from itertools import takewhile
from typing import Any, cast
from weakref import WeakSet

from distributed import Status, WorkerPlugin
from distributed.comm.addressing import get_address_host

from lthdask.cluster.dashboard import offer_pane
from lthdask.events import Event

Workers = int | tuple[int, int] | None
Say = Callable[[str], None]
WORKER_OF_A_JOB = re.compile(r"(?P<job>.*-\d+)-(?P<number>\d+)")
"""Name of a worker whose job has several."""
DEVICE = re.compile(r"\d+|(GPU|MIG)-[\w/-]+")
"""A device in ``CUDA_VISIBLE_DEVICES``."""
LEAVING = 30.0
"""Seconds that a process has to leave in order after a task failed there."""


_told_to_go: WeakSet[Any] = WeakSet()
"""Workers of this process that were sent a signal to end."""


def has_to_go(worker: Any) -> bool:
    """Return whether a worker is about to close: its time is up, or it was told to."""
    return worker.status.name.startswith("clos") or worker in _told_to_go


def is_unwanted(worker: Any, task: str) -> bool:
    """Return whether the driver has taken back a task that runs on a worker."""
    found = worker.state.tasks.get(task)
    return found is None or found.state == "cancelled"


def topic_of(task: object) -> str:
    """Return the topic under which Dask keeps what a task sends: each queue hears its own."""
    return f"lthdask-{str(task).rsplit('-', 2)[-2:][0]}"


def start_anew(worker: Any, task: str) -> None:
    """Have a worker's process replaced by its nanny, once its task has ended for everybody.

    It begins nothing more. Without a nanny it stays, as nobody would start another one.
    """
    if worker.nanny:
        _told_to_go.add(worker)
        worker.loop.add_callback(_leave, worker, task)


async def _leave(worker: Any, task: str) -> None:
    """Leave in order, which a process that is sick may be unable to do."""
    last = threading.Timer(LEAVING, os._exit, [1])
    last.daemon = True
    last.start()
    worker.status = Status.paused
    while task in worker.state.tasks:  # or its outcome would be lost
        await asyncio.sleep(0.02)
    await worker.close_gracefully(restart=True)
    os._exit(0)  # what Python does at its end takes seconds


def place_of(name: object, address: str) -> str:
    """Return where a worker is: its node, or its own name where all are on this machine."""
    if isinstance(name, int):
        return f"worker {name}"
    host: str = get_address_host(address)
    return host


def node_of(worker: Any) -> str:
    """Return the name of a worker's place, as its queue knows it."""
    if isinstance(worker.name, int):
        return place_of(worker.name, worker.address)
    return os.environ.get("SLURMD_NODENAME") or platform.node()


def job_of(worker: Any) -> str:
    """Return the name of the job that a worker, or one of its name, belongs to."""
    name = str(getattr(worker, "name", worker))
    found = WORKER_OF_A_JOB.fullmatch(name)
    return found["job"] if found else name


class Prepare(WorkerPlugin):  # type: ignore[misc]
    """Leave in order when told to, take one GPU of several, pass on Python's warnings."""

    name = "lthdask-prepare"
    shown: Any = None

    def setup(self, worker: Any) -> None:
        """Prepare a worker; Dask calls this in its main thread."""
        if threading.current_thread() is not threading.main_thread():
            return  # a worker inside the driver's own process
        quiet_loops()

        def leave(number: int, frame: Any) -> None:
            _told_to_go.add(worker)
            # Its nanny, if that is not told to go as well, starts another one.
            worker.loop.add_callback_from_signal(worker.close_gracefully, restart=True)

        # By default, SIGTERM leaves a running cell no time to save its state.
        signal.signal(signal.SIGTERM, leave)

        self.shown = shown = warnings.showwarning

        def tell(message: Any, category: Any, file: str, line: int, *others: Any) -> None:
            event = Event("warning", f"{file}:{line}", str(message))
            for topic in {topic_of(task.key) for task in worker.state.all_running_tasks}:
                worker.log_event(topic, astuple(event))
            if not sys.stderr.isatty():  # where the command says it
                shown(message, category, file, line, *others)

        warnings.showwarning = cast(Any, tell)
        there, number = devices(), number_of(worker.name)
        if len(there) > 1 and number is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = there[number % len(there)]

    def teardown(self, worker: Any) -> None:
        """Show warnings as before; Dask calls this before the next client prepares a worker."""
        if self.shown:
            warnings.showwarning = self.shown


def number_of(name: object) -> int | None:
    """Return a worker's number among those of its machine or job; None if it is the only one.

    Examples
    --------
    >>> number_of(2), number_of("SLURMCluster-7-2"), number_of("SLURMCluster-7")
    (2, 2, None)
    """
    if isinstance(name, int):
        return name
    found = WORKER_OF_A_JOB.fullmatch(str(name))
    return int(found["number"]) if found else None


def quiet_loops() -> None:
    """Keep event loops from printing tracebacks of connections that end as they close.

    Driver and workers may be told to go at the same moment; what fails in a task is kept in
    the study's folder.
    """
    for name in ("tornado.application", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def devices() -> list[str]:
    """Return the GPUs that may be used here, without importing torch.

    As CUDA reads ``CUDA_VISIBLE_DEVICES``: what follows a name of no device, such as -1, is not
    visible.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = (name.strip() for name in visible.split(","))
        return list(takewhile(DEVICE.fullmatch, names))
    return [path.removeprefix("/dev/nvidia") for path in sorted(glob.glob("/dev/nvidia[0-9]*"))]


def dashboard_address() -> str:
    """Return where the dashboard listens: on this machine only, at 8787 if that is free.

    Its one page that acts is taken out, as any user of the machine may open it: it writes to the
    disk of every worker each time, to measure that.
    """
    from distributed.dashboard.scheduler import applications  # which workers need not import

    applications.pop("/hardware", None)
    offer_pane()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 8787))
        except OSError:
            return "127.0.0.1:0"
    return "127.0.0.1:8787"
