"""What is computed from results, named as people plot it."""

import xarray as xr

LABELS = {
    "minus_dense": ("ticket − dense", "points"),
    "minus_control": ("ticket − control", "points"),
    "density": ("density", ""),
    "at_edge": ("no sparser ticket was compared", ""),
    "test_accuracy": ("test accuracy of the tickets", "%"),
    "early_stop_test_accuracy": ("test accuracy at early stop", "%"),
    "dense_early_stop_test_accuracy": ("test accuracy of the dense runs at early stop", "%"),
}


def labelled(found: xr.Dataset) -> xr.Dataset:
    """Name variables as people plot them, in place; an interval has the units of its mean."""
    for name, of in found.data_vars.items():
        label, units = LABELS.get(str(name).removesuffix("_interval"), ("", ""))
        of.attrs = {"long_name": label or str(name).replace("_", " ")}
        if units:
            of.attrs["units"] = units
    return found
