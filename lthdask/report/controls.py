"""Tickets against their controls, at the rewind epoch that the validation images choose."""

from bisect import bisect_left

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy import stats

from lthdask.errors import InputError, listed
from lthdask.grid import CONTROLS
from lthdask.report.labels import labelled
from lthdask.report.paired import Means, minus_controls, one_image, values_of
from lthdask.report.selection import further_axes, require_level, whole, with_tickets

MOST_REPLICATES = 10_000


def replicates_to_settle(
    differences: ArrayLike, level: float = 0.05, power: float = 0.8, least: float = 0.0
) -> int | None:
    """Return how many replicates would show a difference as large as the observed mean.

    Parameters
    ----------
    differences : array_like, (n,)
        Differences paired by replicate.
    level : float
        Level of the two-sided paired t-test.
    power : float
        Probability of showing it, in its direction, if mean and standard deviation are truly
        those observed (Cohen, "Statistical Power Analysis", 1988, chapter 2; exact, by the
        noncentral t-distribution). From three replicates both are rough, and so is the result.
    least : float
        The least standard deviation that is assumed, as in :func:`verdicts`.

    Returns
    -------
    int or None
        2 or more; None if no mean or spread is known, there is no difference to show, or
        10,000 replicates would not be enough.
    """
    observed = np.asarray(differences, dtype=float)
    if len(observed) < 2:
        return None
    deviation = max(float(observed.std(ddof=1)), least)
    if not deviation > 0:
        return None
    size = abs(float(observed.mean())) / deviation

    def shows(count: int) -> bool:
        critical = stats.t.isf(level / 2, count - 1)
        return bool(stats.nct.sf(critical, count - 1, size * np.sqrt(count)) >= power)

    enough = 2
    while not shows(enough):
        enough *= 2
        if enough > MOST_REPLICATES:
            return None
    return bisect_left(range(enough + 1), True, lo=2, key=shows)


def chosen_rewind_epochs(results: xr.Dataset) -> xr.DataArray:
    """Return, per threshold, the k of the tickets' best mean accuracy on the validation images.

    So the luck of the test images is not in their test accuracy. The k's with the most replicates
    done are eligible; thresholds without a ticket that is done are left out.
    """
    values, counts = values_of(results.sel(arm=["ticket"]), "validation_accuracy")
    count = counts.sum(("arm", "replicate"))
    mean = values.mean(("arm", "replicate"))
    eligible = mean.where(count == count.max("rewind_epoch"))
    eligible = eligible.isel(threshold=np.flatnonzero(eligible.notnull().any("rewind_epoch")))
    return eligible.idxmax("rewind_epoch").rename("rewind_epoch")


def controls(results: xr.Dataset, level: float = 0.05) -> xr.Dataset:
    """Return ticket − control, paired by replicate, at the k chosen on the validation images.

    Returns
    -------
    Dataset
        Over (threshold, control): ``replicates``; ``minus_control`` and
        ``minus_control_interval`` as in :func:`verdicts`; ``replicates_to_settle``, NaN where
        none are enough. ``rewind_epoch``, over threshold, is the k that was chosen. The
        intervals are of confidence 1 − `level` each, not all at once.

    Raises
    ------
    InputError
        If there are several studies along a further axis.

    Examples
    --------
    >>> found = controls(results).sel(threshold=0.5, control="random_mask")
    >>> f"k={found.rewind_epoch.item():g}: {found.minus_control.item():.1f} points"
    'k=0: 3.0 points'
    """
    results = whole(results).pipe(with_tickets)
    require_level(level)
    if further := further_axes(results):
        raise InputError(
            f"a k is chosen for one study at a time, and these results have a further axis, "
            f"{listed(further)}; select one value of it"
        )
    chosen = chosen_rewind_epochs(results)
    values, counts = at_chosen(results, "test_accuracy", chosen)
    differences, paired = minus_controls(values, counts, CONTROLS)
    least = one_image(results)
    means = Means.over_replicates(differences, paired, least)
    settled = [
        [
            replicates_to_settle(
                differences[c, paired[c, :, t].values, t], level, least=float(least)
            )
            for c in range(differences.sizes["control"])
        ]
        for t in range(differences.sizes["threshold"])
    ]
    shape = differences.sizes["threshold"], differences.sizes["control"]
    found = xr.Dataset(
        {
            "replicates": means.count,
            "minus_control": means.mean,
            "minus_control_interval": means.interval(level),
            "replicates_to_settle": (
                ("threshold", "control"),
                np.array(settled, dtype=float).reshape(shape),
            ),
        }
    )
    return labelled(found).transpose("threshold", "control", "bound")


def at_chosen(
    results: xr.Dataset, name: str, chosen: xr.DataArray
) -> tuple[xr.DataArray, xr.DataArray]:
    """Return a variable of the cells at one k per threshold, and which of its values count."""
    values, counts = (of.sel(threshold=chosen.threshold) for of in values_of(results, name))
    values, counts = (of.sel(rewind_epoch=chosen, drop=True) for of in (values, counts))
    return values, counts
