"""The results of a study as a labelled dataset, with one named variable per metric."""

from pathlib import Path

import numpy as np
import xarray as xr

from lthdask.storage.cube import readable
from lthdask.storage.manifest import FORMAT, require_known
from lthdask.storage.schema import ARRAYS, CELL, COORDINATES, EMPTY, Array, Status, check_axes


def open_results(path: str | Path) -> xr.Dataset:
    """Open the results of a study, even while it is still running.

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
        ``dense_`` before them those of the dense runs; ``dense_test_accuracy`` and
        ``dense_validation_accuracy`` after their last epoch;
        ``validation_loss_by_iteration`` and the others of `LEARNING`; ``layer_density`` and
        the others of `LAYERS`; ``seconds`` and the others of `RECORD`; ``line``, the test
        error between two children; ``mask_distances``; ``place``; ``status``.

    Raises
    ------
    InputError
        If there are no results at `path`, or they are damaged or were made by another version.

    Examples
    --------
    >>> results = open_results("runs/digits")                       # doctest: +SKIP
    >>> results.test_accuracy.sel(threshold=0.9, rewind_epoch=2)    # doctest: +SKIP
    """
    path = Path(path)
    if path.name != "results.zarr":
        path = path / "results.zarr"
    with readable(path):
        # Format 2 of Zarr is refused: in it, an array can be a pickle.
        cube = xr.open_zarr(path, chunks=None, zarr_format=3)
        older = require_known(cube.attrs.get("format", 1), path) < FORMAT
        axes = {
            name: cube[name].values.tolist() for name in COORDINATES if name in cube or not older
        }
        check_axes(axes, path, older)
        return _named(cube)


def read_results(path: str | Path) -> xr.Dataset:
    """Read the results of a study into memory, as :func:`open_results` opens them.

    Raises
    ------
    InputError
        As for :func:`open_results`; also where only values are damaged.
    """
    results = open_results(path)
    with readable(Path(path)):
        if unknown := set(results.load().status.values.flat) - set(Status):
            raise ValueError(f"{min(unknown)} is not a valid status")
        return results


def _named(cube: xr.Dataset) -> xr.Dataset:
    """Return one variable per named value, axes sorted; what the cube lacks is NaN."""
    cube = cube.assign_coords(rewind_epoch=cube.rewind_epoch.astype("f8", keep_attrs=True))
    if "rewind_step" not in cube.coords:
        unknown = np.full(cube.sizes["rewind_epoch"], np.nan)
        cube = cube.assign_coords(rewind_step=("rewind_epoch", unknown))
    named = dict[str, xr.DataArray]()
    for name, array in ARRAYS.items():
        if not array.names:
            named[name] = cube[name] if name in cube else _missing(cube, array.dimensions, array)
        axis = array.rest[-1] if array.names else ""
        for label, (units, description) in array.names.items():
            if name in cube and label in cube[axis].values:
                variable = cube[name].sel({axis: label}, drop=True)
            else:
                variable = _missing(cube, array.dimensions[:-1], array)
            variable.attrs = {"units": units, "description": description}
            named[array.variable.format(label)] = variable
    for name in ("dense_test_accuracy", "dense_validation_accuracy"):
        named[name] = named[f"{name}_curve"].isel(epoch=-1, drop=True)
    return xr.Dataset(named, attrs=cube.attrs).sortby(list(CELL))


def _missing(cube: xr.Dataset, dimensions: tuple[str, ...], array: Array) -> xr.DataArray:
    """Return what stands for an array that an older cube does not have."""
    shape = [cube.sizes.get(dimension, 0) for dimension in dimensions]
    along = {name: cube[name] for name in dimensions if name in cube.coords}
    found = xr.DataArray(np.full(shape, EMPTY[array.dtype]), along, dimensions)
    found.attrs = {"description": array.description, "units": array.units}
    return found
