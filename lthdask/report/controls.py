"""Tickets against their controls, at the rewind epoch that the validation images choose."""

from bisect import bisect_left

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy import special, stats

from lthdask.arguments import checked
from lthdask.errors import InputError, listed
from lthdask.report.labels import labelled
from lthdask.report.paired import Means, minus_controls, one_image, values_of
from lthdask.report.selection import further_axes, require_level, whole, with_tickets

MOST_REPLICATES = 10_000
OUTSIDE = 0.1
"""Probability that a truth lies below the interval of the replicates to settle, and above it."""


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
        noncentral t-distribution). From three replicates both are rough, and so is the result:
        see `settling_interval`.
    least : float
        The least standard deviation that is assumed, as in :func:`verdicts`.

    Returns
    -------
    int or None
        2 or more; None if no mean or spread is known, there is no difference to show, or
        10,000 replicates would not be enough.
    """
    count, size = _effect(differences, least)
    enough = _enough(size, level, power) if count else np.inf
    return int(enough) if np.isfinite(enough) else None


def settling_interval(
    differences: ArrayLike, level: float = 0.05, power: float = 0.8, least: float = 0.0
) -> tuple[float, float]:
    """Return the 80 % interval of `replicates_to_settle`, which knows neither mean nor spread.

    Mean over standard error has a noncentral t-distribution: a normal mean over the root of a
    chi-square spread. The true effects for which the observed one is its 90th and its 10th
    percentile are the interval of the effect (Steiger and Fouladi, in "What if there were
    no significance tests?", 1997), and the replicates that
    those need are the interval here. Of studies with the right direction, 10 % have the truth
    above it, and at most 10 % below.

    Returns
    -------
    low, high : float
        2 or more. `high` is infinite where the direction of the difference is not known at 90 %,
        or it would take more than 10,000; both are NaN where no mean or spread is known.
    """
    count, size = _effect(differences, least)
    if not count:
        return np.nan, np.nan
    root = np.sqrt(count)
    effects = (special.nctdtrinc(count - 1, p, size * root) / root for p in (OUTSIDE, 1 - OUTSIDE))
    low, high = (_enough(effect, level, power) for effect in effects)
    return low, high


def _effect(differences: ArrayLike, least: float) -> tuple[int, float]:
    """Return the number of differences, and |mean| over their deviation; 0 where it has none."""
    observed = np.asarray(differences, dtype=float)
    deviation = max(float(observed.std(ddof=1)), least) if len(observed) > 1 else 0.0
    return (len(observed), abs(float(observed.mean())) / deviation) if deviation > 0 else (0, 0.0)


def _enough(effect: float, level: float, power: float) -> float:
    """Return how many replicates show an effect; ∞ if `MOST_REPLICATES` do not."""

    def shows(count: int) -> bool:
        critical = stats.t.isf(level / 2, count - 1)
        return bool(stats.nct.sf(critical, count - 1, effect * np.sqrt(count)) >= power)

    enough = 2
    while not shows(enough):
        enough *= 2
        if enough > MOST_REPLICATES:
            return np.inf
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


@checked
def controls(results: xr.Dataset, level: float = 0.05) -> xr.Dataset:
    """Return ticket − control, paired by replicate, at the k chosen on the validation images.

    Returns
    -------
    Dataset
        Over (threshold, control): ``replicates``; ``minus_control`` and
        ``minus_control_interval`` as in :func:`verdicts`; ``replicates_to_settle``, how many would
        show such a difference, NaN where none are enough, and
        ``replicates_to_settle_interval``, its 80 % interval, with an infinite end where it is
        open. ``rewind_epoch``, over threshold, is the k that was chosen. The other intervals are
        of confidence 1 − `level` each, not all at once.

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
    differences, paired = minus_controls(values, counts)
    least = one_image(results)
    means = Means.over_replicates(differences, paired, least)
    shape = differences.sizes["threshold"], differences.sizes["control"]
    settled, between = np.full(shape, np.nan), np.full((*shape, 2), np.nan)
    for t, c in np.ndindex(shape):
        observed = differences.values[c, paired.values[c, :, t], t]
        settled[t, c] = replicates_to_settle(observed, level, least=float(least))
        between[t, c] = settling_interval(observed, level, least=float(least))
    found = xr.Dataset(
        {
            "replicates": means.count,
            "minus_control": means.mean,
            "minus_control_interval": means.interval(level),
            "replicates_to_settle": (("threshold", "control"), settled),
            "replicates_to_settle_interval": (("threshold", "control", "bound"), between),
        }
    )
    return labelled(found, results).transpose("threshold", "control", "bound")


def at_chosen(
    results: xr.Dataset, name: str, chosen: xr.DataArray
) -> tuple[xr.DataArray, xr.DataArray]:
    """Return a variable of the cells at one k per threshold, and which of its values count."""
    values, counts = (of.sel(threshold=chosen.threshold) for of in values_of(results, name))
    values, counts = (of.sel(rewind_epoch=chosen, drop=True) for of in (values, counts))
    return values, counts
