"""An empty cube on disk, as :mod:`lthdask.storage.schema` declares it."""

import os
import shutil
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from lthdask.storage.manifest import FORMAT
from lthdask.storage.schema import ARRAYS, CELL, COORDINATES, EMPTY, Array, Extent, Status

_quiet = threading.Lock()
AXIS_CHUNK = 256
"""Values in one file of an axis of cells; fixed, so that a grown cube equals one made at once."""


def create_cube(path: Path, extent: Extent, attributes: Mapping[str, Any]) -> None:
    """Create an empty cube: every cell is pending.

    Parameters
    ----------
    path : Path
    extent : Extent
    attributes : mapping
        What is kept with the cube, besides its format: the study, and how it is computed.
    """
    # Built aside, so that a crash leaves no half-made cube.
    aside = path.with_name(f".{path.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    group = zarr.create_group(aside, zarr_format=3, attributes=with_format(attributes))
    for name in COORDINATES:
        add_coordinate(group, name, extent)
    sizes = sizes_of(extent)
    for name, array in ARRAYS.items():
        add_array(group, name, array, sizes)
    consolidate(aside)
    os.replace(aside, path)


def with_format(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept with a cube, with today's format."""
    return {**attributes, "format": FORMAT}


def sizes_of(extent: Extent) -> dict[str, int]:
    """Return the length of every axis."""
    return {name: len(values_of(name, extent)) for name in COORDINATES}


def values_of(name: str, extent: Extent) -> NDArray[Any]:
    """Return the values along an axis; text as objects."""
    coordinate = COORDINATES[name]
    dtype = object if coordinate.dtype == "text" else coordinate.dtype
    return np.asarray(list(coordinate.values(extent)), dtype)


def add_coordinate(group: zarr.Group, name: str, extent: Extent) -> None:
    """Write the values along an axis."""
    coordinate, values = COORDINATES[name], values_of(name, extent)
    along = coordinate.along or name
    chunks = (AXIS_CHUNK,) if along in CELL else (max(1, len(values)),)
    about = coordinate_attributes(name, extent)
    _add(group, name, (along,), values.shape, chunks, coordinate.dtype, about)
    array: Any = group[name]
    array[:] = values


def add_array(group: zarr.Group, name: str, array: Array, sizes: Mapping[str, int]) -> None:
    """Add an array in which nothing is written yet."""
    shape = tuple(sizes[dimension] for dimension in array.dimensions)
    within = (max(1, size) for size in shape[len(array.cell) :])
    chunks = (*[1] * len(array.cell), *within)
    about = array_attributes(name, array)
    _add(group, name, array.dimensions, shape, chunks, array.dtype, about)


def coordinate_attributes(name: str, extent: Extent) -> dict[str, Any]:
    """Return what is written beside the values along an axis."""
    units, description = extent.units(name), COORDINATES[name].description
    description = extent.threshold[1] if name == "threshold" else description
    return {"description": description} | ({"units": units} if units else {})


def array_attributes(name: str, array: Array) -> dict[str, Any]:
    """Return what is written beside an array."""
    about: dict[str, Any] = {"description": array.description}
    if "rewind_epoch" in array.dimensions:
        about["coordinates"] = "rewind_step"  # as CF has it: no variable of its own
    if name == "status":
        about["flag_values"] = [int(status) for status in Status]
        about["flag_meanings"] = " ".join(status.name.lower() for status in Status)
    return about | ({"units": array.units} if array.units else {})


def consolidate(path: Path) -> None:
    """Also keep the metadata of all arrays in one file, which readers open at once."""
    # What is ignored is the same for all threads: two studies may be prepared at a time.
    with _quiet, warnings.catch_warnings():
        # Zarr warns that other implementations may not read it; they need not.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(path, zarr_format=3)


def _add(
    group: zarr.Group,
    name: str,
    dimensions: tuple[str, ...],
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: str,
    attributes: Mapping[str, Any],
) -> None:
    group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=str if dtype == "text" else np.dtype(dtype),
        dimension_names=dimensions,
        fill_value=EMPTY.get(dtype, 0),
        compressors=[Crc32cCodec()],  # finds flipped bits; a cell is too small to compress
        attributes=dict(attributes),
    )
