"""Faults that strike while a study is run: `fault_kinds.py` tries each."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import psutil

from benchmarks.fault_scene import Scene
from benchmarks.proxy import Proxy

MIDRUN: dict[str, Callable[[Scene], None]] = {}


def kind(name: str) -> Callable[[Callable[[Scene], None]], Callable[[Scene], None]]:
    """Note a kind of fault by its name."""

    def note(act: Callable[[Scene], None]) -> Callable[[Scene], None]:
        MIDRUN[name] = act
        return act

    return note


# Processes that die, or stop for a while.


def worker_gets(scene: Scene, signals: list[signal.Signals], pause: float = 0) -> None:
    worker = scene.reach()[0]
    for number, each in enumerate(signals):
        time.sleep(pause * bool(number))
        os.kill(worker, each)


def driver_gets(scene: Scene, signals: list[signal.Signals], pause: float = 0) -> None:
    scene.reach()
    for number, each in enumerate(signals):
        time.sleep(pause * bool(number))
        scene.driver.send_signal(each)


def all_get(scene: Scene, which: signal.Signals) -> None:
    scene.reach()
    assert scene.running
    os.killpg(scene.running.pid, which)


SIGNALS = signal.Signals
for each in ("SIGKILL", "SIGTERM", "SIGSEGV"):
    MIDRUN[f"a worker is killed ({each})"] = partial(worker_gets, signals=[SIGNALS[each]])
for each in ("SIGKILL", "SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
    MIDRUN[f"the driver is told to go or killed ({each})"] = partial(
        driver_gets, signals=[SIGNALS[each]]
    )
for each in ("SIGKILL", "SIGINT", "SIGTERM", "SIGHUP"):
    MIDRUN[f"all processes at once ({each})"] = partial(all_get, which=SIGNALS[each])
PAUSED = [signal.SIGSTOP, signal.SIGCONT]
MIDRUN["a worker is stopped for five seconds"] = partial(worker_gets, signals=PAUSED, pause=5)
MIDRUN["the driver is stopped for five seconds"] = partial(driver_gets, signals=PAUSED, pause=5)
MIDRUN["Ctrl-C twice"] = partial(driver_gets, signals=[signal.SIGINT] * 2, pause=0.2)


@kind("all workers are killed at once")
def _(scene: Scene) -> None:
    scene.reach()
    for child in scene.server().children():
        child.kill()


@kind("the process that workers are forked from is killed, then a worker")
def _(scene: Scene) -> None:
    worker = scene.reach()[0]
    scene.server().kill()
    os.kill(worker, signal.SIGKILL)


@kind("multiprocessing's tracker of resources is killed, then a worker")
def _(scene: Scene) -> None:
    worker = scene.reach()[0]
    for child in scene.driver.children():
        if "resource_tracker" in " ".join(child.cmdline()):
            child.kill()
    os.kill(worker, signal.SIGKILL)


@kind("the driver is killed as it starts")
def _(scene: Scene) -> None:
    scene.start()
    scene.until(lambda: len(scene.driver.children()) >= 2)
    scene.driver.kill()


@kind("the driver is killed during the dense run")
def _(scene: Scene) -> None:
    scene.start()
    scene.until(lambda: [*scene.folder.glob("cells/dense-r0/state-*")])
    scene.driver.kill()


@kind("a zombie trains on beside its replacement")
def _(scene: Scene) -> None:
    worker = scene.reach()[0]
    os.kill(worker, signal.SIGSTOP)
    scene.driver.kill()
    scene.wait()
    scene.start()
    scene.until(lambda: [pid for pid in scene.training() if pid != worker])
    os.kill(worker, signal.SIGCONT)


@kind("two drivers at once")
def _(scene: Scene) -> None:
    scene.reach()
    first, said = scene.running, scene.said
    scene.start()
    assert scene.wait() == 2
    assert "is being run by process" in scene.said.read_text()
    scene.running, scene.said = first, said


@kind("the lock's file is deleted, and a second driver comes")
def _(scene: Scene) -> None:
    scene.reach()
    first = scene.running
    (scene.folder / ".driver.lock").unlink()
    scene.start()
    assert first and first.wait(scene.patience) == 0


# Standard streams.


@kind("standard input, output and error are closed")
def _(scene: Scene) -> None:
    scene.reach(wrapped=("bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash"))


@kind("the pipe of the output breaks")
def _(scene: Scene) -> None:
    read, write = os.pipe()
    scene.reach(stdout=write, stderr=write)
    os.close(write)
    os.close(read)


@kind("the output goes to a full disk")
def _(scene: Scene) -> None:
    with open("/dev/full", "w") as full:
        scene.reach(stdout=full, stderr=full)


# The disk.


def mount(scene: Scene, options: str) -> None:
    """Mount a small file system where the study's folder is to be."""
    scene.folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(scene.folder)]
    subprocess.run(command, check=True)


@kind("the disk is full; room is made")
def _(scene: Scene) -> None:
    mount(scene, "size=30m")
    scene.reach()
    filler = scene.folder / ".filler"
    try:
        with open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        pass
    scene.mend = filler.unlink


@kind("the disk has no inodes; some are freed")
def _(scene: Scene) -> None:
    mount(scene, "size=60m,nr_inodes=600")
    scene.reach()
    fillers = scene.folder / ".fillers"
    fillers.mkdir()
    try:
        for number in range(1000):
            (fillers / str(number)).touch()
    except OSError:
        pass
    scene.mend = partial(shutil.rmtree, fillers)


@kind("the folder becomes read-only; it is mounted anew")
def _(scene: Scene) -> None:
    scene.reach()
    folder = str(scene.folder)
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
    scene.mend = lambda: subprocess.run(["umount", folder], check=True)


@kind("the folder's permissions are taken away, and given back")
def _(scene: Scene) -> None:
    without = "-dac_override,-dac_read_search"  # which root has
    wrapped = ("setpriv", f"--bounding-set={without}", f"--inh-caps={without}")
    scene.reach(wrapped=wrapped if os.geteuid() == 0 else ())
    places = [scene.folder, *(p for p in scene.folder.rglob("*") if p.is_dir())]
    for place in places:
        place.chmod(0o500)
    scene.mend = lambda: [place.chmod(0o700) for place in places]


def io_error(scene: Scene, name: str, at: str) -> None:
    scene.set_trap(name, at)
    scene.start()
    scene.until(scene.sprung)


MIDRUN["the quota is exceeded, once (EDQUOT)"] = partial(io_error, name="EDQUOT", at="/metrics/c/")
MIDRUN["an error of the file system, once (EIO)"] = partial(io_error, name="EIO", at="/.state-")
MIDRUN["a stale handle, once (ESTALE)"] = partial(io_error, name="ESTALE", at="/ticket-r0-t0.8")


@kind("the folder of temporary files is emptied, then a worker killed")
def _(scene: Scene) -> None:
    worker = scene.reach()[0]
    shutil.rmtree(scene.temporary)
    os.kill(worker, signal.SIGKILL)


@kind("the disk of temporary files is full, then a worker killed")
def _(scene: Scene) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", scene.temporary], check=True)
    worker = scene.reach()[0]
    try:
        with open(scene.temporary / "filler", "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        pass
    os.kill(worker, signal.SIGKILL)


# Limits of one worker.


def limited(scene: Scene, limit: int, value: Callable[[int], int]) -> None:
    worker = scene.reach(cells=1)[0]
    _, hard = resource.prlimit(worker, limit)
    resource.prlimit(worker, limit, (value(worker), hard))


def memory_of(pid: int) -> int:
    """Return the address space of a process."""
    return psutil.Process(pid).memory_info().vms


MIDRUN["a worker can open no more files"] = partial(
    limited, limit=resource.RLIMIT_NOFILE, value=lambda pid: 20
)
MIDRUN["a worker has no more memory"] = partial(
    limited, limit=resource.RLIMIT_AS, value=lambda pid: memory_of(pid) - 2**28
)
MIDRUN["a worker can write no large file"] = partial(
    limited, limit=resource.RLIMIT_FSIZE, value=lambda pid: 1000
)
MIDRUN["a worker's time is up (RLIMIT_CPU)"] = partial(
    limited, limit=resource.RLIMIT_CPU, value=lambda pid: 1
)

# Death at a write, and errors of a task.

WRITES = {
    "between a cell's results and its status": "/status/c/",
    "as the manifest is written": "/.manifest.json",
    "as the cube is made": "/results.zarr/curves",
    "as the study is written": "/.study.yaml",
    "as a checkpoint of the dense run is saved": "/checkpoints/replicate-0/.epoch-0002",
    "as a state is saved": "/.state-",
    "as an attempt is noted": "/attempt-1.json",
    "as the report is written": "/.report.html",
}


def dies(scene: Scene, at: str) -> None:
    scene.set_trap("SIGKILL", at)
    scene.start()
    scene.until(lambda: scene.sprung() or scene.running and scene.running.poll() is not None)


for each, at in WRITES.items():
    MIDRUN[f"a death {each}"] = partial(dies, at=at)


@kind("a death as a ticket is kept")
def _(scene: Scene) -> None:
    scene.arguments += ["--keep", "all"]
    dies(scene, "/tickets/.ticket-")


@kind("a death as the study grows")
def _(scene: Scene) -> None:
    scene.start("--thresholds", "0.5,0.95")
    assert scene.wait() == 0
    dies(scene, "/results.zarr/threshold/zarr.json")


@kind("an exception in one cell, once")
def _(scene: Scene) -> None:
    scene.set_trap("RuntimeError", "/ticket-r0-t0.8-k0/.state-")
    scene.start()


@kind("every cell fails on one of two workers")
def _(scene: Scene) -> None:
    scene.set_trap("RuntimeError", "/ticket-r0-", times=500, worker=0)
    scene.start()


@kind("one of two workers dies in every cell")
def _(scene: Scene) -> None:
    scene.set_trap("SIGKILL", "/.state-", times=500, worker=0)
    scene.start()


@kind("one of two workers cannot import the study's own code")
def _(scene: Scene) -> None:
    scene.set_trap("ImportError", "/code/mine.py", times=500, worker=0)
    scene.start()


# What lies on disk is damaged from outside, and a worker killed, so that it is looked at.


def gone(scene: Scene, what: str) -> None:
    worker = scene.reach()[0]
    scene.damages = True
    place = scene.folder / what
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    os.kill(worker, signal.SIGKILL)


REMOVED = ["manifest.json", "study.yaml", "log.txt", "cells", "checkpoints", "code", "results.zarr"]
for what in [*REMOVED, "results.zarr/zarr.json", "results.zarr/metrics", ""]:
    MIDRUN[f"{what or 'the whole folder'} is deleted, then a worker killed"] = partial(
        gone, what=what
    )


@kind("the folder is moved away, and back")
def _(scene: Scene) -> None:
    scene.reach()
    away = scene.folder.with_name("away")
    scene.folder.rename(away)

    def back() -> None:
        shutil.rmtree(scene.folder, ignore_errors=True)  # what was made in its place
        away.rename(scene.folder)

    assert scene.wait() != 0
    scene.done_before = set()
    scene.mend = back


@kind("the newest state is cut short, and its worker killed")
def _(scene: Scene) -> None:
    worker = scene.reach()[0]
    os.kill(worker, signal.SIGKILL)
    for state in scene.folder.glob("cells/*/state-*"):
        os.truncate(state, 1000)


def data_become(scene: Scene, content: Callable[[bytes], bytes | None]) -> None:
    worker = scene.reach()[0]
    file = scene.data / "MNIST" / "raw" / "train-images-idx3-ubyte"
    before = file.read_bytes()
    now = content(before)
    file.unlink()
    if now is not None:
        file.write_bytes(now)
    os.kill(worker, signal.SIGKILL)
    scene.mend = lambda: file.write_bytes(before)


MIDRUN["the data are lost and a worker killed; they are put back"] = partial(
    data_become, content=lambda before: None
)
MIDRUN["the data change and a worker is killed; they are put back"] = partial(
    data_become, content=lambda before: before[:-1] + bytes([before[-1] ^ 1])
)
MIDRUN["the data are cut short and a worker killed; they are put back"] = partial(
    data_become, content=lambda before: before[:-5000]
)

# The network: a scheduler and workers of their own, which the command borrows.


def borrowed(scene: Scene) -> tuple[Proxy, subprocess.Popen[bytes], list[subprocess.Popen[bytes]]]:
    """Start a scheduler behind a proxy, and two workers; have the command use them."""
    proxy = Proxy()
    scheduler = dask(scene, "scheduler", "--port", str(proxy.behind), "--no-dashboard")
    workers = [dask(scene, "worker", proxy.address, "--nthreads", "1") for _ in range(2)]
    scene.arguments = ["--scheduler", proxy.address, "--max-attempts", "20"]
    return proxy, scheduler, workers


def dask(scene: Scene, *words: str) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    command = [sys.executable, "-m", "dask", *words, "--host", "127.0.0.1"]
    process = subprocess.Popen(command, env=scene.variables(), stdout=quiet, stderr=quiet)
    scene.others.append(process)
    return process


@kind("a scheduler is stopped for five seconds")
def _(scene: Scene) -> None:
    _, scheduler, _ = borrowed(scene)
    scene.reach()
    scheduler.send_signal(signal.SIGSTOP)
    time.sleep(5)
    scheduler.send_signal(signal.SIGCONT)


@kind("a nanny is killed, and another worker comes")
def _(scene: Scene) -> None:
    proxy, _, workers = borrowed(scene)
    scene.reach()
    workers[0].kill()
    dask(scene, "worker", proxy.address, "--nthreads", "1")


@kind("all connections to a scheduler are cut")
def _(scene: Scene) -> None:
    proxy, _, _ = borrowed(scene)
    scene.reach()
    proxy.cut()


@kind("a scheduler is killed, and started again with its workers")
def _(scene: Scene) -> None:
    _, scheduler, _ = borrowed(scene)
    scene.reach()
    scheduler.kill()
    scene.mend = partial(borrowed, scene)
