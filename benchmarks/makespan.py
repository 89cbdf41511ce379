"""What Dask adds to a grid's makespan: uv run python benchmarks/makespan.py [--rounds N].

Cells of the 16x16 grid, T = 16, that sleep for T - k units go through the real queue to
workers inside this process, with scattered checkpoints as theirs: time over the least that
is possible. Then the bytes that a cell sends through the scheduler, counted on real sockets.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import dask
import distributed
from cluster import cluster_of
from distributed import Client
from distributed.comm.tcp import TCP

from lthdask.cluster.queue import Queue, Task
from lthdask.events import Event, TaskContext
from lthdask.grid import Cell, Grid
from lthdask.storage.folder import Folder
from lthdask.study import Study
from lthdask.training.engine import Engine
from lthdask.worker.work import Work

EPOCHS = 16
SIZES = {16: 0.05, 32: 0.1, 64: 0.2}
"""Workers → seconds of a unit: the grid takes 6.8 s on all of them."""
CHECKPOINT = 800_000
"""Bytes of one: inside a process none is copied, so their size plays no part."""
GRID = Grid(tuple((i + 1) / 17 for i in range(16)), tuple(range(EPOCHS)))


def sleep_cell(work: Work, cell: Cell, unit: float, here: TaskContext, *checkpoints: bytes) -> str:
    """Sleep for as many units as the cell has epochs; without a unit, tell of each."""
    assert all(len(checkpoint) == CHECKPOINT for checkpoint in checkpoints)
    epochs = EPOCHS - cell.first_epoch
    time.sleep(epochs * unit)
    for _ in range(epochs if not unit else 0):
        here.tell(Event("epoch", str(cell), epochs=1))
    return "done"


def through_the_queue(client: Client, unit: float) -> Callable[[], float]:
    """Scatter the checkpoints; return what runs the grid, and returns the seconds it took."""
    outcomes: list[Any] = []
    queue = Queue(client)
    names = tuple(f"checkpoint-{epoch}" for epoch in (*GRID.rewind_epochs, EPOCHS))
    for name in names:
        queue.share(name, lambda: bytes(CHECKPOINT))
    queue.add(Task("scattered", lambda here, *checkpoints: None, shared=names))
    queue.run()
    study = Study.read("digits")
    work = Work(study, Engine(), Folder(Path("runs/digits")))

    def run() -> float:
        began = time.perf_counter()
        for cell in GRID.cells():
            length = EPOCHS - cell.first_epoch
            shared = (f"checkpoint-{cell.rewind_epoch}", f"checkpoint-{EPOCHS}")
            arguments = (work, cell, unit)
            task = Task(f"cell-{cell}", sleep_cell, arguments, shared, length, outcomes.append)
            queue.add(task)
        queue.run()
        took = time.perf_counter() - began
        assert outcomes == ["done"] * len(GRID.cells()), set(outcomes)
        return took

    return run


def over_the_bound(workers: int, unit: float) -> tuple[float, float]:
    """Return the makespan over the least possible, and milliseconds of CPU a cell."""
    lengths = sorted((EPOCHS - cell.first_epoch for cell in GRID.cells()), reverse=True)
    pair = sum(lengths[workers - 1 : workers + 1])
    least = unit * max(sum(lengths) / workers, lengths[0], pair)
    with cluster_of(workers, "inproc") as client:
        run, before = through_the_queue(client, unit), time.process_time()
        ratio = run() / least
        return ratio, 1000 * (time.process_time() - before) / len(lengths)


def bytes_of_a_cell(workers: int = 4) -> float:
    """Return the bytes to and from the scheduler, over the cells.

    Client, scheduler and workers talk over TCP inside this process, so that each message is
    seen where it is written. Counted is all that the scheduler sends or is sent while the
    grid runs: graphs, tasks, results, an event for each epoch, and heartbeats. Checkpoints
    are scattered before, once for all cells; that they do not travel with each is what this
    shows.
    """
    counted, addresses = 0, set[str]()
    write = TCP.write

    async def counting(self: TCP, *arguments: Any, **options: Any) -> int:
        nonlocal counted
        size = await write(self, *arguments, **options)
        if addresses & {self.local_address, self.peer_address}:
            counted += size
        return size

    TCP.write = counting
    try:
        with cluster_of(workers, "tcp") as client:
            run = through_the_queue(client, unit=0)
            addresses.add(client.scheduler.address)
            run()
            return counted / len(GRID.cells())
    finally:
        TCP.write = write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="interleaved; the median counts")
    parser.add_argument("--workers", type=int, nargs="+", default=list(SIZES), choices=SIZES)
    given = parser.parse_args()
    print(
        f"dask {dask.__version__}, distributed {distributed.__version__}, "
        f"python {platform.python_version()}, {os.cpu_count()} cores"
    )
    found: dict[int, list[tuple[float, float]]] = {workers: [] for workers in given.workers}
    for _ in range(given.rounds):
        for workers in found:
            found[workers].append(over_the_bound(workers, SIZES[workers]))
    for workers, rounds in found.items():
        ratios, cpu = zip(*rounds, strict=True)
        print(
            f"{workers} workers, unit {SIZES[workers]:g} s: makespan / least possible "
            f"{median(ratios):.3f} ({min(ratios):.3f}..{max(ratios):.3f}), "
            f"{median(cpu):.1f} ms of CPU a cell  [load {os.getloadavg()[0]:.1f}]",
            flush=True,
        )
    print(f"through the scheduler, a cell: {bytes_of_a_cell() / 1000:.1f} kB")


if __name__ == "__main__":
    main()
