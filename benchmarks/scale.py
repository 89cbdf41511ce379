"""What 100,000 cells take on the driver: uv run python benchmarks/scale.py [--cells N].

The real study, cube and sweep, up to the last cell; what the workers would do takes no time
and writes nothing. Memory counts above that of a process which has imported everything.
"""

import argparse
import os
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

from lthdask.cluster.queue import Task
from lthdask.cluster.sick_places import SickPlaces
from lthdask.cluster.window import Window
from lthdask.driver.opening import extent_of, open_study
from lthdask.driver.remaining import remaining
from lthdask.driver.sweep import Sweep
from lthdask.storage.creation import create_cube
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.manifest import Manifest
from lthdask.study import Study
from lthdask.training.engine import Engine
from lthdask.worker.tasks import train_dense
from lthdask.worker.work import Work

WORKERS = 256
EPOCHS = 100


def study_of(cells: int) -> Study:
    """Return a study of about so many cells: 100 rewind epochs, 10 replicates, thresholds."""
    rows = max(1, cells // (EPOCHS * 10))
    changes = {
        "network.name": "lenet_300_100",
        "recipe.epochs": str(EPOCHS),
        "keep_until": "0",
        "grid.thresholds": ",".join(f"{(row + 1) / (rows + 1):.6f}" for row in range(rows)),
        "grid.rewind_epochs": ",".join(map(str, range(EPOCHS))),
        "grid.replicates": "10",
    }
    return Study.read("digits").changed(changes)


class Instant:
    """Stands where the queue does: what is in the window is done at once."""

    def __init__(self) -> None:
        self.window = Window[Task]()
        self.places = SickPlaces(None)  # type: ignore[arg-type]  # nothing fails

    def workers(self) -> int:
        """Return how many workers there would be."""
        return WORKERS

    def share(self, name: Any, load: Any) -> None:
        """Nothing is sent."""

    def add(self, task: Task) -> None:
        """Add a task."""
        self.window.add(task, task.length)

    def run(self) -> None:
        """End all tasks, a window at a time."""
        while tasks := self.window.take(0, WORKERS):
            for task in tasks:
                dense = task.function is train_dense
                task.then({} if dense else ["done"] * len(task.arguments[1]))


class Meter:
    """Tells how time and memory grow from step to step."""

    def __init__(self) -> None:
        self.before, self.clock = _memory("VmRSS"), time.perf_counter()

    def say(self, step: str) -> None:
        """Print the time of a step, and the memory that is held after it."""
        now = time.perf_counter()
        held, most = (_memory(which) - self.before for which in ("VmRSS", "VmHWM"))
        traced = f", traced {tracemalloc.get_traced_memory()[0] / 1e6:.0f} MB"
        traced = traced if tracemalloc.is_tracing() else ""
        print(
            f"{step:22} {now - self.clock:6.1f} s, {held:6.1f} MB above, so far {most:.1f}{traced}",
            flush=True,
        )
        self.clock = time.perf_counter()


def _memory(which: str) -> float:
    """Return the memory of this process, in MB: now (VmRSS), or the most there was (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(which))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--trace", action="store_true", help="where the memory goes; slower")
    given = parser.parse_args()
    if given.trace:
        tracemalloc.start()
    study_of(1)  # the first one imports what checks a network
    meter = Meter()
    study = study_of(given.cells)
    meter.say("study")
    with tempfile.TemporaryDirectory() as out:
        folder = Folder(Path(out))
        engine = Engine(device="cpu", precision="float32", cohort=1)
        manifest = Manifest({}, "", engine, "", "", study.grid.axes(), steps=1)
        folder.write_study(study.to_yaml())
        folder.write_manifest(manifest)
        create_cube(folder.cube, extent_of(study, manifest, ["1.weight"]), {})
        meter.say("cube")
        left = remaining(open_study(study, out))
        meter.say("remaining")
        queue = Instant()
        work = Work(study, engine, folder)
        sweep = Sweep(work, manifest, Cube(folder.cube), left, queue)  # type: ignore[arg-type]
        meter.say("sweep")
        for replicate in sorted(left.dense_runs):
            sweep.add_dense_run(replicate)
        queue.run()
        meter.say("every task")
        if given.trace:
            for line in tracemalloc.take_snapshot().statistics("lineno")[:12]:
                print(line)
        most = _memory("VmHWM") - meter.before
        print(f"{len(left.cells):,} cells: at most {most:.0f} MB above the imports")
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
