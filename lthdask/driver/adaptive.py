"""Adaptive search: find the frontier of matching tickets without training the whole grid.

For each rewind epoch, the highest threshold whose tickets match the dense run is found by
bisection: first the corners of the grid, then the middle between a threshold that matches and
one that does not. It assumes that a sparser ticket of the same k does not match where a denser
one fails. Where noise breaks that, the frontier is one of those that a full grid shows.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from lthdask.driver.remaining import epochs_to_train
from lthdask.grid import ARMS, Cell, axes_of, longest_first
from lthdask.lottery.matching import matches
from lthdask.storage.cube import Cube
from lthdask.storage.schema import Status
from lthdask.study import Study

Point = tuple[float, int]
"""A threshold and a rewind epoch."""


@dataclass
class Search:
    """The bisection of a grid.

    Parameters
    ----------
    thresholds, rewind_epochs : sequence
        The axes, increasing.
    cost : callable
        Returns the epochs that it takes to train all cells of a point.
    budget : float
        The most epochs to spend.
    """

    thresholds: Sequence[float]
    rewind_epochs: Sequence[int]
    cost: Callable[[Point], float]
    budget: float
    spent: float = 0.0
    matched: dict[Point, bool] = field(default_factory=dict)
    asked: set[Point] = field(default_factory=set)

    def answer(self, point: Point, matches: bool) -> None:
        """Note whether the tickets of a point match the dense run."""
        self.matched[point] = matches
        self.asked.add(point)

    def bracket(self, k: int) -> tuple[int, int]:
        """Return the positions of the last threshold that matches, and of the first that does not.

        They are -1 and the number of thresholds where none is known.
        """
        known = {i: self.matched.get((t, k)) for i, t in enumerate(self.thresholds)}
        first = min((i for i, m in known.items() if m is False), default=len(known))
        last = max((i for i, m in known.items() if m and i < first), default=-1)
        return last, first

    def next(self) -> list[Point]:
        """Return the points to train now, as far as the budget allows.

        There are none while all that matter are under way, and at the end.
        """
        corners = [
            (t, k)
            for k in (self.rewind_epochs[0], self.rewind_epochs[-1])
            for t in (self.thresholds[0], self.thresholds[-1])
        ]
        if not set(corners) <= self.asked:
            return self._allowed(corners)
        if not set(corners) <= self.matched.keys():
            return []
        return self._allowed([p for k in self.rewind_epochs for p in self._middle(k)])

    def reason(self, point: Point) -> str:
        """Return why a point was not trained: by means of validation accuracies, untested."""
        threshold, k = point
        last, first = self.bracket(k)
        if last >= 0 and threshold < self.thresholds[last]:
            return f"threshold {self.thresholds[last]:g} is within the margin at k={k}"
        if first < len(self.thresholds) and threshold > self.thresholds[first]:
            return f"threshold {self.thresholds[first]:g} is not within the margin at k={k}"
        return f"the budget of {self.budget:g} epochs was spent before k={k} was settled"

    def _middle(self, k: int) -> list[Point]:
        last, first = self.bracket(k)
        if first - last < 2 or any(p in self.asked - self.matched.keys() for p in self._of(k)):
            return []
        return [(self.thresholds[(last + first) // 2], k)]

    def _of(self, k: int) -> list[Point]:
        return [(threshold, k) for threshold in self.thresholds]

    def _allowed(self, points: Sequence[Point]) -> list[Point]:
        allowed = []
        for point in dict.fromkeys(points):
            if point not in self.asked and self.spent + self.cost(point) <= self.budget:
                self.spent += self.cost(point)
                self.asked.add(point)
                allowed.append(point)
        return allowed


class Exploration:
    """The search of one study: which of its cells to train next, and why others are skipped.

    Parameters
    ----------
    study : Study
    cube : Cube
        Where the answers are read.
    every : iterable of Cell
        Every cell that was asked for, as its folder has them.
    left : iterable of Cell
        Those of them that are to be trained.
    share : float
        Share of the grid's epochs to spend at most.
    again : iterable of Cell
        Those of `left` that are done, and trained again whatever the search asks for.
    """

    def __init__(
        self,
        study: Study,
        cube: Cube,
        every: Iterable[Cell],
        left: Iterable[Cell],
        share: float,
        again: Iterable[Cell] = (),
    ) -> None:
        self.study, self.cube = study, cube
        self.left, self.wanted = set(left), set(again)
        cells = longest_first(every)
        axes = axes_of(cells)
        self.points: dict[Point, list[Cell]] = {point: [] for point in product(*axes)}
        for cell in cells:  # those without a k, or a threshold, belong to all of them
            arm = ARMS[cell.arm]
            thresholds = (cell.threshold,) if arm.has_threshold else axes[0]
            ks = (cell.rewind_epoch,) if arm.has_k else axes[1]
            for point in product(thresholds, ks):
                self.points[point].append(cell)
        new = self.left - self.wanted
        spent = epochs_to_train(study, [cell for cell in cells if cell not in new], 0)
        self.search = Search(*axes, self._cost, share * epochs_to_train(study, cells, 0), spent)
        for point in self.points:
            self._answer(point)

    def ended(self, cell: Cell) -> None:
        """Note that a cell has ended."""
        self.left.discard(cell)
        if cell.arm == "ticket":
            self._answer((cell.threshold, cell.rewind_epoch))

    def next(self) -> list[Cell]:
        """Return the cells that the search asks for now."""
        asked = []
        for point in self.search.next():
            new = self._new(point)
            self.wanted.update(new)
            asked += new
        return asked

    def reasons(self) -> Mapping[Cell, str]:
        """Return why each remaining cell was not asked for."""
        return {
            cell: self.search.reason((cell.threshold, cell.rewind_epoch))
            for cell in sorted(self.left)
        }

    def _new(self, point: Point) -> list[Cell]:
        return [cell for cell in self.points[point] if cell in self.left - self.wanted]

    def _cost(self, point: Point) -> float:
        return epochs_to_train(self.study, self._new(point), 0)

    def _answer(self, point: Point) -> None:
        """Tell the search about a point whose tickets have all ended."""
        tickets = [cell for cell in self.points[point] if cell.arm == "ticket"]
        if self.left.isdisjoint(tickets):
            self.search.answer(point, self._match(tickets))

    def _match(self, tickets: list[Cell]) -> bool:
        """Return whether the tickets of a point match the dense runs, on average."""
        if any(self.cube.status(cell) is not Status.DONE for cell in tickets):
            return False
        differences = [
            self.cube.validation_accuracy(cell) - self.cube.dense_accuracy(cell.replicate)
            for cell in tickets
        ]
        return bool(matches(sum(differences) / len(differences), self.study.matching_margin))
