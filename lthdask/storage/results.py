"""The results of a study as a labelled dataset, with one named variable per metric."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from lthdask.arguments import checked
from lthdask.arms import CHILDREN
from lthdask.errors import InputError
from lthdask.lottery.learning_speed import learning_speed
from lthdask.reading import nearest, yaml_mapping
from lthdask.rewinding import number
from lthdask.storage.arrays import Arrays
from lthdask.storage.manifest import digest_of
from lthdask.storage.meanings import CURVES, LEARNING, METRICS, PERCENT, Meaning
from lthdask.storage.schema import ARRAYS, CELL, COORDINATES, EMPTY, GROUPS, NAMES, Array, Status
from lthdask.strict_yaml import dumped

if TYPE_CHECKING:
    from lthdask.study import Study  # which imports torch; results are read without

OF_DENSE = (
    "test_accuracy",
    "validation_accuracy",
    "early_stop_iteration",
    "early_stop_test_accuracy",
    "iterations_to_dense",
)
"""Metrics that are also known of the dense runs, as ``dense_…``."""
KEPT = ("engine", "versions", "majority", "steps", "format")
"""What is kept with the cube and said of a dataset, besides the study."""


@checked
def open_results(path: str | Path, *groups: str) -> xr.Dataset:
    """Open the results of a study, even while it is still running.

    What is returned is in memory, as it was at this moment; :func:`follow` looks again. What
    each variable is stands in docs/results.md.

    Parameters
    ----------
    path : str or Path
        The study's folder, or the Zarr cube in it.
    *groups : str
        More variables, which are read only when asked for: those of `GROUPS`.

    Returns
    -------
    xarray.Dataset
        The metrics of every cell over (arm, replicate, threshold, rewind_epoch), accuracies in
        percent, and ``status``. What is known of a dense run is a coordinate along
        ``replicate``, such as ``dense_test_accuracy``. ``density`` is a coordinate along
        ``threshold``: the median of what was counted in its tickets.

    Raises
    ------
    InputError
        If there are no results at `path`, they are damaged or were made by another version, or
        there is no such group.

    Examples
    --------
    >>> results = open_results("runs/digits")
    >>> results.test_accuracy.sel(arm="ticket", threshold=0.9, rewind_epoch=2).values
    array([95.])
    >>> open_results("runs/digits", "curves").validation_loss_curve.dims[4:]
    ('epoch',)
    """
    return next(follow(path, *groups))


@checked
def follow(path: str | Path, *groups: str) -> "Looks":
    """Return the results of a study as they are now, each time they are asked for.

    Only cells that are new are read, so that a look takes milliseconds; the arguments, and what
    is raised, are those of :func:`open_results`. After an error, they may be asked for again.
    What was written before is taken to stay as it is.

    Examples
    --------
    >>> looks = follow("runs/digits")
    >>> next(looks).dense_test_accuracy.values  # and again, some time later
    array([95.])
    """
    for group in groups:
        if group not in list(GROUPS):
            raise InputError(f"there is no group {group!r}{nearest(str(group), list(GROUPS))}")
    return Looks(Path(path), groups)


class Looks(Iterator[xr.Dataset]):
    """Looks at the results of a study; the first reads all of them.

    Attributes
    ----------
    groups : sequence of str
        What the next look has besides the metrics.
    """

    def __init__(self, path: Path, groups: Sequence[str]) -> None:
        self._path, self.groups = path, groups
        self._arrays: Arrays | None = Arrays(path)
        self._looked = False

    def __next__(self) -> xr.Dataset:
        arrays, self._arrays = self._arrays or Arrays(self._path), None
        if self._looked:
            arrays.look_again()
        found = dataset_of(arrays, self.groups)
        self._arrays, self._looked = arrays, True  # not after an error: it begins anew
        return found


def open_part(path: str | Path, *groups: str, **at: Any) -> xr.Dataset:
    """Open what is at one value of some axes, such as ``threshold=0.9``, and read nothing else.

    The results are those of :func:`open_results`, with a single value along these axes.
    """
    return dataset_of(Arrays(Path(path), at), groups)


def open_asked(path: str | Path, study: "Study", *groups: str) -> xr.Dataset:
    """Open what a study asks for, in a folder that may have more along the axes of its grid.

    It is as if nothing else was trained. Where the folder has no more, it is :func:`open_results`.
    """
    arrays, axes = Arrays(Path(path)), study.grid.axes()
    axes["rewind_epoch"] = [*map(number, axes["rewind_epoch"])]
    of = {
        axis: {arm: [*map(number, some)] for arm, some in arms.items()}
        for axis, arms in study.grid.narrowed.items()
    }
    same = all(sorted(arrays.axes[name].tolist()) == sorted(asked) for name, asked in axes.items())
    if same and not any(of.values()):
        return dataset_of(arrays, groups)
    part = Arrays(Path(path), axes, of)
    part.attributes["study"] = study.to_dict()
    return dataset_of(part, groups)


def study_of(results: xr.Dataset) -> Mapping[str, Any]:
    """Return the study that results are of, as nested mappings of plain values."""
    return deepcopy(_parsed(results.attrs["study"]))


@cache
def _parsed(text: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = yaml_mapping(text, "study")
    return found


def dataset_of(arrays: Arrays, groups: Sequence[str]) -> xr.Dataset:
    """Return what was read under its names; what the cube lacks is NaN."""
    variables = dict[str, xr.Variable]()
    for name, array in ARRAYS.items():
        if not array.group or array.group in groups:
            variables |= _variables(arrays, name, array)
    variables |= _of_dense_runs(arrays)
    variables |= _coordinates(arrays, {axis for v in variables.values() for axis in v.dims})
    if not set(CHILDREN) & set(arrays.axes["arm"]):
        del variables["barrier"]
    beside = [name for name, of in variables.items() if _is_beside(of)]
    found = xr.Dataset(variables, attrs=_about(arrays.attributes)).set_coords(beside)
    found.encoding["source"] = str(arrays.path)  # as xarray does
    return found


def _is_beside(variable: xr.Variable) -> bool:
    """Return whether a variable is a coordinate: what operations on results leave alone.

    What belongs to a replicate or a threshold stays with it under ``where`` and ``concat``, which
    would spread a variable over all cells. Texts and times cannot be filled with a number, or
    be averaged.
    """
    return variable.dims[: len(CELL)] != CELL or variable.dtype.kind in "OM"


def _variables(arrays: Arrays, name: str, array: Array) -> dict[str, xr.Variable]:
    """Return what an array is read as."""
    if not array.names:
        values = arrays[name] if name in arrays else _empty(arrays, array.dimensions, array)
        meaning = Meaning(name.replace("_", " "), array.shown, array.description)
        return {name: _variable(array.dimensions, values, meaning)}
    found = dict[str, xr.Variable]()
    for label, meaning in array.names.items():
        values = arrays.named(name, label)
        if label == "iterations_to_dense" and label in arrays.axes[array.rest[-1]]:
            values = np.where(_never(arrays), np.inf, values)
        if values.size:
            variable = meaning.variable or array.variable.format(label)
            found[variable] = _variable(array.dimensions[:-1], values, meaning)
    return found


def _variable(dimensions: Sequence[str], values: NDArray[Any], meaning: Meaning) -> xr.Variable:
    about: dict[str, Any] = {"long_name": meaning.label, "description": meaning.description}
    if meaning.units:
        about["units"] = meaning.units
    if meaning.units in PERCENT:
        values = (100 * values).round(10)  # 0.07 is 7, not 7.000000000000001
    elif meaning.label == "status":
        about["flag_values"] = [int(status) for status in Status]
        about["flag_meanings"] = " ".join(status.name.lower() for status in Status)
    elif meaning.label in ("started", "ended"):
        known, seconds = np.isfinite(values), values
        values = np.full(seconds.shape, np.datetime64("NaT", "ms"))
        values[known] = (1000 * seconds[known]).round().astype("M8[ms]")
    elif values.dtype.kind == "T":
        values = values.astype(object)
    return xr.Variable(dimensions, values.copy(), about)


def _never(arrays: Arrays) -> NDArray[np.bool_]:
    """Return which cells were measured to their end, and never reached the dense accuracy."""
    stop = arrays.named("metrics", "early_stop_iteration")
    reached = arrays.named("metrics", "iterations_to_dense")
    never: NDArray[np.bool_] = np.isfinite(stop) & np.isnan(reached)
    never &= arrays["status"] == Status.DONE
    return never


def _of_dense_runs(arrays: Arrays) -> dict[str, xr.Variable]:
    """Return what is known of the dense runs, along ``replicate``."""
    steps = arrays.attributes.get("steps", 0)
    rows = [
        _dense_metrics(arrays, replicate, steps) for replicate in range(len(arrays["dense_curves"]))
    ]
    found = dict[str, xr.Variable]()
    for name in OF_DENSE:
        values = np.array([row.get(name, np.nan) for row in rows], float)
        meaning = METRICS[name]
        about = Meaning(f"{meaning.label}, dense", meaning.units, meaning.description)
        found[f"dense_{name}"] = _variable(["replicate"], values, about)
    return found


def _dense_metrics(arrays: Arrays, replicate: int, steps: int) -> dict[str, float]:
    curves = arrays["dense_curves"][replicate]
    last = dict(zip(CURVES, curves[-1].tolist(), strict=True))
    if not steps or np.isnan(last["validation_loss"]):
        return last
    measured = {
        (epoch + 1) * steps: dict(zip(CURVES, values, strict=True))
        for epoch, values in enumerate(curves.tolist())
    }
    if "dense_learning" in arrays:
        inside = arrays["dense_learning"][replicate].tolist()
        for at, values in zip(arrays.axes["iteration"].tolist(), inside, strict=True):
            measured[at] = dict(zip(LEARNING, values, strict=True))
    known = {at: of for at, of in measured.items() if np.isfinite(of["validation_loss"])}
    return last | learning_speed(known, 0, last["validation_accuracy"])


def _coordinates(arrays: Arrays, used: set[Any]) -> dict[str, xr.Variable]:
    """Return what lies along the axes that are used, and the density beside the thresholds."""
    found = dict[str, xr.Variable]()
    for name, coordinate in COORDINATES.items():
        along = coordinate.along or name
        if along in used and name not in NAMES:
            values = arrays.axes.get(name, np.full(len(arrays.axes[along]), np.nan))
            about = {"long_name": name.replace("_", " ")} | arrays.described(name)
            values = values.astype(float) if name == "rewind_epoch" else values
            found[name] = xr.Variable(along, values, about)
    about = {"long_name": "density", "description": "median of what was counted in the tickets"}
    found["density"] = xr.Variable("threshold", arrays.densities(), about)
    return found


def _empty(arrays: Arrays, dimensions: Sequence[str], array: Array) -> NDArray[Any]:
    """Return what stands for values that an older cube does not have."""
    shape = [len(arrays.axes.get(dimension, ())) for dimension in dimensions]
    return np.full(shape, EMPTY[array.dtype])


def _about(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a dataset: short, and of types that every file format has."""
    study = attributes.get("study", {})
    kept = {name: attributes[name] for name in KEPT if attributes.get(name) is not None}
    data = attributes.get("data")
    return (
        {"groups": f"{', '.join(GROUPS)}: more variables, by open_results(path, group)"}
        | {name: _short(value) for name, value in kept.items()}
        | ({"data": f"sha256 {digest_of(data)[:16]}"} if data else {})
        | {"study": dumped(study)}
    )


def _short(value: Any) -> str | int | float:
    """Return a value as it is, or on one line of YAML."""
    if isinstance(value, str | int | float):
        return value
    return dumped(value, on_a_line=True).strip()
