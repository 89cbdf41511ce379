"""What is known of a study, as plain values; and words for numbers and lists."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lthdask.reading import flattened
from lthdask.storage.arrays import Arrays
from lthdask.storage.folder import Folder
from lthdask.storage.schema import CELL, Status


@dataclass(frozen=True)
class Facts:
    """What is known of a study.

    Attributes
    ----------
    settings : mapping of str to value
        Dotted key of the study → its value.
    axes : mapping of str to sequence
        The values along each axis of a cell.
    cells : mapping of Status to int
        How many cells have each status that occurs.
    densities : sequence of float
        What was left in the tickets of each threshold; NaN where that is not known.
    untrained : int
        Dense runs that are not trained yet.
    about : mapping
        What is kept with the cube: data, engine, versions.
    masks_compared : bool
        Whether the masks of a dense run's epochs were compared.
    alone : bool
        Whether all cells, on a CPU, are known to have been trained one by one, and with the same
        versions.
    """

    settings: Mapping[str, Any]
    axes: Mapping[str, Sequence[Any]]
    cells: Mapping[Status, int]
    densities: Sequence[float]
    untrained: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)
    masks_compared: bool = False
    alone: bool = False

    @classmethod
    def of(cls, arrays: Arrays) -> "Facts":
        """Take them from the results of a study, and from its attempts.

        Raises
        ------
        InputError
            If they are damaged.
        """
        about = arrays.attributes
        same = about.get("engine", {}).get("device") == "cpu" and not about.get("earlier_versions")
        status, last = arrays["status"], arrays.named("dense_curves", "test_accuracy")[:, -1]
        return cls(
            flattened(about["study"]),
            {axis: arrays.axes[axis].tolist() for axis in CELL} | {"rewind_epoch": arrays.ks},
            {of: count for of in Status if (count := int((status == of).sum()))},
            arrays.densities().tolist(),
            int(np.isnan(last).sum()),
            about,
            "mask_distances" in arrays and bool(np.isfinite(arrays["mask_distances"]).any()),
            same and _alone(arrays),
        )

    def __getitem__(self, key: str) -> Any:
        """Return a setting; None where an older study lacks it."""
        return self.settings.get(key)

    def block(self, key: str) -> dict[str, Any]:
        """Return the settings of a block, such as ``recipe.schedule``."""
        start = f"{key}."
        return {k.removeprefix(start): v for k, v in self.settings.items() if k.startswith(start)}

    def arms(self, among: Iterable[str]) -> list[str]:
        """Return those of some arms that the study has, in its order."""
        return [arm for arm in self.axes["arm"] if arm in among]

    @property
    def tickets(self) -> bool:
        """Whether the study has tickets, and not only what is compared with them."""
        return "ticket" in self.axes["arm"]

    @property
    def replicates(self) -> int:
        """How many replicates the study has."""
        return len(self.axes["replicate"])


def _alone(arrays: Arrays) -> bool:
    """Return whether all that was trained of the cells was trained one by one."""
    runs = Folder(arrays.path.parent).runs
    trained = arrays.cells(Status.DONE, Status.DIVERGED)
    attempts = (runs.attempts(cell) for cell in trained)
    return all(of and all(about.get("beside") == 1 for about in of) for of in attempts)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> counted(1, "epoch"), counted(1200, "step")
    ('1 epoch', '1,200 steps')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def enumerated(values: Iterable[object]) -> str:
    """Return values as a sentence lists them; numbers as short as they are.

    Examples
    --------
    >>> enumerated([0.5, 0.9, 1.0]), enumerated(["one", "other"]), enumerated([2])
    ('0.5, 0.9 and 1', 'one and other', '2')
    """
    *others, last = [f"{v:g}" if isinstance(v, float) else str(v) for v in values]
    return f"{', '.join(others)} and {last}" if others else last
