"""What came out, in sentences and as one value for scripts."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from lthdask.grid import Cell
from lthdask.lottery.matching import matches
from lthdask.report.controls import controls
from lthdask.report.early_stop import dense_runs, early_stop
from lthdask.report.labels import source_of
from lthdask.report.layers import emptied_layers, limiting_layers
from lthdask.report.paired import MAP, Means, collapsed, one_image
from lthdask.report.records import each, plain, records, rows, share
from lthdask.report.selection import margin_of
from lthdask.report.verdict import frontier, verdicts
from lthdask.rewinding import rewind
from lthdask.storage.results import study_of
from lthdask.storage.schema import CELL


def flags(results: xr.Dataset) -> dict[str, int]:
    """Return the meanings of ``results.status``: name → code."""
    about = results.status.attrs
    return dict(zip(about["flag_meanings"].split(), about["flag_values"], strict=True))


def cells_with(results: xr.Dataset, status: str) -> list[dict[str, Any]]:
    """Return the coordinates of the cells with a status."""
    return _coordinates(results.status == flags(results)[status])


def failed_cells(results: xr.Dataset) -> list[Cell]:
    """Return the cells that failed."""
    found = cells_with(results, "failed")
    return [Cell(**at | {"rewind_epoch": rewind(at["rewind_epoch"])}) for at in found]


def counts(results: xr.Dataset) -> dict[str, int]:
    """Return how many cells have each status that occurs."""
    found = {name: int((results.status == code).sum()) for name, code in flags(results).items()}
    return {name: count for name, count in found.items() if count}


def sparsest_matching(
    results: xr.Dataset, margin: float | None = None, level: float = 0.05
) -> dict[str, Any] | None:
    """Return the sparsest ticket whose mean validation accuracy is within `margin` of the dense.

    It is chosen on the validation images alone, so the luck of the test images is not in its
    test accuracy. The luck of training is: it is the extreme of many cells. So its interval is
    that of all of them at once (Bonferroni).

    Returns
    -------
    dict or None
        None if there is no such ticket, or the dense runs have not learnt (`has_learnt`);
        else, accuracies as shares, ``threshold``, ``rewind_epoch``, ``density``,
        ``validation_accuracy``, ``test_accuracy``, ``dense_test_accuracy`` (means over
        replicates; the best on the validation images where several are as sparse);
        ``replicates``; ``cells``, how many it was chosen from: those of which all replicates
        are done, and none collapsed;
        ``minus_dense``, ticket − dense on the test images, with ``minus_dense_interval``,
        of confidence 1 − `level` for all these cells together.
    """
    margin = margin_of(results, margin)
    if has_learnt(results, margin) is False:
        return None
    tickets = results.sel(arm="ticket", drop=True)
    fallen = collapsed(results, "validation_accuracy").sel(arm="ticket", drop=True)
    done = tickets.status == flags(results)["done"]
    complete = (done & ~fallen).all("replicate")
    means = tickets[["counted_density", "validation_accuracy", "test_accuracy"]]
    means = means.mean("replicate", skipna=False)
    dense = float(results.dense_validation_accuracy.mean())
    matching = complete & matches(means.validation_accuracy - dense, margin)
    if not bool(matching.any()):
        return None
    density, accuracy = means.counted_density.values, means.validation_accuracy.values
    candidates = np.argwhere(matching.values)
    i, j = min(candidates, key=lambda at: (density[*at], -accuracy[*at]))
    at, cells = {"threshold": i, "rewind_epoch": j}, int(complete.sum())
    differences = tickets.test_accuracy - results.dense_test_accuracy
    to_dense = Means.over_replicates(differences, done, one_image(results))
    return {
        "threshold": float(tickets.threshold[i]),
        "rewind_epoch": plain(tickets.rewind_epoch[j]),
        "density": float(density[i, j]),
        "validation_accuracy": share(accuracy[i, j]),
        "test_accuracy": share(means.test_accuracy[i, j]),
        "dense_test_accuracy": share(results.dense_test_accuracy.mean()),
        "replicates": int(results.sizes["replicate"]),
        "cells": cells,
        "minus_dense": share(to_dense.mean[at]),
        "minus_dense_interval": plain(to_dense.interval(level / cells)[at] / 100),
    }


def has_learnt(results: xr.Dataset, margin: float, level: float = 0.05) -> bool | None:
    """Return whether the dense runs are shown to be more than `margin` better than one answer.

    A network without a weight gives one answer, and is right as often as that class occurs.
    Where its accuracy is within `margin` of the dense one, a ticket that has learnt nothing
    matches. The test is binomial and one-sided, at `level`, on the validation images. All
    replicates have the same ones, which count once.

    Returns
    -------
    bool or None
        None if it is not known: without a dense run, or in a study of an earlier version.
    """
    majority = results.attrs.get("majority")
    dense = float(results.dense_validation_accuracy.mean()) / 100
    if majority is None or np.isnan(dense):
        return None
    images = study_of(results)["data"]["validation"]
    chance = min(1.0, majority + margin / 100)
    return bool(stats.binom.sf(round(dense * images) - 1, images, chance) <= level)


def points(difference: float) -> str:
    """Return a difference of two accuracies in percentage points, with the noun.

    Examples
    --------
    >>> [points(1), points(0.5), points(2)]
    ['1 point', '0.5 points', '2 points']
    """
    number = f"{difference:g}"
    return f"{number} point" if number == "1" else f"{number} points"


def sentences(results: xr.Dataset, margin: float | None = None) -> list[str]:
    """Return what the map does not say by itself, in a few sentences."""
    said, margin = [], margin_of(results, margin)
    for threshold, layers in emptied_layers(results).items():
        more = f" and {len(layers) - 5} more" if len(layers) > 5 else ""
        said.append(f"* threshold {threshold:g} empties {', '.join(layers[:5])}{more}")
    names = ("diverged", "failed", "skipped", "pending")
    lists = {name: cells_with(results, name) for name in names}
    lists["far below the other replicates (†)"] = _coordinates(collapsed(results, "test_accuracy"))
    said += [f"{len(cells)} {what}: {_named(cells)}" for what, cells in lists.items() if cells]
    near = f"within {points(margin)} of the dense accuracy"
    said += filter(None, [source_of(results)])
    if has_learnt(results, margin) is False:
        dense = float(results.dense_validation_accuracy.mean())
        said.append(
            f"the dense network has learnt too little to be matched: it has {dense:.2f} % on the "
            f"validation images, where the same answer for all of them has "
            f"{100 * results.attrs['majority']:.2f} %, and a ticket matches {near}; "
            f"train for more epochs, or set a smaller matching_margin"
        )
    elif "done" not in counts(results):
        said.append("no cell is done yet")
    elif best := sparsest_matching(results, margin):
        said.append(headline(best, margin))
    else:
        said.append(f"no cell is {near} on the validation images")
    return said


def headline(best: Mapping[str, Any], margin: float) -> str:
    """Return in words what `sparsest_matching` found."""
    low, high = best["minus_dense_interval"].values()
    if low is not None:
        where = "lies within" if matches(100 * low, margin) else "reaches beyond"
        certainty = (
            f"ticket − dense {100 * best['minus_dense']:.2f} ± {50 * (high - low):.2f} points, a "
            f"95 % interval that allows for the choice from {best['cells']} cells and {where} "
            f"the margin"
        ).replace("-", "−")
    elif best["replicates"] == 1:
        certainty = "one replicate: this is one draw, and has no interval"
    else:
        certainty = "no interval is known"
    return (
        f"sparsest within {points(margin)} of the dense accuracy on the validation images: "
        f"{100 * best['density']:.2f} % of the weights "
        f"(threshold {best['threshold']:g}, k={best['rewind_epoch']}), "
        f"test accuracy {100 * best['test_accuracy']:.2f} %, "
        f"dense {100 * best['dense_test_accuracy']:.2f} %; {certainty}"
    )


def outcome(results: xr.Dataset, margin: float | None = None) -> dict[str, Any]:
    """Return the outcome for scripts, as values that JSON can hold; NaN is null.

    Accuracies and their differences are shares, as in the study.
    """
    margin = margin_of(results, margin)
    speed = early_stop(results)
    at_stop = verdicts(results, margin, accuracy="early_stop_test_accuracy")
    return {
        "study": study_of(results)["name"],
        "source": source_of(results),
        "dense_test_accuracy": [share(value) for value in results.dense_test_accuracy],
        "dense_has_learnt": has_learnt(results, margin),
        "sparsest_matching": sparsest_matching(results, margin),
        "emptied_layers": {f"{t:g}": layers for t, layers in emptied_layers(results).items()},
        "cells": _cells(results),
        "verdicts": records(verdicts(results, margin), *MAP),
        "frontier": records(frontier(results, margin), "rewind_epoch"),
        "controls": records(controls(results).reset_coords("rewind_epoch"), "threshold"),
        "early_stop": records(speed, "arm", *MAP),
        "dense_early_stop": records(dense_runs(speed))[0],
        "early_stop_verdicts": records(at_stop, *MAP),
    }


def limits(results: xr.Dataset) -> str | None:
    """Return which layers limit the network most at the highest threshold that is trained."""
    for threshold in results.threshold.values[::-1].tolist():
        if layers := limiting_layers(results, threshold)[:3]:
            listed = ", ".join(
                f"{layer.name} ({100 * layer.living:.3g} % of its channels, "
                f"{100 * layer.density:.3g} % of its weights)"
                for layer in layers
            )
            return f"threshold {threshold:g} is limited by {listed}"
    return None


def of_done(results: xr.Dataset, name: str) -> xr.DataArray:
    """Return a variable where its cell is done; the status decides, not what is written."""
    return results[name].where(results.status == flags(results)["done"])


def _coordinates(found: xr.DataArray) -> list[dict[str, Any]]:
    """Return the coordinates of the cells where `found` is true."""
    names = [str(name) for name in found.dims]
    values = [each(found[name], name) for name in names]
    return [
        {name: of[i] for name, of, i in zip(names, values, index, strict=True)}
        for index in np.argwhere(found.values)
    ]


def _named(cells: list[dict[str, Any]]) -> str:
    """Return the names of the first few cells."""
    listed = ", ".join(
        f"{c['arm']} threshold {c['threshold']:g} k={c['rewind_epoch']} "
        f"replicate {c['replicate']}".removeprefix("ticket ")
        for c in cells[:5]
    )
    return listed + (f" and {len(cells) - 5} more" if len(cells) > 5 else "")


def _cells(results: xr.Dataset) -> list[dict[str, Any]]:
    """Return a record of each cell."""
    names = {code: name for name, code in flags(results).items()}
    accuracy, density = (of_done(results, n) for n in ("test_accuracy", "counted_density"))
    values: dict[str, list[Any]] = {
        "status": [names[code] for code in each(results.status, *CELL)],
        "test_accuracy": [share(value) for value in accuracy.transpose(*CELL).values.flat],
        "density": each(density, *CELL),
    }
    return rows(results, CELL, values)
