"""What is computed from results, named as people plot it."""

from typing import Any

import xarray as xr

from lthdask.rewinding import ITERATION, Rewind, on_axis
from lthdask.source import in_words
from lthdask.storage.results import study_of

LABELS = {
    "minus_dense": ("ticket − dense", "points"),
    "minus_control": ("ticket − control", "points"),
    "density": ("density", ""),
    "at_edge": ("no sparser ticket was compared", ""),
    "test_accuracy": ("test accuracy of the tickets", "%"),
    "early_stop_test_accuracy": ("test accuracy at early stop", "%"),
    "dense_early_stop_test_accuracy": ("test accuracy of the dense runs at early stop", "%"),
}


def labelled(found: xr.Dataset, results: xr.Dataset) -> xr.Dataset:
    """Name variables as people plot them, in place; an interval has the units of its mean.

    What was found of a transfer says so in its attribute `source`.
    """
    for name, of in found.data_vars.items():
        label, units = LABELS.get(str(name).removesuffix("_interval"), ("", ""))
        of.attrs = {"long_name": label or str(name).replace("_", " ")}
        if units:
            of.attrs["units"] = units
    if source := source_of(results):
        found.attrs["source"] = source
    return found


def source_of(results: xr.Dataset) -> str | None:
    """Return where tickets come from, if it is another study, and what that leaves open."""
    source = study_of(results).get("source") if "study" in results.attrs else None
    return in_words(source) if source else None


def ks_of(results: xr.Dataset) -> list[Rewind]:
    """Return the rewind epochs of results as they were given, to be written as they were."""
    return [k_of(results, k) for k in results.rewind_epoch.values.tolist()]


def k_of(results: xr.Dataset, value: Any) -> Rewind:
    """Return one of them, by its value on the axis."""
    return on_axis(float(value), results.rewind_epoch.attrs.get("units", ""))


def axis_of_k(results: xr.Dataset) -> str:
    """Return the label of an axis of rewind epochs."""
    in_iterations = results.rewind_epoch.attrs.get("units") == ITERATION
    return "rewind point k, in iterations" if in_iterations else "rewind epoch k"
