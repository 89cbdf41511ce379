"""Chains: cells that wait for the final weights of others, as a round does for the one before."""

from collections import Counter
from collections.abc import Iterable

from lthdask.grid import Cell
from lthdask.study import Study


class Chains:
    """Which of some cells wait for which others.

    Parameters
    ----------
    study : Study
    cells : iterable of Cell
        The cells to be trained.
    """

    def __init__(self, study: Study, cells: Iterable[Cell]) -> None:
        self.study = study
        self._after: dict[Cell, list[Cell]] = {}
        for cell in cells:
            if awaited := study.waits_for(cell):
                self._after.setdefault(awaited, []).append(cell)
        self._waiting = Counter({cell: len(after) for cell, after in self._after.items()})

    def after(self, cell: Cell) -> list[Cell]:
        """Return the cells that wait for this one."""
        return self._after.get(cell, [])

    def release(self, ended: Cell) -> Cell | None:
        """Note that a cell has ended; return the one whose final weights nobody needs any more."""
        awaited = self.study.waits_for(ended)
        if awaited is None:
            return None
        self._waiting[awaited] -= 1
        return None if self._waiting[awaited] else awaited

    def way_to_the_end(self, cell: Cell) -> int:
        """Return how many epochs lie between a cell's begin and the end of all that waits for it.

        A chain of rounds is as long as its critical path, not as its first round: Hu's rule,
        which is the longest first (LPT) where nothing waits (Hu 1961, "Parallel sequencing and
        assembly line problems", Operations Research 9).
        """
        longest, reached = 0, [(cell, 0)]
        while reached:  # not by recursion: a chain may have more rounds than Python has frames
            at, before = reached.pop()
            way = before + self.study.recipe.epochs - at.first_epoch
            longest = max(longest, way)
            reached += [(follower, way) for follower in self.after(at)]
        return longest
