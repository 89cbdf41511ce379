"""The six signatures of a late-rewinding grid, as rules that numbers keep or break.

A signature is a set of comparisons, each the mean of some cells minus the mean of others,
or minus the dense accuracy, and all must lie within their limits. Where a limit allows for
noise, it is moved by z standard deviations of that difference, from the published standard
deviations of one run and the number of runs on each side; with m such comparisons in the
signature, z is the normal quantile of 1 − 0.025 / m (Bonferroni), so that noise alone
breaks a signature that is true at most once in twenty. Cells are taken as independent.

i    k=0 is close to reinit: at every density, the difference is within the noise.
ii   Late rewinding helps: where at most `sparse` remains, the gain from k=0 to k=12 lies
     within 2.0 to 2.6 points, or beyond by noise.
iii  A plateau for k=12..72: at every density, any two of its cells differ within noise.
iv   A cliff for k close to T: where at most `sparse` remains, k=172 lies below the mean of
     the plateau by more than noise.
v    One-shot tickets match the dense network down to 41–33 %: where 41 % or more remain, the
     mean of the plateau is at most the margin and noise below the dense accuracy; where
     21 % or less do, at least the margin. Iterative tickets, at k=12, match down to
     21–17 %: likewise, with 21 % and 10.7 %.
vi   One-shot tickets at k=0 do not match, even at 80 %: at every density they are at least
     the margin below the dense accuracy.

Between the two densities of (v), the published grid is too near to the margin to be judged.
That tickets do not match, in (v) and (vi), is taken as its authors define it: with the
margin, and without noise.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from statistics import NormalDist

from lthdask.report.published import Numbers, Place, Published

ERROR = 0.05
"""How often noise may break a signature that is true."""


@dataclass(frozen=True)
class Check:
    """One comparison, in points: kept where `least` ≤ `value` ≤ `most`.

    `value` is None where cells are `missing`.
    """

    label: str
    value: float | None
    least: float
    most: float
    missing: tuple[str, ...] = ()

    @property
    def slack(self) -> float:
        """How far the value lies inside its limits; negative outside."""
        if self.value is None:
            return math.inf
        return min(self.value - self.least, self.most - self.value)

    def __str__(self) -> str:
        """Return the comparison with its limits."""
        limits = [f"≥ {self.least:+.2f}"] * math.isfinite(self.least)
        limits += [f"≤ {self.most:+.2f}"] * math.isfinite(self.most)
        return f"{self.label}: {self.value:+.2f} ({', '.join(limits)})"


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
        """The comparisons outside their limits."""
        return [check for check in self.checks if check.slack < 0]

    @property
    def missing(self) -> list[str]:
        """The missing cells, without which it cannot be judged."""
        return list(dict.fromkeys(cell for check in self.checks for cell in check.missing))

    @property
    def holds(self) -> bool | None:
        """Whether it holds; None if it cannot be judged."""
        if self.broken:
            return False
        return None if self.missing else True

    @property
    def deciding(self) -> list[Check]:
        """The comparisons that break it, or else the one that came nearest to doing so."""
        nearest = min(self.checks, key=lambda check: check.slack)
        return self.broken or ([nearest] if nearest.value is not None else [])


def deviation_of_median(runs: int) -> float:
    """Return the standard deviation of the median of some runs, as a multiple of one run's.

    √(π / (2n + π − 2)): exact for one run and in the limit, and within 1 % for odd n, of
    normal values; an even n has a little less.
    """
    return math.sqrt(math.pi / (2 * runs + math.pi - 2))


def signatures(
    numbers: Numbers, card: Published, iterative: Numbers | None = None
) -> list[Signature]:
    """Judge the six signatures.

    Parameters
    ----------
    numbers : Numbers
        Those of one-shot pruning.
    card : Published
    iterative : Numbers, optional
        Those of iterative pruning; without them, that half of (v) is not judged.
    """
    said, judge = card.signature, _Judge(numbers, card)
    start, early, late, plateau = said["start"], said["early"], said["late"], said["plateau"]
    sparse = [share for share in card.remaining if share <= said["sparse"]]
    low, high = said["gain"]
    # Each pair: the mean of the first minus that of the second; no cells mean the dense network.
    one = [_Sides(tickets(r, start), [Place("reinit", None, r)]) for r in card.remaining]
    two = [_Sides(tickets(r, early), tickets(r, start)) for r in sparse]
    pairs = [(r, a, b) for r in card.remaining for a, b in combinations(plateau, 2)]
    three = [_Sides(tickets(r, a), tickets(r, b)) for r, a, b in pairs]
    four = [_Sides(tickets(r, late), tickets(r, *plateau)) for r in sparse]
    six = [_Sides(tickets(r, start)) for r in card.remaining]
    five = judge.matching(card.one_shot, plateau, said["one_shot"])
    if iterative:
        rounds = _Judge(iterative, card).matching(card.iterative, [early], said["iterative"])
        five += tuple(replace(check, label=f"iterative {check.label}") for check in rounds)
    few = f"at {sparse[0]:g} % and below"
    near, far = f"k={early}", f"k={plateau[0]}..{plateau[-1]}"
    return [
        Signature(
            "i",
            f"k={start} is close to reinit",
            judge.checks(one, lambda noise: (-noise, noise)),
        ),
        Signature(
            "ii",
            f"{near} gains {low:.1f} to {high:.1f} points on k={start} {few}",
            judge.checks(two, lambda noise: (low - noise, high + noise)),
        ),
        Signature(
            "iii",
            f"a plateau for {far}",
            judge.checks(three, lambda noise: (-noise, noise)),
        ),
        Signature(
            "iv",
            f"a cliff at k={late} {few}",
            judge.checks(four, lambda noise: (-math.inf, -noise)),
        ),
        Signature(
            "v",
            "one-shot matches dense down to 41–33 %, iterative down to 21–17 %",
            five,
            ""
            if iterative
            else "its iterative half was not judged; give results of it with `iterative`",
        ),
        Signature(
            "vi",
            f"one-shot with k={start} does not match, even at {card.remaining[0]:g} %",
            judge.checks(six, lambda noise: (-math.inf, -said["margin"])),
        ),
    ]


def tickets(remaining: float, *rewind_epochs: int) -> list[Place]:
    """Return the places of tickets at one density."""
    return [Place("ticket", k, remaining) for k in rewind_epochs]


@dataclass(frozen=True)
class _Sides:
    """The cells whose mean is compared, and those it is compared with (none: the dense run)."""

    upper: list[Place]
    lower: list[Place] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{_named(self.upper)} − {_named(self.lower)} at {self.upper[0].remaining:g} %"


@dataclass(frozen=True)
class _Judge:
    """Compares numbers, and knows their noise."""

    numbers: Numbers
    card: Published

    def checks(
        self, sides: Sequence[_Sides], limits: Callable[[float], tuple[float, float]]
    ) -> tuple[Check, ...]:
        """Compare; `limits` returns the least and the most, given the noise."""
        z = NormalDist().inv_cdf(1 - ERROR / 2 / len(sides))
        return tuple(self._check(both, z, limits) for both in sides)

    def matching(
        self, grid: Numbers, rewind_epochs: Sequence[int], shares: Mapping[str, float]
    ) -> tuple[Check, ...]:
        """Compare tickets with the dense network, where they should match and where not."""
        margin = self.card.signature["margin"]
        rows = sorted({place.remaining for place in grid.cells}, reverse=True)
        sides = {remaining: _Sides(tickets(remaining, *rewind_epochs)) for remaining in rows}
        matches = [both for remaining, both in sides.items() if remaining >= shares["matches"]]
        misses = [both for remaining, both in sides.items() if remaining <= shares["misses"]]
        return (
            *self.checks(matches, lambda noise: (-margin - noise, math.inf)),
            *self.checks(misses, lambda noise: (-math.inf, -margin)),
        )

    def _check(
        self, both: _Sides, z: float, limits: Callable[[float], tuple[float, float]]
    ) -> Check:
        missing = [str(p) for p in (*both.upper, *both.lower) if p not in self.numbers.cells]
        dense = self.numbers.dense
        if not both.lower and dense is None:
            missing.append("dense")
        if missing:
            return Check(str(both), None, -math.inf, math.inf, tuple(missing))
        upper, variance = self._mean(both.upper)
        if both.lower:
            lower, its = self._mean(both.lower)
        else:
            assert dense is not None
            lower, its = dense.percent, self.card.dense_deviation**2 / dense.runs
        return Check(str(both), upper - lower, *limits(z * math.sqrt(variance + its)))

    def _mean(self, places: Sequence[Place]) -> tuple[float, float]:
        """Return the mean of cells, and its variance."""
        cells = [self.numbers.cells[place] for place in places]
        deviations = (self.card.deviation * deviation_of_median(cell.runs) for cell in cells)
        mean = math.fsum(cell.percent for cell in cells) / len(cells)
        return mean, math.fsum(d**2 for d in deviations) / len(cells) ** 2


def _named(places: Sequence[Place]) -> str:
    if not places:
        return "dense"
    first, last = places[0], places[-1]
    if first.rewind_epoch is None:
        return first.arm
    return f"k={first.rewind_epoch}" + (f"..{last.rewind_epoch}" if last != first else "")
