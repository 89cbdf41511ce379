"""A cube that grows: along its axes, and to the arrays and metrics that are declared today.

What is written stays as it is. Each step follows from what lies on disk, so a growth that was
killed is finished by the next one.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.core.group import Group

from lthdask.storage.creation import (
    add_array,
    add_coordinate,
    array_attributes,
    consolidate,
    coordinate_attributes,
    sizes_of,
    values_of,
    with_format,
)
from lthdask.storage.manifest import FORMAT, require_known
from lthdask.storage.schema import (
    ARRAYS,
    CELL,
    COORDINATES,
    NAMES,
    Array,
    Extent,
    require_known_names,
)


def grow(path: Path, extent: Extent, attributes: Mapping[str, Any]) -> bool:
    """Bring a cube up to an extent, to the declared arrays, and to these attributes.

    Parameters
    ----------
    path : Path
        The cube, of this format or an earlier one.
    extent : Extent
        Along each axis of cells, first the existing values in their order, then new ones.
    attributes : mapping
        They replace what is kept with the cube.

    Returns
    -------
    bool
        Whether the arrays or their axes had to change.

    Raises
    ------
    InputError
        If the cube was made by a newer version of lthdask, or one with other arms, metrics or
        networks.
    """
    _undo_half_a_swap(path)
    group = zarr.open_group(path, mode="r+", zarr_format=3, use_consolidated=False)
    sizes = sizes_of(extent)
    arrays: Any = group  # zarr's types do not tell arrays apart
    if require_known(arrays.attrs.get("format", 1), path) == FORMAT:
        _require_whole(group)
    before = {axis: arrays[axis][:].tolist() if axis in group else [] for axis in NAMES}
    for axis, names in before.items():
        require_known_names(axis, names, NAMES[axis], path, older=True)
    if "layer" in group and all(layers := arrays["layer"][:].tolist()):  # else it is made again
        require_known_names("layer", layers, extent.layers, path, older=False)
    changed = [_grow_array(path, group, name, sizes, before) for name in ARRAYS]
    # Arrays first: until the axes follow, nobody looks at what is beyond them.
    changed += [_grow_axis(path, group, name, extent) for name in COORDINATES]
    about = with_format(attributes)
    if any(changed) or dict(group.attrs) != about or not _is_consolidated(path):
        consolidate(path)
        # Written last, at once, and with the consolidated metadata: now the growth is done.
        zarr.open_group(path, mode="r+", zarr_format=3).attrs.put(about)
    return any(changed)


def _require_whole(group: Group) -> None:
    """Refuse to grow what is damaged: a cube of this format has every array, and every metric."""
    for name, array in ARRAYS.items():
        found: Any = group.get(name)
        if found is None or (array.names and found.shape[-1] != len(array.names)):
            raise ValueError(f"the array {name} is {'missing' if found is None else 'cut short'}")


def _undo_half_a_swap(path: Path) -> None:
    """Put back what a killed growth took out of a cube, and remove what it left behind."""
    aside = _aside(path)
    for old in aside.glob("*.old"):
        if not (path / old.stem).exists():
            os.rename(old, path / old.stem)
    shutil.rmtree(aside, ignore_errors=True)
    for file in (*path.glob("*.partial"), *path.glob("*/*.partial")):  # of Zarr
        file.unlink()


def _is_consolidated(path: Path) -> bool:
    """Return whether the consolidated metadata are those of the arrays."""
    about = json.loads((path / "zarr.json").read_bytes()).get("consolidated_metadata") or {}
    one_by_one = {
        name: json.loads((path / name / "zarr.json").read_bytes())
        for name in (*ARRAYS, *COORDINATES)
    }
    return bool(about.get("metadata") == one_by_one)


def _grow_array(
    path: Path, group: Group, name: str, sizes: Mapping[str, int], before: Mapping[str, list[Any]]
) -> bool:
    """Grow one array, and return whether it had to."""
    array = ARRAYS[name]
    if name not in group:
        add_array(group, name, array, sizes)
        return True
    found: Any = group[name]
    shape = tuple(sizes[dimension] for dimension in array.dimensions)
    if array.names and found.shape[-1] != len(array.names):
        places = [list(array.names).index(known) for known in before[array.rest[-1]]]
        _exchange(path, name, lambda new: _take_over(path, new, name, array, sizes, places))
        return True
    changed = found.shape != shape
    if changed:
        found.resize(shape)
    return _describe(found, array_attributes(name, array)) or changed


def _take_over(
    path: Path, new: Group, name: str, array: Array, sizes: Mapping[str, int], places: list[int]
) -> None:
    """Rewrite an array with more named values, and the old ones at their `places`."""
    old: Any = zarr.open_array(path / name, mode="r", zarr_format=3)
    add_array(new, name, array, sizes)
    wide: Any = new[name]
    for chunk in (path / name / "c").glob("/".join("*" * old.ndim)):
        parts = chunk.relative_to(path / name / "c").parts
        if not all(part.isdigit() for part in parts):
            continue  # a killed writer's
        index = tuple(map(int, parts[: len(array.cell)]))
        values = np.full(wide.shape[len(array.cell) :], np.nan)
        values[..., places] = old[index]
        wide[index] = values


def _grow_axis(path: Path, group: Group, name: str, extent: Extent) -> bool:
    """Grow the values along one axis, and return whether they had to."""
    coordinate, values = COORDINATES[name], values_of(name, extent)
    found: Any = group.get(name)
    if found is None:
        add_coordinate(group, name, extent)
        return True
    text = found.dtype.kind in "OT"
    same_type = text if coordinate.dtype == "text" else found.dtype == values.dtype
    if same_type and found.shape == values.shape and found[:].tolist() == values.tolist():
        return _describe(found, coordinate_attributes(name, extent))
    if same_type and (coordinate.along or name) in CELL:
        _describe(found, coordinate_attributes(name, extent))  # epochs may become iterations
        found.resize(values.shape)
        found[:] = values
    else:
        _exchange(path, name, lambda new: add_coordinate(new, name, extent))
    return True


def _describe(found: Any, attributes: Mapping[str, Any]) -> bool:
    """Bring what is written beside an array up to date, and return whether it was not."""
    if dict(found.attrs) == dict(attributes):
        return False
    found.attrs.put(dict(attributes))
    return True


def _exchange(path: Path, name: str, build: Callable[[Group], None]) -> None:
    """Exchange an array of the cube for one that was built aside."""
    aside = _aside(path)
    shutil.rmtree(aside, ignore_errors=True)
    build(zarr.create_group(aside, zarr_format=3))
    os.rename(path / name, aside / f"{name}.old")
    os.rename(aside / name, path / name)
    shutil.rmtree(aside)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.growing")
