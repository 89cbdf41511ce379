"""Faults that strike between two runs; each is given the folder of a study that was stopped."""

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.kinds.scene import KINDS, Kind, Scene, kind

# Files that are damaged.


def damaged(scene: Scene, what: str, how: Callable[[Path], object]) -> None:
    scene.damages, scene.done_before = True, set()
    found = sorted(scene.folder.glob(what))
    assert found
    how(found[0])


def delete(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Path], object], ...]] = {
    "manifest.json": (delete, cut),
    "study.yaml": (delete, cut),
    "results.zarr": (delete,),
    "results.zarr/zarr.json": (delete, cut),
    "results.zarr/metrics/zarr.json": (delete, cut),
    "results.zarr/threshold/c/0": (delete, flip),
    "results.zarr/status/c/0/0/*/0": (delete, empty),
    "results.zarr/metrics/c/0/0/*/0/0": (delete, flip),
    "results.zarr/dense_curves/c/0/0/0": (delete,),
    "checkpoints": (delete,),
    "checkpoints/replicate-0/epoch-0002.safetensors": (delete, cut),
    "cells": (delete,),
    "cells/ticket-*/state-*.safetensors": (cut, empty),
    "cells/*/attempt-1.json": (empty,),
    "code": (delete,),
}
PAST = {delete: "deleted", cut: "cut short", empty: "emptied", flip: "changed in one bit"}
for what, ways in DAMAGE.items():
    for how in ways:
        KINDS[f"{what} is {PAST[how]}"] = Kind(partial(damaged, what=what, how=how), between=True)


@kind("every file that was written last is empty, as after a loss of power", between=True)
def _(scene: Scene) -> None:
    scene.damages, scene.done_before = True, set()
    files = [f for f in scene.folder.rglob("*") if f.is_file()]
    newest = max(f.stat().st_mtime for f in files)
    for file in files:
        if file.stat().st_mtime > newest - 1:
            empty(file)


@kind("the log is a folder", between=True)
def _(scene: Scene) -> None:
    delete(scene.folder / "log.txt")
    (scene.folder / "log.txt").mkdir()


@kind("half a file of a dead writer is left behind, of every kind", between=True)
def _(scene: Scene) -> None:
    for file in [f for f in scene.folder.rglob("*") if f.is_file()]:
        half = file.read_bytes()[: file.stat().st_size // 2]
        file.with_name(f".{file.name}.0123456789abcdef").write_bytes(half)
        if "results.zarr" in file.parts:
            file.with_name(f"{file.name}.0123456789abcdef.partial").write_bytes(half)


@kind("a lock is left behind, of a process on another machine", between=True)
def _(scene: Scene) -> None:
    about = {"host": "elsewhere", "pid": 1, "since": "2026-01-01"}
    (scene.folder / ".driver.json").write_text(json.dumps(about))
    (scene.folder / ".driver.lock").touch()


# The folder is elsewhere.


@kind("the folder has moved", between=True)
def _(scene: Scene) -> None:
    (scene.home / "else where").mkdir()
    scene.folder = scene.folder.rename(scene.home / "else where" / "grün")


@kind("the folder is reached by a link", between=True)
def _(scene: Scene) -> None:
    scene.folder.rename(scene.home / "target")
    scene.folder.symlink_to(scene.home / "target")


@kind("the folder is a copy, with new times", between=True)
def _(scene: Scene) -> None:
    shutil.copytree(scene.folder, scene.home / "copy", copy_function=shutil.copyfile)
    scene.folder = scene.home / "copy"


# The same command in other surroundings.

SURROUNDINGS = {
    "another locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "another time zone": {"TZ": "Pacific/Kiritimati"},
    "another number of threads": {"OMP_NUM_THREADS": "5", "MKL_NUM_THREADS": "5"},
    "another order of hashes": {"PYTHONHASHSEED": "7"},
    "no home": {"HOME": "/nonexistent"},
    "the clock set back by an hour": {"CLOCK": "-3600"},
    "the clock set forward by a year": {"CLOCK": "31536000"},
}


def surrounded(scene: Scene, variables: dict[str, str]) -> None:
    scene.environment |= variables


for name, variables in SURROUNDINGS.items():
    KINDS[f"resumed with {name}"] = Kind(partial(surrounded, variables=variables), between=True)


def resumed(scene: Scene, more: tuple[str, ...], **about: object) -> None:
    scene.arguments += more
    scene.start(**about)


RESUMED: dict[str, tuple[tuple[str, ...], dict[str, object]]] = {
    "with one worker": (("--workers", "1"), {}),
    "with another width of cohorts": (("--set", "engine.cohort=3"), {}),
    "with another umask": ((), {"umask": 0o077}),
    "from another working directory": ((), {"cwd": "/"}),
}
for name, (more, about) in RESUMED.items():
    KINDS[f"resumed {name}"] = Kind(partial(resumed, more=more, **about), between=True)


@kind("resumed with a long folder of temporary files", between=True)
def _(scene: Scene) -> None:
    scene.temporary = scene.home / ("long" * 30)
    scene.temporary.mkdir()


@kind("a death in check --repair", between=True)
def _(scene: Scene) -> None:
    damaged(scene, "results.zarr/metrics/c/0/0/*/0/0", flip)
    scene.set_trap("SIGKILL", "/results.zarr/status/c/")
    scene.run("check", str(scene.folder), "--repair")
    assert scene.sprung()
