"""Chains: cells that wait for the final weights of others, as a round does for the one before.

They decide which cells can be trained when, and which of them go first: for the sweep, and for
the plan of it.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable

from lthdask import needs
from lthdask.driver.remaining import Remaining
from lthdask.grid import Cell, cohorts
from lthdask.study import Study


class Chains:
    """Which of the cells that are left wait for which others.

    Parameters
    ----------
    study : Study
    left : Remaining
    steps : int
        Batches in an epoch; 0 where they are not known yet.
    """

    def __init__(self, study: Study, left: Remaining, steps: int = 0) -> None:
        self.study, self.cells, self.lost, self.steps = study, left.cells, left.lost, steps
        self._after: dict[Cell, list[Cell]] = {}
        for cell in left.cells:
            if awaited := needs.waits_for(study, cell):
                self._after.setdefault(awaited, []).append(cell)
        waiting = (needs.waits_for(study, cell) for cell in (*left.cells, *left.others))
        self._waiting = Counter(awaited for awaited in waiting if awaited)

    def of(self, replicate: int) -> list[Cell]:
        """Return the cells of a replicate."""
        return [cell for cell in self.cells if cell.replicate == replicate]

    def first_of(self, replicate: int) -> list[Cell]:
        """Return those of them that wait for no other cell."""
        there = {*self.cells, *self.lost.values()}
        cells = [cell for cell in self.of(replicate) if cell not in self.lost]
        return [cell for cell in cells if needs.waits_for(self.study, cell) not in there]

    def cohorts(self, cells: Collection[Cell], most: int, workers: int) -> list[list[Cell]]:
        """Return cells that can be trained now, at most so many side by side.

        They are fewer where a worker would be left idle.
        """
        share = math.ceil(len(cells) / workers)
        return cohorts(cells, max(1, min(most, share)))

    def after(self, cell: Cell) -> list[Cell]:
        """Return the cells that wait for this one."""
        return self._after.get(cell, [])

    @property
    def awaited(self) -> set[Cell]:
        """Cells whose final weights somebody still waits for."""
        return {cell for cell, waiting in self._waiting.items() if waiting}

    def release(self, ended: Cell) -> Cell | None:
        """Note that a cell has ended; return the one whose final weights nobody needs any more."""
        awaited = needs.waits_for(self.study, ended)
        if awaited is None:
            return None
        self._waiting[awaited] -= 1
        return None if self._waiting[awaited] else awaited

    def length(self, cohort: Iterable[Cell]) -> float:
        """Return what a cohort is ordered by, the longest first.

        It is the most epochs between a cell's begin and the end of all that waits for it. A
        chain of rounds is as long as its critical path, not as its first round: Hu's rule, which
        is the longest first (LPT) where nothing waits (Hu 1961, "Parallel sequencing and
        assembly line problems", Operations Research 9).
        """
        longest, reached = 0.0, [(cell, 0.0) for cell in cohort]
        while reached:  # not by recursion: a chain may have more rounds than Python has frames
            at, before = reached.pop()
            way = before + self.study.recipe.epochs - at.epochs_before(self.steps)
            longest = max(longest, way)
            reached += [(follower, way) for follower in self.after(at)]
        return longest
