"""The grid: which cells a study consists of, and in which order they are trained.

A cell is one training run, (arm, replicate, threshold, rewind epoch). Two nested loops,
over thresholds and rewind epochs, make the grid.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from types import MappingProxyType
from typing import Any

from lthdask.arguments import block, require
from lthdask.arms import ARMS
from lthdask.errors import listed
from lthdask.own import chosen, plain
from lthdask.rewinding import Rewind, as_given, epochs_before, number, ordered, rewind, step_of

MOST_CELLS = 1_000_000
Narrowed = Mapping[str, Mapping[str, Sequence[Any]]]


@dataclass(frozen=True, order=True)
class Cell:
    """One training run of the grid."""

    arm: str
    replicate: int
    threshold: float
    rewind_epoch: Rewind

    def __str__(self) -> str:
        """Return the cell's name, as used in file names and messages."""
        k = self.rewind_epoch
        return f"{self.arm}-r{self.replicate}-t{self.threshold:.12g}-k{k:.12g}"

    @property
    def label(self) -> str:
        """The cell's name on Dask's pages, such as ``cell.random-mask-task-r0-t0.5-k2``.

        They colour its group, here ``cell.random-mask-task``, by a hash: with these words, dense
        runs, checkpoints, tickets and the first four controls differ. It comes before "checkpoint"
        in the alphabet, or the page of groups would be an error.
        """
        return f"cell.{self.arm.replace('_', '-')}-task{str(self).removeprefix(self.arm)}"

    @property
    def first_epoch(self) -> Rewind:
        """What is finished before the cell is trained: k; 0 where all T epochs are trained."""
        return 0 if ARMS[self.arm].begins_anew else self.rewind_epoch

    def begins(self, steps: int) -> tuple[int, int]:
        """Return the epochs that are finished before the cell is trained, and steps of the next.

        An epoch has `steps` of them.
        """
        return divmod(step_of(self.first_epoch, steps), steps)

    def epochs_before(self, steps: int = 0) -> int | float:
        """Return the same as a number of epochs, as far as it is known without the `steps`."""
        return epochs_before(self.first_epoch, steps)

    @property
    def cohort(self) -> tuple[object, ...]:
        """What cells must share to be trained side by side: data, rates and finished steps."""
        return self.replicate, self.first_epoch, ARMS[self.arm].trained_like


@block
@dataclass(frozen=True)
class Grid:
    """The axes of a study.

    What it is given becomes plain values of Python: lists, ranges, arrays and numbers of NumPy are
    taken as well.

    Parameters
    ----------
    thresholds : tuple of float
        Strictly increasing; a share in (0, 1), or a positive cutoff, as the study's
        pruning says.
    rewind_epochs : tuple of int, float or str
        Strictly increasing, each at least 0 and less than the number of epochs: epochs, whole or
        not, such as 2 or 0.5; or all in iterations, such as ``500it``, but for 0.
    arms : tuple of str
        What is done with the mask; names from `ARMS`, or functions of one's own. Cells have
        these without their digest.
    replicates : int
        Independent repetitions, at least 1.
    rewind_epochs_of : mapping of str to tuple of int
        Arm → those of the rewind epochs that it has; all of them by default. Tickets have all.
    thresholds_of : mapping of str to tuple of float
        Likewise for the thresholds. What goes on from its own round before has all of them, too.
    """

    thresholds: tuple[float, ...]
    rewind_epochs: tuple[Any, ...]
    arms: tuple[str, ...] = ("ticket",)
    replicates: int = 1
    rewind_epochs_of: Mapping[str, tuple[Any, ...]] = field(default_factory=dict, hash=False)
    thresholds_of: Mapping[str, tuple[float, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name, kind in (("thresholds", _threshold), ("rewind_epochs", _k), ("arms", str)):
            object.__setattr__(self, name, _each(name, getattr(self, name), kind))
        (replicates,) = _each("replicates", self.replicates, _whole)
        object.__setattr__(self, "replicates", replicates)
        if unknown := [arm for arm in self.arms if arm not in ARMS]:
            raise ValueError(f"unknown arm {min(unknown)!r}; known: {', '.join(ARMS)}")
        object.__setattr__(self, "arms", tuple(chosen("arm", arm, ARMS) for arm in self.arms))
        for name in ("thresholds", "rewind_epochs", "arms"):
            values = [*map(plain, self.arms)] if name == "arms" else getattr(self, name)
            if not values:
                raise ValueError(f"{name} must hold at least one value")
            if len(set(values)) < len(values):
                raise ValueError(f"{name} holds a value twice: {listed(values)}")
        if list(self.thresholds) != sorted(self.thresholds):
            raise ValueError(f"thresholds must increase; got {listed(self.thresholds)}")
        if self.ks != (known := ordered("rewind_epochs", self.ks)):
            raise ValueError(f"rewind_epochs must increase; got {listed(self.rewind_epochs)}")
        if number(known[0]) < 0:
            raise ValueError(f"rewind_epochs must be 0 or more; got {self.rewind_epochs[0]}")
        if self.replicates < 1:
            raise ValueError(f"replicates must be 1 or more; got {self.replicates}")
        for name in ("rewind_epochs_of", "thresholds_of"):
            require(name, getattr(self, name), Mapping)
        self._narrow("rewind_epochs", _k)
        self._narrow("thresholds", _threshold)
        lengths = (len(self.arms), len(self.thresholds), len(self.rewind_epochs))
        if (cells := math.prod(lengths) * self.replicates) > MOST_CELLS:
            raise ValueError(f"a grid can have {MOST_CELLS:,} cells at most; got {cells:,}")

    def _narrow(self, axis: str, kind: Callable[[Any], Any]) -> None:
        """Check what single arms have of an axis."""
        narrowed, every = dict[str, tuple[Any, ...]](), getattr(self, axis)
        for arm, given in getattr(self, f"{axis}_of").items():
            name = f"{axis}_of.{arm}"
            if arm not in ARMS or not _can_do_with_fewer(arm, axis):
                known = listed(a for a in ARMS if _can_do_with_fewer(a, axis))
                raise ValueError(f"{name}: only some arms can do with fewer: {known}; got {arm!r}")
            values = _each(name, given, kind)
            if not values or (other := set(values) - set(every)):
                what = f"got {listed(other)}" if values else "it has none"
                raise ValueError(f"{name} takes some of {listed(every)}; {what}")
            narrowed[arm] = tuple(value for value in every if value in values)
        object.__setattr__(self, f"{axis}_of", narrowed)

    @property
    def ks(self) -> list[Rewind]:
        """The rewind epochs as numbers, which cells have."""
        return [rewind(k) for k in self.rewind_epochs]

    @property
    def narrowed(self) -> Narrowed:
        """Axis of cells → arm → the values that it has of them; of arms that have but some."""
        ks = {arm: [*map(rewind, some)] for arm, some in self.rewind_epochs_of.items()}
        return {"threshold": self.thresholds_of, "rewind_epoch": ks}

    def along(self, axis: str, arm: str) -> Sequence[Any]:
        """Return what an arm has along ``threshold`` or ``rewind_epoch``; its k as numbers."""
        return self.narrowed[axis].get(arm, self.axes()[axis])

    def axes(self) -> dict[str, list[Any]]:
        """Return the values along each axis of a cell."""
        return {
            "arm": [*map(plain, self.arms)],
            "replicate": list(range(self.replicates)),
            "threshold": list(self.thresholds),
            "rewind_epoch": self.ks,
        }

    def cells(self) -> list[Cell]:
        """Return every cell of the grid, longest run first."""
        axes = self.axes()
        cells = (Cell(*cell) for cell in product(*axes.values()))
        of = self.narrowed
        return longest_first(cell for cell in cells if is_applicable(cell, axes, of))


def _can_do_with_fewer(arm: str, axis: str) -> bool:
    """Return whether an arm needs not have all rewind epochs, or all thresholds."""
    row = ARMS[arm]
    able = row.has_k if axis == "rewind_epochs" else row.has_threshold and row.start != "before"
    return able and arm != "ticket"


def _each(name: str, given: Any, kind: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Return what is given for an axis, one value or several, as plain values."""
    one = isinstance(given, str) or not hasattr(given, "__iter__")
    try:
        values = [given] if one else list(given)
        if kind is not str and any(isinstance(value, bool) for value in values):
            raise TypeError
        return tuple(kind(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        words = {str: "names", _whole: "whole numbers", _k: KS}
        wanted = words.get(kind, "numbers")
        raise ValueError(f"{name} takes {wanted}; got {given!r}") from None


def _threshold(value: Any) -> float:
    """Return a threshold to the 12 digits that its cells are named by: 0.1 + 0.2 is 0.3."""
    return float(f"{float(value):.12g}")


def _whole(value: Any) -> int:
    """Return a whole number as an int, also one that comes as a float."""
    if int(value) != value:
        raise ValueError
    return int(value)


def _k(value: Any) -> int | float | str:
    """Return a rewind epoch as a study has it."""
    return as_given(rewind(value))


KS = "epochs, such as 2 or 0.5, or iterations, such as 500it"
"""What rewind epochs can be."""


def cohorts(cells: Iterable[Cell], most: int) -> list[list[Cell]]:
    """Return cells in groups of at most `most` that can be trained together, in their order.

    The groups of one `Cell.cohort` are as equal in size as possible, because a small last one
    would leave a device nearly idle.
    """
    if most == 1:
        return [[cell] for cell in cells]
    together: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        together.setdefault(cell.cohort, []).append(cell)
    parts = []
    for every in together.values():
        count = math.ceil(len(every) / most)
        parts += [
            every[len(every) * i // count : len(every) * (i + 1) // count] for i in range(count)
        ]
    return parts


def is_applicable(
    cell: Cell, axes: Mapping[str, Sequence[Any]], narrowed: Narrowed = MappingProxyType({})
) -> bool:
    """Return whether there is something to train at a position of the grid."""
    arm = ARMS[cell.arm]
    for axis, value, has in (
        ("threshold", cell.threshold, arm.has_threshold),
        ("rewind_epoch", cell.rewind_epoch, arm.has_k),
    ):
        every = axes[axis]
        some = narrowed.get(axis, {}).get(cell.arm, every) if has else every[:1]
        if value not in some:
            return False
    return True


def axes_of(cells: Iterable[Cell]) -> tuple[list[float], list[Rewind]]:
    """Return the thresholds and the rewind epochs of cells whose arms have both."""
    whole = [c for c in cells if ARMS[c.arm].has_threshold and ARMS[c.arm].has_k]
    return sorted({c.threshold for c in whole}), sorted({c.rewind_epoch for c in whole})


def stored_at(cell: Cell, axes: Mapping[str, Sequence[Any]]) -> Cell:
    """Return the cell that has the results of a position of the grid.

    An arm without a rewind epoch, or without a threshold, is trained once along that axis, and
    stored at its first value.
    """
    arm = ARMS[cell.arm]
    threshold = cell.threshold if arm.has_threshold else axes["threshold"][0]
    k = cell.rewind_epoch if arm.has_k else axes["rewind_epoch"][0]
    return replace(cell, threshold=threshold, rewind_epoch=k)


def longest_first(cells: Iterable[Cell]) -> list[Cell]:
    """Return cells in the order to train them.

    A ticket rewound to k trains the remaining epochs, so a small k takes long. Training the
    longest first keeps the last workers from waiting for one straggler (Graham's LPT rule: at
    most 4/3 of the shortest possible makespan).
    """
    return sorted(cells, key=lambda cell: (cell.first_epoch, cell))
