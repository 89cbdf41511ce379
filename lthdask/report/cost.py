"""What a study cost, by the records of its cells."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from lthdask.report.progress import duration

_HOUR = 3600.0


@dataclass(frozen=True)
class Cost:
    """What was measured while the cells of a study were trained; dense runs are not in it.

    Attributes
    ----------
    worker_seconds : float
        Time that workers spent on the cells whose time is known.
    busy_seconds : float
        Time during which at least one cell was trained; pauses between commands are not in it.
    workers : int
        Most workers that trained cells at once.
    cells : int
        Cells whose time is known.
    """

    worker_seconds: float
    busy_seconds: float
    workers: int
    cells: int

    @property
    def speed_up(self) -> float:
        """How many times longer one such worker would have taken."""
        return self.worker_seconds / self.busy_seconds

    @property
    def efficiency(self) -> float:
        """Share of the time of so many workers that was spent on cells."""
        return self.speed_up / self.workers

    def __str__(self) -> str:
        """Return the cost in a sentence."""
        hours = self.worker_seconds / _HOUR
        workers = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        compared = f"{100 * self.efficiency:.0f} % of their time was spent on cells"
        if self.workers > 1:
            compared = f"{self.speed_up:.2g} times faster than one worker; {compared}"
        return (
            f"{hours:.3g} worker-hours for {self.cells} cells, in "
            f"{duration(self.busy_seconds)} on {workers}: {compared}. Dense runs are not in it."
        )


def cost(results: xr.Dataset) -> Cost | None:
    """Return what the cells of a study cost; None where no time is recorded.

    Parameters
    ----------
    results : Dataset
        What ``lthdask.open_results(path, "records")`` returned.
    """
    spent = recorded(results)
    if not spent["seconds"].size:
        return None
    began, ended = spent["began"], spent["over"]
    busy = _together(began, ended)
    times, deltas = (
        np.concatenate([ended, began]),
        np.concatenate([-spent["share"], spent["share"]]),
    )
    at_once = np.cumsum(deltas[np.argsort(times, kind="stable")]).max(initial=0)
    workers = max(1, round(float(at_once)))
    return Cost(float(spent["seconds"].sum()), busy, workers, spent["seconds"].size)


def recorded(results: xr.Dataset) -> dict[str, np.ndarray]:
    """Return the records of the cells whose times are known, one after the other.

    Besides variables and coordinates: ``began`` and ``over``, in seconds since 1970, and
    ``share``, that of a worker which the cell took, less than 1 in a cohort.
    """
    flat = results[["seconds", "started", "ended", "place"]].reset_coords()
    cells = flat.stack(cell=results.seconds.dims)
    known = np.isfinite(cells.seconds) & (cells.ended > cells.started)
    cells = cells.isel(cell=np.flatnonzero(known.values))
    of = {str(name): cells[name].values for name in (*flat.data_vars, *results.seconds.dims)}
    of["began"], of["over"] = (
        of[name].astype("M8[ms]").astype(float) / 1000 for name in ("started", "ended")
    )
    return of | {"share": np.minimum(1.0, of["seconds"] / (of["over"] - of["began"]))}


def _together(began: np.ndarray, ended: np.ndarray) -> float:
    """Return for how many seconds at least one of some intervals lasts."""
    total, until = 0.0, -np.inf
    for a, b in sorted(zip(began.tolist(), ended.tolist(), strict=True)):
        total += max(0.0, b - max(a, until))
        until = max(until, b)
    return total
