"""Processes that die or stop, standard streams, limits, the network; all while a study is run."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import psutil

from benchmarks.kinds.proxy import Proxy
from benchmarks.kinds.scene import KINDS, Kind, Scene, kind

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
    KINDS[f"a worker gets {each}"] = Kind(partial(worker_gets, signals=[SIGNALS[each]]))
for each in ("SIGKILL", "SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
    KINDS[f"the driver gets {each}"] = Kind(partial(driver_gets, signals=[SIGNALS[each]]))
for each in ("SIGKILL", "SIGINT", "SIGTERM", "SIGHUP"):
    KINDS[f"all processes get {each}"] = Kind(partial(all_get, which=SIGNALS[each]))
PAUSED = {"signals": [signal.SIGSTOP, signal.SIGCONT], "pause": 5}
KINDS["a worker is stopped for five seconds"] = Kind(partial(worker_gets, **PAUSED))
KINDS["the driver is stopped for five seconds"] = Kind(partial(driver_gets, **PAUSED))
KINDS["Ctrl-C twice"] = Kind(partial(driver_gets, signals=[signal.SIGINT] * 2, pause=0.2))


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
    first, said, driver = scene.running, scene.said, scene.driver
    driver.suspend()
    scene.start()
    assert scene.wait() == 2
    assert "is being run by process" in scene.said.read_text()
    driver.resume()
    scene.running, scene.said = first, said


@kind("the lock's file is deleted, and a second driver comes")
def _(scene: Scene) -> None:
    scene.reach()
    first = scene.running
    (scene.folder / ".driver.lock").unlink()
    scene.start()
    assert first
    assert first.wait(scene.patience) == 0


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


@kind("the output goes to a full disk; room is made")
def _(scene: Scene) -> None:
    with open("/dev/full", "w") as full:
        scene.start(stdout=full, stderr=full)
    scene.wait()


# Limits of one worker.


def limited(scene: Scene, limit: int, value: Callable[[int], int]) -> None:
    worker = scene.reach(cells=1)[0]
    _, hard = resource.prlimit(worker, limit)
    resource.prlimit(worker, limit, (value(worker), hard))


def memory_of(pid: int) -> int:
    """Return the address space of a process."""
    return psutil.Process(pid).memory_info().vms


LIMITS: dict[str, tuple[int, Callable[[int], int]]] = {
    "can open no more files": (resource.RLIMIT_NOFILE, lambda pid: 20),
    "has no more memory": (resource.RLIMIT_AS, lambda pid: memory_of(pid) - 2**28),
    "can write no large file": (resource.RLIMIT_FSIZE, lambda pid: 1000),
    "has no time left (RLIMIT_CPU)": (resource.RLIMIT_CPU, lambda pid: 1),
}
for name, (limit, value) in LIMITS.items():
    KINDS[f"a worker {name}"] = Kind(partial(limited, limit=limit, value=value))

# The network: a scheduler and workers of their own, which the command borrows.


def borrowed(scene: Scene) -> tuple[Proxy, list[subprocess.Popen[bytes]]]:
    """Start a scheduler behind a proxy, and two workers; have the command use them."""
    proxy = Proxy()
    scene.arguments = ["--scheduler", proxy.address, "--max-attempts", "20"]
    return proxy, serving(scene, proxy)


def serving(scene: Scene, proxy: Proxy) -> list[subprocess.Popen[bytes]]:
    """Start a scheduler and two workers."""
    started = [dask(scene, "scheduler", "--port", str(proxy.behind), "--no-dashboard")]
    scene.until(proxy.answers)
    return started + [dask(scene, "worker", proxy.address, "--nthreads", "1") for _ in range(2)]


def dask(scene: Scene, *words: str) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    command = [sys.executable, "-m", "dask", *words, "--host", "127.0.0.1"]
    process = subprocess.Popen(command, env=scene.variables(), stdout=quiet, stderr=quiet)
    scene.others.append(process)
    return process


@kind("a scheduler is stopped for five seconds")
def _(scene: Scene) -> None:
    _, (scheduler, *_) = borrowed(scene)
    scene.reach()
    scheduler.send_signal(signal.SIGSTOP)
    time.sleep(5)
    scheduler.send_signal(signal.SIGCONT)


@kind("a nanny is killed, and another worker comes")
def _(scene: Scene) -> None:
    proxy, (_, worker, _) = borrowed(scene)
    scene.reach()
    worker.kill()
    dask(scene, "worker", proxy.address, "--nthreads", "1")


@kind("all connections to a scheduler are cut")
def _(scene: Scene) -> None:
    proxy, _ = borrowed(scene)
    scene.reach()
    proxy.cut()


@kind("a scheduler is killed, and started again with its workers")
def _(scene: Scene) -> None:
    proxy, started = borrowed(scene)
    scene.reach()
    for process in started:
        process.kill()
        process.wait()
    scene.mend = partial(serving, scene, proxy)
