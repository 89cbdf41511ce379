"""Contrasts: the difference between means of cells, with its noise and the limits it must keep.

The noise is that of the published grid: the standard deviation of one run of a cell, and the
number of runs on each side. Cells are taken as independent.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lthdask.report.published import Numbers, Place, Published, column

Column = tuple[str, int | None]
"""An arm and its rewind epoch."""


@dataclass(frozen=True)
class Check:
    """One comparison: kept where `least` ≤ `value` ≤ `most`.

    It is in points; a `ratio` in logarithms, and is shown as a factor.

    It is broken where the value lies outside by more than `leeway`; between the two, more runs
    are needed. `value` is None where cells are `missing`.
    """

    label: str
    value: float | None
    least: float
    most: float
    leeway: float = 0.0
    missing: tuple[str, ...] = ()
    ratio: bool = False

    @property
    def slack(self) -> float:
        """How far the value lies inside its limits; negative outside."""
        if self.value is None:
            return math.inf
        return min(self.value - self.least, self.most - self.value)

    def __str__(self) -> str:
        """Return the comparison with its limits."""
        limits = [f"≥ {self._shown(self.least)}"] * math.isfinite(self.least)
        limits += [f"≤ {self._shown(self.most)}"] * math.isfinite(self.most)
        value = "missing" if self.value is None else self._shown(self.value)
        return f"{self.label}: {value} ({', '.join(limits)})"

    def _shown(self, value: float) -> str:
        return f"{math.exp(value):.2f}" if self.ratio else f"{value:+.2f}"


@dataclass(frozen=True)
class Contrast:
    """The mean of some cells minus that of others.

    Parameters
    ----------
    rows : sequence of float
        What remains, in percent. The columns are averaged over these rows.
    upper, lower : sequence of Column
        The columns that are compared; without `lower`, the dense network takes its place.
    """

    rows: Sequence[float]
    upper: Sequence[Column]
    lower: Sequence[Column] = ()

    def __str__(self) -> str:
        where = f"at {self.rows[0]:g} %" if len(self.rows) == 1 else "on average"
        return f"{_named(self.upper)} − {_named(self.lower)} {where}"

    @property
    def weights(self) -> dict[Place, float]:
        """Place → what its accuracy is multiplied by. A place on both sides counts in each."""
        weights: dict[Place, float] = {}
        for sign, columns in ((1, self.upper), (-1, self.lower)):
            for place in (Place(*which, row) for row in self.rows for which in columns):
                share = sign / len(self.rows) / len(columns)
                weights[place] = weights.get(place, 0.0) + share
        return weights


Limits = Callable[[float], tuple[float, float, float]]
"""From the standard deviation of a contrast to the least and the most it may be, and the leeway."""


def check(contrast: Contrast, numbers: Numbers, card: Published, limits: Limits) -> Check:
    """Return a contrast of some numbers beside its limits, in points.

    The noise of a cell is that of the card, for as many runs as `numbers` have of it.
    """
    cells, dense, weights = numbers.cells, numbers.dense, contrast.weights
    missing = [str(place) for place in weights if place not in cells]
    missing += ["dense"] * (not contrast.lower and dense is None)
    if missing:
        return Check(str(contrast), None, -math.inf, math.inf, missing=tuple(missing))
    terms = [(weight, cells[place]) for place, weight in weights.items()]
    deviations = [w * card.deviation * deviation_of_median(cell.runs) for w, cell in terms]
    value = math.fsum(weight * cell.percent for weight, cell in terms)
    if not contrast.lower:
        assert dense is not None
        value -= dense.percent
        deviations.append(card.dense_deviation / math.sqrt(dense.runs))
    return Check(str(contrast), value, *limits(math.hypot(*deviations)))


def check_ratio(contrast: Contrast, numbers: Numbers, card: Published, limits: Limits) -> Check:
    """Return how many times the steps of the lower cells those of the upper are, beside limits.

    The limits are of logarithms, and the value is the mean of them. The noise is likewise.
    """
    speed, weights = numbers.speed, contrast.weights
    label = str(contrast).replace(" − ", " ÷ ")
    if missing := [str(place) for place in weights if place not in speed]:
        return Check(label, None, -math.inf, math.inf, missing=tuple(missing), ratio=True)
    terms = [(weight, speed[place]) for place, weight in weights.items()]
    deviations = [w * card.steps_deviation * deviation_of_median(cell.runs) for w, cell in terms]
    value = math.fsum(weight * math.log(cell.steps) for weight, cell in terms)
    return Check(label, value, *limits(math.hypot(*deviations)), ratio=True)


def deviation_of_median(runs: int) -> float:
    """Return the standard deviation of the median of some runs, as a multiple of one run's.

    √(π / (2n + π − 2)): exact for one run and in the limit, and within 1 % for odd n, of
    normal values; an even n has a little less.
    """
    return math.sqrt(math.pi / (2 * runs + math.pi - 2))


def tickets(*rewind_epochs: int) -> list[Column]:
    """Return the columns of tickets."""
    return [("ticket", k) for k in rewind_epochs]


def _named(columns: Sequence[Column]) -> str:
    if not columns:
        return "dense"
    names = [column(*each).removeprefix("ticket ") for each in columns]
    return names[0] if len(names) == 1 else f"{names[0]}..{columns[-1][1]}"
