"""How often verdicts are false, and found where true: uv run python benchmarks/verdicts.py.

Made-up maps of which the truth is known, judged by the project's own `verdicts`. Every run has
a true accuracy and a normal deviation of its own; the cells of a replicate share its dense run,
and those of a threshold its reinit. Accuracies are counts of 10,000 images.
"""

import argparse
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from lthdask.driver.adaptive import Exploration
from lthdask.report.verdict import MATCHING, NO_BETTER, WINNING, WORSE, frontier, verdicts
from lthdask.storage.schema import CELL, Status
from lthdask.study import Study

DENSE, IMAGES = 90.0, 10_000
"""True accuracy of the dense network in percent, and how many images measure it."""
ARMS = ("ticket", "random_mask", "reinit")
REPLICATES = (2, 3, 5, 10)
SHAPES = ((4, 4), (8, 6))
"""Thresholds by rewind epochs."""
SEARCHED = (16, 6)
"""The same of the maps that are searched."""

Truth = tuple[tuple[float, float], ...]
"""Per arm of `ARMS`, points above the dense network: the denser half of the rows, the sparser."""


def pictures(margin: float) -> dict[str, Truth]:
    """Return what may be true: description → truth; `margin` in points."""
    m = margin
    return {
        "a dense rows match and equal reinit, sparse ones beat both": ((0, -3), (-3, -6), (0, -6)),
        "b as a, dense rows m above reinit": ((0, -3), (-3, -6), (-m, -6)),
        "c all m below dense, far above the controls": ((-m, -m), (-6, -6), (-6, -6)),
        "d nothing differs": ((0, 0), (0, 0), (0, 0)),
        "e all like dense, m above both controls": ((0, 0), (-m, -m), (-m, -m)),
        "f all beat one control and equal the other": ((0, 0), (-3, -3), (0, 0)),
        "g half win, half are m below dense": ((0, -m), (-3, -6), (-3, -6)),
    }


def maps(
    truth: Truth,
    shape: tuple[int, int],
    replicates: int,
    count: int,
    *,
    noise: float,
    collapse: float = 0.0,
    kind: str = "normal",
    seed: int = 0,
) -> xr.Dataset:
    """Return the results of many studies, each a position of the dimension ``map``.

    Parameters
    ----------
    truth : tuple
    shape : tuple of int
        Thresholds by rewind epochs.
    replicates, count : int
    noise : float
        Standard deviation of one run's accuracy, in points.
    collapse : float
        Probability that a ticket ends 10 points below, in [0, 1].
    kind : {"normal", "heavy tails", "skewed down"}
        How tickets deviate: as t with 3 degrees of freedom, or as 1 − an exponential.
    seed : int
    """
    random = np.random.default_rng(seed)
    means = np.stack([_by_row(values, shape[0]) for values in truth])[:, None, :, :, None]
    deviations = random.standard_normal((len(ARMS), replicates, *shape, count))
    if kind == "heavy tails":
        deviations[0] = random.standard_t(3, deviations[0].shape) / np.sqrt(3)
    elif kind == "skewed down":
        deviations[0] = 1 - random.standard_exponential(deviations[0].shape)
    runs = means + noise * deviations
    runs[0] -= 10 * (random.random(runs.shape[1:]) < collapse)
    dense = noise * random.standard_normal((replicates, count))
    status = np.full(runs.shape, Status.DONE, "u1")
    status[ARMS.index("reinit"), :, :, 1:] = Status.NOT_APPLICABLE
    step = 100 / IMAGES
    runs, dense = (np.rint((DENSE + of) / step) * step for of in (runs, dense))
    return xr.Dataset(
        {
            "status": ((*CELL, "map"), status),
            "test_accuracy": ((*CELL, "map"), runs),
            "counted_density": ((*CELL, "map"), np.broadcast_to(_densities(shape[0]), runs.shape)),
        },
        {
            "arm": list(ARMS),
            "replicate": range(replicates),
            "threshold": range(shape[0]),
            "rewind_epoch": range(shape[1]),
            "dense_test_accuracy": (("replicate", "map"), dense),
        },
    )


def false_verdicts(truth: Truth, thresholds: int, margin: float) -> dict[str, Any]:
    """Return where each verdict would be false, (threshold, 1); `margin` in points."""
    ticket, *controls = (_by_row(values, thresholds) for values in truth)
    gaps = np.stack([ticket - control for control in controls])
    short = ticket <= -margin
    return {
        WINNING: short | (gaps <= margin).any(0),
        NO_BETTER: short | (gaps >= margin).all(0),
        MATCHING: short,
        WORSE: ticket >= -margin,
    }


def judged(results: xr.Dataset, margin: float) -> Any:
    """Return the verdicts, (map, threshold, rewind_epoch); `margin` in points."""
    found = verdicts(results, margin).verdict
    return found.transpose("map", "threshold", "rewind_epoch").values


def _by_row(values: tuple[float, float], thresholds: int) -> Any:
    return np.where(np.arange(thresholds) < thresholds // 2, *values)[:, None]


def _densities(thresholds: int) -> Any:
    return np.linspace(0.9, 0.1, thresholds)[:, None, None]


def _table(name: str, columns: list[str], rows: dict[str, list[float]]) -> None:
    width = max(len(row) for row in [name, *rows])
    print(f"\n{name:{width}}", *(f"{column:>7}" for column in columns))
    for row, shares in rows.items():
        print(f"{row:{width}}", *(f"{100 * share:7.1f}" for share in shares), flush=True)


def errors(margin: float, how: dict[str, Any]) -> None:
    """Print which share of maps holds a false verdict, and of verdicts that are false."""
    sizes = list(product(SHAPES, REPLICATES))
    of_maps, of_cells = dict[str, list[float]](), dict[str, list[float]]()
    for name, truth in pictures(margin).items():
        for shape, replicates in sizes:
            found = judged(maps(truth, shape, replicates, **how), margin)
            for verdict, false in false_verdicts(truth, shape[0], margin).items():
                said = found == verdict
                wrong = (said & false).sum((1, 2))
                row = f"{name[0]} {verdict}"
                of_maps.setdefault(row, []).append((wrong > 0).mean())
                share = wrong / np.maximum(said.sum((1, 2)), 1)
                of_cells.setdefault(row, []).append(share.mean())
        print(name)
    columns = [f"{rows}x{ks} {n}" for (rows, ks), n in sizes]
    print("(below, rows that are 0 throughout are left out)")
    some = {row: shares for row, shares in of_maps.items() if max(shares) > 0}
    _table("maps with a false one, %", columns, some)
    beside_true = {row: of for row, of in of_cells.items() if of != of_maps[row]}
    _table("false among those of a map, %", columns, beside_true)


def power(margin: float, how: dict[str, Any]) -> None:
    """Print which share of truly winning cells is found, where half of the rows win."""
    rows: dict[str, list[float]] = {}
    for above, gap in product((0.0, 0.5, 1.0), (0.5, 1.0, 2.0, 3.0)):
        if gap > margin:
            truth: Truth = ((above, -3), (above - gap, -6), (above - gap, -6))
            shares = rows.setdefault(f"{above:g} above dense, {gap:g} above controls", [])
            for n in REPLICATES:
                found = judged(maps(truth, (4, 4), n, **how), margin)
                shares.append((found[:, :2] == WINNING).mean())
    _table("winning cells found, %", [f"4x4 {n}" for n in REPLICATES], rows)


def collapses(margin: float, how: dict[str, Any]) -> None:
    """Print how many tickets that collapse at times, and so do not match, are said to match."""
    rows: dict[str, list[float]] = {}
    positive = (WINNING, MATCHING, NO_BETTER)
    for n in REPLICATES:
        results = maps(((0, 0), (-3, -3), (-3, -3)), (4, 4), n, **how, collapse=0.15)
        found = np.isin(judged(results, margin), positive)
        ticket = results.test_accuracy.sel(arm="ticket").transpose("map", "replicate", ...).values
        seen = (ticket < DENSE - 5).any(1)
        for row, share in {
            "said to match": found.mean(),
            "of those without a collapse": found[~seen].mean(),
            "of those with one": found[seen].mean(),
            "without a collapse": 1 - seen.mean(),
        }.items():
            rows.setdefault(row, []).append(share)
    _table("cells, %", [f"4x4 {n}" for n in REPLICATES], rows)


def tails(margin: float, how: dict[str, Any]) -> None:
    """Print which share of maps holds a false win or worse where tickets are not normal."""
    sizes = list(product(SHAPES, REPLICATES))
    rows: dict[str, list[float]] = {}
    truth: Truth = ((-margin, -margin), (-6, -6), (-6, -6))
    for kind in ("normal", "heavy tails", "skewed down"):
        for shape, n in sizes:
            found = judged(maps(truth, shape, n, **how, kind=kind), margin)
            for verdict in (WINNING, WORSE):
                shares = rows.setdefault(f"{kind}: {verdict}", [])
                shares.append((found == verdict).any((1, 2)).mean())
    columns = [f"{rows}x{ks} {n}" for (rows, ks), n in sizes]
    _table("maps of c with a false one, %", columns, rows)


def frontiers(margin: float, how: dict[str, Any]) -> None:
    """Print how many frontiers are too low, where the sparser half lies m below dense."""
    sizes = list(product(SHAPES, REPLICATES))
    rows: dict[str, list[float]] = {"estimate": [], "upper end": []}
    for shape, n in sizes:
        results = maps(((0, -margin), (-3, -3), (-3, -3)), shape, n, **how)
        found = frontier(results, margin)
        true = _densities(shape[0])[shape[0] // 2 - 1].item() - 1e-9
        rows["estimate"].append(float((found.density < true).mean()))
        rows["upper end"].append(float((found.density_interval.sel(bound="high") < true).mean()))
    columns = [f"{rows}x{ks} {n}" for (rows, ks), n in sizes]
    _table("frontiers of a k too low, %", columns, rows)


def searches(margin: float, how: dict[str, Any]) -> None:
    """Print what an adaptive search trains and finds beside the whole grid, of fewer maps.

    On the first ones, tickets fall evenly, to 4 m below dense; on the last, half lie at the margin.
    """
    sizes = list(product((3, 5), (1, 4, 16)))
    rows: dict[str, list[float]] = {}
    even = np.linspace(0, 4 * margin, SEARCHED[0])
    half = np.where(np.arange(SEARCHED[0]) < SEARCHED[0] // 2, 0, margin)
    step = 1.01 * abs(np.diff(_densities(SEARCHED[0])[:2, 0, 0])[0])
    for n, cohort in sizes:
        whole, found, rounds = _both(even, n, margin, cohort, how)
        fronts = [frontier(of, margin) for of in (whole, found)]
        fronts = [of[["density", "density_interval"]] for of in fronts]
        apart = abs(fronts[0] - fronts[1])
        *both, _ = _both(half, n, margin, cohort, how)
        matching = (WINNING, MATCHING, NO_BETTER)
        false = [np.isin(judged(of, margin), matching)[:, half > 0].any((1, 2)) for of in both]
        for row, value in {
            "rounds": rounds / 100,
            "tickets trained": float((found.status.sel(arm="ticket") == Status.DONE).mean()),
            "estimate within one threshold": float((apart.density < step).mean()),
            "interval within one threshold": float((apart.density_interval < step).mean()),
            "maps with a false matching": false[1].mean(),
            "the same of the whole grid": false[0].mean(),
        }.items():
            rows.setdefault(row, []).append(value)
    _table("searches, %", [f"{n} c{cohort}" for n, cohort in sizes], rows)


def _both(
    fall: Any, replicates: int, margin: float, cohort: int, how: dict[str, Any]
) -> tuple[xr.Dataset, xr.Dataset, float]:
    """Return whole maps, what a search has seen of each at its end, and in how many rounds."""
    whole = maps(((0, 0),) * 3, SEARCHED, replicates, **how | {"count": max(2, how["count"] // 40)})
    whole.test_accuracy.loc[{"arm": "ticket"}] -= fall[:, None, None]
    every = [_searched(whole.isel(map=i), margin, cohort) for i in range(whole.sizes["map"])]
    found = xr.concat([seen for seen, _ in every], "map")
    return whole, found, float(np.mean([rounds for _, rounds in every]))


def _searched(whole: xr.Dataset, margin: float, cohort: int) -> tuple[xr.Dataset, int]:
    """Return what a search has seen of a map at its end, and in how many rounds."""
    rows, ks = SEARCHED
    changes = {"recipe.epochs": ks + 1, "grid.rewind_epochs": range(ks), "grid.arms": ARMS}
    changes |= {"grid.thresholds": [t / 100 for t in range(1, rows + 1)]}
    changes |= {"grid.replicates": whole.sizes["replicate"], "matching_margin": margin / 100}
    study = Study.read("mnist-lenet").changed(changes)
    seen = whole.assign_coords(threshold=list(study.grid.thresholds)).copy(deep=True)
    truth, cells = seen.status.copy(deep=True), study.grid.cells()
    seen.status.values[seen.status.values == Status.DONE] = Status.PENDING
    seen.attrs["study"] = study.to_yaml()
    search = Exploration(study, lambda: seen, cells, cells, 1.0, cohort)
    rounds = 0
    while asked := search.next():
        rounds += 1
        for cell in asked:
            at = {axis: getattr(cell, axis) for axis in CELL}
            seen.status.loc[at] = truth.loc[at]
            search.ended(cell)
    return seen.assign_coords(threshold=whole.threshold), rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=int, default=4000, help="of each kind")
    parser.add_argument("--noise", type=float, default=0.25, help="of one run, in points")
    parser.add_argument("--margin", type=float, default=1.0, help="in points")
    parts = {part.__name__: part for part in (errors, power, collapses, tails, frontiers, searches)}
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    given = parser.parse_args()
    how = {"count": given.maps, "noise": given.noise}
    print(f"{given.maps} maps of each kind; one run ± {given.noise:g}, m = {given.margin:g} points")
    print("columns: thresholds x rewind epochs, replicates")
    for name in given.parts:
        parts[name](given.margin, how)


if __name__ == "__main__":
    main()
