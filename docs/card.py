"""Write the card of a grid of ours, from its cube: python docs/card.py DIR.

`lthdask reproduce` compares with it. Columns whose cells are not all done are left out.
"""

import sys
from pathlib import Path

import numpy as np
import xarray as xr

import lthdask
from lthdask.arms import ARMS, CHILDREN
from lthdask.storage.results import study_of

FOLDER = Path(lthdask.__file__).parent / "published"
HEAD = """\
# What is published of the study {name}: ours, docs/fashion.md. Written by `python docs/card.py`.
# Of the {replicates} runs of each cell: the median of their test accuracies, in percent, and their
# standard deviation, in points; the median of the steps until the lowest validation loss, and
# the standard deviation of their natural logarithm.
source: >-
  lthdask itself, docs/fashion.md
study: {name}
epochs: {epochs}
replicates: {replicates}
dense: {{accuracy: {dense:.2f}, deviation: {deviation:.2f}, runs: {replicates}}}
# Nothing: the code is ours.
their_code: []
# Share of the weights of a hidden layer that remains, percent; the columns are in this order.
remaining: {remaining}
"""
TAIL = """\
# The signatures of the first paper; lthdask/report/first_paper.py has the rules.
rules: first_paper
signature:
  faster: 1.5
  most: 32.8
  above: 0.2
  sparse: 21.0
  behind: 0.5
"""


def card(results: xr.Dataset) -> str:
    """Return the card of an iterative grid."""
    study, dense = study_of(results), results.dense_test_accuracy
    head = HEAD.format(
        name=study["name"],
        epochs=study["recipe"]["epochs"],
        replicates=results.sizes["replicate"],
        dense=dense.mean().item(),
        deviation=dense.std(ddof=1).item(),
        remaining=_listed(100 * (1 - results.threshold.values), 1),
    )
    columns = [
        _column(results.sel(arm=arm, rewind_epoch=k), arm, k if ARMS[arm].has_k else None)
        for arm in results.arm.values
        for k in results.rewind_epoch.values
        if arm not in CHILDREN and (results.status.sel(arm=arm, rewind_epoch=k) == 1).all()
    ]
    return head + "\n".join(["iterative:", *columns, TAIL])


def _column(cells: xr.Dataset, arm: str, k: float | None) -> str:
    """Return an arm at one rewind epoch."""
    accuracy, steps = cells.test_accuracy, cells.early_stop_iteration
    values: dict[str, tuple[xr.DataArray, int]] = {
        "accuracy": (accuracy.median("replicate"), 2),
        "deviation": (accuracy.std("replicate", ddof=1), 3),
    }
    if ARMS[arm].start != "final":  # else it says nothing of learning: it begins at an end
        values["steps"] = (steps.median("replicate"), 0)
        values["steps_deviation"] = (np.log(steps).std("replicate", ddof=1), 3)
    lines = [f"  - arm: {arm}", f"    rewind_epoch: {'null' if k is None else f'{k:g}'}"]
    lines += [f"    {name}: {_listed(of.values, digits)}" for name, (of, digits) in values.items()]
    return "\n".join(lines)


def _listed(values: np.ndarray, digits: int) -> str:
    return f"[{', '.join(f'{value:.{digits}f}' for value in values)}]"


def write(folder: str | Path) -> None:
    """Write the card of the study in a folder."""
    results = lthdask.open_results(folder)
    file = FOLDER / f"{study_of(results)['name']}.yaml"
    file.write_text(card(results), encoding="utf-8")


if __name__ == "__main__":
    write(sys.argv[1])
