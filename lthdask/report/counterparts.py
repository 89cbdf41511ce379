"""A study's own numbers at the places of a published grid."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from lthdask.errors import InputError
from lthdask.report.published import Accuracy, Numbers, Place, Published, Schedule, Steps
from lthdask.report.summary import flags
from lthdask.storage.results import study_of
from lthdask.study import Study

ROUNDING = 0.05
"""Percentage points; remaining shares are published to a tenth."""


def medians(results: xr.Dataset, card: Published, schedule: Schedule | None = None) -> Numbers:
    """Return a study's numbers for the places that were published.

    Parameters
    ----------
    results : xarray.Dataset
        Results, as from :func:`lthdask.open_results`.
    card : Published
    schedule : {"one_shot", "iterative"}, optional
        How the study pruned; as the card's grid by default.

    Returns
    -------
    Numbers
        Medians over the replicates that are done, as were published; the dense accuracy is
        the mean. A rewind epoch stands for the published one at the same share of training.

    Raises
    ------
    InputError
        If the study is about something else.
    """
    schedule = schedule or card.schedule
    _require_same(results, card, schedule)
    done = results.status == flags(results)["done"]
    rewinds = card.rewind_epochs(study_of(results)["recipe"]["epochs"])
    theirs: Numbers = getattr(card, schedule)
    cells, speed = dict[Place, Accuracy](), dict[Place, Steps]()
    for place in theirs.cells:
        values = _runs(results.test_accuracy.where(done), place, rewinds)
        if len(values):
            cells[place] = Accuracy(float(np.median(values)), len(values))
    for place in theirs.speed:
        values = _runs(results.early_stop_iteration.where(done), place, rewinds)
        if len(values):
            speed[place] = Steps(float(np.median(values)), len(values))
    dense = _finite(results.dense_test_accuracy)
    whole = Accuracy(float(dense.mean()), len(dense)) if len(dense) else None
    return Numbers(cells, whole, speed)


def _runs(done: xr.DataArray, place: Place, rewinds: Mapping[int, int]) -> Any:
    """Return the values at a place, one for each replicate that is done."""
    remaining = 100 * (1 - done.threshold.values)
    near = np.flatnonzero(np.abs(remaining - place.remaining) < ROUNDING + 1e-9)
    if place.arm not in done.arm or not len(near):
        return np.empty(0)
    row = done.sel(arm=place.arm).isel(threshold=near[0])
    if place.rewind_epoch is None:  # stored at one rewind epoch, whichever
        return _finite(row)
    own = rewinds.get(place.rewind_epoch)
    return _finite(row.sel(rewind_epoch=own)) if own in row.rewind_epoch else np.empty(0)


def _finite(values: xr.DataArray) -> Any:
    return values.values[np.isfinite(values.values)]


def _require_same(results: xr.Dataset, card: Published, schedule: str) -> None:
    """Refuse results that the grid says nothing about."""
    wanted, found = Study.read(card.study).to_dict(), study_of(results)
    for block, key in (("network", "name"), ("data", "name"), ("pruning", "by")):
        if (given := found[block][key]) != (asked := wanted[block][key]):
            raise InputError(
                f"the card {card.study} is for {block}.{key} {asked}, but the study "
                f"{found['name']} has {given}; give results of a study of the same protocol"
            )
    if (found["pruning"]["schedule"] == "one_shot") != (schedule == "one_shot"):
        raise InputError(
            f"the schedule of the study {found['name']} is {found['pruning']['schedule']}, not "
            f"{schedule}; give results of iterative pruning with `iterative`, others with `results`"
        )
