"""What the cube of a study holds, declared once: its axes, its arrays, what their values mean.

Creating, reading, growing and checking a cube follow from the tables here. To add a metric, add a
line to its table; to add an array, a row to `ARRAYS`; and raise
`lthdask.storage.manifest.FORMAT`. What an older cube lacks reads as NaN, and is added when its
study is next run.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from lthdask.arms import ARMS, POINTS_ON_LINE
from lthdask.errors import InputError
from lthdask.rewinding import ITERATION, Iterations, number, step_of
from lthdask.storage.meanings import CURVES, LAYERS, LEARNING, METRICS, RECORD, Meanings

CELL = ("arm", "replicate", "threshold", "rewind_epoch")


class Status(IntEnum):
    """What became of a cell."""

    PENDING = 0
    DONE = 1
    FAILED = 2
    DIVERGED = 3
    SKIPPED = 4
    NOT_APPLICABLE = 5


@dataclass(frozen=True)
class Array:
    """One array of the cube.

    Parameters
    ----------
    description : str
    rest : tuple of str
        Dimensions after `cell`; each chunk holds them whole.
    cell : tuple of str
        Dimensions with one chunk per value, so that writers never meet.
    dtype : {"f8", "u1", "text"}
        Type of the values; what is not written is NaN, 0 or empty.
    names : mapping, optional
        The named values along the last dimension, if it has any: each of them is read as a
        variable of its own.
    variable : str
        How such a variable is called, with ``{}`` for the name.
    units : str
    shown : str
        Units in which people read it, where it has no names; the names say their own.
    group : str
        The group that the variables belong to; empty if they are always read.
    """

    description: str
    rest: tuple[str, ...] = ()
    cell: tuple[str, ...] = CELL
    dtype: str = "f8"
    names: Meanings = field(default_factory=dict)
    variable: str = "{}"
    units: str = ""
    shown: str = ""
    group: str = ""

    @property
    def dimensions(self) -> tuple[str, ...]:
        """All of its dimensions."""
        return self.cell + self.rest


ARRAYS = {
    "status": Array("what became of the cell", dtype="u1"),
    "place": Array("host and device", dtype="text", group="records"),
    "metrics": Array("results of a cell", ("metric",), names=METRICS),
    "curves": Array(
        "results by epoch", ("epoch", "curve"), names=CURVES, variable="{}_curve", group="curves"
    ),
    "learning": Array(
        "results inside epochs",
        ("iteration", "measure"),
        names=LEARNING,
        variable="{}_by_iteration",
        group="learning",
    ),
    "line": Array(
        "test error between a child and its sibling",
        ("point",),
        units="1",
        shown="%",
        group="stability",
    ),
    "layers": Array(
        "results by layer",
        ("layer", "quantity"),
        names=LAYERS,
        variable="layer_{}",
        group="layers",
    ),
    "record": Array("how a cell was computed", ("field",), names=RECORD, group="records"),
    "dense_curves": Array(
        "the dense runs by epoch",
        ("epoch", "curve"),
        ("replicate",),
        names=CURVES,
        variable="dense_{}_curve",
        group="curves",
    ),
    "dense_learning": Array(
        "the dense runs inside epochs",
        ("iteration", "measure"),
        ("replicate",),
        names=LEARNING,
        variable="dense_{}_by_iteration",
        group="learning",
    ),
    "mask_distances": Array(
        "share of the prunable weights in which the masks of two epochs differ",
        ("mask_epoch", "other_mask_epoch"),
        ("replicate", "threshold"),
        units="1",
        group="masks",
    ),
    "digests": Array("digests that tell that the rest is of the cell", dtype="text", group="-"),
    "dense_digests": Array("the same of a dense run", (), ("replicate",), "text", group="-"),
    "mask_digests": Array(
        "the same of the distances", (), ("replicate", "threshold"), "text", group="-"
    ),
}
"""The arrays of the cube: name → what it holds."""
DIGESTS = ("digests", "dense_digests", "mask_digests")
"""Arrays that no reader asks for."""
ADDED = dict.fromkeys(DIGESTS, 5)
"""Arrays and metrics that came after format 1: name → the first format that has them. Cells that
were trained before may lack them."""
NAMES = {array.rest[-1]: array.names for array in ARRAYS.values() if array.names}
"""Axes of named values: axis → what they are."""
GROUPS = {
    "curves": "every epoch of every run",
    "learning": "the steps inside epochs at which `recipe.measure_every` asks for a look",
    "layers": "what is left of each layer",
    "stability": "the test error on the line between two children",
    "masks": "how the masks of the dense run's epochs differ, after `--masks-only`",
    "records": "how long each cell took, where and when, and how often it was begun",
}
"""What is read when it is asked for: group of variables → what it holds."""
OF_CELLS = tuple(name for name, array in ARRAYS.items() if array.cell == CELL)
"""The arrays of a cell, the status first."""


@dataclass(frozen=True)
class Extent:
    """What makes the cube of one study larger or smaller than that of another.

    Parameters
    ----------
    axes : mapping of str to sequence
        The values along ``arm``, ``replicate``, ``threshold`` and ``rewind_epoch``.
    epochs : int
        T.
    layers : sequence of str
        Names of the prunable weights.
    threshold : tuple of str
        Units and description of the threshold axis.
    steps : int
        Batches in an epoch.
    iterations : sequence of int
        Iterations at which the study measures inside its epochs, counted from epoch 0.
    """

    axes: Mapping[str, Sequence[Any]]
    epochs: int
    layers: Sequence[str]
    threshold: tuple[str, str] = ("1", "share of the prunable weights that is pruned")
    steps: int = 1
    iterations: Sequence[int] = ()

    def units(self, name: str) -> str:
        """Return the units of a coordinate, which the study decides for two of them."""
        if name == "threshold":
            return self.threshold[0]
        if name == "rewind_epoch" and any(isinstance(k, Iterations) for k in self.axes[name]):
            return ITERATION
        return COORDINATES[name].units


@dataclass(frozen=True)
class Coordinate:
    """The values along an axis.

    Parameters
    ----------
    description : str
    dtype : {"f8", "i8", "text"}
    values : callable
        Returns the values in a cube of a given `Extent`.
    units : str
    along : str
        The axis that the coordinate lies along, where that has another name.
    """

    description: str
    dtype: str
    values: Callable[[Extent], Iterable[Any]]
    units: str = ""
    along: str = ""


COORDINATES = {
    "arm": Coordinate("what is done with the mask", "text", lambda e: e.axes["arm"]),
    "replicate": Coordinate("independent repetition", "i8", lambda e: e.axes["replicate"], "1"),
    "threshold": Coordinate("", "f8", lambda e: e.axes["threshold"]),  # the study says what it is
    "rewind_epoch": Coordinate(
        "checkpoint the survivors restart at",
        "f8",
        lambda e: map(number, e.axes["rewind_epoch"]),
        "epoch",  # or iterations, as the study says
    ),
    "rewind_step": Coordinate(
        "the same in steps from the start",
        "i8",
        lambda e: [step_of(k, e.steps) for k in e.axes["rewind_epoch"]],
        "1",
        "rewind_epoch",
    ),
    "epoch": Coordinate(
        "values are after so many epochs", "i8", lambda e: range(1, e.epochs + 1), "epoch"
    ),
    "iteration": Coordinate("values are after so many steps", "i8", lambda e: e.iterations, "1"),
    "point": Coordinate(
        "share of the way to the sibling", "f8", lambda e: np.linspace(0, 1, POINTS_ON_LINE), "1"
    ),
    "mask_epoch": Coordinate(
        "dense weights that give a mask", "i8", lambda e: range(e.epochs + 1), "epoch"
    ),
    "other_mask_epoch": Coordinate(
        "dense weights that give another", "i8", lambda e: range(e.epochs + 1), "epoch"
    ),
    "layer": Coordinate("prunable weight", "text", lambda e: e.layers),
    "metric": Coordinate("metric of a cell", "text", lambda e: METRICS),
    "curve": Coordinate("metric of an epoch", "text", lambda e: CURVES),
    "measure": Coordinate("metric inside an epoch", "text", lambda e: LEARNING),
    "quantity": Coordinate("metric of a layer", "text", lambda e: LAYERS),
    "field": Coordinate("how a cell was computed", "text", lambda e: RECORD),
}
"""The coordinates of the cube: name → what lies along it."""
EMPTY: dict[str, Any] = {"f8": np.nan, "u1": 0, "text": ""}
"""What is read where nothing was written: type → value."""


def check_axes(axes: Mapping[str, Sequence[Any]], path: Path, older: bool = False) -> None:
    """Refuse axes with missing values, values of a wrong type, or unknown arms or metrics.

    Those of an `older` format may lack some of the named values.

    Raises
    ------
    InputError
        If another version made them.
    ValueError
        If they are damaged.
    """
    for name, values in axes.items():
        texts = [str(value) for value in values]
        if len({*texts, "", "nan"}) < len(texts) + 2:
            raise ValueError(f"values of the axis {name} are missing")
    kinds: dict[str, Any] = {"arm": str, "replicate": int, "threshold": float}
    kinds["rewind_epoch"] = (int, float) if older else float
    for name, kind in kinds.items():
        if not all(isinstance(value, kind) for value in axes[name]):  # they name files
            raise ValueError(f"the axis {name} holds values of another type")
    for name, known in {**NAMES, "arm": [a for a in axes["arm"] if a in ARMS]}.items():
        require_known_names(name, list(axes.get(name, ())), known, path, older)


def require_known_names(
    axis: str, found: list[str], known: Iterable[str], path: Path, older: bool
) -> None:
    """Refuse an axis of named values that another version of lthdask made.

    Raises
    ------
    InputError
        If it does not hold the known values in their order; an `older` one may lack some.
    """
    if found != [name for name in known if name in found or not older]:
        raise InputError(
            f"the results at {path} were made by another version of lthdask: the axis {axis} "
            f"is {', '.join(found)} there, but {', '.join(known) or 'unknown'} here; continue "
            f"with that version, or choose another folder with `out`"
        )
