"""Whether a cell that is done has all the results that it should have."""

from typing import Any

import numpy as np

from lthdask.arms import ARMS
from lthdask.grid import Cell
from lthdask.storage.meanings import LAYERS, MAY_LACK, METRICS, RECORD


def is_complete(
    array: str, values: Any, cell: Cell, epochs: int, lacking: set[str], steps: int = 1
) -> bool:
    """Return whether an array holds all that it should of a cell that is done."""
    if array in lacking:
        return True
    epoch, step = cell.begins(steps)
    if array == "metrics":
        row = dict(zip(METRICS, values.tolist(), strict=True))
        right = row["epochs_trained"] == epochs - epoch - step / steps
        needed = METRICS.keys() - MAY_LACK - lacking
        return bool(right and np.isfinite([row[name] for name in needed]).all())
    if array == "curves":
        trained = np.arange(epochs) >= epoch
        return bool((np.isfinite(values) == trained[:, np.newaxis]).all())
    if array == "line":
        return ARMS[cell.arm].reordered == bool(np.isfinite(values).all())
    if array == "layers":  # a spared one has no cutoff
        counted = [name != "cutoff" for name in LAYERS]
        return bool(np.isfinite(values[:, counted]).all())
    if array == "record":
        return bool(np.isfinite(values[list(RECORD).index("attempts")]))
    return array not in ("place", "digests") or bool(str(values))
