"""What the replicates show: verdict per cell, the frontier of matching, and the controls.

docs/method.md says the same in prose, with what three replicates can and cannot show.
"""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy import stats

from lthdask.grid import CONTROLS, SCRATCH
from lthdask.lottery.matching import matches
from lthdask.report.paired import MAP, Means, adjusted, collapsed, one_image, values_of
from lthdask.storage.schema import Status

WINNING, MATCHING, NO_BETTER = "winning ticket", "matching", "no better than control"
WORSE, UNDECIDED = "worse", "undecided"
VERDICTS = (WINNING, MATCHING, NO_BETTER, UNDECIDED, WORSE)
"""From best to worst: a ticket that gets less accurate never moves up."""

MOST_REPLICATES = 10_000


def verdicts(results: xr.Dataset, margin: float, level: float = 0.05) -> xr.Dataset:
    """Judge every ticket against the dense run and the controls, paired by replicate.

    `margin` is the smallest difference that matters, everywhere. A verdict is a claim:

    ====================== ================================================================
    matching               ticket − dense > −margin
    worse                  ticket − dense < −margin
    winning ticket         matching, and ticket − control > margin for every scratch control
    no better than control matching, and ticket − control < margin for some scratch control
    ====================== ================================================================

    Each part of a claim has a one-sided paired t-test over the replicates of which all runs it
    compares are done (Schuirmann 1987 [1]_). A claim of several parts has the largest of their
    p-values (intersection-union test, Berger 1982 [2]_); "some" control, the smallest, times
    the number of controls (Bonferroni). Each claim is made once per cell of the map, so its
    p-values are adjusted together, by Benjamini and Hochberg [3]_: of the cells that get a
    verdict, at most a share of `level` is expected to get it wrongly. The whole claim is
    adjusted, never its parts, because that says nothing of their conjunction. The method holds
    for tests that depend on each other positively [4]_, as those of many tickets that are
    compared with one dense run. docs/method.md has the error rates.

    The scratch controls are those of `SCRATCH` that the study has. A cell that wins, or is no
    better, also matches, and has the verdict that says more. ``undecided`` is a cell of which
    nothing is shown, and, unless it is worse, one of which a replicate diverged or collapsed
    (:func:`lthdask.report.paired.collapsed`): the mean of the others does not speak for it.

    A standard deviation is at least one image, the smallest step that is seen between test
    accuracies: replicates that are equal by chance prove nothing.

    Parameters
    ----------
    results : Dataset
        What :func:`lthdask.open_results` opens. Its status decides what counts. Along any
        further dimension lie maps that are judged each for itself.
    margin : float
        The study's ``matching_margin``: the smallest difference that matters, in [0, 1].
    level : float
        Level of the false discoveries per verdict, and of the intervals, in (0, 1).

    Returns
    -------
    Dataset
        Over (threshold, rewind_epoch): ``replicates``, those of the comparison with dense;
        ``test_accuracy``; ``minus_dense``, the mean difference ticket − dense;
        ``minus_control``, over ``control`` too, likewise; each of the last three with
        ``…_interval``, two-sided and of confidence 1 − `level` for this one cell, along
        ``bound`` (low, high); ``stable``, false where a replicate diverged or collapsed; the
        adjusted ``p_matching``, ``p_worse``, ``p_winning`` and ``p_no_better`` of the whole
        claims; ``verdict``. NaN is what the replicates do not tell.

    References
    ----------
    .. [1] D. J. Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987) 657–680.
    .. [2] R. L. Berger, Technometrics 24 (1982) 295–300.
    .. [3] Y. Benjamini, Y. Hochberg, J. R. Stat. Soc. B 57 (1995) 289–300.
    .. [4] Y. Benjamini, D. Yekutieli, Ann. Stat. 29 (2001) 1165–1188.
    """
    values, counts = values_of(results, "test_accuracy")
    ticket, dense = values.sel(arm="ticket", drop=True), results.dense_test_accuracy
    paired = counts.sel(arm="ticket", drop=True) & dense.notnull()
    least = one_image(results)
    alone = Means.over_replicates(ticket, paired, least)
    to_dense = Means.over_replicates(ticket - dense, paired, least)
    to_control = Means.over_replicates(*_minus_controls(values, counts, CONTROLS), least)
    scratch = Means.over_replicates(*_minus_controls(values, counts, SCRATCH), least)
    fallen = collapsed(results, "test_accuracy") | (results.status == int(Status.DIVERGED))
    stable = ~fallen.sel(arm="ticket", drop=True).any("replicate")
    claims = _claims(to_dense, scratch, stable, margin)
    p = {claim: adjusted(of, to_dense.count > 1) for claim, of in claims.items()}
    verdict = xr.full_like(to_dense.mean, UNDECIDED, dtype=object)
    for claim, of in p.items():
        verdict = xr.where(of <= level, claim, verdict)
    judged = xr.Dataset(
        {
            "replicates": to_dense.count,
            "test_accuracy": alone.mean,
            "test_accuracy_interval": alone.interval(level),
            "minus_dense": to_dense.mean,
            "minus_dense_interval": to_dense.interval(level),
            "minus_control": to_control.mean,
            "minus_control_interval": to_control.interval(level),
            "stable": stable,
            "p_matching": p[MATCHING],
            "p_worse": p[WORSE],
            "p_winning": p[WINNING],
            "p_no_better": p[NO_BETTER],
            "verdict": verdict.astype(str),
        }
    )
    return judged.transpose("control", *MAP, "bound", ...)


def _claims(
    to_dense: Means, scratch: Means, stable: xr.DataArray, margin: float
) -> dict[str, xr.DataArray]:
    """Return the p-value of each claim as a whole, those that say more last."""
    matching = to_dense.p_above(-margin).where(stable, 1.0)
    winning = no_better = xr.full_like(matching, np.nan)
    if scratch.mean.sizes["control"]:
        every = scratch.p_above(margin).max("control", skipna=False)
        below = scratch.p_below(margin)
        some = (below * below.count("control")).min("control").clip(max=1.0)
        winning, no_better = (xr.ufuncs.maximum(matching, p) for p in (every, some))
    worse = to_dense.p_below(-margin)
    return {WORSE: worse, MATCHING: matching, NO_BETTER: no_better, WINNING: winning}


def frontier(results: xr.Dataset, margin: float, level: float = 0.05) -> xr.Dataset:
    """Return how sparse tickets can be and still match the dense run, per rewind epoch.

    Denser tickets need not match as well: otherwise, one that falls short by chance would
    hide all that follow. So the estimate always lies within its interval. Cells of which a
    replicate diverged or collapsed match no more than in :func:`verdicts`.

    Returns
    -------
    Dataset
        Over rewind_epoch: ``density``, the lowest whose mean difference to dense is −`margin`
        or more, NaN where there is none; ``at_edge``, whether no sparser ticket was compared,
        so that the true one may be lower; ``density_interval``, along ``bound``: low, the
        lowest that is not shown to be worse, 0 where no sparser one was compared, and high, the
        lowest that is shown to match, 1 (the dense network) where none is (the tests of
        :func:`verdicts`, inverted); NaN where two replicates of no ticket are done.
    """
    judged = verdicts(results, margin, level)
    values, counts = values_of(results.sel(arm=["ticket"]), "density")
    density = Means.over_replicates(values, counts, 0.0).mean.sel(arm="ticket", drop=True)

    def lowest(where: xr.DataArray) -> xr.DataArray:
        return density.where(where).min("threshold")

    estimate = lowest(matches(judged.minus_dense, margin) & judged.stable)
    edge = lowest(judged.minus_dense.notnull())
    tested = judged.p_worse.notnull()
    low, high = lowest(judged.p_worse > level), lowest(judged.p_matching <= level)
    low = low.fillna(density.where(tested).max("threshold"))
    low = low.where((low > lowest(tested)) | low.isnull(), 0.0)
    high = high.fillna(1.0).where(tested.any("threshold"))
    bound = xr.DataArray(["low", "high"], dims="bound")
    interval = xr.where(bound == "low", low, high).assign_coords(bound=bound)
    found = {"density": estimate, "at_edge": estimate == edge, "density_interval": interval}
    return xr.Dataset(found).transpose("rewind_epoch", "bound", ...)


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


def control_differences(results: xr.Dataset, level: float = 0.05) -> xr.Dataset:
    """Return ticket − control, paired by replicate, at the k chosen on the validation images.

    Returns
    -------
    Dataset
        Over (threshold, control): ``replicates``; ``minus_control`` and
        ``minus_control_interval`` as in :func:`verdicts`; ``replicates_to_settle``, NaN where
        none are enough. ``rewind_epoch``, over threshold, is the k that was chosen. The
        intervals are of confidence 1 − `level` each, not all at once.
    """
    chosen = chosen_rewind_epochs(results)
    values, counts = at_chosen(results, "test_accuracy", chosen)
    differences, paired = _minus_controls(values, counts, CONTROLS)
    least = one_image(results)
    means = Means.over_replicates(differences, paired, least)
    settled = [
        [
            replicates_to_settle(differences[c, paired[c, :, t].values, t], level, least=least)
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
    return found.transpose("threshold", "control", "bound")


def at_chosen(
    results: xr.Dataset, name: str, chosen: xr.DataArray
) -> tuple[xr.DataArray, xr.DataArray]:
    """Return a variable of the cells at one k per threshold, and which of its values count."""
    values, counts = (of.sel(threshold=chosen.threshold) for of in values_of(results, name))
    values, counts = (of.sel(rewind_epoch=chosen, drop=True) for of in (values, counts))
    return values, counts


def _minus_controls(
    values: xr.DataArray, counts: xr.DataArray, controls: Sequence[str]
) -> tuple[xr.DataArray, xr.DataArray]:
    """Return ticket − control for the controls that there are, and which replicates count."""
    known = [arm for arm in controls if arm in values.arm]
    others = [of.isel(arm=values.arm.isin(known)).rename(arm="control") for of in (values, counts)]
    differences = values.sel(arm="ticket", drop=True) - others[0]
    paired = counts.sel(arm="ticket", drop=True) & others[1]
    order = ("control", "replicate", "threshold", ...)
    return differences.transpose(*order), paired.transpose(*order)
