"""What the cube of a study holds: its axes, its arrays, what their values mean; an empty one.

Every array has one chunk per cell, so writers never meet.
"""

import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from lthdask.errors import InputError
from lthdask.grid import ARMS, POINTS_ON_LINE
from lthdask.lottery.learning_speed import MEASURES

CELL = ("arm", "replicate", "threshold", "rewind_epoch")

# Per array, what its last axis holds: name → (units, description).
METRICS = {
    "test_accuracy": ("1", "share of test images classified correctly after the last epoch"),
    "validation_accuracy": ("1", "share of validation images classified correctly, likewise"),
    "test_loss": ("nat", "mean cross-entropy on the test images after the last epoch"),
    "validation_loss": ("nat", "mean cross-entropy on the validation images, likewise"),
    "density": ("1", "share of all prunable weights that are not zero, counted after training"),
    "parameters_left": ("1", "share of all parameters that are not pruned, counted likewise"),
    "epochs_trained": ("1", "epochs this cell was trained for"),
    "early_stop_iteration": ("1", "steps until the lowest validation loss that was measured"),
    "early_stop_test_accuracy": ("1", "share of test images classified correctly there"),
    "iterations_to_dense": ("1", "steps until the dense run's validation accuracy; NaN if never"),
    "barrier": ("1", "rise of the test error between a child and its sibling; else NaN"),
}
MAY_LACK = {"test_loss", "iterations_to_dense", "barrier"}
"""Metrics that a cell which is done may not have: a test loss may overflow."""
CURVES = {
    "train_loss": ("nat", "mean training loss of the epoch"),
    "validation_loss": ("nat", "mean cross-entropy on the validation images after the epoch"),
    "validation_accuracy": ("1", "share of validation images classified correctly"),
    "test_accuracy": ("1", "share of test images classified correctly"),
}
LEARNING = {name: CURVES[name] for name in MEASURES}
LAYERS = {
    "density": ("1", "share of the layer's weights that are not zero, counted after training"),
    "dead_channels": ("1", "output channels of which every weight is zero, counted likewise"),
    "cutoff": ("score", "lowest score that survives pruning; NaN where the layer is spared"),
}
RECORD = {
    "seconds": (
        "s",
        "time the cell took, or its share of a cohort's, reading and writing too",
    ),
    "attempts": ("1", "how often the cell was begun"),
    "started": ("seconds since 1970-01-01", "when its last attempt began"),
    "ended": ("seconds since 1970-01-01", "when its last attempt ended"),
}
LABELS = {
    "metric": METRICS,
    "curve": CURVES,
    "measure": LEARNING,
    "quantity": LAYERS,
    "field": RECORD,
}
OF_CELLS = ("status", "metrics", "curves", "learning", "line", "layers", "record", "place")
ARRAYS = (*OF_CELLS, "dense_curves", "dense_learning", "mask_distances")
AXES = (*CELL, "epoch", "iteration", "point", "mask_epoch", "other_mask_epoch", "layer", *LABELS)
AXIS_CHUNK = 256
"""Values in a file of an axis of cells; fixed, so that a grown cube is as one made at once."""


class Status(IntEnum):
    """What became of a cell."""

    PENDING = 0
    DONE = 1
    FAILED = 2
    DIVERGED = 3
    SKIPPED = 4
    NOT_APPLICABLE = 5


def create_cube(
    path: Path,
    axes: Mapping[str, Sequence[Any]],
    epochs: int,
    layers: Sequence[str],
    attributes: Mapping[str, Any],
    threshold: tuple[str, str],
    iterations: Sequence[int] = (),
) -> None:
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
        Kept with the cube: the study, and how it is computed.
    threshold : tuple of str
        Units and description of the threshold axis.
    iterations : sequence of int
        At which the study measures inside its epochs, counted from epoch 0 on.
    """
    # Built aside, so that a crash leaves no half of a cube.
    aside = path.with_name(f".{path.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    group = zarr.create_group(aside, zarr_format=3, attributes=dict(attributes))
    coordinates: dict[str, tuple[Any, str, str]] = {
        "arm": (axes["arm"], "", "what is done with the mask"),
        "replicate": (axes["replicate"], "1", "independent repetition"),
        "threshold": (axes["threshold"], *threshold),
        "rewind_epoch": (axes["rewind_epoch"], "epoch", "checkpoint the survivors restart at"),
        "epoch": (range(1, epochs + 1), "epoch", "values are after so many epochs"),
        "iteration": (np.asarray(iterations, "i8"), "1", "values are after so many steps"),
        "point": (np.linspace(0, 1, POINTS_ON_LINE), "1", "share of the way to the sibling"),
        "mask_epoch": (range(epochs + 1), "epoch", "dense weights that give a mask"),
        "other_mask_epoch": (range(epochs + 1), "epoch", "dense weights that give another"),
        "layer": (layers, "", "prunable weight"),
        "metric": (list(METRICS), "", "metric of a cell"),
        "curve": (list(CURVES), "", "metric of an epoch"),
        "measure": (list(LEARNING), "", "metric inside an epoch"),
        "quantity": (list(LAYERS), "", "metric of a layer"),
        "field": (list(RECORD), "", "how a cell was computed"),
    }
    for name, (values, units, description) in coordinates.items():
        array = np.asarray(values)
        if array.dtype.kind == "U":
            array = array.astype(object)
        about = {"description": description} | ({"units": units} if units else {})
        chunks = (AXIS_CHUNK,) if name in CELL else (max(1, len(array)),)
        _array(group, name, (name,), array.shape, chunks, array.dtype, about)[:] = array
    sizes = {name: len(values) for name, (values, _, _) in coordinates.items()}

    def add(name: str, cell: Sequence[str], rest: Sequence[str], kind: Any, **about: Any) -> None:
        dimensions = (*cell, *rest)
        shape = tuple(sizes[d] for d in dimensions)
        chunks = (1,) * len(cell) + tuple(max(1, size) for size in shape[len(cell) :])
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
    add("place", CELL, [], np.dtype(object), description="host and device")
    for name, (cell, rest, description) in {
        "metrics": (CELL, ["metric"], "results of a cell"),
        "curves": (CELL, ["epoch", "curve"], "results by epoch"),
        "learning": (CELL, ["iteration", "measure"], "results inside epochs"),
        "line": (CELL, ["point"], "test error between a child and its sibling"),
        "layers": (CELL, ["layer", "quantity"], "results by layer"),
        "record": (CELL, ["field"], "how a cell was computed"),
        "dense_curves": (["replicate"], ["epoch", "curve"], "the dense runs by epoch"),
        "dense_learning": (["replicate"], ["iteration", "measure"], "likewise inside epochs"),
        "mask_distances": (
            ["replicate", "threshold"],
            ["mask_epoch", "other_mask_epoch"],
            "share of the prunable weights in which the masks of two epochs differ",
        ),
    }.items():
        about = {"description": description}
        if name in ("line", "mask_distances"):
            about["units"] = "1"
        add(name, cell, rest, np.dtype("f8"), **about)
    consolidate(aside)
    os.replace(aside, path)


def check_axes(axes: Mapping[str, Sequence[Any]], path: Path) -> None:
    """Refuse axes of another version, of arms that there are not, or with values missing."""
    for name, values in axes.items():
        texts = [str(value) for value in values]
        if len({*texts, "", "nan"}) < len(texts) + 2:
            raise ValueError(f"values of the axis {name} are missing")
    for name, kind in {
        "arm": str,
        "replicate": int,
        "threshold": float,
        "rewind_epoch": int,
    }.items():
        if not all(isinstance(value, kind) for value in axes[name]):  # they name files
            raise ValueError(f"the axis {name} holds values of another type")
    for name, known in {**LABELS, "arm": [a for a in axes["arm"] if a in ARMS]}.items():
        if list(axes[name]) != list(known):
            raise InputError(
                f"the results at {path} were made by another version of lthdask: the axis {name} "
                f"is {', '.join(axes[name])} there, and {', '.join(known) or 'unknown'} here; go "
                f"on with that version, or give another folder with --out"
            )


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


def consolidate(path: Path) -> None:
    """Keep the metadata of all arrays in one file, too, which readers open at once."""
    with warnings.catch_warnings():
        # Zarr warns that other implementations may not read it; they need not.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(path, zarr_format=3)
