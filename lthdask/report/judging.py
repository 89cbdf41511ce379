"""How the rules of a signature compare numbers: what is close, what lies beyond, by which noise."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from lthdask.report.contrasts import Check, Column, Contrast, Limits, check, check_ratio
from lthdask.report.published import Numbers, Published

ERROR = 0.05
"""How often noise may break a signature that is true, or show one that is not."""


@dataclass(frozen=True)
class Judge:
    """Compares numbers, and knows their noise."""

    numbers: Numbers
    card: Published
    iterative: Numbers | None = None

    @property
    def said(self) -> Mapping[str, Any]:
        """The numbers of the signatures."""
        return self.card.signature

    @property
    def sparse(self) -> list[float]:
        """The rows where rewinding is said to matter."""
        return [row for row in self.card.remaining if row <= self.said["sparse"]]

    def each(
        self,
        rows: Sequence[float],
        upper: Sequence[Column],
        lower: Sequence[Column],
        limits: Callable[[float], tuple[float, float]],
    ) -> tuple[Check, ...]:
        """Compare in each row; `limits` returns the least and the most, given the noise."""
        z = normal_quantile(1 - ERROR / 2 / len(rows))
        contrasts = (Contrast([row], upper, lower) for row in rows)
        return self.compare(contrasts, lambda d: (*limits(z * d), 0.0))

    def close(self, *sides: tuple[Sequence[Column], Sequence[Column]]) -> tuple[Check, ...]:
        """Check that sides are shown to be close on average, and nowhere shown not to be."""
        rows, close = self.card.remaining, self.said["close"]
        average = [Contrast(rows, *both) for both in sides]
        local = [Contrast([row], *both) for row in rows for both in sides]
        showing = normal_quantile(1 - ERROR)
        breaking = normal_quantile(1 - ERROR / 2 / len(average + local))

        def shown(d: float) -> tuple[float, float, float]:
            most = close - showing * d
            return -most, most, (showing + breaking) * d

        def not_refuted(d: float) -> tuple[float, float, float]:
            most = close + breaking * d
            return -most, most, 0.0

        return self.compare(average, shown) + self.compare(local, not_refuted)

    def matching(
        self, grid: Numbers, upper: Sequence[Column], shares: Mapping[str, float]
    ) -> tuple[Check, ...]:
        """Compare tickets with the dense network, where they should match and where not."""
        margin = self.said["margin"]
        rows = sorted({place.remaining for place in grid.cells}, reverse=True)
        matches = [row for row in rows if row >= shares["matches"]]
        misses = [row for row in rows if row <= shares["misses"]]
        return (
            *self.each(matches, upper, (), lambda noise: (-margin - noise, math.inf)),
            *self.each(misses, upper, (), lambda noise: (-math.inf, -margin)),
        )

    def compare(
        self, contrasts: Iterable[Contrast], limits: Limits, ratio: bool = False
    ) -> tuple[Check, ...]:
        """Return contrasts beside their limits; a `ratio` is of steps."""
        compared = check_ratio if ratio else check
        return tuple(compared(each, self.numbers, self.card, limits) for each in contrasts)

    def beyond(
        self,
        rows: Sequence[float],
        upper: Sequence[Column],
        lower: Sequence[Column],
        least: float,
        ratio: bool = False,
    ) -> tuple[Check, ...]:
        """Check that a difference is shown to be `least` on average, and nowhere shown to be less.

        A `ratio` is of steps, not of accuracies, and `least` its logarithm.
        """
        average, local = [Contrast(rows, upper, lower)], [Contrast([r], upper, lower) for r in rows]
        showing = normal_quantile(1 - ERROR)
        breaking = normal_quantile(1 - ERROR / (1 + len(rows)))

        def shown(d: float) -> tuple[float, float, float]:
            return least + showing * d, math.inf, (showing + breaking) * d

        def not_refuted(d: float) -> tuple[float, float, float]:
            return least - breaking * d, math.inf, 0.0

        return self.compare(average, shown, ratio) + self.compare(local, not_refuted, ratio)


@dataclass(frozen=True)
class Rule:
    """One row of the table of signatures.

    Parameters
    ----------
    claim : str
        Its braces name numbers of the card's signature.
    checks : callable
        Returns its comparisons.
    without_iterative : str
        What is not judged where there are no results of iterative pruning.
    """

    claim: str
    checks: Callable[[Judge], tuple[Check, ...]]
    without_iterative: str = ""


def normal_quantile(probability: float) -> float:
    """Return the quantile of the standard normal distribution."""
    return NormalDist().inv_cdf(probability)
