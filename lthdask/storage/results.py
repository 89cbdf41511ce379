"""The results of a study: one labelled Zarr cube, readable while it fills.

Every array has one chunk per cell, so writers never meet. ``status`` decides whether a
cell is done, and is written last.
"""

import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from enum import IntEnum
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from lthdask.errors import InputError
from lthdask.grid import Cell

CELL = ("arm", "replicate", "threshold", "rewind_epoch")

# Per array, what its last axis holds: name → (units, description).
METRICS = {
    "test_accuracy": ("1", "share of test images classified correctly after the last epoch"),
    "validation_accuracy": ("1", "share of validation images classified correctly, likewise"),
    "test_loss": ("nat", "mean cross-entropy on the test images after the last epoch"),
    "validation_loss": ("nat", "mean cross-entropy on the validation images, likewise"),
    "density": ("1", "share of all prunable weights that are not zero, counted after training"),
    "epochs_trained": ("1", "epochs this cell was trained for"),
}
CURVES = {
    "train_loss": ("nat", "mean training loss of the epoch"),
    "validation_loss": ("nat", "mean cross-entropy on the validation images after the epoch"),
    "validation_accuracy": ("1", "share of validation images classified correctly"),
    "test_accuracy": ("1", "share of test images classified correctly"),
}
LAYERS = {
    "density": ("1", "share of the layer's weights that are not zero, counted after training"),
    "cutoff": ("score", "lowest score that survives pruning; NaN where the layer is spared"),
}
RECORD = {
    "seconds": ("s", "time the cell took, reading and writing included"),
    "attempts": ("1", "how often the cell was begun"),
    "started": ("seconds since 1970-01-01", "when its last attempt began"),
    "ended": ("seconds since 1970-01-01", "when its last attempt ended"),
}


class Status(IntEnum):
    """What became of a cell."""

    PENDING = 0
    DONE = 1
    FAILED = 2
    DIVERGED = 3
    SKIPPED = 4
    NOT_APPLICABLE = 5


class Cube:
    """The Zarr cube of a study.

    Parameters
    ----------
    path : Path
        The cube, made by :meth:`create`.

    Raises
    ------
    InputError
        If there is no cube.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._group = zarr.open_group(path, mode="r+", zarr_format=3)
        except FileNotFoundError:
            raise InputError(f"there are no results at {path}") from None

    @classmethod
    def create(
        cls,
        path: Path,
        axes: Mapping[str, Sequence[Any]],
        epochs: int,
        layers: Sequence[str],
        attributes: Mapping[str, Any],
        threshold: tuple[str, str],
    ) -> "Cube":
        """Create an empty cube: every cell is pending.

        Parameters
        ----------
        path : Path
        axes : mapping of str to sequence
            The values along ``arm``, ``replicate``, ``threshold`` and ``rewind_epoch``.
        epochs : int
            T.
        layers : sequence of str
            Names of the prunable weights.
        attributes : mapping
            Kept with the cube: the study and the versions that computed it.
        threshold : tuple of str
            Units and description of the threshold axis.
        """
        # Built aside, so that a crash leaves no half of a cube.
        aside = path.with_name(f".{path.name}.new")
        shutil.rmtree(aside, ignore_errors=True)
        group = zarr.create_group(aside, zarr_format=3, attributes=dict(attributes))
        coordinates: dict[str, tuple[Sequence[Any], str, str]] = {
            "arm": (axes["arm"], "", "what is done with the mask"),
            "replicate": (axes["replicate"], "1", "independent repetition"),
            "threshold": (axes["threshold"], *threshold),
            "rewind_epoch": (axes["rewind_epoch"], "epoch", "checkpoint the survivors restart at"),
            "epoch": (range(1, epochs + 1), "epoch", "values are after so many epochs"),
            "layer": (layers, "", "prunable weight"),
            "metric": (list(METRICS), "", "metric of a cell"),
            "curve": (list(CURVES), "", "metric of an epoch"),
            "quantity": (list(LAYERS), "", "metric of a layer"),
            "field": (list(RECORD), "", "how a cell was computed"),
        }
        for name, (values, units, description) in coordinates.items():
            array = np.asarray(values)
            if array.dtype.kind == "U":
                array = array.astype(object)
            about = {"description": description} | ({"units": units} if units else {})
            _array(group, name, (name,), array.shape, array.shape, array.dtype, about)[:] = array
        sizes = {name: len(values) for name, (values, _, _) in coordinates.items()}

        def add(
            name: str, cell: Sequence[str], rest: Sequence[str], kind: Any, **about: Any
        ) -> None:
            dimensions = (*cell, *rest)
            shape = tuple(sizes[d] for d in dimensions)
            chunks = (1,) * len(cell) + shape[len(cell) :]
            _array(group, name, dimensions, shape, chunks, kind, about)

        meanings = " ".join(status.name.lower() for status in Status)
        flags = [int(status) for status in Status]
        add(
            "status",
            CELL,
            [],
            np.dtype("u1"),
            description="what became of the cell",
            flag_values=flags,
            flag_meanings=meanings,
        )
        add("metrics", CELL, ["metric"], np.dtype("f8"), description="results of a cell")
        add("curves", CELL, ["epoch", "curve"], np.dtype("f8"), description="results by epoch")
        add("layers", CELL, ["layer", "quantity"], np.dtype("f8"), description="results by layer")
        add("record", CELL, ["field"], np.dtype("f8"), description="how a cell was computed")
        add("place", CELL, [], np.dtype(object), description="host and device")
        add(
            "dense_curves",
            ["replicate"],
            ["epoch", "curve"],
            np.dtype("f8"),
            description="the dense runs by epoch",
        )
        _consolidate(aside)
        os.replace(aside, path)
        return cls(path)

    def axis(self, name: str) -> list[Any]:
        """Return the values along an axis, in the order of the array."""
        values: list[Any] = self._group[name][:].tolist()  # type: ignore[index, union-attr]
        return values

    def grow(self, axes: Mapping[str, Sequence[Any]]) -> None:
        """Append the values of `axes` that are new, and leave everything else as it is."""
        grown = {name: list(dict.fromkeys([*self.axis(name), *axes[name]])) for name in CELL}
        if all(len(values) == len(self.axis(name)) for name, values in grown.items()):
            return
        for name in ("status", "metrics", "curves", "layers", "record", "place", "dense_curves"):
            array = self._array(name)
            dimensions = array.metadata.dimension_names
            sizes = zip(dimensions, array.shape, strict=True)
            array.resize(tuple(len(grown[d]) if d in grown else size for d, size in sizes))
        for name, values in grown.items():
            array = self._array(name)
            array.resize((len(values),))
            array[:] = np.asarray(values, dtype=object) if name == "arm" else np.asarray(values)
        _consolidate(self.path)
        self._group = zarr.open_group(self.path, mode="r+", zarr_format=3)

    def annotate(self, attributes: Mapping[str, Any]) -> None:
        """Replace what is kept with the cube: the study and the versions."""
        self._group.attrs.put(dict(attributes))
        _consolidate(self.path)

    def cells(self) -> dict[Cell, Status]:
        """Return every cell with its status."""
        codes = self._array("status")[:].ravel().tolist()
        names = product(*(self.axis(name) for name in CELL))
        return {Cell(*n): Status(code) for n, code in zip(names, codes, strict=True)}

    def write(
        self,
        cell: Cell,
        status: Status,
        metrics: Mapping[str, float],
        curves: Mapping[int, Mapping[str, float]],
        layers: Mapping[str, Mapping[str, float]],
        record: Mapping[str, float],
        place: str,
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
        """
        index = self._index(cell)
        self._array("metrics")[index] = _row(metrics, METRICS)
        self._array("curves")[index] = self._curves(curves)
        self._array("layers")[index] = np.stack(
            [_row(layers.get(name, {}), LAYERS) for name in self.axis("layer")]
        )
        self._array("record")[index] = _row(record, RECORD)
        self._array("place")[index] = place
        self._array("status")[index] = int(status)

    def mark(self, cell: Cell, status: Status) -> None:
        """Write nothing but the status of a cell."""
        self._array("status")[self._index(cell)] = int(status)

    def write_dense(self, replicate: int, curves: Mapping[int, Mapping[str, float]]) -> None:
        """Write the curves of a replicate's dense run."""
        self._array("dense_curves")[self.axis("replicate").index(replicate)] = self._curves(curves)

    def record(self) -> dict[str, NDArray[np.float64]]:
        """Return each of `RECORD` as an array over the cells, in the order of :meth:`cells`."""
        values = self._array("record")[:].reshape(-1, len(RECORD))
        return dict(zip(RECORD, values.T, strict=True))

    def _array(self, name: str) -> Any:
        return self._group[name]

    def _index(self, cell: Cell) -> tuple[int, ...]:
        return tuple(self.axis(name).index(getattr(cell, name)) for name in CELL)

    def _curves(self, curves: Mapping[int, Mapping[str, float]]) -> NDArray[np.float64]:
        return np.stack([_row(curves.get(epoch, {}), CURVES) for epoch in self.axis("epoch")])


def open_results(path: str | Path) -> xr.Dataset:
    """Open the results of a study, also of one that is still running.

    Parameters
    ----------
    path : str or Path
        The study's folder, or the Zarr cube in it.

    Returns
    -------
    xarray.Dataset
        Named variables over (arm, replicate, threshold, rewind_epoch), axes sorted, read
        from disk when they are used. ``test_accuracy`` and the others of `METRICS`;
        ``validation_loss_curve`` and the others of `CURVES`, over epochs, and with
        ``dense_`` before them those of the dense runs; ``layer_density`` and
        ``layer_cutoff``; ``seconds`` and the others of `RECORD`; ``place``; ``status``.

    Raises
    ------
    InputError
        If there are no results at `path`.

    Examples
    --------
    >>> results = open_results("runs/digits")                       # doctest: +SKIP
    >>> results.test_accuracy.sel(threshold=0.9, rewind_epoch=2)    # doctest: +SKIP
    """
    path = Path(path)
    if path.name != "results.zarr":
        path = path / "results.zarr"
    if not (path / "zarr.json").is_file():
        raise InputError(f"there are no results at {path}")
    cube = xr.open_zarr(path, chunks=None)
    named = {name: cube[name] for name in ("status", "place")}
    for array, axis, prefix, suffix, about in (
        ("metrics", "metric", "", "", METRICS),
        ("curves", "curve", "", "_curve", CURVES),
        ("layers", "quantity", "layer_", "", LAYERS),
        ("record", "field", "", "", RECORD),
        ("dense_curves", "curve", "dense_", "_curve", CURVES),
    ):
        for name, (units, description) in about.items():
            variable = cube[array].sel({axis: name}, drop=True)
            variable.attrs = {"units": units, "description": description}
            named[f"{prefix}{name}{suffix}"] = variable
    named["dense_test_accuracy"] = named["dense_test_accuracy_curve"].isel(epoch=-1, drop=True)
    return xr.Dataset(named, attrs=cube.attrs).sortby(list(CELL))


def _array(
    group: zarr.Group,
    name: str,
    dimensions: Sequence[str],
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    kind: np.dtype[Any],
    attributes: Mapping[str, Any],
) -> Any:
    text = kind.kind == "O"
    fill: Any = "" if text else (float("nan") if kind.kind == "f" else 0)
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=str if text else kind,
        dimension_names=dimensions,
        fill_value=fill,
        compressors=[Crc32cCodec()],  # finds flipped bits; a cell is too small to compress
        attributes=dict(attributes),
    )


def _consolidate(path: Path) -> None:
    with warnings.catch_warnings():
        # Zarr warns that other implementations may not read it; they need not.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(path, zarr_format=3)


def _row(values: Mapping[str, float], names: Mapping[str, object]) -> NDArray[np.float64]:
    return np.array([values.get(name, np.nan) for name in names], dtype="f8")
