"""What Dask and the queue cost: uv run python benchmarks/cluster.py [--part PART ...].

start: time from command to first training step; with a Slurm (`bash tests/slurm.sh up`), also
there: --cluster FILE. rate: cells per minute with one and with two workers. overhead: time and
the driver's memory for cells that take no time at all. cell: what a cell of MobileNetV2 takes
beside its training and its write. write: the write of a cell.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import dask
from distributed import Client, LocalCluster

from lthdask.cluster.client import collecting_rarely, open_client
from lthdask.cluster.overrides import ALONE, SETTINGS
from lthdask.cluster.queue import Queue, Task
from lthdask.events import Event
from lthdask.flow import run
from lthdask.grid import Grid
from lthdask.lottery import runs
from lthdask.networks.build import on_meta
from lthdask.pruning.rule import prunable_weights
from lthdask.storage.creation import create_cube
from lthdask.storage.cube import Cube
from lthdask.storage.schema import CURVES, LAYERS, METRICS, RECORD, Extent, Status
from lthdask.study import Study

PARTS = ("start", "rate", "overhead", "cell", "write")
SCRIPT = Path(__file__).parent.parent / "scripts" / "run.py"
ONE_STEP = {  # the dense run is one step of a small network
    "network.name": "lenet_300_100",
    "data.image_size": "8",
    "data.validation": "900",
    "recipe.epochs": "1",
    "recipe.batch_size": "397",
    "recipe.schedule.warmup_epochs": "0",
    "grid.thresholds": "0.5",
    "grid.rewind_epochs": "0",
    "keep_until": "0",
}
SHORT = {
    "grid.thresholds": "0.5,0.55,0.6,0.65,0.7,0.75,0.8,0.85,0.9,0.92,0.95,0.97",
    "grid.rewind_epochs": "0,1,2",
    "recipe.epochs": "3",
}
SMALL_IMAGES = {  # all weights of MobileNetV2; what they take beside training is what counts
    "data.image_size": "8",
    "data.subset": "64",
    "data.validation": "32",
    "recipe.batch_size": "32",  # which leaves one step in an epoch
    "grid.thresholds": ",".join(str((i + 1) / 17) for i in range(16)),
    "grid.rewind_epochs": ",".join(map(str, range(16))),
    "recipe.epochs": "16",
}
BY_THE_CLOCK = {
    # What every worker does by the clock, 50 times a second; elsewhere, in its own process.
    "distributed.admin.tick.interval": "1 h",
    "distributed.admin.system-monitor.interval": "1 h",
    "distributed.worker.profile.enabled": False,
    # What each worker remembers of its tasks, likewise in its own process; full within 10 of
    # them, so that only what grows without end is left.
    "distributed.admin.low-level-log-length": 10,
}


def time_to_first_step(deployment: str, cluster: str | None) -> float:
    """Return the seconds from the command to the end of a first step, which takes no time."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, str(SCRIPT), "--out", f"{out}/run", "--deploy", deployment]
        for key, value in ONE_STEP.items():
            command += ["--set", f"{key}={value}"]
        command += ["--cluster", cluster] if cluster else []
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        for line in process.stdout:
            if "dense run 0 done" in line:
                seconds = time.perf_counter() - began
        if process.wait():
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        return seconds


def cells_per_minute(workers: int) -> float:
    """Return how fast so many workers train short cells of the `digits` study."""
    times: list[float] = []

    def watch(event: Event) -> None:
        if event.kind == "dense" or event.kind == "cell":
            times.append(time.perf_counter())

    with (
        tempfile.TemporaryDirectory() as out,
        open_client(workers, deployment="local", say=lambda line: None) as client,
    ):
        study = Study.read("digits").changed(SHORT)
        client.run(_warm_up)
        run(study, client, f"{out}/run", watch=watch)
    return 60 * (len(times) - 1) / (times[-1] - times[0])


def _warm_up() -> None:
    import lthdask.worker.tasks  # noqa: F401 - importing torch is not what is measured


def _instant(cell: Any, checkpoint: Any, here: Any) -> str:
    return "done"


def grid_of(cells: int) -> Grid:
    """Return a grid of about so many cells: 10 rewind epochs, and thresholds."""
    rows = max(1, cells // 10)
    return Grid(tuple((i + 1) / (rows + 2) for i in range(rows)), tuple(range(10)))


@dataclass
class Cost:
    """What an instant cell costs.

    Attributes
    ----------
    wall, cpu, driver : float
        Milliseconds a cell: that pass; of CPU, of scheduler, workers and driver together, which
        share one process here; and of the thread that runs the queue alone.
    early, late : float
        MB that the process grew by until a third of the cells were done, and from then on.
    """

    wall: float
    cpu: float
    driver: float
    early: float
    late: float


@contextmanager
def cluster_of(workers: int, protocol: str = "inproc") -> Iterator[Client]:
    """Yield a client of so many workers in this process, by the settings of lthdask."""
    with (
        dask.config.set(SETTINGS),
        dask.config.set(BY_THE_CLOCK | (ALONE if workers == 1 else {})),
        collecting_rarely(),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=False,
            protocol=protocol,
            memory_limit=0,
            dashboard_address="127.0.0.1:0",
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):
        assert len(client.nthreads()) == workers
        yield client


def overhead(workers: int, grid: Grid) -> Cost:
    """Return what an instant cell costs with so many workers inside this process."""
    cells, memory = list(grid.cells()), [0.0]
    landed = 0

    def count(outcome: Any) -> None:
        nonlocal landed
        landed += 1
        assert outcome == "done", outcome
        if landed in (len(cells) // 3, len(cells)):
            memory.append(_resident())

    with cluster_of(workers) as client:
        queue = Queue(client)
        for k in grid.rewind_epochs:
            queue.share(f"checkpoint-{k}", lambda: bytes(1000))
        for cell in cells:
            shared, length = (f"checkpoint-{cell.rewind_epoch}",), 10 - cell.rewind_epoch
            queue.add(Task(f"cell-{cell}", _instant, (cell,), shared, length, count))
        memory[0] = _resident()
        clocks = time.perf_counter, time.process_time, time.thread_time
        began = [clock() for clock in clocks]
        queue.run()
        spent = (clock() - before for clock, before in zip(clocks, began, strict=True))
        costs = [1000 * seconds / len(cells) for seconds in spent]
        return Cost(*costs, memory[1] - memory[0], memory[2] - memory[1])


def beside_training() -> float:
    """Return the milliseconds of a worker that a cell takes beside its training and its write.

    From when the dense run has landed to the last cell: with Dask, with whatever the driver
    keeps the worker waiting for, and with what a worker does for the first time.
    """
    times: list[float] = []

    def watch(event: Event) -> None:
        if event.kind in ("dense", "cell"):
            times.append(time.perf_counter())

    with (
        tempfile.TemporaryDirectory(dir=".") as out,
        open_client(1, deployment="local", say=lambda line: None) as client,
    ):
        client.run(_time_the_work)
        run(Study.read("digits").changed(SMALL_IMAGES), client, f"{out}/run", watch=watch)
        (spent,) = client.run(_seconds_of_work).values()
    return 1000 * (times[-1] - times[0] - spent) / (len(times) - 1)


def _time_the_work(dask_worker: Any) -> None:
    """Have a worker count the seconds in which it trains tickets or writes cells."""
    train_tickets, write, clock = runs.train_tickets, Cube.write, time.perf_counter
    dask_worker.seconds_of_work = 0.0

    def trained(*arguments: Any, **options: Any) -> Iterator[Any]:
        epochs, began = train_tickets(*arguments, **options), clock()
        for found in epochs:
            dask_worker.seconds_of_work += clock() - began
            yield found
            began = clock()
        dask_worker.seconds_of_work += clock() - began

    def written(*arguments: Any, **options: Any) -> None:
        began = clock()
        write(*arguments, **options)
        dask_worker.seconds_of_work += clock() - began

    runs.train_tickets, Cube.write = trained, written  # type: ignore[method-assign]


def _seconds_of_work(dask_worker: Any) -> float:
    return float(dask_worker.seconds_of_work)


def _resident() -> float:
    """Return the memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def writes(grid: Grid, count: int = 200) -> tuple[float, float]:
    """Return the median milliseconds to open a cube on disk, and to write a cell of it."""
    study = Study.read("digits")
    layers = list(prunable_weights(on_meta(study.network, (1, 32, 32), 10)))
    epochs, opened, wrote = study.recipe.epochs, [], []
    with tempfile.TemporaryDirectory(dir=".") as out:
        path = Path(out) / "results.zarr"
        create_cube(path, Extent(grid.axes(), epochs, layers, study.pruning.meaning), {})
        for cell in list(grid.cells())[:: max(1, len(grid.cells()) // count)]:
            began = time.perf_counter()
            cube = Cube(path)
            then = time.perf_counter()
            cube.write(
                cell,
                Status.DONE,
                dict.fromkeys(METRICS, 0.5),
                {epoch: dict.fromkeys(CURVES, 0.5) for epoch in range(1, epochs + 1)},
                {name: dict.fromkeys(LAYERS, 0.5) for name in layers},
                dict.fromkeys(RECORD, 0.5),
                "here cpu",
            )
            opened.append(1000 * (then - began))
            wrote.append(1000 * (time.perf_counter() - then))
    return median(opened), median(wrote)


def say(line: str) -> None:
    print(f"{line}  [load {os.getloadavg()[0]:.1f}]", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="all by default")
    parser.add_argument("--cluster", help="a cluster file for the Slurm that answers here")
    parser.add_argument("--cells", type=int, default=10_000, help="instant cells")
    parser.add_argument(
        "--repeat", type=int, default=3, help="of start and rate; the median counts"
    )
    arguments = parser.parse_args()
    parts = arguments.part or PARTS
    say(f"{os.cpu_count()} cores")
    if "start" in parts:
        for deployment in ["local", "slurm"] if arguments.cluster else ["local"]:
            file = arguments.cluster if deployment == "slurm" else None
            taken = [time_to_first_step(deployment, file) for _ in range(arguments.repeat)]
            say(f"command to first training step, {deployment}: {median(taken):.1f} s")
    if "rate" in parts:
        rates = [[cells_per_minute(n) for n in (1, 2)] for _ in range(arguments.repeat)]
        one, two = (median(found) for found in zip(*rates, strict=True))
        say(
            f"cells per minute: {one:.1f} with 1 worker, {two:.1f} with 2; "
            f"parallel efficiency {two / one / 2:.2f}"
        )
    grid = grid_of(arguments.cells)
    for workers in (1, 16, 64) if "overhead" in parts else ():
        cost = overhead(workers, grid)
        say(
            f"an instant cell, {workers:2} in-process workers: {cost.wall:.2f} ms, "
            f"{cost.cpu:.2f} ms of CPU, of which the driver's thread {cost.driver:.2f} ms; "
            f"memory {cost.early:+.1f} MB at 1/3, {cost.late:+.1f} MB from there to the end"
        )
    if "cell" in parts:
        say(f"a cell beside its training and its write: {beside_training():.1f} ms")
    if "write" in parts:
        opened, wrote = writes(grid)
        say(f"the write of a cell: {wrote:.1f} ms, and {opened:.1f} ms to open the cube")


if __name__ == "__main__":
    main()
