"""The five signatures of a late-rewinding grid, as rules that numbers keep or break.

A signature is a set of comparisons, each the mean of some cells minus the mean of others, or
minus the dense accuracy. `RULES` lists them. Noise is z standard deviations of a comparison,
from the published standard deviation of one run and the number of runs on each side; cells
are taken as independent. Where noise may break a signature, z is the normal quantile of
1 − 0.025 / m over its m comparisons (Bonferroni), so that a signature that is true is
broken at most once in twenty.

i    k=0 is close to reinit.
ii   Late rewinding helps: where at most `sparse` remains, the gain from k=0 to k=12 lies
     within 1.9 to 2.7 points, or beyond by noise.
iii  A plateau for k=12..72: each of its k is close to their mean.
iv   A cliff for k close to T: where at most `sparse` remains, k=172 lies below the mean of
     the plateau by more than noise.
v    One-shot tickets match the dense network down to 41–33 %: where 41 % or more remain, the
     mean of the plateau is at most the margin and noise below the dense accuracy; where
     21 % or less do, at least the margin. Iterative tickets, at k=12, match down to
     21–17 %: likewise, with 21 % and 10.7 %.

**Close** is shown, never taken for granted: the mean difference over all densities lies
within `close` points by more than noise, as two one-sided tests at 0.05 (Schuirmann 1987);
and at no density is the difference shown to be larger. Runs too few for either leave it open.

Between the two densities of (v), the published grid is too near to the margin to be judged.
That tickets do not match there is taken as its authors define it: with the margin, and
without noise. docs/reproduction.md says why there is no sixth signature any more.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

from lthdask.report.contrasts import Check, Column, Contrast, Limits, check, tickets
from lthdask.report.published import Numbers, Published

ERROR = 0.05
"""How often noise may break a signature that is true, or show a closeness that is not."""


@dataclass(frozen=True)
class Signature:
    """What became of a signature.

    Attributes
    ----------
    number : str
    claim : str
    checks : tuple of Check
    note : str
        What was not judged.
    """

    number: str
    claim: str
    checks: tuple[Check, ...]
    note: str = ""

    @property
    def broken(self) -> list[Check]:
        """The comparisons outside their limits, by more than their leeway."""
        return [c for c in self.checks if c.slack < -c.leeway]

    @property
    def undecided(self) -> list[Check]:
        """The comparisons for which there are too few runs."""
        return [c for c in self.checks if -c.leeway <= c.slack < 0]

    @property
    def missing(self) -> list[str]:
        """The missing cells, without which it cannot be judged."""
        return list(dict.fromkeys(cell for c in self.checks for cell in c.missing))

    @property
    def holds(self) -> bool | None:
        """Whether it holds; None if it cannot be judged."""
        if self.broken:
            return False
        return None if self.missing or self.undecided else True

    @property
    def deciding(self) -> list[Check]:
        """The comparisons that break it or leave it open, or else the nearest to doing so."""
        nearest = min(self.checks, key=lambda c: c.slack)
        return self.broken or self.undecided or ([nearest] if nearest.value is not None else [])


def signatures(
    numbers: Numbers, card: Published, iterative: Numbers | None = None
) -> list[Signature]:
    """Judge the signatures.

    Parameters
    ----------
    numbers : Numbers
        Those of one-shot pruning.
    card : Published
    iterative : Numbers, optional
        Those of iterative pruning; without them, that half of (v) is not judged.
    """
    judge = _Judge(numbers, card, iterative)
    return [
        Signature(
            number,
            rule.claim.format(**card.signature, last=card.signature["plateau"][-1]),
            rule.checks(judge),
            "" if iterative else rule.without_iterative,
        )
        for number, rule in RULES.items()
    ]


@dataclass(frozen=True)
class _Judge:
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
        z = _normal_quantile(1 - ERROR / 2 / len(rows))
        contrasts = (Contrast([row], upper, lower) for row in rows)
        return self._compare(contrasts, lambda d: (*limits(z * d), 0.0))

    def close(self, *sides: tuple[Sequence[Column], Sequence[Column]]) -> tuple[Check, ...]:
        """Check that sides are shown to be close on average, and nowhere shown not to be."""
        rows, close = self.card.remaining, self.said["close"]
        average = [Contrast(rows, *both) for both in sides]
        local = [Contrast([row], *both) for row in rows for both in sides]
        showing = _normal_quantile(1 - ERROR)
        breaking = _normal_quantile(1 - ERROR / 2 / len(average + local))

        def shown(d: float) -> tuple[float, float, float]:
            most = close - showing * d
            return -most, most, (showing + breaking) * d

        def not_refuted(d: float) -> tuple[float, float, float]:
            most = close + breaking * d
            return -most, most, 0.0

        return self._compare(average, shown) + self._compare(local, not_refuted)

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

    def _compare(self, contrasts: Iterable[Contrast], limits: Limits) -> tuple[Check, ...]:
        return tuple(check(each, self.numbers, self.card, limits) for each in contrasts)


def _close_to_reinit(judge: _Judge) -> tuple[Check, ...]:
    return judge.close((tickets(judge.said["start"]), [("reinit", None)]))


def _gain(judge: _Judge) -> tuple[Check, ...]:
    said, (low, high) = judge.said, judge.said["gain"]
    sides = tickets(said["early"]), tickets(said["start"])
    return judge.each(judge.sparse, *sides, lambda noise: (low - noise, high + noise))


def _plateau(judge: _Judge) -> tuple[Check, ...]:
    plateau = tickets(*judge.said["plateau"])
    return judge.close(*(([column], plateau) for column in plateau))


def _cliff(judge: _Judge) -> tuple[Check, ...]:
    sides = tickets(judge.said["late"]), tickets(*judge.said["plateau"])
    return judge.each(judge.sparse, *sides, lambda noise: (-math.inf, -noise))


def _matching(judge: _Judge) -> tuple[Check, ...]:
    card, said = judge.card, judge.said
    checks = judge.matching(card.one_shot, tickets(*said["plateau"]), said["one_shot"])
    if judge.iterative:
        rounds = _Judge(judge.iterative, card)
        more = rounds.matching(card.iterative, tickets(said["early"]), said["iterative"])
        checks += tuple(replace(each, label=f"iterative {each.label}") for each in more)
    return checks


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
    checks: Callable[[_Judge], tuple[Check, ...]]
    without_iterative: str = ""


RULES = {
    "i": Rule("k={start} is close to reinit, within {close:.1f} points", _close_to_reinit),
    "ii": Rule(
        "k={early} gains {gain[0]:.1f} to {gain[1]:.1f} points on k={start} "
        "at {sparse:g} % and below",
        _gain,
    ),
    "iii": Rule(
        "a plateau for k={plateau[0]}..{last}, each within {close:.1f} points of its mean", _plateau
    ),
    "iv": Rule("a cliff at k={late} at {sparse:g} % and below", _cliff),
    "v": Rule(
        "one-shot matches dense down to 41–33 %, iterative down to 21–17 %",
        _matching,
        "its iterative half was not judged; give results of it with `iterative`",
    ),
}
"""The signatures: number → rule. To add one, add a row and a function."""


def _normal_quantile(probability: float) -> float:
    return NormalDist().inv_cdf(probability)
