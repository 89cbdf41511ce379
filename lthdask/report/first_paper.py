"""The signatures of the first paper's design (Frankle & Carbin, ICLR 2019, sections 2 and 4).

i    Tickets learn faster than reinit: where at most `most` remains, the validation loss of reinit
     is lowest after at least `faster` times as many steps.
ii   Tickets end above the dense network there, by at least `above` points.
iii  Controls fall behind: where at most `sparse` remains, tickets end at least `behind` points
     above reinit, and above random masks.

Each is shown on average over its densities, by a one-sided test at 0.05; and at no density may it
be shown to be less (Bonferroni). Runs too few for either leave it open.
"""

import math

from lthdask.report.contrasts import Check, tickets
from lthdask.report.judging import Judge, Rule

REINIT, RANDOM_MASK = ("reinit", None), ("random_mask", 0)


def _rows(judge: Judge, most: str) -> list[float]:
    return [row for row in judge.card.remaining if row <= judge.said[most]]


def _faster(judge: Judge) -> tuple[Check, ...]:
    least = math.log(judge.said["faster"])
    return judge.beyond(_rows(judge, "most"), [REINIT], tickets(0), least, ratio=True)


def _above_dense(judge: Judge) -> tuple[Check, ...]:
    return judge.beyond(_rows(judge, "most"), tickets(0), (), judge.said["above"])


def _behind(judge: Judge) -> tuple[Check, ...]:
    rows, least = _rows(judge, "sparse"), judge.said["behind"]
    of = (judge.beyond(rows, tickets(0), [arm], least) for arm in (REINIT, RANDOM_MASK))
    return tuple(check for checks in of for check in checks)


FIRST_PAPER = {
    "i": Rule("tickets learn {faster:g} times as fast as reinit at {most:g} % and below", _faster),
    "ii": Rule(
        "tickets end {above:g} points above dense at {most:g} % and below, or more", _above_dense
    ),
    "iii": Rule(
        "tickets end {behind:g} points above reinit and random masks at {sparse:g} % and below, "
        "or more",
        _behind,
    ),
}
"""The signatures: number → rule."""
