"""What the page shows: a study's folder as it is now, read once for all who look at it."""

import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.report.figures.map import STATES, map_columns
from lthdask.report.labels import ks_of
from lthdask.report.page.forecast import Forecast, forecast
from lthdask.storage.driver import driver_of
from lthdask.storage.folder import Folder
from lthdask.storage.results import Looks, follow, open_part
from lthdask.storage.schema import CELL, Status

EVERY, AT_LEAST_EVERY = 1.0, 10.0
"""Seconds between two looks."""
SHARE = 0.006
"""Looking, and showing what was seen, may take about this share of a core."""
AROUND = 60.0
"""Seconds for which a process that has trained counts, while it is not seen with another cell."""

Columns = dict[str, list[Any]]
Run = Mapping[str, Any]
"""What is recorded of an attempt at a run: ``place``, ``pid``, ``started`` and more."""


@dataclass(frozen=True)
class Look:
    """A study at one moment.

    Attributes
    ----------
    number : int
        Rises when the map, or what runs, is another.
    results : Dataset or None
        None before there are any.
    forecast : Forecast or None
        Likewise.
    running : mapping of str to mapping
        What is trained now: name of the cell or the dense run → its last attempt.
    why : mapping of str to list of str
        Reason → names of the cells that failed for it.
    driver : str or None
        Who runs the study; None if nobody does.
    problem : str
        Why there are no results.
    """

    number: int = 0
    results: xr.Dataset | None = None
    forecast: Forecast | None = None
    running: Mapping[str, Run] = field(default_factory=dict)
    why: Mapping[str, Sequence[str]] = field(default_factory=dict)
    driver: str | None = None
    problem: str = ""


class Source:
    """A study's folder, to be looked at again and again. All of it blocks: call it in threads.

    Parameters
    ----------
    path : Path
        The study's folder.
    """

    def __init__(self, path: Path) -> None:
        self.folder = Folder(path)
        self.latest = Look()
        self._lock, self._due = threading.Lock(), 0.0
        self._looks: Looks | None = None
        self._places: dict[str, int] = {}
        self._processes: dict[tuple[Any, Any], float] = {}
        self._reasons: dict[str, str] = {}
        self._columns: dict[tuple[str, int | None], tuple[Look, Columns]] = {}

    def look(self, workers: int | None = None) -> Look:
        """Return the study as it is now, or was a moment ago.

        `workers` is how many there are, where that is known better than from the folder.
        """
        with self._lock:
            if self.due:
                began = time.thread_time()
                self.latest = self._look(workers)
                self._due = time.monotonic() + EVERY
                self.spent(time.thread_time() - began - EVERY * SHARE)
            return self.latest

    @property
    def due(self) -> bool:
        """Whether it is time for another look."""
        return time.monotonic() >= self._due

    @property
    def _opened(self) -> bool:
        return "place" in (self.latest.results or ())

    def spent(self, seconds: float) -> None:
        """Put the next look off: so many CPU seconds were spent on showing the last one."""
        if not self._opened:
            return  # what is done once takes longer
        put_off = self._due + max(0.0, seconds) / SHARE
        self._due = min(put_off, time.monotonic() + AT_LEAST_EVERY)

    def columns(self, arm: str, replicate: int | None) -> Columns:
        """Return what the map shows at the last look, as of :func:`map_columns`.

        Cells that run say so, and where; ``place`` is added.
        """
        with self._lock:
            if self.latest.results is None:
                return {}
            of, columns = self._columns.get((arm, replicate), (Look(), {}))
            if not columns or of.number != self.latest.number:
                began = time.thread_time()
                columns = self._map(self.latest.results, arm, replicate)
                self._columns[arm, replicate] = self.latest, columns
                self.spent(time.thread_time() - began)
            return columns

    def known(self, arm: str, replicate: int | None) -> tuple[Look, Columns] | None:
        """Return the same as it was when it was last asked for, with its look."""
        return self._columns.get((arm, replicate))

    def _map(self, results: xr.Dataset, arm: str, replicate: int | None) -> Columns:
        columns, look = map_columns(results, arm, replicate), STATES["running"]
        columns["place"] = _places(results, arm, replicate)
        for name, run in self.latest.running.items():
            row = self._row(name, results, arm, replicate)
            if row is None:
                continue
            columns["place"][row] = str(run.get("place", ""))
            if columns["state"][row] == "pending":
                columns["state"][row] = columns["outcome"][row] = "running"
                columns["colour"][row], columns["mark"][row] = look.colour, look.mark
                columns["mark_size"][row] = look.size
        return columns

    def _row(self, name: str, results: xr.Dataset, arm: str, replicate: int | None) -> int | None:
        """Return the row of a cell among those of a map; None if it is on another one."""
        if name not in self._places:
            return None
        a, r, i, j = np.unravel_index(self._places[name], results.status.shape)
        if results.arm.values[a] != arm or replicate not in (None, results.replicate.values[r]):
            return None
        return int(i * results.sizes["rewind_epoch"] + j)

    def curves(self, **at: Any) -> xr.Dataset:
        """Return the results at one value of some axes, with their curves."""
        return open_part(self.folder.path, "curves", **at)

    def _look(self, workers: int | None) -> Look:
        driver, before = driver_of(self.folder.path), self.latest
        try:
            if self._looks is None:
                self._looks = follow(self.folder.path)
            elif before.results is not None and not self._opened:
                # They take as long as all the rest: the first look does without.
                self._looks.groups = ["records"]
            results = next(self._looks)
        except (InputError, OSError) as error:
            self._looks = None  # it has ended with that
            return Look(before.number + 1, driver=driver, problem=str(error))
        if before.results is None or before.results.sizes != results.sizes:
            axes = [results[axis].values.tolist() for axis in CELL[:-1]]
            cells = (Cell(*cell) for cell in product(*axes, ks_of(results)))
            self._places = {str(cell): i for i, cell in enumerate(cells)}
        running = self._running(results) if driver else {}
        workers = self._processes_of(running) if workers is None else workers
        ahead = forecast(results, running, workers if driver else 0, time.time())
        found = Look(before.number, results, ahead, running, self._why(results), driver)
        another = _drawn(found) != _drawn(before)
        return replace(found, number=before.number + another)

    def _running(self, results: xr.Dataset) -> dict[str, Run]:
        """Return what the driver has begun, and not ended."""
        status, begun = results.status.values.ravel(), self.folder.runs.names()
        known = np.isfinite(results.dense_test_accuracy.values)
        unended = {dense_name(r) for r in results.replicate.values[~known].tolist()}
        places = ((name, self._places[name]) for name in begun if name in self._places)
        unended |= {name for name, place in places if status[place] == Status.PENDING}
        attempts = ((name, self.folder.runs.attempts(name)) for name in sorted(begun & unended))
        last = {name: runs[-1] for name, runs in attempts if runs and "started" in runs[-1]}
        driver = max(last.values(), key=lambda run: run["started"], default={}).get("driver")
        return {name: run for name, run in last.items() if run.get("driver") == driver}

    def _processes_of(self, running: Mapping[str, Run]) -> int:
        """Return how many processes train. Between two cells, one is seen with none."""
        now = time.monotonic()
        self._processes |= {(run.get("place"), run.get("pid")): now for run in running.values()}
        self._processes = {p: at for p, at in self._processes.items() if now - at < AROUND}
        return len(self._processes)

    def _why(self, results: xr.Dataset) -> dict[str, list[str]]:
        """Return why cells failed: reason → their names."""
        status = results.status.values.ravel()
        failed = [name for name, i in self._places.items() if status[i] == Status.FAILED]
        self._reasons = {
            name: self._reasons.get(name) or self.folder.runs.reason(name) for name in failed
        }
        why = defaultdict[str, list[str]](list)
        for name, reason in self._reasons.items():
            why[reason or "nobody knows why"].append(name)
        return dict(why)


def dense_name(replicate: int) -> str:
    """Return the name of a dense run."""
    return f"dense-r{replicate}"


def _places(results: xr.Dataset, arm: str, replicate: int | None) -> list[str]:
    """Return where each cell of a map was trained."""
    if "place" not in results:
        return [""] * (results.sizes["threshold"] * results.sizes["rewind_epoch"])
    chosen = results.place.sel(arm=arm)
    if replicate is not None:
        chosen = chosen.sel(replicate=[replicate])
    places = chosen.transpose("threshold", "rewind_epoch", "replicate").values
    return [", ".join(sorted({*filter(None, of)})) for of in places.reshape(-1, places.shape[2])]


def _drawn(look: Look) -> tuple[Any, ...]:
    """Return what the map shows of a look."""
    if look.results is None:
        return ()
    of = look.results
    dense = str(of.dense_test_accuracy.values)
    return of.sizes, of.status.values.tobytes(), dense, {*look.running}, "place" in of
