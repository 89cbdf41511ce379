"""Open a Dask client, the same way for a script, a notebook and a test.

Workers are processes of this machine, jobs of a queue, or those of a scheduler that runs
already. One worker has one device.
"""

import gc
import getpass
import glob
import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import dask
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, WorkerPlugin
from distributed.utils import get_mp_context

from lthdask.cluster.settings import Settings, slurm_answers
from lthdask.errors import InputError

CLASSES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "htcondor": "HTCondorCluster",
}
MEMORY = {
    # Dask has workers give freed memory back at once, and training asks for it again in the
    # next step: page faults halved the speed of MobileNetV2 (189 against 407 images/s).
    "MALLOC_TRIM_THRESHOLD_": 2**30,
    "MALLOC_MMAP_THRESHOLD_": 2**30,
}
SETTINGS = {
    # Checkpoints are dependencies of every cell; without these two, Dask hands out cells
    # eagerly, ignores their priority, and blames one lost worker on cells that never ran.
    "distributed.scheduler.rootish-taskgroup": 100_000,
    "distributed.scheduler.rootish-taskgroup-dependencies": 100_000,
    "distributed.scheduler.worker-saturation": 1.0,
    # A cell is not to blame for the worker it was on.
    "distributed.scheduler.allowed-failures": 1000,
    # It would drop the copies of the checkpoints that were scattered to every worker.
    "distributed.scheduler.active-memory-manager.policies": [],
    # Training is one long call; a worker in it is busy, not lost.
    "distributed.scheduler.worker-ttl": "30 minutes",
    # Workers of this machine are forked from one process that has imported torch: one that
    # died is replaced in 0.2 s in place of 4 s.
    "distributed.worker.multiprocessing-method": "forkserver",
    # So that data sets that stream from disk may start readers.
    "distributed.worker.daemon": False,
    **{f"distributed.nanny.pre-spawn-environ.{key}": value for key, value in MEMORY.items()},
}

PRELOADED = ("lthdask.cluster.forkserver", "distributed", "lthdask.tasks", "torch._dynamo")
"""Modules that workers of this machine are forked with; the last is what an optimizer imports."""

Workers = int | tuple[int, int] | None
Say = Callable[[str], None]


@contextmanager
def open_client(
    workers: Workers = None,
    *,
    threads: int = 1,
    cluster: Path | str | None = None,
    deployment: str | None = None,
    scheduler: str | None = None,
    say: Say = print,
) -> Iterator[Client]:
    """Open a client, and close it with its workers at the end, however that comes.

    Parameters
    ----------
    workers : int or (int, int), optional
        Worker processes, or jobs of a queue, one device each; the least and the most for an
        elastic number. On this machine, by default and at most, as many as it has GPUs, or
        else cores, for; in a queue, 1 by default.
    threads : int
        CPU threads that a cell computes with.
    cluster : path, optional
        A cluster file, strictly checked; see the ``cluster.yaml`` that comes with lthdask.
    deployment : str, optional
        In place of the file's.
    scheduler : str, optional
        Address of a scheduler that runs already, in place of the file's.
    say : callable
        Told, in a line each, where it trains and what it waits for.

    Yields
    ------
    distributed.Client
        With at least one worker.

    Raises
    ------
    InputError
        If something that was given cannot be used, or patience with the queue has ended.
    """
    settings = Settings.read(Path(cluster) if cluster else None)
    chosen = choose(settings, deployment, scheduler, say)
    if settings.file:  # so that workers that are started from here read it, too
        os.environ["DASK_CONFIG"] = str(settings.file)
    with dask.config.set(SETTINGS), dask.config.set(_dasks_own(settings)), collecting_rarely():
        if chosen == "local":
            opened = _local(workers, threads, say)
        elif chosen == "scheduler":
            opened = _existing(scheduler or settings.scheduler)
        else:
            opened = _queued(chosen, settings, workers or 1, threads, say)
        with opened as client:
            client.register_plugin(Prepare())
            yield client


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """Have Python's garbage collector run a third as often, as Dask's own scheduler command does.

    Of what a short cell cost the driver, a quarter was the collector, among the many objects
    of torch that never go (dask/distributed#1653).
    """
    before = gc.get_threshold()
    gc.set_threshold(*(3 * threshold for threshold in before))
    try:
        yield
    finally:
        gc.set_threshold(*before)


def choose(
    settings: Settings, deployment: str | None, scheduler: str | None, say: Say = print
) -> str:
    """Return the deployment to use: what is given, what the file says, or what is there."""
    chosen = "scheduler" if scheduler else deployment or settings.deployment
    if chosen == "scheduler" and not (scheduler or settings.scheduler):
        raise InputError(
            "deployment is scheduler, but no address is given; add --scheduler ADDRESS"
        )
    if chosen != "auto":
        return chosen
    if slurm_answers():
        say("training on Slurm, because sbatch answers here; --deploy local for this machine")
        return "slurm"
    say("training on this machine, because no Slurm answers here; --deploy slurm to insist")
    return "local"


def local_workers(threads: int = 1) -> int:
    """Return how many workers this machine has room for: one per GPU, or by its cores."""
    return len(_devices()) or max(1, int(CPU_COUNT) // threads)


def job_script(settings: Settings, queue: str, threads: int = 1) -> str:
    """Return the job script that would be submitted, also where there is no such queue."""
    with (
        dask.config.set(SETTINGS),
        dask.config.set(_dasks_own(settings)),
        _queue_cluster(queue, settings, threads) as cluster,
    ):
        script: str = cluster.job_script()
        return script


def ask_for_workers(client: Client, tasks: int) -> None:
    """Ask a queue for as many workers as there is work for, within what was asked for.

    While only dense runs can work, no GPU is held idle for the cells that will come. The
    number never falls: workers that hold checkpoints are not sent away.
    """
    cluster = client.cluster
    limits = getattr(cluster, "lthdask_limits", None)
    if limits is None:
        return
    low, high = (min(limit, max(tasks, 1)) for limit in limits)
    before = getattr(cluster, "lthdask_asked", (0, 0))
    asked = max(low, before[0]), max(high, before[1])
    if asked != before:
        cluster.lthdask_asked = asked
        cluster.adapt(minimum=asked[0], maximum=asked[1])


def workers_asked_for(client: Client) -> int:
    """Return how many workers a queue was asked for at most; 0 where there is none."""
    limits: tuple[int, int] = getattr(client.cluster, "lthdask_limits", (0, 0))
    return limits[1]


def has_to_go(worker: Any) -> bool:
    """Return whether a worker is about to close: its time is up, or it was told to."""
    return worker.status.name.startswith("clos") or getattr(worker, "lthdask_told_to_go", False)


class Prepare(WorkerPlugin):  # type: ignore[misc]
    """Leave in order when told to, and take one GPU for oneself where there are several."""

    name = "lthdask-prepare"

    def setup(self, worker: Any) -> None:
        """Prepare a worker; Dask calls this in its main thread."""
        if threading.current_thread() is not threading.main_thread():
            return  # a worker inside the driver's own process
        quiet_loops()

        def leave(number: int, frame: Any) -> None:
            worker.lthdask_told_to_go = True
            # Its nanny, if that is not told to go as well, starts another one.
            worker.loop.add_callback_from_signal(worker.close_gracefully, restart=True)

        # By default, SIGTERM leaves a running cell no time to save its state.
        signal.signal(signal.SIGTERM, leave)
        devices = _devices()
        if len(devices) > 1 and isinstance(worker.name, int):
            os.environ["CUDA_VISIBLE_DEVICES"] = devices[worker.name % len(devices)]


def quiet_loops() -> None:
    """Keep event loops from printing tracebacks of connections that end as they close.

    Driver and workers may be told to go at the same moment; what fails in a task is kept in
    the study's folder.
    """
    for name in ("tornado.application", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _devices() -> list[str]:
    """Return the GPUs that may be used here, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device]
    return [path.removeprefix("/dev/nvidia") for path in sorted(glob.glob("/dev/nvidia[0-9]*"))]


def _dasks_own(settings: Settings) -> dict[str, Any]:
    """Return the file's sections that are Dask's; those of queues become arguments."""
    sections = settings.values.items()
    return _flat({name: part for name, part in sections if name not in ("lthdask", "jobqueue")})


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested keys as dotted ones: Dask replaces a whole section by a nested one."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


@contextmanager
def _local(workers: Workers, threads: int, say: Say) -> Iterator[Client]:
    """Workers on this machine; scheduler and dashboard listen to nobody else."""
    most = workers[1] if isinstance(workers, tuple) else workers
    count = min(most or local_workers(threads), local_workers(threads))
    with ExitStack() as stack:
        # A nanny starts its worker again. Dask would close it for good if, so long after one
        # death, the worker happened to be starting after another.
        stack.enter_context(dask.config.set({"distributed.deploy.lost-worker-timeout": "1000 d"}))
        # A terminal sends Ctrl-C to every process of the command. What is started while it
        # is blocked here, workers that come later too, never sees it; the driver does then.
        resource_tracker.ensure_running()  # or it would be started meanwhile, and unblock it
        get_mp_context().set_forkserver_preload(list(PRELOADED))
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    host="127.0.0.1",
                    dashboard_address=_dashboard_address(),
                    silence_logs=logging.CRITICAL,  # tracebacks are kept in the study's folder
                )
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        client = stack.enter_context(Client(cluster))
        say(f"dashboard: {client.dashboard_link}")
        yield client


@contextmanager
def _existing(address: str | None) -> Iterator[Client]:
    """Workers of a scheduler that runs already; they stay when the client leaves."""
    try:
        client = Client(address)  # for distributed.comm.timeouts.connect
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"no Dask scheduler answers at {address}: {error}") from None
    with client:
        yield client


@contextmanager
def _queued(
    queue: str, settings: Settings, workers: int | tuple[int, int], threads: int, say: Say
) -> Iterator[Client]:
    """Jobs of a queue; none is left in it at the end."""
    # A job that ended is replaced after this time; it is longer while a local client is open.
    replaced = dask.config.set({"distributed.deploy.lost-worker-timeout": "15s"})
    with (
        replaced,
        _queue_cluster(queue, settings, threads) as cluster,
        Client(cluster) as client,
    ):
        cluster.lthdask_limits = workers if isinstance(workers, tuple) else (workers, workers)
        ask_for_workers(client, 1)
        port = cluster.scheduler.http_server.port
        host, user = os.uname().nodename, getpass.getuser()
        say(f"dashboard: ssh -N -L 8787:127.0.0.1:{port} {user}@{host}, then {_link(8787)}")
        _wait_for_a_worker(queue, client, settings.patience, say)
        yield client


def _dashboard_address() -> str:
    """Return where the dashboard listens: on this machine only, at 8787 if that is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 8787))
        except OSError:
            return "127.0.0.1:0"
    return "127.0.0.1:8787"


def _link(port: int) -> str:
    return f"http://127.0.0.1:{port}/status"


def _queue_cluster(queue: str, settings: Settings, threads: int) -> Any:
    """Return the cluster of a queue by name, with no worker yet."""
    given = settings.queue(queue)
    given.setdefault("cores", 1)
    given.setdefault("processes", 1)
    given["job_name"] = given.pop("name", None) or "lthdask"
    if given.get("memory") is None:
        raise InputError(f"{settings.file}: jobqueue.{queue}.memory is missing; such as 32GiB")
    shared = Path(given.pop("shared_temp_directory", None) or "~/.lthdask").expanduser()
    shared.mkdir(mode=0o700, parents=True, exist_ok=True)
    if logs := given.get("log_directory"):
        given["log_directory"] = str(Path(logs).expanduser().absolute())
    # exec: Slurm's SIGTERM reaches the first process of a job only, and the time it then
    # leaves is that process's; a shell that waits for the worker would waste both.
    given["python"] = f"exec {given.get('python') or sys.executable}"
    given["job_script_prologue"] = [
        *(given.get("job_script_prologue") or []),
        *(f"export {key}={value}" for key, value in MEMORY.items()),
        f"export DASK_CONFIG={shlex.quote(str(settings.file))}",
    ]
    given["worker_extra_args"] = _worker_arguments(
        list(given.get("worker_extra_args") or []), settings.lifetime(queue)
    )
    return _cluster_class(queue)(
        config_name=queue,
        security=True,
        protocol="tls://",
        shared_temp_directory=str(shared),
        scheduler_options={"dashboard_address": _dashboard_address()},
        silence_logs=logging.CRITICAL,
        **{key: value for key, value in given.items() if value is not None},
    )


def _cluster_class(queue: str) -> Any:
    """Return dask-jobqueue's class for a queue, and undo what its import does to signals.

    It makes Ctrl-C end the process in silence, with exit code 0 (dask_jobqueue/runner.py).
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    import dask_jobqueue

    for number, handler in before.items():
        signal.signal(number, handler)
    return getattr(dask_jobqueue, CLASSES[queue])


def _worker_arguments(given: list[str], lifetime: tuple[float, float] | None) -> list[str]:
    """Return the worker's arguments, with those that make it leave before its job is killed."""
    arguments = [*given, "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    if "--memory-limit" not in given:
        arguments += ["--memory-limit", "0"]  # the queue fences memory already
    if lifetime and "--lifetime" not in given:
        arguments += ["--lifetime", f"{lifetime[0]:g}s"]
        arguments += ["--lifetime-stagger", f"{lifetime[1]:g}s"]
    return arguments


def _wait_for_a_worker(queue: str, client: Client, patience: float, say: Say) -> None:
    """Wait for the first worker, and say meanwhile what the queue says."""
    began, before = time.monotonic(), ""
    while not client.nthreads():
        jobs = [worker.job_id for worker in client.cluster.workers.values() if worker.job_id]
        state = _queue_state(queue, jobs)
        waited = time.monotonic() - began
        if jobs and state != before:
            say(f"waiting for the queue: {state}")
            before = state
        if waited > patience:
            raise InputError(
                f"no worker has started after {waited:.0f} s of patience ({state}); its jobs are "
                f"cancelled; ask for less in the cluster file, or set lthdask.patience"
            )
        time.sleep(1)


def _queue_state(queue: str, jobs: list[str]) -> str:
    """Return how many jobs there are and, from Slurm, in which state and why."""
    if queue != "slurm" or not jobs:
        return f"{len(jobs)} jobs submitted"
    asked = ["squeue", "--noheader", "--format=%T (%r)", f"--jobs={','.join(jobs)}"]
    found = subprocess.run(asked, capture_output=True, text=True).stdout.split("\n")
    counts = {line: found.count(line) for line in found if line}
    return ", ".join(f"{count} {line}" for line, count in counts.items()) or "no jobs"
