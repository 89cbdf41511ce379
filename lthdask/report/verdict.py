"""What the replicates show: verdict per cell, and the frontier of matching.

docs/method.md says the same in prose, with what three replicates can and cannot show.
"""

import numpy as np
import xarray as xr

from lthdask.arguments import checked
from lthdask.lottery.matching import matches
from lthdask.report.labels import labelled
from lthdask.report.paired import (
    BOUNDS,
    MAP,
    Means,
    adjusted,
    collapsed,
    minus_controls,
    one_image,
    values_of,
)
from lthdask.report.selection import (
    margin_of,
    require_level,
    scratch_controls,
    whole,
    with_tickets,
)
from lthdask.storage.schema import Status

WINNING, MATCHING, NO_BETTER = "winning ticket", "matching", "no better than control"
WORSE, UNDECIDED = "worse", "undecided"
VERDICTS = (WINNING, MATCHING, NO_BETTER, UNDECIDED, WORSE)
"""From best to worst: a ticket that gets less accurate never moves up."""


@checked
def verdicts(
    results: xr.Dataset,
    margin: float | None = None,
    level: float = 0.05,
    accuracy: str = "test_accuracy",
) -> xr.Dataset:
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
    p-values are adjusted together, by Benjamini and Hochberg [3]_: of the cells of
    which a claim is made, at most a share of `level` is expected to have it wrongly. The whole
    claim is adjusted, never its parts, because that says nothing of their conjunction. The method
    holds for tests that depend on each other positively [4]_, as those of many tickets that are
    compared with one dense run. docs/method.md has the error rates.

    The scratch controls are those of `SCRATCH` that the study has; none with the score ``random``,
    because a random mask never makes a winning ticket. A cell that wins, or is no better, also
    matches, and has the verdict that says more. ``undecided`` is a cell of which nothing is
    shown, and, unless it is worse, one of which a replicate diverged or collapsed
    (docs/method.md says when): the mean of the others does not speak for it.

    A standard deviation is at least one image, the smallest step that is seen between test
    accuracies: replicates that are equal by chance prove nothing.

    Parameters
    ----------
    results : Dataset
        What :func:`lthdask.open_results` opens. Its status decides what counts. Along any
        further dimension lie maps that are judged each for itself.
    margin : float, optional
        The smallest difference that matters, in points; the study's ``matching_margin`` by
        default, which is a share.
    level : float
        Level of the false discoveries per verdict, and of the intervals, in (0, 1).
    accuracy : {"test_accuracy", "early_stop_test_accuracy"}
        What is compared: after the last epoch, or where each run has its lowest validation
        loss.

    Returns
    -------
    Dataset
        Over (threshold, rewind_epoch): ``replicates``, those of the comparison with dense;
        the accuracy, under its name; ``minus_dense``, the mean difference ticket − dense, in
        points; ``minus_control``, over ``control`` too, likewise, where there are controls; each
        of the last three with ``…_interval``, two-sided and of confidence 1 − `level` for this one
        cell, along ``bound`` (low, high); ``stable``, false where a replicate diverged or
        collapsed; the adjusted ``p_matching``, ``p_worse``, ``p_winning`` and ``p_no_better`` of
        the whole claims; ``verdict``. NaN is what the replicates do not tell. Where tickets come
        from another study, the attribute ``source`` says from which one, and, where that is a
        single ticket, that nothing is shown of any other.

    Examples
    --------
    >>> judged = verdicts(results, margin=1)
    >>> judged.verdict.values
    array([['winning ticket', 'winning ticket'],
           ['worse', 'undecided']], dtype=object)
    >>> judged.minus_dense.round(1).values
    array([[ 0.1, -0.2],
           [-4.3, -0.6]])

    References
    ----------
    .. [1] D. J. Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987) 657–680.
    .. [2] R. L. Berger, Technometrics 24 (1982) 295–300.
    .. [3] Y. Benjamini, Y. Hochberg, J. R. Stat. Soc. B 57 (1995) 289–300.
    .. [4] Y. Benjamini, D. Yekutieli, Ann. Stat. 29 (2001) 1165–1188.
    """
    results = whole(results, accuracy).pipe(with_tickets)
    margin = margin_of(results, margin)
    require_level(level)
    values, counts = values_of(results, accuracy)
    ticket, dense = values.sel(arm="ticket", drop=True), results[f"dense_{accuracy}"]
    paired = counts.sel(arm="ticket", drop=True) & dense.notnull()
    least = one_image(results)
    alone = Means.over_replicates(ticket, paired, least)
    to_dense = Means.over_replicates(ticket - dense, paired, least)
    to_control = Means.over_replicates(*minus_controls(values, counts), least)
    takes = scratch_controls(results)
    scratch = Means.over_replicates(*minus_controls(values, counts, takes), least)
    fallen = collapsed(results, accuracy) | (results.status == int(Status.DIVERGED))
    stable = ~fallen.sel(arm="ticket", drop=True).any("replicate")
    claims = _claims(to_dense, scratch, stable, margin)
    p = {claim: adjusted(of, to_dense.count > 1) for claim, of in claims.items()}
    verdict = xr.full_like(to_dense.mean, UNDECIDED, dtype=object)
    for claim, of in p.items():
        verdict = xr.where(of <= level, claim, verdict)
    judged = xr.Dataset(
        {
            "replicates": to_dense.count,
            accuracy: alone.mean,
            f"{accuracy}_interval": alone.interval(level),
            "minus_dense": to_dense.mean,
            "minus_dense_interval": to_dense.interval(level),
            "minus_control": to_control.mean,
            "minus_control_interval": to_control.interval(level),
            "stable": stable,
            "p_matching": p[MATCHING],
            "p_worse": p[WORSE],
            "p_winning": p[WINNING],
            "p_no_better": p[NO_BETTER],
            "verdict": verdict,
        }
    )
    if not judged.sizes["control"]:  # along which nothing has a maximum, say
        judged = judged.drop_dims("control")
    return labelled(judged, results).transpose("control", *MAP, "bound", ..., missing_dims="ignore")


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


@checked
def frontier(results: xr.Dataset, margin: float | None = None, level: float = 0.05) -> xr.Dataset:
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

    Examples
    --------
    >>> found = frontier(results, margin=1).sel(rewind_epoch=1)
    >>> round(found.density.item(), 3), found.at_edge.item()
    (0.4, True)
    >>> found.density_interval.values
    array([0. , 0.5])
    """
    results = whole(results).pipe(with_tickets)
    margin = margin_of(results, margin)
    judged = verdicts(results, margin, level)
    values, counts = values_of(results.sel(arm=["ticket"]), "counted_density")
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
    interval = xr.concat([low, high], "bound").assign_coords(bound=BOUNDS)
    found = {"density": estimate, "at_edge": estimate == edge, "density_interval": interval}
    return labelled(xr.Dataset(found), results).transpose("rewind_epoch", "bound", ...)
