"""Two studies of one folder: where they differ, and the study that has the cells of both."""

from typing import Any

from lthdask.grid import Grid
from lthdask.reading import flattened, shown
from lthdask.rewinding import as_given, ordered
from lthdask.study import Study

WHOSE = {True: "one ticket for all replicates", False: "each replicate's own tickets"}


def differences(before: Study, given: Study) -> list[str]:
    """Return one line per key in which the `given` study is another than the one in the folder.

    What lies along the axes of the grid, rounds of iterative pruning included, is no
    difference: no cell depends on which others there are. How a study was computed is left to
    the manifest.
    """
    mine, theirs = flattened(before.to_dict()), flattened(given.to_dict())
    left_out = ("engine.", "grid.", "pruning.rounds")
    keys = dict.fromkeys([*mine, *theirs])  # a rate of a layer may be in one only
    for key in [key for key in keys if key.startswith("source.files.")]:
        if key not in mine or key not in theirs:  # a file of a cell that the other does not have
            del keys[key]
    whose = [of.source and WHOSE[of.source.is_one] for of in (before, given)]
    others = None not in whose and whose[0] != whose[1]
    return [f"source: {whose[0]} in the folder, {whose[1]} given"] * others + [
        f"{key}: {shown(mine.get(key))} in the folder, {shown(theirs.get(key))} given"
        for key in keys
        if not key.startswith(left_out) and mine.get(key) != theirs.get(key)
    ]


def joined(before: Study, given: Study) -> Study:
    """Return the `given` study with all values along the axes that one of the two has.

    Raises
    ------
    InputError
        If there are too many cells then.
    """
    values, mine, theirs = given.to_dict(), before.grid, given.grid
    ks = ordered("rewind_epochs", [*{*mine.ks, *theirs.ks}])
    thresholds = sorted({*mine.thresholds, *theirs.thresholds})
    values["grid"] = {
        "thresholds": thresholds,
        "rewind_epochs": [*map(as_given, ks)],
        "arms": list(dict.fromkeys((*mine.arms, *theirs.arms))),
        "replicates": max(mine.replicates, theirs.replicates),
        "rewind_epochs_of": {
            arm: [*map(as_given, some)]
            for arm, some in _of_arms(mine, theirs, "rewind_epoch").items()
            if some != ks
        },
        "thresholds_of": {
            arm: some
            for arm, some in _of_arms(mine, theirs, "threshold").items()
            if some != thresholds
        },
    }
    if before.source and given.source:
        values["source"]["files"] = {**before.source.files, **given.source.files}
    values["pruning"]["rounds"] = max(before.pruning.rounds, given.pruning.rounds)
    return Study.from_dict(values, "what the folder has and what is given, together")


def _of_arms(mine: Grid, theirs: Grid, axis: str) -> dict[str, list[Any]]:
    """Return what two grids have together along an axis, of arms of which one has but some."""
    both = {
        arm: sorted(
            {v for g in (mine, theirs) if arm in g.axes()["arm"] for v in g.along(axis, arm)}
        )
        for arm in {*mine.narrowed[axis], *theirs.narrowed[axis]}
    }
    return {arm: values for arm, values in both.items() if values}
