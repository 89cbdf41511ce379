"""Adaptive search: find the frontier of matching tickets without training the whole grid.

Each rewind epoch is bisected over the thresholds. What a ticket shows is what the report says of
it: its verdict, and where it is undecided, on which side of the margin it lies on average, by
which the frontier is estimated. Between two neighbours that differ, the middle is trained;
between two that are alike, nothing is: what lies there is taken to be like them. Beyond the ends
lie the dense network, which matches itself, and the empty one, which is worse.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

import numpy as np
import xarray as xr

from lthdask import needs
from lthdask.arms import ARMS
from lthdask.driver.remaining import epochs_to_train
from lthdask.grid import Cell, axes_of, cohorts, longest_first
from lthdask.lottery.matching import matches
from lthdask.report.selection import margin_of
from lthdask.report.verdict import MATCHING, NO_BETTER, UNDECIDED, WINNING, WORSE, verdicts
from lthdask.rewinding import Rewind, number
from lthdask.study import Study

Point = tuple[float, Rewind]
"""A threshold and a rewind epoch."""


class Answer(NamedTuple):
    """What the report says of the tickets of a point.

    Attributes
    ----------
    verdict : str
    rank : int
        How many of three things, each of which implies those before it, are true: they are not
        shown to be worse, match on average, are shown to match. Two ranks differ where an end of
        the frontier's interval, or its estimate, lies between them.
    """

    verdict: str
    rank: int

    def __str__(self) -> str:
        """Return the verdict; of an undecided one also what the replicates say on average."""
        if self.verdict != UNDECIDED:
            return self.verdict
        return f"{self.verdict}, {'not ' * (self.rank < 2)}within the margin on average"


def answers(judged: xr.Dataset, margin: float) -> dict[Point, Answer]:
    """Return what verdicts say of each point, where they say something; `margin` in points.

    Parameters
    ----------
    judged : Dataset
        What :func:`lthdask.verdicts` returned.
    """
    verdict = judged.verdict.transpose("threshold", "rewind_epoch").values
    within = matches(judged.minus_dense, margin) & judged.stable
    shown = np.isin(verdict, (WINNING, MATCHING, NO_BETTER))
    ranks = (verdict != WORSE) + 1 * within.transpose("threshold", "rewind_epoch").values + shown
    known = judged.minus_dense.notnull() | ~judged.stable  # not one whose tickets all failed
    known = known.transpose("threshold", "rewind_epoch").values
    axes = (judged[axis].values.tolist() for axis in ("threshold", "rewind_epoch"))
    return {
        point: Answer(verdict[at], int(ranks[at]))
        for point, at in zip(product(*axes), np.ndindex(known.shape), strict=True)
        if known[at]
    }


DENSE, EMPTY = 3, 0
"""The ranks of what lies beyond the ends: a dense network matches, an empty one is worse."""


@dataclass
class Search:
    """The bisection of a grid, a round at a time.

    Parameters
    ----------
    thresholds, rewind_epochs : sequence
        The axes, increasing.
    cost : callable
        Returns the epochs that it takes to train what is left of a point.
    budget : float
        The most epochs to spend.
    spent : float
        Those that are.

    Attributes
    ----------
    ended : collection of tuple
        The points of which all cells have ended.
    answers : mapping of tuple to Answer
        What is known of them.
    """

    thresholds: Sequence[float]
    rewind_epochs: Sequence[Rewind]
    cost: Callable[[Point], float]
    budget: float
    spent: float = 0.0
    ended: Collection[Point] = ()
    answers: Mapping[Point, Answer] = field(default_factory=dict)

    def next(self) -> Iterator[Point]:
        """Yield the points to train now, as far as the budget allows; none at the end."""
        yield from filter(self.afford, map(_middle, self._gaps()))

    def ahead(self) -> Iterator[Point]:
        """Yield the points that later rounds may ask for, those of the next one first."""
        gaps = list(self._gaps())
        while gaps:
            halves = [(gap[: _half(gap)], gap[_half(gap) + 1 :]) for gap in gaps]
            gaps = [half for both in halves for half in both if half]
            yield from map(_middle, gaps)

    def afford(self, point: Point) -> bool:
        """Spend what a point costs if the budget allows it, and return whether it does."""
        spent = self.spent + self.cost(point)
        if spent > self.budget:
            return False
        self.spent = spent
        return True

    def reason(self, point: Point) -> str:
        """Return why a point was not trained, by what is known of its nearest neighbours."""
        threshold, k = point
        if any(point in gap for gap in self._gaps()):
            return f"the budget of {self.budget:g} epochs was spent before k={k:g} was settled"
        known = [t for t in self.thresholds if (t, k) in self.answers]
        denser = [self._named(t, k) for t in known if t < threshold][-1:]
        sparser = [self._named(t, k) for t in known if t > threshold][:1]
        where = "between" if denser and sparser else "sparser than" if denser else "denser than"
        return f"{where} {' and '.join(denser + sparser)} at k={k:g}"

    def _named(self, threshold: float, k: Rewind) -> str:
        return f"threshold {threshold:g} ({self.answers[threshold, k]})"

    def _gaps(self) -> Iterator[list[Point]]:
        """Yield the points that have not ended between neighbours that differ."""
        for k in self.rewind_epochs:
            before, gap = DENSE, list[Point]()
            for point in ((threshold, k) for threshold in self.thresholds):
                if point not in self.ended:
                    gap.append(point)
                elif answer := self.answers.get(point):
                    if gap and answer.rank != before:
                        yield gap
                    before, gap = answer.rank, []
            if gap and before != EMPTY:
                yield gap


def _half(gap: Sequence[Point]) -> int:
    return (len(gap) - 1) // 2


def _middle(gap: Sequence[Point]) -> Point:
    return gap[_half(gap)]


class Exploration:
    """The search of one study: which of its cells to train next, and why others are skipped.

    Parameters
    ----------
    study : Study
    look : callable
        Returns the results as they are now.
    every : iterable of Cell
        Every cell that was asked for, as its folder has them.
    left : iterable of Cell
        Those of them that are to be trained.
    share : float
        Share of the grid's epochs to spend at most.
    cohort : int
        The most cells that are trained side by side. Where a round does not fill its cohorts,
        points that later rounds may ask for come along.
    steps : int
        Batches in an epoch.
    again : iterable of Cell
        Those of `left` that are done, and trained again whatever the search asks for.
    """

    def __init__(
        self,
        study: Study,
        look: Callable[[], xr.Dataset],
        every: Iterable[Cell],
        left: Iterable[Cell],
        share: float,
        cohort: int = 1,
        steps: int = 0,
        again: Iterable[Cell] = (),
    ) -> None:
        self.study, self.look, self.cohort, self.steps = study, look, cohort, steps
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
        done = [cell for cell in cells if cell not in new]
        spent, whole = (epochs_to_train(study, some, 0, steps) for some in (done, cells))
        self.search = Search(*axes, self._cost, share * whole, spent)

    def ended(self, cell: Cell) -> None:
        """Note that a cell has ended."""
        self.left.discard(cell)

    def next(self) -> list[Cell]:
        """Return the cells to train now, and none while others of their round are under way.

        So what is asked for does not depend on which of them ended first. Those that wait for
        another one of the round are `wanted`, and not among them.
        """
        if not self.wanted.isdisjoint(self.left):
            return []
        self._judge()
        cells = list[Cell]()
        for point in self.search.next():
            cells += self._asked(point)
        for point in self.search.ahead() if self.cohort > 1 else ():
            if self._fits(cells, self._new(point)) and self.search.afford(point):
                cells += self._asked(point)
        return self._ready(cells)

    def reasons(self) -> Mapping[Cell, str]:
        """Return why each remaining cell was not asked for, by the verdicts as they are now."""
        self._judge()
        found = dict[Cell, str]()
        for point, cells in self.points.items():
            if new := self.left.intersection(cells) - found.keys():
                found |= dict.fromkeys(sorted(new), self.search.reason(point))
        return found

    def _judge(self) -> None:
        results, search = self.look(), self.search
        search.ended = {p for p, cells in self.points.items() if self.left.isdisjoint(cells)}
        known = answers(verdicts(results), margin_of(results, None))
        places = {point: (point[0], number(point[1])) for point in search.ended}
        search.answers = {point: known[at] for point, at in places.items() if at in known}

    def _asked(self, point: Point) -> list[Cell]:
        """Return the cells of a point that are new, and want them from now on."""
        new = self._new(point)
        self.wanted.update(new)
        return new

    def _new(self, point: Point) -> list[Cell]:
        new = self.left.intersection(self.points[point]) - self.wanted
        return [cell for cell in self.points[point] if cell in new]

    def _cost(self, point: Point) -> float:
        return epochs_to_train(self.study, self._new(point), 0, self.steps)

    def _fits(self, cells: list[Cell], more: list[Cell]) -> bool:
        """Return whether more cells have room in the cohorts that cells are trained in anyway."""
        before, after = self._ready(cells), self._ready([*cells, *more])
        return len(cohorts(after, self.cohort)) == len(cohorts(before, self.cohort))

    def _ready(self, cells: list[Cell]) -> list[Cell]:
        return [cell for cell in cells if needs.waits_for(self.study, cell) not in self.left]
