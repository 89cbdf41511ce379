"""The arrays of a cube as they lie on disk, read by whoever looks at results.

Each array is read when it is first asked for, and once. A later look reads the cells that are new.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from lthdask.arms import ARMS, place_of
from lthdask.errors import InputError, as_path
from lthdask.grid import Cell, Narrowed
from lthdask.rewinding import Rewind, on_axis
from lthdask.storage.chunks import Chunks, Index
from lthdask.storage.manifest import FORMAT, require_known
from lthdask.storage.readable import readable
from lthdask.storage.schema import ARRAYS, CELL, COORDINATES, EMPTY, OF_CELLS, Status, check_axes

FINAL = (Status.DONE, Status.DIVERGED, Status.NOT_APPLICABLE)
"""What is written in a cell of such a status stays as it is, unless it is erased; what was written
there anew between two looks is the same."""


class Arrays:
    """The arrays of the cube of a study, sorted along the axes of its cells.

    Parameters
    ----------
    path : Path
        The study's folder, or the Zarr cube in it.
    at : mapping, optional
        Axis → the one value of it that is looked at, such as ``{"replicate": 0}``, or a list of
        some. Of the rest, nothing is read; such arrays are not to be looked at again. Of a list,
        an arm without a k, or a threshold, has its results at the first value.
    narrowed : mapping, optional
        Axis, ``threshold`` or ``rewind_epoch`` → arm → the values of it that are looked at.
        Others are as if they were not applicable.

    Attributes
    ----------
    axes : dict of str to ndarray
        Coordinate → its values, sorted; arms in the order of `ARMS`, the ticket first,
        one's own last. An
        earlier format may lack some.
    attributes : dict
        What is kept with the cube.

    Raises
    ------
    InputError
        If there are no results at `path`, or they are damaged or were made by another version,
        or an axis has no such value. Damaged values are found where they are read.
    """

    def __init__(
        self,
        path: Path,
        at: Mapping[str, Any] = MappingProxyType({}),
        narrowed: Narrowed = MappingProxyType({}),
    ) -> None:
        path = as_path(path)
        self.path = path if path.name == "results.zarr" else path / "results.zarr"
        self._at, self._narrowed = at, narrowed
        self._open()

    def _open(self) -> None:
        self._read: dict[str, NDArray[Any]] = {}
        self._seen: dict[Index, tuple[int, int]] = {}
        with readable(self.path):
            self._metadata = (self.path / "zarr.json").read_bytes()
            # Format 2 of Zarr is refused: in it, an array can be a pickle.
            group: Any = zarr.open_group(self.path, mode="r", zarr_format=3)
            self.attributes = dict(group.attrs)
            older = require_known(self.attributes.get("format", 1), self.path) < FORMAT
            names = [n for n in (*ARRAYS, *COORDINATES) if n in group or not older]
            self._arrays: dict[str, Any] = {name: group[name] for name in names}
            found = {n: self._arrays[n][:].tolist() for n in COORDINATES if n in names}
            check_axes(found, self.path, older)
            self._chunks = {
                n: Chunks(self.path / n, of, self._arrays[n])
                for n, of in ARRAYS.items()
                if n in names
            }
        self._places = {name: self._chosen(name, found[name]) for name in CELL}
        self.axes = {name: _array(name, values) for name, values in found.items()}
        for name, coordinate in COORDINATES.items():
            if (along := coordinate.along or name) in CELL and name in self.axes:
                self.axes[name] = self.axes[name][self._places[along]]

    @property
    def ks(self) -> list[Rewind]:
        """The rewind epochs as they were given."""
        units = str(self._arrays["rewind_epoch"].attrs.get("units"))
        return [on_axis(k, units) for k in self.axes["rewind_epoch"].tolist()]

    def cells(self, *statuses: Status) -> list[Cell]:
        """Return the cells that have one of these statuses."""
        axes = [*(self.axes[axis].tolist() for axis in CELL[:-1]), self.ks]
        places = np.nonzero(np.isin(self["status"], statuses))
        along = zip(axes, places, strict=True)
        return [*map(Cell, *([of[i] for i in places.tolist()] for of, places in along))]

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def described(self, name: str) -> dict[str, str]:
        """Return the description of an axis, and its units where its name does not say them."""
        about = self._arrays[name].attrs if name in self else {}
        known = {k: about[k] for k in ("description", "units") if k in about}
        return {k: text for k, text in known.items() if text not in ("1", "epoch")}

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return the values of an array, sorted along the axes of its cells.

        The status is read first: where it says that a cell is done, the rest is there.
        """
        if name not in self._read:
            if name != "status":
                self["status"]
            with readable(self.path):
                places = self._index(ARRAYS[name].cell)
                along = [np.unique(of) for of in places]
                found = self._chunks[name].read_all(along)
                if name == "status":
                    _require_valid(found)
                at = zip(along, places, strict=True)
                self._read[name] = found[tuple(np.searchsorted(a, p) for a, p in at)]
                if ARRAYS[name].cell == CELL:
                    self._leave_out(name)
        return self._read[name]

    def _leave_out(self, name: str) -> None:
        """Empty what an array of cells has at places of an arm that are not looked at."""
        empty = Status.NOT_APPLICABLE if name == "status" else EMPTY[ARRAYS[name].dtype]
        for axis, of in self._narrowed.items():
            along = np.moveaxis(self._read[name], CELL.index(axis), 0)
            for row, arm in enumerate(self.axes["arm"]):
                values = self.axes[axis].tolist()
                out = [place for place, v in enumerate(values) if v not in of.get(arm, values)]
                along[out, row] = empty

    def _index(self, axes: tuple[str, ...]) -> Sequence[NDArray[np.intp]]:
        """Return where what is looked at lies in an array along these axes."""
        places = np.ix_(*(self._places[axis] for axis in axes))
        if axes != CELL or not any(isinstance(values, list) for values in self._at.values()):
            return places
        index = [place.copy() for place in np.broadcast_arrays(*places)]
        for row, arm in enumerate(self.axes["arm"]):
            # It is stored at the first value there was, which may be none of those in the list.
            if not ARMS[arm].has_k and 0 not in self._places["rewind_epoch"]:
                index[3][row, :, :, 0] = 0
            if not ARMS[arm].has_threshold and 0 not in self._places["threshold"]:
                index[2][row, :, 0, :] = 0
        return index

    def named(self, array: str, name: str) -> NDArray[Any]:
        """Return one of the named values of an array; NaN where an older cube lacks it."""
        axis = ARRAYS[array].rest[-1]
        known = self.axes[axis].tolist() if array in self and axis in self.axes else []
        if name in known:
            values: NDArray[Any] = self[array][..., known.index(name)]
            return values
        shape = [len(self.axes.get(dimension, ())) for dimension in ARRAYS[array].dimensions[:-1]]
        return np.full(shape, np.nan)

    def densities(self) -> NDArray[np.float64]:
        """Return the median of the densities that were counted in the tickets of each threshold.

        It takes one value for each threshold to plot over, and to survive means.
        """
        tickets = self.named("metrics", "density")[self.axes["arm"] == "ticket"]
        known = [values[np.isfinite(values)] for values in np.moveaxis(tickets, 2, 0)]
        return np.array([np.median(values) if len(values) else np.nan for values in known])

    def look_again(self) -> None:
        """Bring what was read up to what lies on disk now; only cells that are new are read."""
        with readable(self.path):
            if (self.path / "zarr.json").read_bytes() != self._metadata:  # it has grown
                names = list(self._read)
                self._open()
                for name in names:
                    self[name]
                return
            for name in [name for name in self._read if name not in OF_CELLS]:
                del self._read[name]  # those of the dense runs are small
            status = self["status"]
            new, lost = self._changed(status)
            for name in [name for name in OF_CELLS if name in self._read]:
                values, chunks = self._read[name], self._chunks[name]
                for index in lost:
                    values[index] = EMPTY[ARRAYS[name].dtype]
                for index in new:
                    there = (self._places[a][i] for a, i in zip(CELL, index, strict=True))
                    values[index] = chunks.read([*map(int, there)])
            _require_valid(status)

    def _chosen(self, axis: str, values: list[Any]) -> NDArray[np.intp]:
        """Return the places of the values that are looked at, in the order they are shown in."""
        places = _sorted(axis, values)
        if axis not in self._at:
            return places
        asked = self._at[axis] if isinstance(self._at[axis], list) else [self._at[axis]]
        for value in asked:
            if value not in values:
                raise InputError(f"{axis} {value} is not in the results at {self.path}")
        chosen = {values.index(value) for value in asked}
        return np.array([place for place in places if place in chosen])

    def _changed(self, status: NDArray[Any]) -> tuple[list[Index], list[Index]]:
        """Return where a status was written since it was read, and where it was erased."""
        # In the order of what is shown; while it grows, arrays go first, beyond the axes.
        on_disk = [*self._chunks["status"].written([self._places[axis] for axis in CELL])]
        rows = np.array([row for row, _ in on_disk], int)
        there = np.zeros(status.shape, bool)
        there.flat[rows] = True
        new = list[Index]()
        for i in np.flatnonzero(~np.isin(status.flat[rows], FINAL)):
            row, file = on_disk[i]
            index = tuple(map(int, np.unravel_index(row, status.shape)))
            try:
                about = os.stat(file)
            except FileNotFoundError:  # it has just been erased
                there[index] = False
                continue
            signature = about.st_mtime_ns, about.st_ino
            if self._seen.get(index) != signature:
                self._seen[index] = signature
                new.append(index)
        lost = np.argwhere((status != Status.PENDING) & ~there)
        return new, [tuple(map(int, at)) for at in lost]


def _require_valid(status: NDArray[Any]) -> None:
    if unknown := set(np.unique(status).tolist()) - set(Status):
        raise ValueError(f"{min(unknown)} is not a valid status")


def _array(name: str, values: list[Any]) -> NDArray[Any]:
    """Return the values along an axis; text as objects, which every format can hold."""
    coordinate = COORDINATES[name]
    return np.array(values, object if coordinate.dtype == "text" else None)


def _sorted(axis: str, values: list[Any]) -> NDArray[np.intp]:
    """Return the places of the values along an axis, in the order in which they are shown."""
    keys = [place_of(arm) for arm in values] if axis == "arm" else values
    return np.array(sorted(range(len(values)), key=keys.__getitem__))
