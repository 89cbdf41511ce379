"""The results of a study: one labelled Zarr cube, readable while it fills.

``status`` decides whether a cell is done, and is written last.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.storage.schema import (
    ARRAYS,
    AXES,
    CELL,
    CURVES,
    LAYERS,
    LEARNING,
    METRICS,
    OF_CELLS,
    RECORD,
    Status,
    check_axes,
    consolidate,
)


class Cube:
    """The Zarr cube of a study.

    Parameters
    ----------
    path : Path
        The cube, made by :func:`lthdask.storage.schema.create_cube`.

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
            self._arrays: dict[str, Any] = {name: group[name] for name in (*ARRAYS, *AXES)}
            check_axes({name: self.axis(name) for name in AXES}, path)

    def axis(self, name: str) -> list[Any]:
        """Return the values along an axis, in the order of the array; they are read once."""
        if name not in self._axes:
            with readable(self.path):
                self._axes[name] = self._arrays[name][:].tolist()
        return self._axes[name]

    def grow(self, axes: Mapping[str, Sequence[Any]]) -> None:
        """Make the axes longer, and leave everything else as it is.

        Parameters
        ----------
        axes : mapping of str to sequence
            The values along each axis of cells: those that are there, in the order of the
            array, and then those that are new.
        """
        grown = {name: list(axes[name]) for name in CELL}
        if all(values == self.axis(name) for name, values in grown.items()):
            return
        for name in ARRAYS:
            array = self._array(name)
            dimensions = array.metadata.dimension_names
            sizes = zip(dimensions, array.shape, strict=True)
            array.resize(tuple(len(grown[d]) if d in grown else size for d, size in sizes))
        self._axes.clear()
        for name, values in grown.items():
            array = self._array(name)
            array.resize((len(values),))
            array[:] = np.asarray(values, dtype=object) if name == "arm" else np.asarray(values)
        consolidate(self.path)

    def annotate(self, attributes: Mapping[str, Any]) -> None:
        """Replace what is kept with the cube: the study, and how it is computed."""
        group = zarr.open_group(self.path, mode="r+", zarr_format=3)  # keeps what is consolidated
        group.attrs.put(dict(attributes))
        consolidate(self.path)

    def cells(self) -> dict[Cell, Status]:
        """Return every cell with its status."""
        names, status = product(*(self.axis(name) for name in CELL)), self._array("status")
        with readable(self.path):
            # A row at a time, and only where there is a file: to look for 100,000 files that
            # are not there takes Zarr half a minute, and 200 MB.
            codes = np.zeros(status.shape, "u1")
            for row in self.path.glob("status/c/*/*/*"):
                if all(part.isdigit() for part in row.parts[-3:]):
                    index = tuple(map(int, row.parts[-3:]))
                    codes[index] = status[index]
            found = zip(names, codes.ravel().tolist(), strict=True)
            return {Cell(*name): Status(code) for name, code in found}

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
            Of a child: the test errors on the way to its sibling.
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
        """Write nothing but how a cell was computed; as :meth:`write`."""
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
        """Write the curves of a replicate's dense run; as :meth:`write`."""
        index = (self.axis("replicate").index(replicate),)
        self._write_rows("dense_curves", index, "epoch", curves, CURVES)
        self._write_rows("dense_learning", index, "iteration", learning or {}, LEARNING)

    def write_mask_distances(
        self, replicate: int, threshold: float, distances: NDArray[np.float64]
    ) -> None:
        """Write the distances between the masks of every two epochs, (T + 1, T + 1)."""
        index = self.axis("replicate").index(replicate), self.axis("threshold").index(threshold)
        self._array("mask_distances")[index] = distances

    def matches(self, cells: Iterable[Cell], margin: float) -> bool:
        """Return whether cells match the dense runs of their replicates on validation images.

        On average, within `margin`; one that is not done does not match.
        """
        differences = []
        for cell in cells:
            index = self._index(cell)
            if self.status(cell) is not Status.DONE:
                return False
            accuracy = self._array("metrics")[index][list(METRICS).index("validation_accuracy")]
            differences.append(float(accuracy) - self.dense_accuracy(cell.replicate))
        # Accuracies are counts of images; half a millionth is rounding, not an image.
        return sum(differences) / len(differences) >= -margin - 5e-7

    def dense_accuracy(self, replicate: int) -> float:
        """Return the validation accuracy of a dense run after its last epoch, in [0, 1]."""
        row = self._array("dense_curves")[self.axis("replicate").index(replicate), -1]
        return float(row[list(CURVES).index("validation_accuracy")])

    def read(self, cell: Cell) -> tuple[dict[str, Any], dict[str, Path]]:
        """Return what is stored of a cell, by array, and the chunks that are damaged."""
        return self._read(OF_CELLS, self._index(cell))

    def read_dense(self, replicate: int) -> tuple[dict[str, Any], dict[str, Path]]:
        """Return what is stored of a replicate's dense run, likewise."""
        index = (self.axis("replicate").index(replicate),)
        return self._read(["dense_curves", "dense_learning"], index)

    def erase(self, cell: Cell) -> None:
        """Remove all that is stored of a cell: it is pending."""
        for name in OF_CELLS:  # the status first
            self._chunk(name, self._index(cell)).unlink(missing_ok=True)

    def dense_chunk(self, replicate: int) -> Path:
        """Return the file of the curves of a replicate's dense run."""
        return self._chunk("dense_curves", (self.axis("replicate").index(replicate),))

    def lay_over(self, path: Path) -> dict[Path, bytes | None]:
        """Read cells from the cube at `path`, with the metadata and axes of this empty one.

        Returns
        -------
        dict of Path to bytes or None
            The files of metadata and axes that are not as they are here → what they should
            hold; None where there should be no file.
        """
        ours = {
            f.relative_to(self.path): f.read_bytes() for f in self.path.rglob("*") if f.is_file()
        }
        theirs = (f.relative_to(path) for name in AXES for f in (path / name / "c").glob("*"))
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
    if not cube.exists():
        raise InputError(f"there are no results at {cube}")
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"the results at {cube} cannot be read: {reason}; python scripts/check.py {folder} "
            f"says what is damaged, and with --repair marks it to be computed again"
        ) from None


def attributes(path: Path) -> dict[str, Any]:
    """Return what is kept with a cube; nothing where it cannot be read."""
    try:
        return dict(json.loads((path / "zarr.json").read_bytes())["attributes"])
    except (OSError, LookupError, TypeError, ValueError, RecursionError):
        return {}


def _holds(file: Path, content: bytes | None) -> bool:
    """Return whether a file holds this, in JSON by its meaning; None: whether it is missing."""
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
