"""Results as plain values, which JSON can hold: records, and what they are made of."""

from collections.abc import Mapping, Sequence
from itertools import product
from math import isfinite, prod
from typing import Any

import xarray as xr

from lthdask.rewinding import as_given, on_axis
from lthdask.storage.meanings import PERCENT


def records(found: xr.Dataset, *axes: str) -> list[dict[str, Any]]:
    """Return a record per position along `axes`; any other axis is nested in it."""
    values = {str(name): each(_in_shares(of), *axes) for name, of in found.data_vars.items()}
    return rows(found, axes, values)


def rows(
    found: xr.Dataset, axes: Sequence[str], values: Mapping[str, list[Any]]
) -> list[dict[str, Any]]:
    """Return the same of `values` that are known, each a list of one at each position."""
    places = product(*(each(found[axis], axis) for axis in axes))
    told = zip(places, zip(*values.values(), strict=True), strict=True)
    return [dict(zip((*axes, *values), (*at, *of), strict=True)) for at, of in told]


def plain(of: xr.DataArray) -> Any:
    """Return nested mappings of label to value, as :func:`each` does; of one value, that alone."""
    return each(of)[0]


def each(of: xr.DataArray, *axes: str) -> list[Any]:
    """Return the values along some axes, one after the other, as JSON can hold them.

    Any other axis is nested in them, as a mapping of label to value. A rewind epoch is as it was
    given, and NaN is None.
    """
    of = of.transpose(*axes, ...)
    values = of.values.ravel().tolist()
    if of.name == "rewind_epoch":
        units = of.attrs.get("units", "")
        values = [as_given(on_axis(k, units)) for k in values]
    elif of.dtype.kind == "f":
        values = [value if isfinite(value) else None for value in values]
    for place in reversed(range(len(axes), of.ndim)):
        labels, outer = [*map(str, of[of.dims[place]].values)], prod(of.shape[:place])
        parts = (values[i * len(labels) : (i + 1) * len(labels)] for i in range(outer))
        values = [dict(zip(labels, part, strict=True)) for part in parts]
    return values


def _in_shares(of: xr.DataArray) -> xr.DataArray:
    return (of / 100).round(12) if of.attrs.get("units") in PERCENT else of


def share(percent: Any) -> float | None:
    """Return percent as a share, without the digits that the division makes up."""
    return round(float(percent) / 100, 12) if isfinite(percent) else None
