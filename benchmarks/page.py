"""What the live page costs: python benchmarks/page.py [--viewers N].

First how long a page of 40 × 40 × 3 cells takes to open in a browser, and to follow a new cell.
Then a real study with viewers: their share of the driver's CPU seconds.
"""

import argparse
import functools
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import lthdask
from lthdask.cluster.client import open_client
from lthdask.grid import Cell
from lthdask.report.page import document
from lthdask.report.page.source import Source
from lthdask.storage.creation import create_cube
from lthdask.storage.cube import Cube
from lthdask.storage.schema import Extent, Status
from lthdask.study import Study
from tests.browser import Page, page, start

DRAWN = """
const [done] = arguments
const [map] = [...Bokeh.documents[0].all_models].filter((model) => model.type == "Figure")
const source = map.renderers[0].data_source
const began = performance.now()
source.data = {...source.data}
requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began)))
"""


def filled(folder: Path, side: int) -> Path:
    """Write a study of so many thresholds and rewind epochs, three replicates; one is pending."""
    thresholds = ",".join(f"{(i + 1) / (side + 1):.6f}" for i in range(side))
    keys = {"thresholds": thresholds, "rewind_epochs": ",".join(map(str, range(side)))}
    changes = {f"grid.{key}": value for key, value in keys.items()}
    study = Study.read("mnist-lenet").changed(
        changes | {"grid.replicates": "3", "recipe.epochs": "50"}
    )
    folder.mkdir(parents=True)
    axes, random = study.grid.axes(), np.random.default_rng(0)
    extent = Extent(axes, 50, ["1.weight"], steps=10)
    create_cube(folder / "results.zarr", extent, {"study": study.to_dict(), "steps": 10})
    (folder / "study.yaml").write_text(study.to_yaml())
    cube = Cube(folder / "results.zarr")
    for replicate in range(3):
        cube.write_dense(replicate, _curves(0.97, 0))
    for cell in study.grid.cells()[1:]:
        _write(cube, cell, 0.97 - 0.2 * cell.threshold**4 + random.normal(0, 0.002))
    return folder


def _curves(last: float, k: int) -> dict[int, dict[str, float]]:
    names = ("test_accuracy", "validation_accuracy", "validation_loss")
    return {epoch: dict.fromkeys(names, last * epoch / 50) for epoch in range(k + 1, 51)}


def _write(cube: Cube, cell: Cell, accuracy: float) -> None:
    metrics = {"test_accuracy": accuracy, "density": 1 - cell.threshold, "epochs_trained": 10}
    record = {"seconds": 10.0, "attempts": 1, "started": 1.7e9, "ended": 1.7e9 + 10}
    curves = _curves(accuracy, cell.first_epoch)
    cube.write(cell, Status.DONE, metrics, curves, {}, record, "node1 cuda")


def large(browser: Any, folder: Path) -> None:
    """Say how long a large study takes to open, and to follow."""
    command = [sys.executable, "-m", "lthdask", "watch", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().split()[-1]  # type: ignore[union-attr]
            for which in ("first viewer, nothing read yet", "second viewer"):
                began, spent = time.perf_counter(), psutil.Process(process.pid).cpu_times().user
                with page(browser, address) as shown:
                    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
                    shown.place("− dense", 1, 1)
                    wall = time.perf_counter() - began
                    spent = psutil.Process(process.pid).cpu_times().user - spent
                    told = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
                    (drawing,) = (m["value"] for m in told if m["name"] == "TaskDuration")
                    print(
                        f"open, {which}: {wall:.2f} s; CPU s: {spent:.2f} of the server, "
                        f"{drawing:.2f} of the page's thread"
                    )
                    drawn = [browser.execute_async_script(DRAWN) for _ in range(5)]
            print(f"the browser draws an update in {np.median(drawn):.0f} ms")
        finally:
            process.terminate()
    source, study = Source(folder), Study.read(str(folder / "study.yaml"))
    for _ in range(2):  # the second reads how cells were computed
        source._due = 0.0
        source.look()
    _write(Cube(folder / "results.zarr"), study.grid.cells()[0], 0.9)
    source._due = 0.0
    for name, work in (
        ("a look at one new cell", source.look),
        ("the columns of a replicate", functools.partial(source.columns, "ticket", 0)),
        ("the columns of the mean", functools.partial(source.columns, "ticket", None)),
    ):
        began = time.process_time()
        work()
        print(f"{name}: {time.process_time() - began:.3f} CPU s")


class Clock:
    """Adds up the CPU seconds that functions take in their threads."""

    def __init__(self) -> None:
        self.seconds = dict[str, float]()

    def said(self) -> str:
        """Return what each took."""
        return ", ".join(f"{name} {seconds:.2f}" for name, seconds in self.seconds.items())

    def on(self, owner: Any, name: str) -> None:
        """Measure a function from now on."""
        function: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(function)
        def measured(*given: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*given)
            finally:
                spent = time.thread_time() - began
                self.seconds[name] = self.seconds.get(name, 0.0) + spent

        setattr(owner, name, measured)


def watched(browser: Any, folder: Path, viewers: int) -> None:
    """Say what viewers of a study that is trained here take of the driver's CPU seconds."""
    clock = Clock()
    for owner, name in (
        (Source, "look"),
        (Source, "columns"),
        (Source, "curves"),
        (document._Page, "show"),
        (document._Page, "_draw"),
    ):
        clock.on(owner, name)
    changes = {"network.name": "lenet_300_100", "recipe.epochs": "10", "grid.replicates": "2"}
    changes |= {"grid.thresholds": "0.5,0.7,0.8,0.9,0.95", "grid.rewind_epochs": "0,1,2,3,4,5,6,7"}
    study = Study.read("digits").changed(changes)
    with open_client(2, deployment="local") as client:
        run = threading.Thread(target=lthdask.run, args=(study, client, folder))
        run.start()
        while not (folder / "study.yaml").exists():
            time.sleep(0.1)
        address = client.dashboard_link.replace("/status", "/grid")
        for _ in range(viewers):
            browser.switch_to.new_window("tab")
            browser.get(address)
            Page(browser).place("− dense", 1, 1)
        print(f"to open, CPU s: {clock.said()}")
        clock.seconds.clear()
        began, wall = time.process_time(), time.perf_counter()
        run.join()
        spent, wall = time.process_time() - began, time.perf_counter() - wall
    ours = sum(clock.seconds.values())
    print(f"{viewers} viewers: {ours:.2f} of the driver's {spent:.1f} CPU s in {wall:.0f} s")
    print(f"  = {ours / spent:.2%} of them, {ours / wall:.2%} of a core ({clock.said()})")


def main() -> None:
    """Measure all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--viewers", type=int, default=2)
    parser.add_argument("--side", type=int, default=40)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        browser = start(Path(scratch) / "chromium")
        try:
            large(browser, filled(Path(scratch) / "large", given.side))
            watched(browser, Path(scratch) / "watched", given.viewers)
        finally:
            browser.quit()


if __name__ == "__main__":
    main()
