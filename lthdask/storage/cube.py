"""The results of a study: one labelled Zarr cube, readable while it fills.

``status`` decides whether a cell is done, and is written last.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from lthdask.grid import Cell
from lthdask.rewinding import on_axis
from lthdask.storage.chunks import Chunks
from lthdask.storage.identity import digests, run_of, strangers
from lthdask.storage.manifest import FORMAT, require_known
from lthdask.storage.meanings import CURVES, LAYERS, LEARNING, METRICS, RECORD
from lthdask.storage.readable import readable
from lthdask.storage.schema import ARRAYS, CELL, COORDINATES, OF_CELLS, Status, check_axes

OF_DENSE = ("dense_curves", "dense_learning", "dense_digests")
OF_MASKS = ("mask_distances", "mask_digests")


class Cube:
    """The Zarr cube of a study.

    Parameters
    ----------
    path : Path
        The cube, made by :func:`lthdask.storage.creation.create_cube`. One of an earlier format
        can be read. It can be written once it has grown to this format.

    Attributes
    ----------
    format : int
        Format of what lies on disk.
    identity : str
        What names the study in digests of what is written.

    Raises
    ------
    InputError
        If there is no cube, it is damaged, or another version of lthdask made it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._axes: dict[str, list[Any]] = {}
        with readable(path):
            # Consolidated metadata would hide that those of an array are damaged.
            group = zarr.open_group(path, mode="r+", zarr_format=3, use_consolidated=False)
            self.format = require_known(group.attrs.get("format", 1), path)
            self.identity = str(group.attrs.get("identity", ""))
            older = self.format < FORMAT
            names = [n for n in (*ARRAYS, *COORDINATES) if not older or n in group]
            self._arrays: dict[str, Any] = {name: group[name] for name in names}
            self._chunks = {
                name: Chunks(path / name, array, self._arrays[name])
                for name, array in ARRAYS.items()
                if name in names
            }
            self._axes = {n: self._arrays[n][:].tolist() for n in COORDINATES if n in names}
            check_axes(self._axes, path, older)
            units = str(self._arrays["rewind_epoch"].attrs.get("units"))
            ks = self._axes["rewind_epoch"]
            self._axes["rewind_epoch"] = [on_axis(k, units) for k in ks]

    def axis(self, name: str) -> list[Any]:
        """Return the values along an axis, in the order of the array; k as cells have it."""
        return self._axes[name]

    def cells(self) -> dict[Cell, Status]:
        """Return every cell with its status."""
        axes = [self.axis(name) for name in CELL]
        with readable(self.path):
            codes = self._chunks["status"].read_all([np.arange(len(axis)) for axis in axes])
            cells = (Cell(*at) for at in product(*axes))
            found = zip(cells, codes.ravel().tolist(), strict=True)
            return {cell: Status(code) for cell, code in found}

    def status(self, cell: Cell) -> Status:
        """Return the status of a cell."""
        return Status(int(self._chunks["status"].read(self._index(cell))))

    def write(
        self,
        cell: Cell,
        status: Status,
        metrics: Mapping[str, float],
        curves: Mapping[int, Mapping[str, float]],
        layers: Mapping[str, Mapping[str, float]],
        record: Mapping[str, float],
        place: str,
        learning: Mapping[int, Mapping[str, float]] | None = None,
        line: Sequence[float] = (),
    ) -> None:
        """Write a cell that was trained.

        Parameters
        ----------
        cell : Cell
        status : Status
            Done or diverged; written last.
        metrics : mapping of str to float
            One value for each of `METRICS`; what is missing is NaN.
        curves : mapping of int to mapping of str to float
            Epoch → `CURVES`.
        layers : mapping of str to mapping of str to float
            Name of the weight → `LAYERS`.
        record : mapping of str to float
            `RECORD`.
        place : str
            Host and device.
        learning : mapping of int to mapping of str to float, optional
            Iteration → `LEARNING`.
        line : sequence of float
            Only for a child: the test errors on the way to its sibling.
        """
        values: dict[str, Any] = {
            "metrics": _row(metrics, METRICS),
            "curves": self._rows("epoch", curves, CURVES),
            "learning": self._rows("iteration", learning or {}, LEARNING),
            "layers": self._rows("layer", layers, LAYERS),
            "line": np.array(line, dtype="f8"),
            "record": _row(record, RECORD),
            "place": place,
            "status": int(status),
        }
        self._write(self._index(cell), str(cell), "digests", values)

    def write_record(self, cell: Cell, record: Mapping[str, float], place: str) -> None:
        """Write nothing but how a cell was computed; see :meth:`write`."""
        values = self.read(cell)[0] | {"record": _row(record, RECORD), "place": place}
        if str(values.pop("digests")):
            self._write(self._index(cell), str(cell), "digests", values)
        else:  # an earlier version trained it
            for array in ("record", "place"):
                self._array(array)[self._index(cell)] = values[array]

    def mark(self, cell: Cell, status: Status) -> None:
        """Write nothing but the status of a cell that has no results."""
        index = self._index(cell)
        if "digests" in self._arrays:
            self._chunk("digests", index).unlink(missing_ok=True)
        self._array("status")[index] = int(status)

    def write_dense(
        self,
        replicate: int,
        curves: Mapping[int, Mapping[str, float]],
        learning: Mapping[int, Mapping[str, float]] | None = None,
    ) -> None:
        """Write the curves of a replicate's dense run; see :meth:`write`."""
        values = {
            "dense_learning": self._rows("iteration", learning or {}, LEARNING),
            "dense_curves": self._rows("epoch", curves, CURVES),
        }
        self._write(self._of(replicate), f"dense-r{replicate}", "dense_digests", values)

    def write_mask_distances(
        self, replicate: int, threshold: float, distances: NDArray[np.float64]
    ) -> None:
        """Write the distances between the masks of every two epochs, (T + 1, T + 1)."""
        index, run = self._of(replicate, threshold), _masks_of(replicate, threshold)
        self._write(index, run, "mask_digests", {"mask_distances": distances})

    def metrics(self, cell: Cell) -> dict[str, float]:
        """Return the `METRICS` of a cell; NaN where there is none."""
        row = self._chunks["metrics"].read(self._index(cell))
        return dict(zip(METRICS, row.tolist(), strict=True))

    def dense_accuracy(self, replicate: int) -> float:
        """Return the validation accuracy of a dense run after its last epoch, in [0, 1]."""
        curves = self._chunks["dense_curves"].read(self._of(replicate))
        return float(curves[-1][list(CURVES).index("validation_accuracy")])

    def read(self, cell: Cell, *arrays: str) -> tuple[dict[str, Any], dict[str, Path]]:
        """Return what is stored for a cell, by array, and the chunks that are damaged.

        Only of some `arrays`, if any are given.
        """
        return self._read(arrays or OF_CELLS, self._index(cell))

    def read_dense(self, replicate: int) -> tuple[dict[str, Any], dict[str, Path]]:
        """Return the same for a replicate's dense run."""
        return self._read(OF_DENSE, self._of(replicate))

    def read_masks(
        self, replicate: int, threshold: float
    ) -> tuple[str, dict[str, Any], dict[str, Path]]:
        """Return the same for distances between masks, after what names them."""
        return _masks_of(replicate, threshold), *self._read(
            OF_MASKS, self._of(replicate, threshold)
        )

    def strangers(self, run: str, found: Mapping[str, Any]) -> list[str]:
        """Return the arrays of what was read of a run that were not written for it."""
        return strangers(run_of(self.identity, run), found)

    def erase(self, cell: Cell) -> None:
        """Remove all that is stored for a cell, so that it is pending."""
        for name in OF_CELLS:  # the status first
            self._chunk(name, self._index(cell)).unlink(missing_ok=True)

    def erase_dense(self, replicate: int) -> None:
        """Remove the curves of a replicate's dense run."""
        for name in OF_DENSE:
            self._chunk(name, self._of(replicate)).unlink(missing_ok=True)

    def erase_masks(self, replicate: int, threshold: float) -> None:
        """Remove the distances between the masks of a dense run."""
        for name in OF_MASKS:
            self._chunk(name, self._of(replicate, threshold)).unlink(missing_ok=True)

    def dense_chunk(self, replicate: int) -> Path:
        """Return the file of the curves of a replicate's dense run."""
        return self._chunk("dense_curves", self._of(replicate))

    def masks_chunk(self, replicate: int, threshold: float) -> Path:
        """Return the file of the distances between the masks of a dense run."""
        return self._chunk("mask_distances", self._of(replicate, threshold))

    def _read(
        self, arrays: Sequence[str], index: tuple[int, ...]
    ) -> tuple[dict[str, Any], dict[str, Path]]:
        found, damaged = {}, {}
        for name in (name for name in arrays if name in self._arrays):  # not all of older ones
            try:
                found[name] = self._chunks[name].read(index)
            except PermissionError:
                raise
            except (OSError, ValueError):
                damaged[name] = self._chunk(name, index).relative_to(self.path)
        return found, damaged

    def _chunk(self, name: str, index: tuple[int, ...]) -> Path:
        whole = (*index, *[0] * (self._array(name).ndim - len(index)))
        return self.path.joinpath(name, "c", *map(str, whole))

    def _array(self, name: str) -> Any:
        return self._arrays[name]

    def _of(self, *at: Any) -> tuple[int, ...]:
        """Return where a replicate, and a threshold, lie."""
        return tuple(
            map(lambda name, of: self.axis(name).index(of), ("replicate", "threshold"), at)
        )

    def _index(self, cell: Cell) -> tuple[int, ...]:
        return tuple(self.axis(name).index(getattr(cell, name)) for name in CELL)

    def _write(
        self, index: tuple[int, ...], run: str, beside: str, values: Mapping[str, Any]
    ) -> None:
        """Write what a run has in each array, its digests, and the last of them after that."""
        text = digests(run_of(self.identity, run), values)
        *before, last = ((array, of) for array, of in values.items() if np.size(of))
        for array, of in (*before, (beside, text), last):
            self._array(array)[index] = of

    def _rows(
        self, axis: str, values: Mapping[Any, Mapping[str, float]], columns: Mapping[str, object]
    ) -> NDArray[np.float64]:
        """Return one row for each value of an axis; what is missing is NaN."""
        rows = [_row(values.get(at, {}), columns) for at in self.axis(axis)]
        return np.array(rows, "f8").reshape(-1, len(columns))


def _masks_of(replicate: int, threshold: float) -> str:
    return f"masks-r{replicate}-t{threshold!r}"


def _row(values: Mapping[str, float], names: Mapping[str, object]) -> NDArray[np.float64]:
    return np.array([values.get(name, np.nan) for name in names], dtype="f8")
