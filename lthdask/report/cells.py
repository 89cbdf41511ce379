"""The cells of a study as a table to sort and filter."""

from collections.abc import Collection, Iterable
from dataclasses import astuple

import numpy as np
import pandas as pd
import xarray as xr

from lthdask.grid import Cell
from lthdask.rewinding import number
from lthdask.storage.schema import CELL, Status

COLUMNS = ["status", "test_accuracy", "place"]


def cell_table(
    cells: Iterable[Cell], results: xr.Dataset | None, running: Collection[str]
) -> pd.DataFrame:
    """Return a row for each cell: its state, its accuracy in percent, and where it was trained.

    Parameters
    ----------
    cells : iterable of Cell
    results : Dataset or None
        None before there are any.
    running : collection of str
        Names of the cells that are trained now.
    """
    every = sorted(cells)
    index = pd.MultiIndex.from_tuples(map(astuple, every), names=CELL)
    table = pd.DataFrame({"status": Status.PENDING, "test_accuracy": np.nan, "place": ""}, index)
    if results is not None:
        found = results[["status", "test_accuracy"]].to_dataframe(dim_order=CELL)
        places = [(c.arm, c.replicate, c.threshold, number(c.rewind_epoch)) for c in every]
        table = found.reindex(places, columns=COLUMNS).set_axis(index)
    words = {status: status.name.lower() for status in Status}
    named = zip(map(str, every), table.status.map(words), strict=True)
    table["status"] = ["running" if w == "pending" and n in running else w for n, w in named]
    return table.reset_index()
