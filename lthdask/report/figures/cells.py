"""The cells of a map: what each shows, as the columns of a table."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import xarray as xr
from bokeh.palettes import interp_palette

from lthdask.grid import Cell
from lthdask.report.accuracy_map import percent as spread
from lthdask.report.figures.style import percent, signed
from lthdask.report.labels import ks_of
from lthdask.report.paired import difference_to_dense
from lthdask.report.selection import whole
from lthdask.report.verdict import (
    MATCHING,
    NO_BETTER,
    UNDECIDED,
    WINNING,
    WORSE,
    verdicts,
)
from lthdask.storage.schema import Status


class Look(NamedTuple):
    """How a cell looks: its mark, of a size in pixels, filled or not; colour; hatch."""

    mark: str = "dot"
    size: int = 0
    filled: bool = False
    colour: str = ""
    hatch: str = " "


LIMIT = 10.0
"""Points at which colours end: what is worse by more has the darkest."""
PALETTE = interp_palette(["#b35806", "#f1a340", "#f7f7f7", "#998ec3", "#542788"], 255)
"""From worse to better than the dense run; people who are colour-blind can tell them apart."""
UNKNOWN = "#c8c8c8"
STATES = {
    "done": Look(),
    "pending": Look("dot", 16, colour="#ffffff"),
    "running": Look("circle_dot", 10, colour="#dbeaf5"),
    "failed": Look("x", 9, colour="#e0e0e0"),
    "diverged": Look("triangle", 9, colour="#e0e0e0"),
    "skipped": Look("dash", 9, colour="#ededed"),
    "not applicable": Look(colour="#f6f6f6", hatch="/"),
}
"""State of a cell → how it looks; `map_columns` does not know which cells are running."""
VERDICTS = {
    WINNING: Look("star", 10, filled=True),
    MATCHING: Look("circle", 6, filled=True),
    NO_BETTER: Look("circle", 6),
    WORSE: Look("inverted_triangle", 6),
    UNDECIDED: Look(),
}
"""Verdict → how it looks."""
_WORST_FIRST = (
    Status.FAILED,
    Status.DIVERGED,
    Status.PENDING,
    Status.SKIPPED,
    Status.NOT_APPLICABLE,
)


def map_columns(
    results: xr.Dataset, arm: str = "ticket", replicate: int | None = None, limit: float = LIMIT
) -> dict[str, list[Any]]:
    """Return what :func:`difference_map` draws: one row for each cell of the map.

    Parameters
    ----------
    results : Dataset
        What :func:`lthdask.open_results` returned.
    arm : str
    replicate : int, optional
        By default, the mean over all of those that are done.
    limit : float
        Points at which the colours end.

    Returns
    -------
    dict of str to list
        ``column`` and ``row``, the place in the map from the left and from the top;
        ``rewind_epoch`` and ``threshold``, as numbers; ``cell``, its name, empty for a mean;
        ``difference`` to dense, in points, NaN where it is not known; ``text``, the same as it
        is written, and its ``ink``; ``state`` and ``outcome``, the state in short and of every
        replicate; ``colour``; ``mark`` of the state and ``side_mark`` of the verdict, or of the
        replicates that are not done, with ``mark_size`` and ``side_size``, 0 where there is
        none, and ``side_fill``; ``k``, ``threshold_text``, ``density``, ``accuracy`` and
        ``verdict``, texts; ``row_density``, a text beside the first cell of each row.
    """
    results = whole(results)
    if replicate is not None:
        results = results.sel(replicate=[replicate])
    parts = [results[name].sel(arm=arm) for name in _OF_CELL]
    parts.append(difference_to_dense(results).sel(arm=arm))
    told = zip(zip(*map(_by_cell, parts), strict=True), _judged(results, arm), strict=True)
    densities = [percent(of) if of == of else "" for of in results.density.values.tolist()]
    alone = results.replicate.values.tolist() if results.sizes["replicate"] == 1 else []
    rows, ks = [], ks_of(results)
    for i, threshold in enumerate(results.threshold.values.tolist()):
        for j, k in enumerate(results.rewind_epoch.values.tolist()):
            place = {"column": j, "row": i, "rewind_epoch": k, "threshold": threshold}
            shown = {"k": f"{ks[j]:g}", "threshold_text": f"{threshold:g}"}
            shown["row_density"] = "" if j else densities[i]
            shown["cell"] = "".join(str(Cell(arm, r, threshold, ks[j])) for r in alone)
            rows.append(place | shown | _looks(*next(told), limit=limit))
    return {name: [row[name] for row in rows] for name in rows[0]}


_OF_CELL = ("status", "test_accuracy", "counted_density")
"""What is shown of a cell, besides its difference to dense."""


def _by_cell(values: xr.DataArray) -> list[list[Any]]:
    """Return the values of each cell of a map, by replicate: plain ones, which are quicker."""
    found = values.transpose("threshold", "rewind_epoch", "replicate").values
    by_cell: list[list[Any]] = found.reshape(-1, found.shape[2]).tolist()
    return by_cell


def _judged(results: xr.Dataset, arm: str) -> list[str]:
    """Return the verdicts; empty for one replicate, or for another arm, which have none."""
    if arm == "ticket" and results.sizes["replicate"] > 1:
        judged = verdicts(results).verdict.transpose("threshold", "rewind_epoch")
        return [str(verdict) for verdict in judged.values.ravel()]
    return [""] * (results.sizes["threshold"] * results.sizes["rewind_epoch"])


def _looks(values: Sequence[list[Any]], verdict: str, limit: float) -> dict[str, Any]:
    """Return what is shown of a cell, given the values of every replicate: see `_OF_CELL`."""
    codes, accuracies, densities, differences = values
    known = [value for value in differences if value == value]
    difference = sum(known) / len(known) if known else float("nan")
    state, lacking, outcome = _became(*codes)
    look = STATES[state]
    verdict = verdict if state == "done" and not lacking else ""
    beside = STATES[lacking] if lacking else VERDICTS[verdict or UNDECIDED]
    done = [i for i, code in enumerate(codes) if code == Status.DONE]
    colour = look.colour or _colour(difference, limit)
    ink = _ink(colour)
    return {
        "difference": difference,
        "text": signed(difference) if known else "",
        "ink": ink,
        "state": state,
        "outcome": outcome,
        "colour": colour,
        "mark": look.mark,
        "mark_size": look.size,
        "side_mark": beside.mark,
        "side_size": beside.size,
        "side_fill": ink if beside.filled else "#00000000",
        "verdict": verdict,
        "accuracy": f"{spread([accuracies[i] for i in done])} %" if done else "",
        "density": percent(sum(densities[i] for i in done) / len(done)) if done else "",
    }


@cache
def _became(*codes: int) -> tuple[str, str, str]:
    """Return the state of a cell, that of replicates that a done one lacks, and all in words."""
    counts = Counter(codes)
    worst = [word(status) for status in _WORST_FIRST if status in counts]
    if len(counts) == 1:
        outcome = word(Status(codes[0]))
    else:
        outcome = ", ".join(f"{counts[code]} {word(Status(code))}" for code in sorted(counts))
    if Status.DONE in counts:
        return "done", worst[0] if worst else "", outcome
    return worst[0], "", outcome


def word(status: Status) -> str:
    """Return a status as it is said."""
    return status.name.lower().replace("_", " ")


def _colour(difference: float, limit: float) -> str:
    if difference != difference:
        return UNKNOWN
    share = (max(-1.0, min(1.0, difference / limit)) + 1) / 2
    return str(PALETTE[round(share * (len(PALETTE) - 1))])


@cache
def _ink(colour: str) -> str:
    """Return black or white, whichever is read better on a colour (WCAG's contrast)."""
    shares = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    luminance = sum(w * s**2.2 for w, s in zip((0.2126, 0.7152, 0.0722), shares, strict=True))
    return "#ffffff" if luminance < 0.18 else "#000000"
