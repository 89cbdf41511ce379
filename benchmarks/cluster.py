"""What Dask and the queue cost: uv run python benchmarks/cluster.py.

Time from command to first training step, cells per minute with one and with two workers,
and the driver's time and memory for cells that take no time at all. With a Slurm
(`bash tests/slurm.sh up`), the first also there: --cluster FILE.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster

from lthdask.cluster.client import SETTINGS, open_client
from lthdask.cluster.queue import Queue, Task
from lthdask.events import Event
from lthdask.flow import run
from lthdask.grid import Grid
from lthdask.study import Study

SCRIPT = Path(__file__).parent.parent / "scripts" / "run.py"
SHORT = {
    "grid.thresholds": "0.5,0.6,0.7,0.8,0.9,0.95",
    "grid.rewind_epochs": "0,1",
    "recipe.epochs": "2",
}


def time_to_first_step(deployment: str, cluster: str | None) -> float:
    """Return the seconds from the command to the first epoch's end of a tiny network."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, str(SCRIPT), "--out", f"{out}/run", "--deploy", deployment]
        command += ["--set", "network.name=lenet_300_100", "--set", "data.image_size=8"]
        command += ["--cluster", cluster] if cluster else []
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        for line in process.stdout:
            if "dense run 0 done" in line:
                break
        seconds = time.perf_counter() - began
        process.terminate()
        process.communicate()
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
    import lthdask.tasks  # noqa: F401 - importing torch is not what is measured


def _instant(cell: Any, checkpoint: Any, tell: Any) -> str:
    return "done"


def overhead(workers: int, cells: int) -> tuple[float, float]:
    """Return the driver's milliseconds per instant cell, and the MB it grew by."""
    import dask

    rewinds = tuple(range(10))
    thresholds = tuple((i + 1) / (cells // 10 + 2) for i in range(cells // 10))
    grid = Grid(thresholds, rewinds)
    with (
        dask.config.set(SETTINGS),
        LocalCluster(
            workers,
            processes=False,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):
        queue = Queue(client)
        for k in rewinds:
            queue.share(k, lambda: bytes(1000))
        for cell in grid.cells():
            length = 10 - cell.rewind_epoch
            queue.add(Task(f"cell-{cell}", _instant, (cell,), (cell.rewind_epoch,), length))
        before = _resident()
        began = time.perf_counter()
        queue.run()
        taken = time.perf_counter() - began
        return 1000 * taken / cells, _resident() - before


def _resident() -> float:
    """Return the memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cluster", help="a cluster file for the Slurm that answers here")
    parser.add_argument("--cells", type=int, default=10_000, help="instant cells")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    for deployment in ["local", "slurm"] if arguments.cluster else ["local"]:
        taken = [time_to_first_step(deployment, arguments.cluster) for _ in range(3)]
        print(f"command to dense run done, {deployment}: {sorted(taken)[1]:.1f} s", flush=True)
    rates = {n: [] for n in (1, 2)}
    for _ in range(3):
        for n, found in rates.items():
            found.append(cells_per_minute(n))
    one, two = (sorted(found)[1] for found in rates.values())
    print(
        f"cells per minute: {one:.1f} with 1 worker, {two:.1f} with 2; "
        f"parallel efficiency {two / one / 2:.2f}",
        flush=True,
    )
    for workers in (1, 16, 64):
        milliseconds, grown = overhead(workers, arguments.cells)
        print(
            f"instant cells, {workers:2} in-process workers: {milliseconds:.2f} ms a cell, "
            f"driver {grown:+.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
