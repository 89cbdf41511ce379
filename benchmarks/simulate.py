"""How well a grid fills its workers, in simulated time: uv run python benchmarks/simulate.py.

The real sweep and the real window, over workers that only exist as numbers: the makespan
over the shortest one that any order could have. A cell takes T - k units of time. Options
add noise, workers that fail and workers that wait in a queue.
"""

import argparse
import heapq
import random
import tempfile
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from lthdask import needs
from lthdask.cluster.queue import Task
from lthdask.cluster.sick_places import SickPlaces
from lthdask.cluster.window import Window
from lthdask.driver.remaining import Remaining
from lthdask.driver.sweep import Sweep
from lthdask.grid import Cell
from lthdask.storage.folder import Folder
from lthdask.storage.manifest import Manifest
from lthdask.study import Study
from lthdask.training.engine import Engine
from lthdask.worker.tasks import train_dense
from lthdask.worker.work import Work

WORKERS = (16, 32, 64, 128, 256, 512, 1024, 4096)
SIXTEEN = ",".join(str(k) for k in range(16))
THRESHOLDS = ",".join(f"{0.05 * i:.2f}" for i in range(1, 17))
GRIDS = {
    "16x16, T=16": {"grid.rewind_epochs": SIXTEEN},
    "T=64, geometric k": {
        "recipe.epochs": "64",
        "grid.rewind_epochs": "0,1,2,3,4,5,6,8,10,12,16,20,24,32,40,48",
    },
    "5 replicates, T=16": {"grid.rewind_epochs": SIXTEEN, "grid.replicates": "5"},
    "iterative, T=16": {
        "grid.rewind_epochs": SIXTEEN,
        "pruning.schedule": "iterative",
        "pruning.rounds": "16",
    },
}


def study_of(changes: dict[str, str]) -> Study:
    """Return a study of 16 thresholds and T = 16, but for the changes."""
    defaults = {"network.name": "lenet_300_100", "recipe.epochs": "16", "keep_until": "0"}
    rows = {} if "pruning.schedule" in changes else {"grid.thresholds": THRESHOLDS}
    return Study.read("digits").changed(defaults | rows | changes)


@dataclass
class World:
    """What may go wrong.

    Attributes
    ----------
    noise : float
        Standard deviation of the logarithm of a duration.
    failures : float
        Mean time between two failures of a worker, in epochs; 0 for never.
    interval : float
        Epochs between two saved states: what a failure loses at most.
    absence : float
        Epochs until a worker that failed is replaced.
    wait : float
        Workers arrive at any time from 0 to this, in epochs.
    seed : int
    """

    noise: float = 0.0
    failures: float = 0.0
    interval: float = 1.0
    absence: float = 1.0
    wait: float = 0.0
    seed: int = 0


@dataclass
class Simulated:
    """Stands where the queue of a cluster does: to run is to let simulated time pass.

    As in Dask, a worker that is free takes the longest of the tasks that were submitted,
    and a task that has lost its worker keeps its place. With `by_length` off, tasks go in
    the order in which they were added.
    """

    arrivals: list[float]
    duration: Callable[[Task], float]
    outcome: Callable[[Task], Any]
    world: World
    random: random.Random
    by_length: bool = True
    now: float = 0.0
    window: Window[Task] = field(default_factory=Window)

    def __post_init__(self) -> None:
        self.places = SickPlaces(None)  # type: ignore[arg-type]  # no task fails

    def workers(self) -> int:
        """Return how many workers there are, sooner or later."""
        return len(self.arrivals)

    def share(self, name: Hashable, load: Callable[[], Any]) -> None:
        """Sharing takes no time."""

    def add(self, task: Task) -> None:
        """Add a task, also while others run."""
        self.window.add(task, task.length if self.by_length else 0.0)

    def run(self) -> None:
        """Run until no task is left."""
        submitted: list[tuple[float, int, Task, float]] = []
        # What happens when: a worker is free, alone or after a run of (task, what is left).
        happenings = [(at, i, None, 0.0) for i, at in enumerate(self.arrivals)]
        heapq.heapify(happenings)
        idle, there, in_flight, count = 0, 0, 0, len(self.arrivals)
        while in_flight or len(self.window):
            for task in self.window.take(in_flight, there):
                count, in_flight = count + 1, in_flight + 1
                place = -task.length if self.by_length else 0.0
                heapq.heappush(submitted, (place, count, task, self.duration(task)))
            while idle and submitted:
                idle -= 1
                run = heapq.heappop(submitted)
                end, left = self._end(run[-1])
                count += 1
                free = end + (self.world.absence if left else 0.0)
                heapq.heappush(happenings, (free, count, run, left))
            self.now = happenings[0][0]
            while happenings and happenings[0][0] == self.now:
                _, _, run, left = heapq.heappop(happenings)
                idle += 1
                if run is None:
                    there += 1
                elif left:
                    heapq.heappush(submitted, (*run[:3], left))
                else:
                    in_flight -= 1
                    run[2].then(self.outcome(run[2]))

    def _end(self, duration: float) -> tuple[float, float]:
        """Return when a run that begins now ends, and what of it is left then."""
        world = self.world
        alive = self.random.expovariate(1 / world.failures) if world.failures else float("inf")
        if alive >= duration:
            return self.now + duration, 0.0
        return self.now + alive, duration - alive // world.interval * world.interval


def makespan(study: Study, workers: int, world: World, **how: Any) -> float:
    """Return the makespan of a study over the least that is possible; as for :func:`simulated`."""
    end, least = simulated(study, workers, world, **how)
    return end / least


def simulated(
    study: Study,
    workers: int,
    world: World,
    *,
    dense: bool,
    in_order: bool = False,
    cohort: int = 1,
) -> tuple[float, float]:
    """Return the makespan of a study, and the least that is possible.

    Parameters
    ----------
    study : Study
    workers : int
    world : World
    dense : bool
        Train the dense runs, too; else they are done before.
    in_order : bool
        In the order of the nested loops, not longest first.
    cohort : int
        The most cells that a worker trains side by side.
    """
    chance = random.Random(world.seed)
    cells, epochs = study.grid.cells(), study.recipe.epochs
    if in_order:
        cells = [Cell(*at) for at in product(*study.grid.axes().values())]
    took = {cell: (epochs - cell.first_epoch) * _noise(chance, world) for cell in cells}
    runs = {r: epochs * _noise(chance, world) for r in range(study.grid.replicates)}
    arrivals = sorted(chance.uniform(0, world.wait) for _ in range(workers))
    arrivals[0] = 0.0

    def duration(task: Task) -> float:
        which = task.arguments[1]
        return runs[which] if task.function is train_dense else sum(took[cell] for cell in which)

    def outcome(task: Task) -> Any:
        return {} if task.function is train_dense else ["done"] * len(task.arguments[1])

    queue = Simulated(arrivals, duration, outcome, world, chance, not in_order)
    with tempfile.TemporaryDirectory() as out:
        folder = Folder(Path(out))
        engine = Engine(device="cpu", precision="float32", cohort=cohort)
        trained: dict[int, dict[int, str]] = {replicate: {} for replicate in runs}
        axes = study.grid.axes()
        manifest = Manifest({}, "", engine, "", "", axes, steps=1, checkpoints=trained)
        remaining = Remaining(cells, list(runs), set(runs) if dense else set())
        work = Work(study, engine, folder)
        sweep = Sweep(work, manifest, None, remaining, queue)  # type: ignore[arg-type]
        for replicate in runs:
            (sweep.add_dense_run if dense else sweep.add_cells)(replicate)
        queue.run()
    chains = _chains(study, took, runs if dense else dict.fromkeys(runs, 0.0))
    least = bound(took.values(), chains, arrivals, list(runs.values()) if dense else [])
    return queue.now, least


def bound(
    cells: Iterable[float], chains: Iterable[float], arrivals: list[float], dense: list[float]
) -> float:
    """Return a time that no order can beat.

    Of the cells alone, max(S / m, the longest chain, p_m + p_(m + 1)); with dense runs, the
    first and the last of these count from the end of the shortest of them, and a chain
    begins with its own. Workers that come late have less to give.
    """
    longest = sorted(cells, reverse=True)
    begun = arrivals[0] + min(dense, default=0.0)
    late = [max(at, begun) for at in arrivals]
    pair = sum(longest[len(late) - 1 : len(late) + 1]) if len(longest) > len(late) else 0.0
    return max(
        _filled([*longest, *dense], arrivals),
        _filled(longest, late),
        arrivals[0] + max(chains),
        begun + pair,
    )


def _filled(work: Iterable[float], arrivals: list[float]) -> float:
    """Return when so much work is done if no worker is ever idle."""
    total, at = sum(work), 0.0
    for count, at in enumerate(arrivals, 1):
        following = arrivals[count] if count < len(arrivals) else float("inf")
        if total <= count * (following - at):
            return at + total / count
        total -= count * (following - at)
    return at


def _chains(study: Study, took: dict[Cell, float], runs: dict[int, float]) -> list[float]:
    """Return how long each cell takes with its dense run and the cells that it waits for."""
    whole: dict[Cell, float] = {}
    for cell in sorted(took, key=lambda cell: (cell.arm != "ticket", cell.threshold)):
        awaited = needs.waits_for(study, cell)
        whole[cell] = took[cell] + (whole[awaited] if awaited else runs[cell.replicate])
    return list(whole.values())


def _noise(chance: random.Random, world: World) -> float:
    return chance.lognormvariate(0, world.noise) if world.noise else 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--noise", type=float, default=0.0, help="of the log of a duration")
    parser.add_argument("--failures", type=float, default=0.0, help="mean epochs between two")
    parser.add_argument("--wait", type=float, default=0.0, help="epochs until all have come")
    parser.add_argument("--seeds", type=int, default=5, help="where there is chance; the median")
    given = parser.parse_args()
    chance = given.noise or given.failures or given.wait
    print("makespan over the least possible; no figure here takes real time")
    print(f"noise {given.noise:g}, failures {given.failures:g}, wait {given.wait:g}")
    print(f"{'workers':35}", *(f"{workers:>6}" for workers in given.workers))
    ways = {
        "cells": {"dense": False},
        "nested loops": {"dense": False, "in_order": True},
        "dense and cells": {"dense": True},
    }
    for (name, changes), (way, how) in product(GRIDS.items(), ways.items()):
        study = study_of(changes)
        ratios = [
            median(
                makespan(
                    study,
                    workers,
                    World(given.noise, given.failures, wait=given.wait, seed=seed),
                    **how,
                )
                for seed in range(given.seeds if chance else 1)
            )
            for workers in given.workers
        ]
        print(f"{name + ', ' + way:35}", *(f"{ratio:6.3f}" for ratio in ratios), flush=True)


if __name__ == "__main__":
    main()
