"""The results of a study: one labelled Zarr cube, readable while it fills.

``status`` decides whether a cell is done, and is written last.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.rewinding import on_axis
from lthdask.storage.manifest import FORMAT, require_known
from lthdask.storage.meanings import CURVES, LAYERS, LEARNING, METRICS, RECORD
from lthdask.storage.schema import ARRAYS, CELL, COORDINATES, OF_CELLS, Status, check_axes


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
            older = self.format < FORMAT
            names = [n for n in (*ARRAYS, *COORDINATES) if not older or n in group]
            self._arrays: dict[str, Any] = {name: group[name] for name in names}
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
        axes, status = [self.axis(name) for name in CELL], self._array("status")
        with readable(self.path):
            # A row at a time, and only where there is a file: Zarr takes half a minute and
            # 200 MB to look for 100,000 files that are not there.
            codes = np.zeros([len(axis) for axis in axes], "u1")
            for row in self.path.glob("status/c/*/*/*"):
                if all(part.isdigit() for part in row.parts[-3:]):
                    index = tuple(map(int, row.parts[-3:]))
                    if all(at < size for at, size in zip(index, codes.shape, strict=False)):
                        codes[index] = status[index][: codes.shape[-1]]
            cells = (Cell(*at) for at in product(*axes))
            found = zip(cells, codes.ravel().tolist(), strict=True)
            return {cell: Status(code) for cell, code in found}

    def status(self, cell: Cell) -> Status:
        """Return the status of a cell."""
        return Status(int(self._array("status")[self._index(cell)]))

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
        index = self._index(cell)
        self._array("metrics")[index] = _row(metrics, METRICS)
        self._write_rows("curves", index, "epoch", curves, CURVES)
        self._write_rows("learning", index, "iteration", learning or {}, LEARNING)
        self._write_rows("layers", index, "layer", layers, LAYERS)
        if line:
            self._array("line")[index] = np.array(line, dtype="f8")
        self.write_record(cell, record, place)
        self._array("status")[index] = int(status)

    def write_record(self, cell: Cell, record: Mapping[str, float], place: str) -> None:
        """Write nothing but how a cell was computed; see :meth:`write`."""
        index = self._index(cell)
        self._array("record")[index] = _row(record, RECORD)
        self._array("place")[index] = place

    def mark(self, cell: Cell, status: Status) -> None:
        """Write nothing but the status of a cell."""
        self._array("status")[self._index(cell)] = int(status)

    def write_dense(
        self,
        replicate: int,
        curves: Mapping[int, Mapping[str, float]],
        learning: Mapping[int, Mapping[str, float]] | None = None,
    ) -> None:
        """Write the curves of a replicate's dense run; see :meth:`write`."""
        index = (self.axis("replicate").index(replicate),)
        self._write_rows("dense_curves", index, "epoch", curves, CURVES)
        self._write_rows("dense_learning", index, "iteration", learning or {}, LEARNING)

    def write_mask_distances(
        self, replicate: int, threshold: float, distances: NDArray[np.float64]
    ) -> None:
        """Write the distances between the masks of every two epochs, (T + 1, T + 1)."""
        index = self.axis("replicate").index(replicate), self.axis("threshold").index(threshold)
        self._array("mask_distances")[index] = distances

    def metrics(self, cell: Cell) -> dict[str, float]:
        """Return the `METRICS` of a cell; NaN where there is none."""
        row = self._array("metrics")[self._index(cell)]
        return dict(zip(METRICS, row.tolist(), strict=True))

    def dense_accuracy(self, replicate: int) -> float:
        """Return the validation accuracy of a dense run after its last epoch, in [0, 1]."""
        row = self._array("dense_curves")[self.axis("replicate").index(replicate), -1]
        return float(row[list(CURVES).index("validation_accuracy")])

    def read(self, cell: Cell) -> tuple[dict[str, Any], dict[str, Path]]:
        """Return what is stored for a cell, by array, and the chunks that are damaged."""
        return self._read(OF_CELLS, self._index(cell))

    def read_dense(self, replicate: int) -> tuple[dict[str, Any], dict[str, Path]]:
        """Return the same for a replicate's dense run."""
        index = (self.axis("replicate").index(replicate),)
        return self._read(["dense_curves", "dense_learning"], index)

    def erase(self, cell: Cell) -> None:
        """Remove all that is stored for a cell, so that it is pending."""
        for name in OF_CELLS:  # the status first
            self._chunk(name, self._index(cell)).unlink(missing_ok=True)

    def dense_chunk(self, replicate: int) -> Path:
        """Return the file of the curves of a replicate's dense run."""
        return self._chunk("dense_curves", (self.axis("replicate").index(replicate),))

    def link_chunks(self, path: Path) -> dict[Path, bytes | None]:
        """Link the chunks of the cube at `path` into this empty one, whose metadata are sound.

        Returns
        -------
        dict of Path to bytes or None
            The files of metadata and axes that differ from those here → what they should
            hold; None where there should be no file.
        """
        ours = {
            f.relative_to(self.path): f.read_bytes() for f in self.path.rglob("*") if f.is_file()
        }
        theirs = (
            f.relative_to(path) for name in COORDINATES for f in (path / name / "c").glob("*")
        )
        files = {*ours, *(f for f in theirs if f.name.isdigit())}  # the rest is a killed writer's
        for name in ARRAYS:
            (self.path / name / "c").symlink_to(path / name / "c")
        return {f: ours.get(f) for f in sorted(files) if not _holds(path / f, ours.get(f))}

    def _read(
        self, arrays: Sequence[str], index: tuple[int, ...]
    ) -> tuple[dict[str, Any], dict[str, Path]]:
        found, damaged = {}, {}
        for name in arrays:
            try:
                found[name] = self._array(name)[index]
            except Exception:  # Zarr and its codecs raise whatever they meet
                damaged[name] = self._chunk(name, index).relative_to(self.path)
        return found, damaged

    def _chunk(self, name: str, index: tuple[int, ...]) -> Path:
        whole = (*index, *[0] * (self._array(name).ndim - len(index)))
        return self.path.joinpath(name, "c", *map(str, whole))

    def _array(self, name: str) -> Any:
        return self._arrays[name]

    def _index(self, cell: Cell) -> tuple[int, ...]:
        return tuple(self.axis(name).index(getattr(cell, name)) for name in CELL)

    def _write_rows(
        self,
        name: str,
        index: tuple[int, ...],
        axis: str,
        values: Mapping[Any, Mapping[str, float]],
        columns: Mapping[str, object],
    ) -> None:
        """Write one row for each value of an axis; what is missing is NaN."""
        if rows := [_row(values.get(at, {}), columns) for at in self.axis(axis)]:
            self._array(name)[index] = np.stack(rows)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Say in one sentence that results cannot be read, whatever Zarr and its codecs raise."""
    folder = path.parent if path.name == "results.zarr" else path
    cube = folder / "results.zarr"
    if not os.path.exists(cube):
        raise InputError(f"there are no results at {cube}")
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"the results at {cube} cannot be read: {reason}; `lthdask check {folder}` says "
            f"what is damaged, and `lthdask check {folder} --repair` marks it to be trained again"
        ) from None


def attributes(path: Path) -> dict[str, Any]:
    """Return what is kept with a cube; nothing where it cannot be read."""
    try:
        return dict(json.loads((path / "zarr.json").read_bytes())["attributes"])
    except (OSError, LookupError, TypeError, ValueError, RecursionError):
        return {}


def _holds(file: Path, content: bytes | None) -> bool:
    """Return whether a file holds this; JSON counts by its meaning. None: it should be missing."""
    try:
        found = file.read_bytes()
        if content is not None and file.suffix == ".json":
            return bool(json.loads(found) == json.loads(content))
    except FileNotFoundError:
        return content is None
    except (OSError, ValueError, RecursionError):
        return False
    return found == content


def _row(values: Mapping[str, float], names: Mapping[str, object]) -> NDArray[np.float64]:
    return np.array([values.get(name, np.nan) for name in names], dtype="f8")
