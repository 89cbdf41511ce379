"""How far a study is, how fast it goes, and how long it will take."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from lthdask.arms import ARMS
from lthdask.report.labels import ks_of
from lthdask.rewinding import epochs_before
from lthdask.storage.results import study_of
from lthdask.storage.schema import Status

RECENT = 200
"""Cells whose pace says how fast the next ones will be."""
FEWEST = 3
"""Cells from which a spread can be estimated."""


@dataclass(frozen=True)
class Forecast:
    """How far a study is, and where it goes.

    Attributes
    ----------
    counts : mapping of Status to int
        How many cells there are in each state; those with nothing to train are left out.
    epochs, epochs_done : float
        Epochs of the whole study, dense runs included, and those that are trained; cells that
        run now count as far as they are likely to be.
    rate : float or None
        Epochs per second of all workers together; None as long as no cell is done.
    left : (float, float, float) or None
        Seconds until the end, as expected, and the bounds of its 95 % prediction interval; None
        if nothing runs, or no cell is done yet. With less than three cells, the bounds are NaN.
    """

    counts: Mapping[Status, int]
    epochs: float
    epochs_done: float
    rate: float | None = None
    left: tuple[float, float, float] | None = None

    @property
    def cells(self) -> int:
        """Cells that are trained, or were: those that a search has skipped are none of them."""
        return sum(n for status, n in self.counts.items() if status is not Status.SKIPPED)

    @property
    def ended(self) -> int:
        """Cells of which it is known what became of them."""
        return self.cells - self.counts.get(Status.PENDING, 0)


def forecast(
    results: xr.Dataset, running: Mapping[str, Mapping[str, Any]], workers: int, now: float
) -> Forecast:
    """Return how far a study is.

    Parameters
    ----------
    results : Dataset
        With the group "records"; without, there is no pace.
    running : mapping of str to mapping
        What is trained now: name → when it ``started``, in seconds since 1970, at which
        ``epoch``, and with how many ``beside`` it in one process.
    workers : int
        How many processes train; 0 if nobody runs the study.
    now : float
        Seconds since 1970.
    """
    status, epochs = results.status.values, epochs_of(results)
    counts: dict[Status, int] = {s: int((status == s).sum()) for s in Status}
    del counts[Status.NOT_APPLICABLE]
    trained = np.nansum(results.epochs_trained.values)
    dense = float(study_of(results)["recipe"]["epochs"])
    dense_done = int(np.isfinite(results.dense_test_accuracy.values).sum())
    pending = status == Status.PENDING
    ahead = float(epochs[pending].sum()) + dense * (results.sizes["replicate"] - dense_done)
    paces = _paces(results)
    done = float(trained) + dense * dense_done
    if not len(paces):
        return Forecast(counts, done + ahead, done)
    pace = float(paces.mean())
    begun = sum(_epochs_so_far(run, pace, dense, now) for run in running.values())
    whole, done = done + ahead, done + min(begun, ahead)
    workers = min(workers, int(pending.sum()) + results.sizes["replicate"] - dense_done)
    if not workers:
        return Forecast(counts, whole, done)
    expected = (whole - done) / workers * pace
    return Forecast(counts, whole, done, workers / pace, _interval(expected, paces, pending.sum()))


def _epochs_so_far(run: Mapping[str, Any], pace: float, last: float, now: float) -> float:
    """Return how many epochs a run is likely to have trained in its present attempt."""
    likely = (now - float(run["started"])) / pace / int(run.get("beside", 1))
    return max(0.0, min(likely, last - float(run.get("epoch", 0)) - 0.5))


def epochs_of(results: xr.Dataset) -> NDArray[np.float64]:
    """Return how many epochs each cell is trained for."""
    last = float(study_of(results)["recipe"]["epochs"])
    anew = np.array([ARMS[arm].begins_anew for arm in results.arm.values.tolist()])
    before = [epochs_before(k, int(results.attrs.get("steps", 0))) for k in ks_of(results)]
    first = np.where(anew[:, None], 0.0, before)
    shape = results.status.shape
    return np.broadcast_to((last - first)[:, None, None, :], shape)


def _paces(results: xr.Dataset) -> NDArray[np.float64]:
    """Return the seconds per epoch of the cells that were done last."""
    if "seconds" not in results:
        return np.array([])
    names = ("seconds", "epochs_trained", "ended")
    seconds, epochs, ended = (results[name].values for name in names)
    known = (results.status.values == Status.DONE) & np.isfinite(seconds) & (epochs > 0)
    known &= ~np.isnat(ended)
    latest = np.argsort(ended[known])[-RECENT:]
    paces: NDArray[np.float64] = (seconds[known] / epochs[known])[latest]
    return paces


def _interval(
    expected: float, paces: NDArray[np.float64], ahead: int
) -> tuple[float, float, float]:
    """Return a time with its bounds: both the mean pace and the cells to come are uncertain."""
    if len(paces) < FEWEST:
        return expected, np.nan, np.nan
    share = paces.std(ddof=1) / paces.mean() * np.sqrt(1 / len(paces) + 1 / max(ahead, 1))
    low = expected * max(0.0, 1 - 1.96 * float(share))
    return expected, low, expected * (1 + 1.96 * float(share))
