"""Adaptive search: find the frontier of matching tickets without training the whole grid.

For each rewind epoch, the highest threshold whose tickets match the dense run is bisected:
the corners of the grid first, then the middle of what is left between a threshold that
matches and one that does not. It rests on one assumption, that a sparser ticket of the same
k does not match where a denser one fails; where noise breaks it, the frontier is one of
those that a full grid shows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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
        Epochs that it takes to train all cells of a point.
    budget : float
        Epochs to spend at most.
    """

    thresholds: Sequence[float]
    rewind_epochs: Sequence[int]
    cost: Callable[[Point], float]
    budget: float
    spent: float = 0.0
    matched: dict[Point, bool] = field(default_factory=dict)
    asked: set[Point] = field(default_factory=set)

    def answer(self, point: Point, matches: bool) -> None:
        """Take in whether the tickets of a point match the dense run."""
        self.matched[point] = matches
        self.asked.add(point)

    def bracket(self, k: int) -> tuple[int, int]:
        """Return the positions of the last threshold that matches, and of the first that does not.

        -1 and the number of thresholds where none is known.
        """
        known = {i: self.matched.get((t, k)) for i, t in enumerate(self.thresholds)}
        first = min((i for i, m in known.items() if m is False), default=len(known))
        last = max((i for i, m in known.items() if m and i < first), default=-1)
        return last, first

    def next(self) -> list[Point]:
        """Return the points to train now, as far as the budget allows.

        None while all that matter are under way, and at the end.
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
        """Return why a point was not trained."""
        threshold, k = point
        last, first = self.bracket(k)
        if last >= 0 and threshold < self.thresholds[last]:
            return f"threshold {self.thresholds[last]:g} matches at k={k}"
        if first < len(self.thresholds) and threshold > self.thresholds[first]:
            return f"threshold {self.thresholds[first]:g} does not match at k={k}"
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
