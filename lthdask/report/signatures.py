"""Signatures of published grids, as rules that numbers keep or break: five of late rewinding.

Those of the first paper are in `lthdask.report.first_paper`. A signature is a set of comparisons,
each the mean of some cells minus the mean of others, or minus the dense accuracy. `RULES` lists
them. Noise is z standard deviations of a comparison, from the published standard deviation of
one run and the number of runs on each side; cells are taken as independent. Where noise may
break a signature, z is the normal quantile of 1 − 0.025 / m over its m comparisons
(Bonferroni), so that a signature that is true is broken at most once in twenty.

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
from collections.abc import Mapping
from dataclasses import dataclass, replace

from lthdask.report.contrasts import Check, tickets
from lthdask.report.first_paper import FIRST_PAPER
from lthdask.report.judging import Judge, Rule
from lthdask.report.published import Numbers, Published


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
        Those of the card's grid.
    card : Published
    iterative : Numbers, optional
        Those of iterative pruning, where the grid is of one-shot pruning; without them, that half
        of (v) is not judged.
    """
    judge = Judge(numbers, card, iterative)
    return [
        Signature(
            number,
            rule.claim.format(**card.signature),
            rule.checks(judge),
            "" if iterative else rule.without_iterative,
        )
        for number, rule in TABLES[card.rules].items()
    ]


def _close_to_reinit(judge: Judge) -> tuple[Check, ...]:
    return judge.close((tickets(judge.said["start"]), [("reinit", None)]))


def _gain(judge: Judge) -> tuple[Check, ...]:
    said, (low, high) = judge.said, judge.said["gain"]
    sides = tickets(said["early"]), tickets(said["start"])
    return judge.each(judge.sparse, *sides, lambda noise: (low - noise, high + noise))


def _plateau(judge: Judge) -> tuple[Check, ...]:
    plateau = tickets(*judge.said["plateau"])
    return judge.close(*(([column], plateau) for column in plateau))


def _cliff(judge: Judge) -> tuple[Check, ...]:
    sides = tickets(judge.said["late"]), tickets(*judge.said["plateau"])
    return judge.each(judge.sparse, *sides, lambda noise: (-math.inf, -noise))


def _matching(judge: Judge) -> tuple[Check, ...]:
    card, said = judge.card, judge.said
    checks = judge.matching(card.one_shot, tickets(*said["plateau"]), said["one_shot"])
    if judge.iterative:
        rounds = Judge(judge.iterative, card)
        more = rounds.matching(card.iterative, tickets(said["early"]), said["iterative"])
        checks += tuple(replace(each, label=f"iterative {each.label}") for each in more)
    return checks


RULES = {
    "i": Rule("k={start} is close to reinit, within {close:.1f} points", _close_to_reinit),
    "ii": Rule(
        "k={early} gains {gain[0]:.1f} to {gain[1]:.1f} points on k={start} "
        "at {sparse:g} % and below",
        _gain,
    ),
    "iii": Rule(
        "a plateau for k={plateau[0]}..{plateau[3]}, each within {close:.1f} points of its mean",
        _plateau,
    ),
    "iv": Rule("a cliff at k={late} at {sparse:g} % and below", _cliff),
    "v": Rule(
        "one-shot matches dense down to 41–33 %, iterative down to 21–17 %",
        _matching,
        "its iterative half was not judged; give results of it with `iterative`",
    ),
}
"""The signatures of late rewinding: number → rule. To add one, add a row and a function."""
TABLES: Mapping[str, Mapping[str, Rule]] = {"late_rewinding": RULES, "first_paper": FIRST_PAPER}
"""The tables that a card can name."""
