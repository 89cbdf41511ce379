"""How the masks of the dense run's epochs differ: the early-bird diagram as a table."""

from typing import Any

import xarray as xr
from rich import box
from rich.table import Table

from lthdask.report.accuracy_map import MOST, left_out, some
from lthdask.storage.results import study_of

MOST_COLUMNS = 10


def mask_table(results: xr.Dataset) -> Table:
    """Return the distances of each epoch's mask to the last one, in percent of the weights.

    Means over replicates, a row for each threshold; the diagram of every two epochs is
    ``results.mask_distances``.
    """
    to_last = results.mask_distances.mean("replicate").isel(other_mask_epoch=-1)
    epochs = to_last.mask_epoch.values.tolist()
    shown = some(epochs, MOST_COLUMNS)
    title = "weights in which an epoch's mask differs from the last one, %"
    title += left_out(to_last.sizes["threshold"])
    table = Table(title=title, box=box.SIMPLE_HEAD, title_style="", title_justify="left")
    table.add_column("threshold", justify="right")
    for epoch in shown:
        table.add_column(f"e={epoch}", justify="right")
    for threshold in some(to_last.threshold.values.tolist(), MOST):
        row = to_last.sel(threshold=threshold)
        values = (100 * float(row.sel(mask_epoch=epoch)) for epoch in shown)
        table.add_row(f"{threshold:g}", *(f"{value:.2f}" for value in values))
    return table


def mask_sentences(results: xr.Dataset) -> list[str]:
    """Return which rewind epochs are worth running, for each threshold."""
    return [
        f"threshold {threshold}: its masks suggest running k = {_listed(epochs)}"
        for threshold, epochs in mask_values(results)["suggested_rewind_epochs"].items()
    ]


def mask_values(results: xr.Dataset) -> dict[str, Any]:
    """Return the same for scripts: distances to the last epoch, and suggested rewind epochs."""
    from lthdask.pruning.distances import suggested  # here: torch takes seconds

    means = results.mask_distances.mean("replicate")
    found: dict[str, dict[str, Any]] = {"distance_to_last": {}, "suggested_rewind_epochs": {}}
    for threshold in means.threshold.values:
        matrix = means.sel(threshold=threshold).values
        found["distance_to_last"][f"{threshold:g}"] = matrix[:, -1].tolist()
        if study_of(results)["pruning"]["by"] == "share":
            epochs = suggested(matrix, 1 - float(threshold))
            found["suggested_rewind_epochs"][f"{threshold:g}"] = epochs
    return found


def _listed(values: list[int]) -> str:
    return ", ".join(map(str, values))
