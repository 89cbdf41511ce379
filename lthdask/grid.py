"""The grid: which cells a study consists of, and in which order they are trained.

A cell is one training run, (arm, replicate, threshold, rewind epoch). Two nested loops,
over thresholds and rewind epochs, make the grid.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

ARMS = {
    "ticket": "checkpoint k under the mask, trained for epochs k + 1..T",
    "random_mask": "checkpoint k under a random mask with the ticket's count in each layer",
    "reinit": "a new initialisation under the mask, trained for all T epochs; has no k",
    "lr_rewind": "the final dense weights under the mask, at the rates of epochs k + 1..T",
    "fine_tune": "the final dense weights under the mask, at the rate for fine-tuning",
    "ticket_child": "the ticket with another order of the data, for its stability",
    "dense_child": "the dense run from k on with another order of the data; has no threshold",
}
"""What is done with the mask: name → meaning."""
CHILDREN = ("ticket_child", "dense_child")
"""Arms that see the data in another order."""
POINTS_ON_LINE = 30
"""Points on the line between two children, their ends included."""
MOST_CELLS = 1_000_000


@dataclass(frozen=True, order=True)
class Cell:
    """One training run of the grid."""

    arm: str
    replicate: int
    threshold: float
    rewind_epoch: int

    def __str__(self) -> str:
        """Return the cell's name, as used in file names, task keys and messages."""
        return f"{self.arm}-r{self.replicate}-t{self.threshold:.12g}-k{self.rewind_epoch}"

    @property
    def first_epoch(self) -> int:
        """Epochs that are done before the cell is trained."""
        return 0 if self.arm == "reinit" else self.rewind_epoch

    @property
    def cohort(self) -> tuple[int, int, str]:
        """What it shares with cells that can be trained beside it: data, rates and steps done."""
        together = "ticket" if self.arm in ("random_mask", "reinit") else self.arm
        return self.replicate, self.first_epoch, together


@dataclass(frozen=True)
class Grid:
    """The axes of a study.

    Parameters
    ----------
    thresholds : tuple of float
        Strictly increasing; a share in (0, 1), or a positive cutoff, as the study's
        pruning says.
    rewind_epochs : tuple of int
        Strictly increasing, each at least 0 and less than the number of epochs.
    arms : tuple of str
        What is done with the mask: of `ARMS`.
    replicates : int
        Independent repetitions, at least 1.
    """

    thresholds: tuple[float, ...]
    rewind_epochs: tuple[int, ...]
    arms: tuple[str, ...] = ("ticket",)
    replicates: int = 1

    def __post_init__(self) -> None:
        for name in ("thresholds", "rewind_epochs", "arms"):
            values = getattr(self, name)
            if not values:
                raise ValueError(f"{name} must hold at least one value")
            if len(set(values)) < len(values):
                raise ValueError(f"{name} holds a value twice: {_listed(values)}")
        for name in ("thresholds", "rewind_epochs"):
            values = getattr(self, name)
            if list(values) != sorted(values):
                raise ValueError(f"{name} must increase; got {_listed(values)}")
        if min(self.rewind_epochs) < 0:
            raise ValueError(f"rewind_epochs must be 0 or more; got {self.rewind_epochs[0]}")
        if unknown := set(self.arms) - set(ARMS):
            raise ValueError(f"unknown arm {min(unknown)!r}; known: {', '.join(ARMS)}")
        if self.replicates < 1:
            raise ValueError(f"replicates must be 1 or more; got {self.replicates}")
        lengths = (len(self.arms), len(self.thresholds), len(self.rewind_epochs))
        if (cells := math.prod(lengths) * self.replicates) > MOST_CELLS:
            raise ValueError(f"a grid may have {MOST_CELLS:,} cells at most; got {cells:,}")

    def axes(self) -> dict[str, list[Any]]:
        """Return the values along each axis of a cell."""
        return {
            "arm": list(self.arms),
            "replicate": list(range(self.replicates)),
            "threshold": list(self.thresholds),
            "rewind_epoch": list(self.rewind_epochs),
        }

    def cells(self) -> list[Cell]:
        """Return every cell of the grid, longest run first."""
        axes = self.axes()
        cells = (Cell(*cell) for cell in product(*axes.values()))
        return longest_first(cell for cell in cells if is_applicable(cell, axes))


def cohorts(cells: Iterable[Cell], most: int) -> list[list[Cell]]:
    """Return cells in groups of at most `most` that can be trained together, in their order.

    The groups of one `Cell.cohort` are as equal as they can be: a small last one would leave
    a device nearly idle.
    """
    if most == 1:
        return [[cell] for cell in cells]
    together: dict[tuple[int, int, str], list[Cell]] = {}
    for cell in cells:
        together.setdefault(cell.cohort, []).append(cell)
    parts = []
    for every in together.values():
        count = math.ceil(len(every) / most)
        parts += [
            every[len(every) * i // count : len(every) * (i + 1) // count] for i in range(count)
        ]
    return parts


def is_applicable(cell: Cell, axes: Mapping[str, Sequence[Any]]) -> bool:
    """Return whether there is something to train at a position of the grid.

    A new initialisation has no rewind epoch, and a dense child no threshold: they are
    trained once and stored at the first value of that axis.
    """
    if cell.arm == "reinit":
        return bool(cell.rewind_epoch == axes["rewind_epoch"][0])
    return cell.arm != "dense_child" or bool(cell.threshold == axes["threshold"][0])


def longest_first(cells: Iterable[Cell]) -> list[Cell]:
    """Return cells in the order to train them.

    A ticket rewound to k trains the epochs that are left, so a small k is long. Longest
    first keeps the last workers from waiting for one straggler (Graham's LPT rule: at most
    4/3 of the shortest possible makespan).
    """
    return sorted(cells, key=lambda cell: (cell.first_epoch, cell))


def _listed(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values)
