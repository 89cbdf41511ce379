"""A small study in a world of its own, which a kind of fault breaks."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import xarray as xr

from lthdask.grid import Cell
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.results import open_results
from lthdask.storage.schema import GROUPS, Status

KINDS: dict[str, "Kind"] = {}
"""Every kind of fault, by what happens."""
TRAP = Path(__file__).with_name("trap.py")
SCRIPTS = Path(__file__).parents[2] / "scripts"
NETWORK = """
from torch import nn


def network(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, classes))
"""
STUDY = """
name: kinds
data: {name: mnist, image_size: 28, validation: 60}
network: {name: "mine:network"}
recipe:
  epochs: 60
  batch_size: 25
  optimizer: {name: sgd, rate: 0.05, momentum: 0.9}
  schedule: {name: linear, warmup_epochs: 1}
pruning: {score: lamp}
grid: {thresholds: [0.5, 0.8, 0.95], rewind_epochs: [0, 2]}
"""


def write_data(folder: Path) -> None:
    """Write a data set of a few images, as MNIST's files have it."""
    raw, dice = folder / "MNIST" / "raw", np.random.default_rng(0)
    raw.mkdir(parents=True)
    for part, count in (("train", 260), ("t10k", 60)):
        labels = np.arange(count) % 10
        images = dice.integers(0, 160, (count, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 6] += 90
        header = struct.pack(">4I", 0x803, count, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">2I", 0x801, count)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.astype(np.uint8).tobytes())


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes
    ----------
    act : callable
        Breaks something of a scene.
    between : bool
        Whether it strikes between two runs, of which the first was stopped.
    """

    act: Callable[["Scene"], None]
    between: bool = False


def kind(name: str, between: bool = False) -> Callable[[Callable[["Scene"], None]], None]:
    """Note a kind of fault."""

    def note(act: Callable[["Scene"], None]) -> None:
        KINDS[name] = Kind(act, between)

    return note


class Scene:
    """The study, its data and its code in a folder of their own, and the command that runs it.

    Attributes
    ----------
    folder : Path
        The study's folder.
    arguments : list of str
        Those of the command, which stay the same.
    environment : dict of str to str
        What the command finds in its environment besides.
    running : Popen or None
        The command that is to go on.
    mend : callable
        What a person does before the command is given again.
    done_before : set of Cell or None
        What was done before the fault, where that is not to be seen after it.
    damages : bool
        Whether a file of the study was damaged from outside, so that cells may be trained again.
    """

    patience = 240.0
    """Seconds after which a command hangs."""

    def __init__(self, home: Path) -> None:
        self.home, self.folder, self.mine = home, home / "run", home / "mine.py"
        self.data, self.temporary = home / "data", home / "tmp"
        self.arguments = ["--deploy", "local", "--workers", "2", "--max-attempts", "20"]
        self.environment = dict[str, str]()
        self.running: subprocess.Popen[str] | None = None
        self.mend: Callable[[], object] = lambda: None
        self.others = list[subprocess.Popen[bytes]]()
        self.done_before: set[Cell] | None = None
        self.damages = False
        (home / "marks").mkdir(parents=True)
        self.temporary.mkdir()
        write_data(self.data)
        self.mine.write_text(NETWORK)
        (home / "trap").mkdir()
        shutil.copyfile(TRAP, home / "trap" / "sitecustomize.py")
        (home / "cluster.yaml").write_text("lthdask: {checkpoint-interval: 0.1s}\n")
        (home / "study.yaml").write_text(STUDY)

    def command(self, name: str, *more: str) -> list[str]:
        """Return a command line."""
        return [sys.executable, str(SCRIPTS / f"{name}.py"), *more]

    def variables(self) -> dict[str, str]:
        """Return the environment of the scene's processes."""
        ours = {"PYTHONPATH": str(self.home / "trap"), "SCENE": str(self.home)}
        return os.environ | ours | {"TMPDIR": str(self.temporary)} | self.environment

    def start(self, *more: str, wrapped: tuple[str, ...] = (), **kwargs: Any) -> None:
        """Give the command."""
        given = ["--study", f"{self.home}/study.yaml", "--code", f"{self.mine}"]
        given += ["--cluster", f"{self.home}/cluster.yaml", "--data", f"{self.data}"]
        given += ["--out", f"{self.folder}", *self.arguments, *more]
        self.said = self.home / f"said-{len([*self.home.glob('said-*')])}.txt"
        with open(self.said, "w") as said:
            kwargs = {"stdout": said, "stderr": said, "stdin": subprocess.DEVNULL} | kwargs
            self.running = subprocess.Popen(
                [*wrapped, *self.command("run", *given)],
                env=self.variables(),
                start_new_session=True,
                cwd=kwargs.pop("cwd", self.home),
                text=True,
                **kwargs,
            )

    def run(self, name: str, *arguments: str) -> int:
        """Run another command to its end."""
        words = self.command(name, *arguments)
        return subprocess.run(words, env=self.variables(), capture_output=True).returncode

    @property
    def driver(self) -> psutil.Process:
        """The process of the command."""
        assert self.running
        return psutil.Process(self.running.pid)

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until something is there, while the command runs."""
        ends = time.monotonic() + self.patience
        while not (found := condition()):
            if self.running and self.running.poll() is not None:
                raise RuntimeError(f"ended with {self.running.returncode}: {self.said.read_text()}")
            if time.monotonic() > ends:
                raise TimeoutError("it did not happen")
            time.sleep(0.1)  # a look opens the cube
        return found

    def done(self) -> set[Cell]:
        """Return the cells that are done."""
        if not (self.folder / "results.zarr" / "zarr.json").exists():
            return set()
        cells = Cube(self.folder / "results.zarr").cells()
        return {cell for cell, status in cells.items() if status is Status.DONE}

    def attempts(self, name: object) -> list[dict[str, Any]]:
        """Return the attempts at a run."""
        return Folder(self.folder).runs.attempts(name)

    def training(self) -> list[int]:
        """Return the processes that train a cell which has saved a state."""
        names = {state.parent.name for state in self.folder.glob("cells/ticket-*/state-*")}
        found = [self.attempts(name)[-1] for name in sorted(names)]
        return [a["pid"] for a in found if psutil.pid_exists(a["pid"])]

    def reach(self, *more: str, cells: int = 2, **kwargs: Any) -> list[int]:
        """Give the command, and wait until cells are done and others train; return who does."""
        self.start(*more, **kwargs)
        self.until(lambda: len(self.done()) >= cells)
        found: list[int] = self.until(self.training)
        return found

    def set_trap(self, do: str, at: str, times: int = 1, **more: Any) -> None:
        """Have a process break as it touches a file whose path has `at` in it."""
        self.environment["TRAP"] = json.dumps({"do": do, "at": at, "times": times} | more)
        (self.home / "marks" / "set").touch()

    def sprung(self) -> bool:
        """Return whether the trap has sprung."""
        return len([*(self.home / "marks").iterdir()]) > 1

    def server(self) -> psutil.Process:
        """Return the process that workers are forked from."""
        children = self.driver.children()
        return next(c for c in children if "forkserver" in " ".join(c.cmdline()))

    def wait(self) -> int | None:
        """Wait until the command has ended; None if it hangs."""
        if not self.running:
            return None
        try:
            return self.running.wait(self.patience)
        except subprocess.TimeoutExpired:
            return None

    def same(self, undisturbed: xr.Dataset) -> bool:
        """Return whether all results are there, bit for bit."""
        results = open_results(self.folder, *(group for group in GROUPS if group != "records"))
        return results.load().equals(undisturbed)

    def left(self) -> list[psutil.Process]:
        """Return the processes of the scene that still live."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                living = process.status() != psutil.STATUS_ZOMBIE
                if living and process.environ().get("SCENE") == str(self.home):
                    found.append(process)
        return found

    def close(self) -> int:
        """End what is left of the scene; return how many processes did not end by themselves."""
        for other in self.others:
            other.kill()
            other.wait()
        if self.running and self.running.poll() is None:
            os.killpg(self.running.pid, signal.SIGKILL)
        ends, left = time.monotonic() + 30, self.left()
        while left and time.monotonic() < ends:
            time.sleep(0.2)
            left = self.left()
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        for mount in sorted(psutil.disk_partitions(all=True), reverse=True):
            if Path(mount.mountpoint).is_relative_to(self.home):
                subprocess.run(["umount", "-l", mount.mountpoint], check=True)
        return len(left)


def undisturbed(home: Path) -> xr.Dataset:
    """Return the results of the study when nothing happens."""
    scene = Scene(home)
    scene.start()
    assert scene.wait() == 0, scene.said.read_text()
    scene.close()
    results = [group for group in GROUPS if group != "records"]
    return open_results(scene.folder, *results).load()


def half_done(home: Path) -> Path:
    """Return the folder of a study that was stopped in its midst, to copy from."""
    scene = Scene(home)
    scene.reach()
    scene.driver.send_signal(signal.SIGINT)
    scene.wait()
    assert 2 <= len(scene.done()) < 6
    assert list(scene.folder.glob("cells/ticket-*/state-*"))
    scene.close()
    return scene.folder
