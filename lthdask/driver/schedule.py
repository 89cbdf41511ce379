"""How long a sweep takes on so many workers, which exist as numbers only: its wall time in epochs.

What is trained when is decided by the parts that decide it in a run: the chains and the window.
"""

import heapq
from dataclasses import dataclass

from lthdask.cluster.window import Window
from lthdask.driver.chains import Chains
from lthdask.driver.remaining import Remaining, tidy
from lthdask.grid import Cell


@dataclass(frozen=True)
class _Run:
    """A dense run, or a cohort of cells: what orders it, and the epochs that it takes."""

    replicate: int
    cohort: list[Cell]
    length: float
    epochs: float


def wall_epochs(chains: Chains, left: Remaining, workers: int, most: int = 1) -> int | float:
    """Return how many epochs of time workers need for what is left, each epoch as long as another.

    A worker that is free takes the longest run that is ready: dense runs first, then the cells of
    those that have ended, each after the one whose final weights it needs.

    Parameters
    ----------
    chains : Chains
        Of the cells that are left.
    left : Remaining
    workers : int
        How many there are, at least 1.
    most : int
        The most cells that a worker trains side by side. A cell's share of such an epoch counts
        as one of its epochs.
    """
    epochs, count, now = chains.study.recipe.epochs, 0, 0.0
    window = Window[_Run]()
    ready: list[tuple[float, int, _Run]] = []
    running: list[tuple[float, int, _Run]] = []

    def add(cells: list[Cell]) -> None:
        for cohort in chains.cohorts(cells, most, workers) if cells else ():
            length = chains.length(cohort)
            took = sum(epochs - c.epochs_before(chains.steps) for c in cohort)
            window.add(_Run(cohort[0].replicate, cohort, length, took), length)

    for replicate in left.replicates:
        dense = range(epochs) if replicate in left.dense_runs else left.again.get(replicate)
        if dense is None:
            add(chains.first_of(replicate))
        else:
            window.add(_Run(replicate, [], float("inf"), len(dense)), float("inf"))
    while running or ready or len(window):
        for run in window.take(len(running) + len(ready), workers):
            count += 1
            heapq.heappush(ready, (-run.length, count, run))
        while ready and len(running) < workers:
            _, count_of, run = heapq.heappop(ready)
            heapq.heappush(running, (now + run.epochs, count_of, run))
        now = running[0][0]
        while running and running[0][0] == now:
            _, _, ended = heapq.heappop(running)
            if ended.cohort:
                add([after for cell in ended.cohort for after in chains.after(cell)])
            else:
                add(chains.first_of(ended.replicate))
    return tidy(now)
