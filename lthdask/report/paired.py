"""Means over replicates with their error, and differences paired by replicate.

Replicates are few, and the arms of one replicate share a dense run, an initialisation and a
data order, which move their accuracies together. So arms are first compared within each
replicate, and then averaged: what they share cancels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from lthdask.arguments import checked
from lthdask.arms import ARMS, controls_of
from lthdask.errors import InputError
from lthdask.lottery.matching import ROUNDING
from lthdask.report.selection import whole
from lthdask.storage.schema import CELL, Status

WITHOUT_REWINDING = tuple(name for name, arm in ARMS.items() if not arm.has_k)
"""Arms without a k: trained once, stored at one position of the axis, and valid for every k."""
WITHOUT_THRESHOLD = tuple(
    name for name, arm in ARMS.items() if not arm.has_threshold and not arm.reordered
)
"""Arms that tickets of every threshold are compared with, likewise."""
MAP = ["threshold", "rewind_epoch"]
"""The dimensions of a map of cells."""
BOUNDS = np.array(["low", "high"], object)
"""The ends of an interval; as objects, which every file format can hold."""
COLLAPSE = 7.0
"""Standard deviations below the others at which a replicate has collapsed."""
MAD_TO_DEVIATION = 1.4826
"""Standard deviation of normal values over their median absolute deviation."""


@checked
def difference_to_dense(results: xr.Dataset, accuracy: str = "test_accuracy") -> xr.DataArray:
    """Return how much more accurate each cell is than the dense run of its replicate.

    Parameters
    ----------
    results : Dataset
        What :func:`lthdask.open_results` returned, or a selection of it.
    accuracy : {"test_accuracy", "validation_accuracy", "early_stop_test_accuracy"}

    Returns
    -------
    DataArray, (arm, replicate, threshold, rewind_epoch)
        In points; NaN where the cell is not done.

    Examples
    --------
    >>> difference = difference_to_dense(results)
    >>> difference.sel(arm="ticket").mean("replicate").round(1).values
    array([[ 0.1, -0.2],
           [-4.3, -0.6]])
    """
    results = whole(results, accuracy)
    done = results.status == int(Status.DONE)
    difference: xr.DataArray = (results[accuracy] - results[f"dense_{accuracy}"]).where(done)
    label = results[accuracy].attrs.get("long_name", accuracy)
    difference.attrs = {"long_name": f"{label}, less that of the dense run", "units": "points"}
    return difference.rename("minus_dense").transpose(*CELL, ...)


def values_of(results: xr.Dataset, name: str) -> tuple[xr.DataArray, xr.DataArray]:
    """Return a variable of the cells, and which of its values count.

    The status decides: a value counts where its cell is done. The value of an arm without
    rewinding counts at every k, and that of a dense network at every threshold.

    Returns
    -------
    values, counts : DataArray, (arm, replicate, threshold, rewind_epoch)

    Raises
    ------
    InputError
        If the rewind epoch at which such an arm is stored was cut away.
    """
    for arm in WITHOUT_REWINDING:
        if arm in results.arm and bool(
            (results.status.sel(arm=arm) == int(Status.NOT_APPLICABLE)).all()
        ):
            raise InputError(
                f"{arm} has no rewind epoch, and is stored at the first one, which this selection "
                f"lacks; ask of the whole results, and select from the answer"
            )
    done = results.status == int(Status.DONE)
    values = results[name].where(done)
    for axis, arms in (("rewind_epoch", WITHOUT_REWINDING), ("threshold", WITHOUT_THRESHOLD)):
        own, where = ~results.arm.isin(arms), done.argmax(axis)
        values = values.where(own, values.isel({axis: where}, drop=True))
        done = done.where(own, done.any(axis))
    return values.transpose(*results.status.dims), done.transpose(*results.status.dims)


def one_image(results: xr.Dataset) -> xr.DataArray:
    """Return the smallest step between two test accuracies that occur; ∞ if there is none.

    Accuracies are counts of images, so it is one image, or a few where few values are known.
    It has the further dimensions of the results: studies may differ in their test images.
    """
    cells, _ = values_of(results, "test_accuracy")
    others = ("dense_test_accuracy", "early_stop_test_accuracy", "dense_early_stop_test_accuracy")
    known = (cells, *(results[name] for name in others if name in results))

    def smallest_step(*accuracies: np.ndarray) -> float:
        values = np.concatenate([of.ravel() for of in accuracies])
        steps = np.diff(np.sort(values[np.isfinite(values)]))
        return float(np.min(steps, where=steps > ROUNDING, initial=np.inf))

    within = [[axis for axis in of.dims if axis in CELL] for of in known]
    step: xr.DataArray = xr.apply_ufunc(
        smallest_step, *known, input_core_dims=within, vectorize=True
    )
    return step


def collapsed(results: xr.Dataset, name: str) -> xr.DataArray:
    """Return which replicates fell so far below the others of their cell that no mean may hide it.

    Those whose difference to the dense run is more than `COLLAPSE` standard deviations below the
    cell's median. The deviation is estimated from the median absolute one, which a collapsed
    replicate does not raise, and is at least what is usual for the arm, the median of its
    cells, and one image. So it takes three replicates, of which most agree.

    Parameters
    ----------
    results : Dataset
    name : {"test_accuracy", "validation_accuracy"}

    Returns
    -------
    DataArray of bool, (arm, replicate, threshold, rewind_epoch)
    """
    values, counts = values_of(results, name)
    differences = values.where(counts) - results[f"dense_{name}"]
    below = differences.median("replicate") - differences
    spread = abs(below).median("replicate") * MAD_TO_DEVIATION
    usual = spread.median(MAP)
    limit = COLLAPSE * np.maximum(spread, usual).clip(min=one_image(results))
    found: xr.DataArray = (below > limit + ROUNDING) & (results.status == int(Status.DONE))
    return found.transpose(*results.status.dims)


@dataclass(frozen=True)
class Means:
    """Means over replicates, and what Student's t says about them.

    Attributes
    ----------
    count : DataArray of int
        Number of replicates that were averaged.
    mean : DataArray
        NaN where there are none.
    error : DataArray
        Standard error of the mean; NaN where there are fewer than two replicates.
    """

    count: xr.DataArray
    mean: xr.DataArray
    error: xr.DataArray

    @classmethod
    def over_replicates(
        cls, values: xr.DataArray, counts: xr.DataArray, least: xr.DataArray | float
    ) -> "Means":
        """Average `values` where they count, over replicates.

        Parameters
        ----------
        values : DataArray
            Accuracies, or differences of them paired by replicate.
        counts : DataArray of bool
        least : float or DataArray
            The least standard deviation that is assumed. Accuracies are counts of images, and
            a few equal counts prove nothing: they hide differences of less than one image.
        """

        def total(of: xr.DataArray) -> xr.DataArray:
            return of.where(counts, 0.0).sum("replicate", skipna=False)

        count = counts.sum("replicate")
        mean = total(values) / count.where(count > 0)
        squares = total((values - mean) ** 2)
        deviation = (squares / (count - 1).where(count > 1)) ** 0.5
        return cls(count, mean, deviation.clip(min=least) / count**0.5)

    def interval(self, level: float) -> xr.DataArray:
        """Return the two-sided interval of confidence 1 − `level`, along ``bound``."""
        half = self.error * xr.apply_ufunc(stats.t.isf, level / 2, self.count - 1)
        ends = xr.DataArray([-1.0, 1.0], {"bound": BOUNDS}, ["bound"])
        interval: xr.DataArray = self.mean + half * ends
        return interval

    def p_above(self, bound: float) -> xr.DataArray:
        """Return the p-value of the one-sided t-test that the true mean is above `bound`."""
        return self._tail(stats.t.sf, bound)

    def p_below(self, bound: float) -> xr.DataArray:
        """Return the p-value of the one-sided t-test that the true mean is below `bound`."""
        return self._tail(stats.t.cdf, bound)

    def _tail(self, tail: Callable[..., Any], bound: float) -> xr.DataArray:
        p: xr.DataArray = xr.apply_ufunc(tail, (self.mean - bound) / self.error, self.count - 1)
        return p


def adjusted(p: xr.DataArray, asked: xr.DataArray) -> xr.DataArray:
    """Adjust the p-values of a claim for all cells of a map of which it could be made.

    By Benjamini and Hochberg. One that is not known there, because a control is missing,
    counts as 1, and stays NaN: a claim that says more is never easier to make.
    """

    def of_map(p: np.ndarray, asked: np.ndarray) -> np.ndarray:
        found = np.full(p.shape, np.nan)
        found[asked] = stats.false_discovery_control(np.nan_to_num(p[asked], nan=1.0))
        return found

    found: xr.DataArray = xr.apply_ufunc(
        of_map, p, asked, input_core_dims=[MAP, MAP], output_core_dims=[MAP], vectorize=True
    )
    return found.where(p.notnull())


def minus_controls(
    values: xr.DataArray, counts: xr.DataArray, controls: Sequence[str] | None = None
) -> tuple[xr.DataArray, xr.DataArray]:
    """Return ticket − control, by default of all that there are, and which replicates count."""
    known = controls_of(values.arm.values.tolist()) if controls is None else controls
    others = [of.isel(arm=values.arm.isin(known)).rename(arm="control") for of in (values, counts)]
    differences = values.sel(arm="ticket", drop=True) - others[0]
    paired = counts.sel(arm="ticket", drop=True) & others[1]
    order = ("control", "replicate", "threshold", ...)
    return differences.transpose(*order), paired.transpose(*order)
