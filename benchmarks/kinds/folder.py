"""Disks that fail, deaths at a write, and files that are lost; all while a study is run."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from functools import partial

from benchmarks.kinds.scene import KINDS, Kind, Scene, kind

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


ERRORS = {"EDQUOT": "/metrics/c/", "EIO": "/.state-", "ESTALE": "/ticket-r0-t0.8"}
for name, at in ERRORS.items():
    KINDS[f"an error of the file system ({name})"] = Kind(partial(io_error, name=name, at=at))


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
    scene.until(lambda: scene.sprung() or (scene.running and scene.running.poll() is not None))


for each, at in WRITES.items():
    KINDS[f"a death {each}"] = Kind(partial(dies, at=at))


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
    # Workers may write into it meanwhile.
    shutil.rmtree(place, ignore_errors=True) if place.is_dir() else place.unlink()
    os.kill(worker, signal.SIGKILL)


REMOVED = ["manifest.json", "study.yaml", "log.txt", "cells", "checkpoints", "code", "results.zarr"]
for what in [*REMOVED, "results.zarr/zarr.json", "results.zarr/metrics", ""]:
    name = f"{what or 'the whole folder'} is deleted, then a worker killed"
    KINDS[name] = Kind(partial(gone, what=what))


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


BECOME: dict[str, Callable[[bytes], bytes | None]] = {
    "are lost": lambda before: None,
    "change": lambda before: before[:-1] + bytes([before[-1] ^ 1]),
    "are cut short": lambda before: before[:-5000],
}
for name, content in BECOME.items():
    KINDS[f"the data {name}, then a worker is killed; they are put back"] = Kind(
        partial(data_become, content=content)
    )
