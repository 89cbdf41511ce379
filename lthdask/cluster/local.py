"""Workers that are processes of this machine, forked from one that has imported torch."""

import logging
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing, contextmanager
from multiprocessing import forkserver, resource_tracker, util

import dask
from distributed import LocalCluster
from distributed.utils import get_mp_context

from lthdask.cluster import security
from lthdask.cluster.overrides import ALONE, SETTINGS
from lthdask.cluster.owned import Client, in_order
from lthdask.cluster.room import Room
from lthdask.cluster.workers import Say, Workers, dashboard_address
from lthdask.errors import InputError
from lthdask.limits import few_threads, lacking, require_files

PATIENCE = "5 minutes"
"""How long there may be no worker. One that has died is replaced within seconds."""


def start_forkserver() -> None:
    """Start the process that workers of this machine are forked from, unless it runs already.

    If started early, it imports what they need while this process does the same.
    """
    Room.here().require_memory()
    _require_limits(1)
    for name, value in dask.config.get("distributed.nanny.pre-spawn-environ").items():
        if value is not None:
            os.environ.setdefault(name, str(value))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lthdask.cluster.forkserver"])
    _make_folder_of_sockets()
    with _safe_path(), _interrupted_later({signal.SIGHUP}):
        resource_tracker.ensure_running()  # or it would be started meanwhile, and unblock Ctrl-C
        with _interrupted_later():
            forkserver.ensure_running()


def _make_folder_of_sockets() -> None:
    """Have multiprocessing make its folder, of mode 0700, where paths are short.

    The path of a Unix socket may have 107 bytes, of which a name in that folder takes 32.
    """
    usual = tempfile.tempdir
    if len(os.fsencode(tempfile.gettempdir())) > 75:
        tempfile.tempdir = "/tmp"
    try:
        folder = util.get_temp_dir()
    except OSError as error:
        raise InputError(
            f"no folder for the sockets of processes can be made: {error}; give one with at most "
            f"75 bytes in its path with the environment variable TMPDIR"
        ) from None
    finally:
        tempfile.tempdir = usual
    # It is removed at the end, which is a traceback where somebody has emptied /tmp before.
    util.Finalize(None, os.makedirs, (folder,), {"exist_ok": True}, exitpriority=-99)


@contextmanager
def local(workers: Workers, threads: int, say: Say) -> Iterator[Client]:
    """Workers on this machine; nothing listens beyond it, and only this run may connect."""
    most = workers[1] if isinstance(workers, tuple) else workers
    room = Room.here(threads)
    count = min(most or room.places, room.workers)
    if why := room.why(most or room.places):
        say(why)
    with ExitStack() as stack:
        # A nanny starts its worker again. Dask would close it for good if, so long after one
        # death, the worker happened to be starting after another.
        never = {"distributed.deploy.lost-worker-timeout": "1000 d"}
        stack.enter_context(in_order(dask.config.set(never)))
        # It does so again and again, also one that ends as it starts.
        patience = "distributed.scheduler.no-workers-timeout"
        waiting = {patience: dask.config.get(patience) or PATIENCE}
        stack.enter_context(in_order(dask.config.set(waiting)))
        if count == 1 and all(dask.config.get(key) == SETTINGS[key] for key in ALONE):
            stack.enter_context(in_order(dask.config.set(ALONE)))
        get_mp_context()  # says once what Dask would have it import; what we say comes after
        start_forkserver()
        _require_limits(count)
        _require_semaphores(count)
        with _interrupted_later(), _in_words():
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    host="127.0.0.1",
                    security=security.of_this_run(),
                    # Dask would pause a worker whose share is used up, and torch never gives
                    # memory back: the run would wait for ever.
                    memory_limit=0,
                    dashboard_address=dashboard_address(),
                    silence_logs=logging.CRITICAL,  # tracebacks are kept in the study's folder
                )
            )
        client = stack.enter_context(closing(Client(cluster)))
        say(f"dashboard: {client.dashboard_link}")
        yield client


@contextmanager
def _in_words() -> Iterator[None]:
    """Say in a sentence that no worker could be started."""
    try:
        yield
    except RuntimeError as error:
        reason: BaseException = error
        while reason.__cause__:
            reason = reason.__cause__
        if problem := lacking(error):
            raise InputError(problem) from None
        if isinstance(reason, OSError):
            raise InputError(f"no worker can be started on this machine: {reason}") from None
        raise InputError(
            f"the workers of this machine end as they start: where memory is short, choose fewer "
            f"`workers`, or end what else runs here (Dask: {error})"
        ) from None


def _require_limits(workers: int) -> None:
    """Refuse where a run with so many workers may not open the files, or start the threads.

    What it needs was counted, with 1 and 3 workers.
    """
    require_files(34 + 6 * workers)
    if problem := few_threads(15 + 7 * workers):
        raise InputError(problem)


def _require_semaphores(workers: int) -> None:
    """Refuse where processes cannot have the six semaphores that Dask makes for each worker."""
    context = get_mp_context()
    try:
        [context.Semaphore() for _ in range(6 * workers)]
    except OSError as error:
        raise InputError(
            lacking(error)
            or f"/dev/shm cannot be used for semaphores of processes: {error.strerror}; make room "
            f"there, or have it mounted"
        ) from None


@contextmanager
def _safe_path() -> Iterator[None]:
    """Have processes that are started meanwhile import nothing from the working directory.

    There may be a random.py, which Python would take for its own.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        del os.environ["PYTHONSAFEPATH"]
        if before is not None:
            os.environ["PYTHONSAFEPATH"] = before


@contextmanager
def _interrupted_later(
    signals: Collection[int] = (signal.SIGINT, signal.SIGHUP),
) -> Iterator[None]:
    """Block what a terminal sends to every process of the command: Ctrl-C, and its own end.

    Processes that are started meanwhile, and the workers forked from them, never see it. The
    driver sees it afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
