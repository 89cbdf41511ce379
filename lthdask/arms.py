"""The arms: what is done with a mask, and what a ticket is compared with."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lthdask.own import is_own


@dataclass(frozen=True)
class Arm:
    """One row of the table of arms: what is trained, and what it is compared with.

    Parameters
    ----------
    meaning : str
    start : {"rewound", "restarted", "final", "before", "new", "signs", "trained"}
        Where training starts: checkpoint k of the dense run; its weights, with training begun
        anew; checkpoint T; the end of the arm's own round before, and of the dense run in the
        first; another initialisation; the signs of the first one; the trained weights of a
        ticket of another study.
    mask : {"ticket", "random", "parent", "none"}
        Whose mask is laid over it: the ticket's, or what the arm's own round before gives; a
        random one with the ticket's count in each layer; the parent's; or none.
    has_k, has_threshold : bool
        Whether the arm has one. One that lacks it is trained once along that axis, and stored at
        its first value.
    compared_with : {"dense", "ticket"}
        What its accuracy is compared with; with `reordered`, the barrier to it is measured.
    lacks : {"", "mask", "weights", "magnitudes"}
        What a winning ticket has and this control takes away.
    fine_tuned : bool
        Whether it is trained at the recipe's rate for fine-tuning.
    reordered : bool
        Whether it is a child, which sees the same data in another order.
    parent : str, optional
        The arm whose final weights and mask it needs, in the same cell.
    of_source : bool
        Whether it is only there where tickets come from another study.
    """

    meaning: str
    start: Literal["rewound", "restarted", "final", "before", "new", "signs", "trained"] = "rewound"
    mask: Literal["ticket", "random", "parent", "none"] = "ticket"
    has_k: bool = True
    has_threshold: bool = True
    compared_with: Literal["dense", "ticket"] = "ticket"
    lacks: Literal["", "mask", "weights", "magnitudes"] = ""
    fine_tuned: bool = False
    reordered: bool = False
    parent: str | None = None
    of_source: bool = False

    @property
    def trained_like(self) -> tuple[object, ...]:
        """Arms that agree in this share one recipe, data order and optimizer state."""
        kept = self.start if self.start in ("final", "before") else ""
        return kept, self.fine_tuned, self.reordered, self.mask == "none"

    @property
    def begins_anew(self) -> bool:
        """Whether it is trained for all T epochs, at their rates, with a fresh optimizer."""
        return self.start in ("restarted", "new", "signs")


class Arms(dict[str, Arm]):
    """A table of arms, which also knows the row of every arm of one's own, such as `mine:arm`."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and is_own(name))

    def __missing__(self, name: str) -> Arm:
        if not is_own(name):
            raise KeyError(name)
        return Arm(
            "what a function of one's own makes of checkpoint k and the mask, trained for epochs "
            "k + 1..T"
        )


ARMS = Arms()
ARMS |= {
    "ticket": Arm(
        "checkpoint k under the mask, trained for epochs k + 1..T",
        compared_with="dense",
    ),
    "random_mask": Arm(
        "checkpoint k under a random mask with the ticket's count in each layer",
        mask="random",
        lacks="mask",
    ),
    "reinit": Arm(
        "a new initialisation under the mask, trained for all T epochs; has no k",
        start="new",
        has_k=False,
        lacks="weights",
    ),
    "constant_signs": Arm(
        "the signs of the initial weights, times the standard deviation of their layer, under the "
        "mask, trained for all T epochs; has no k",
        start="signs",
        has_k=False,
        lacks="magnitudes",
    ),
    "equal_epochs": Arm(
        "the weights of checkpoint k under the mask, trained for all T epochs as from the start",
        start="restarted",
    ),
    "lr_rewind": Arm(
        "the final dense weights under the mask, at the rates of epochs k + 1..T",
        start="final",
    ),
    "fine_tune": Arm(
        "the final dense weights under the mask, at the rate for fine-tuning",
        start="final",
        fine_tuned=True,
    ),
    "lr_rewind_iterated": Arm(
        "what its own round before ended with, pruned further, at the rates of epochs k + 1..T",
        start="before",
    ),
    "fine_tune_iterated": Arm(
        "what its own round before ended with, pruned further, at the rate for fine-tuning",
        start="before",
        fine_tuned=True,
    ),
    "trained_ticket": Arm(
        "of another study, the trained weights of the ticket, trained for all T epochs; has no k",
        start="trained",
        has_k=False,
        of_source=True,
    ),
    "dense_pretrained": Arm(
        "of another study, the final dense weights without a mask, trained for all T epochs; has "
        "neither k nor threshold",
        start="final",
        mask="none",
        has_k=False,
        has_threshold=False,
        of_source=True,
    ),
    "ticket_child": Arm(
        "the ticket with another order of the data",
        mask="parent",
        reordered=True,
        parent="ticket",
    ),
    "dense_child": Arm(
        "the dense run from k on with another order of the data; has no threshold",
        mask="none",
        has_threshold=False,
        compared_with="dense",
        reordered=True,
    ),
}
"""The known arms: name → what it is. To add one, add a row; where it starts from something new,
or takes another mask, also a function in :mod:`lthdask.lottery.drawing`."""
SCRATCH = tuple(name for name, arm in ARMS.items() if arm.lacks)
"""Controls that lack what makes a winning ticket: its mask, its weights or their magnitudes."""
CHILDREN = tuple(name for name, arm in ARMS.items() if arm.reordered)
"""Arms that see the data in another order; the barriers to them measure stability."""
POINTS_ON_LINE = 30
"""Points on the line between two children, their ends included."""


def controls_of(arms: Iterable[str]) -> tuple[str, ...]:
    """Return those of some arms whose accuracy is compared with the ticket's."""
    rows = ((name, ARMS[name]) for name in arms)
    return tuple(n for n, arm in rows if arm.compared_with == "ticket" and not arm.reordered)


def place_of(arm: str) -> tuple[int, str]:
    """Return what arms are sorted by: the order of `ARMS`, one's own at the end."""
    known = list(ARMS)
    return (known.index(arm) if arm in known else len(known)), arm
