"""Results as they are given to a question: whole, or a selection of them."""

from typing import Any, SupportsFloat

import numpy as np
import xarray as xr

from lthdask.arms import SCRATCH
from lthdask.errors import InputError, listed, one_of
from lthdask.storage.results import study_of
from lthdask.storage.schema import CELL

TOLERANCE = 0.02
"""Share of itself by which a density may differ from the one that was asked for."""
ACCURACIES = ("test_accuracy", "validation_accuracy", "early_stop_test_accuracy")
"""What is known of a cell and of its dense run."""
ROUNDING = 1e-6
"""The same of any other number: 1 − 0.1 is 0.9."""


def select(results: xr.Dataset, **at: Any) -> xr.Dataset:
    """Return a selection of results, by the density too.

    Numbers need not be exact to the last digit, and a density only to `TOLERANCE`; but no other
    network is taken for the one that was asked for.

    Parameters
    ----------
    results : Dataset
        What :func:`lthdask.open_results` returned.
    **at
        ``density`` (counted, in [0, 1]), or an axis: ``threshold``, ``rewind_epoch``, ``arm``,
        ``replicate`` → a value, which takes the axis away, or a list of them.

    Raises
    ------
    InputError
        If there is no such value, with those that there are.

    Examples
    --------
    >>> select(results, arm="ticket", density=0.4).test_accuracy.dims
    ('replicate', 'rewind_epoch')
    >>> select(results, threshold=1 - 0.5, rewind_epoch=[0, 1]).sizes["rewind_epoch"]
    2
    >>> select(results, density=0.7)
    Traceback (most recent call last):
    lthdask.errors.InputError: there is no density 0.7; known: 0.5, 0.4
    """
    require_results(results)
    for name, wanted in at.items():
        axis = "threshold" if name == "density" else name
        if axis not in results.dims:
            raise InputError(
                f"there is no axis {axis!r} to select from; known: {listed(results.dims)}"
            )
        if results[name].ndim != 1:
            raise InputError(f"each study has a {name} of its own here; select one study first")
        asked = list(wanted) if np.ndim(wanted) else [wanted]
        if not asked or any(np.ndim(one) for one in asked):
            raise InputError(f"{name} takes a value, or a list of at least one; got {wanted!r}")
        places = [_place(results[name].values, value, name) for value in asked]
        results = results.isel({axis: places if np.ndim(wanted) else places[0]})
    return results


def _place(known: Any, wanted: Any, name: str) -> int:
    """Return where a value lies along an axis, or the nearest one that may pass for it."""
    if known.dtype.kind == "f" and isinstance(wanted, SupportsFloat):
        distances = np.nan_to_num(abs(known - float(wanted)), nan=np.inf)
        leeway = (TOLERANCE if name == "density" else ROUNDING) * abs(float(wanted))
        if distances.min() <= leeway < np.inf:
            return int(distances.argmin())
    elif len(found := np.flatnonzero(known == wanted)):
        return int(found[0])
    shown = listed(f"{v:.3g}" if isinstance(v, float) else v for v in known.tolist() if v == v)
    raise InputError(f"there is no {name} {wanted}; known: {shown or 'none'}")


def whole(results: xr.Dataset, accuracy: str = "test_accuracy") -> xr.Dataset:
    """Return results with all axes of a cell; one of which a value was chosen has that alone.

    Raises
    ------
    InputError
        If they are no results, an axis is gone, as after a mean, or there is no such accuracy.
    """
    if accuracy not in ACCURACIES:
        raise one_of("accuracy", accuracy, ACCURACIES)
    require_results(results, accuracy)
    if empty := [axis for axis in CELL if results.sizes.get(axis) == 0]:
        raise InputError(f"these results have no {listed(empty)}: nothing was selected of it")
    if gone := [axis for axis in CELL if axis not in results.coords]:
        raise InputError(
            f"these results have no {listed(gone)} any more; give those that "
            f"lthdask.open_results returned, or a selection of them"
        )
    chosen = [axis for axis in CELL if axis not in results.dims]
    beside = {n: axis for n in results.coords if (axis := _axis_of(str(n))) in chosen}
    expanded = {
        n: results[n].variable.set_dims([axis, *results[n].dims]) for n, axis in beside.items()
    }
    found = results.drop_vars(beside).expand_dims(chosen).assign_coords(expanded)
    return found.transpose(*CELL, ...)


def require_results(results: Any, *variables: str) -> None:
    """Refuse what is no dataset of results with these variables.

    Raises
    ------
    InputError
        If it is not.
    """
    if not isinstance(results, xr.Dataset) or not {"status", *variables} <= set(results):
        raise InputError("give the dataset that lthdask.open_results returned, or a part of it")


def with_tickets(results: xr.Dataset) -> xr.Dataset:
    """Return results as they are.

    Raises
    ------
    InputError
        If they are without the arm that is to be judged.
    """
    if "ticket" not in results.arm:
        raise InputError(
            f"tickets are judged, and these results have {listed(results.arm.values)} alone; "
            f"give those of the arm ticket, too"
        )
    return results


def require_level(level: float) -> None:
    """Refuse a level that is none.

    Raises
    ------
    InputError
        If it is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise InputError(f"`level` is between 0 and 1, such as 0.05; got {level}")


def _axis_of(coordinate: str) -> str:
    """Return the axis of a cell that a coordinate lies along."""
    if coordinate.startswith("dense_"):
        return "replicate"
    return {"density": "threshold", "rewind_step": "rewind_epoch"}.get(coordinate, coordinate)


def margin_of(results: xr.Dataset, margin: float | None) -> float:
    """Return a margin in points; by default that of the study.

    Raises
    ------
    InputError
        If it is negative, or not given and not known: as for several studies side by side.
    """
    if margin is not None:
        if not 0 <= margin < np.inf:
            raise InputError(f"`margin` is a difference in points, 0 or more; got {margin}")
        return margin
    if further := further_axes(results):
        raise InputError(
            f"these results have a further axis, {listed(further)}, along which each may have a "
            f"matching_margin of its own; give `margin`, in points"
        )
    if "study" not in results.attrs:
        raise InputError(
            "these results do not say of which study they are; give `margin`, in points"
        )
    return 100 * float(study_of(results)["matching_margin"])


def further_axes(results: xr.Dataset) -> list[str]:
    """Return the axes besides those of a cell, such as one of studies."""
    return [str(axis) for axis in results.status.dims if axis not in CELL]


def scratch_controls(results: xr.Dataset) -> tuple[str, ...]:
    """Return the controls that take away what makes a ticket win.

    With the score ``random`` there are none: the mask of a ticket is then as random as that of
    ``random_mask``, so no ticket wins, whatever it owes to its weights.
    """
    study = study_of(results) if "study" in results.attrs else {}
    return () if study.get("pruning", {}).get("score") == "random" else SCRATCH
