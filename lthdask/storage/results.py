"""The results of a study as a labelled dataset: one named variable per metric."""

from pathlib import Path

import xarray as xr

from lthdask.storage.cube import readable
from lthdask.storage.schema import (
    AXES,
    CELL,
    CURVES,
    LAYERS,
    LEARNING,
    METRICS,
    RECORD,
    Status,
    check_axes,
)


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
        ``dense_`` before them those of the dense runs; ``dense_test_accuracy`` and
        ``dense_validation_accuracy`` after their last epoch;
        ``validation_loss_by_iteration`` and the others of `LEARNING`; ``layer_density`` and
        the others of `LAYERS`; ``seconds`` and the others of `RECORD`; ``line``, the test
        error between two children; ``mask_distances``; ``place``; ``status``.

    Raises
    ------
    InputError
        If there are no results at `path`, they are damaged, or another version made them.

    Examples
    --------
    >>> results = open_results("runs/digits")                       # doctest: +SKIP
    >>> results.test_accuracy.sel(threshold=0.9, rewind_epoch=2)    # doctest: +SKIP
    """
    path = Path(path)
    if path.name != "results.zarr":
        path = path / "results.zarr"
    with readable(path):
        # Not of format 2, in which an array can be a pickle.
        cube = xr.open_zarr(path, chunks=None, zarr_format=3)
        check_axes({name: cube[name].values.tolist() for name in AXES}, path)
        return _named(cube)


def read_results(path: str | Path) -> xr.Dataset:
    """Read the results of a study into memory, as :func:`open_results` opens them.

    Raises
    ------
    InputError
        As there; also where only values are damaged.
    """
    results = open_results(path)
    with readable(Path(path)):
        if unknown := set(results.load().status.values.flat) - set(Status):
            raise ValueError(f"{min(unknown)} is no status")
        return results


def _named(cube: xr.Dataset) -> xr.Dataset:
    """Return one variable per metric, axes sorted."""
    named = {name: cube[name] for name in ("status", "place", "line", "mask_distances")}
    for array, axis, prefix, suffix, about in (
        ("metrics", "metric", "", "", METRICS),
        ("curves", "curve", "", "_curve", CURVES),
        ("layers", "quantity", "layer_", "", LAYERS),
        ("record", "field", "", "", RECORD),
        ("dense_curves", "curve", "dense_", "_curve", CURVES),
        ("learning", "measure", "", "_by_iteration", LEARNING),
        ("dense_learning", "measure", "dense_", "_by_iteration", LEARNING),
    ):
        for name, (units, description) in about.items():
            variable = cube[array].sel({axis: name}, drop=True)
            variable.attrs = {"units": units, "description": description}
            named[f"{prefix}{name}{suffix}"] = variable
    for name in ("dense_test_accuracy", "dense_validation_accuracy"):
        named[name] = named[f"{name}_curve"].isel(epoch=-1, drop=True)
    return xr.Dataset(named, attrs=cube.attrs).sortby(list(CELL))
