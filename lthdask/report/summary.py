"""What came out: the accuracy map beside the dense accuracy, as a table and as plain values."""

from typing import Any

import numpy as np
import xarray as xr
from rich import box
from rich.console import Console
from rich.table import Table

from lthdask.grid import Cell
from lthdask.storage.folder import Folder


def flags(results: xr.Dataset) -> dict[str, int]:
    """Return the meanings of ``results.status``: name → code."""
    about = results.status.attrs
    return dict(zip(about["flag_meanings"].split(), about["flag_values"], strict=True))


def cells_with(results: xr.Dataset, status: str) -> list[dict[str, Any]]:
    """Return the coordinates of the cells with a status."""
    found = (results.status == flags(results)[status]).values
    return [
        {
            name: results[name].values[i].item() if name != "arm" else str(results.arm.values[i])
            for name, i in zip(results.status.dims, index, strict=True)
        }
        for index in np.argwhere(found)
    ]


def counts(results: xr.Dataset) -> dict[str, int]:
    """Return how many cells have each status that occurs."""
    found = {name: int((results.status == code).sum()) for name, code in flags(results).items()}
    return {name: count for name, count in found.items() if count}


def reasons(results: xr.Dataset, folder: Folder) -> dict[str, str]:
    """Return why cells failed: each last line of a traceback → the file of one that ends so."""
    files: dict[str, str] = {}
    for cell in (Cell(**found) for found in cells_with(results, "failed")):
        if reason := folder.reason(cell):
            files.setdefault(reason, str(folder.path / "cells" / str(cell) / "traceback.txt"))
    return files


def sparsest_matching(results: xr.Dataset, margin: float) -> dict[str, float] | None:
    """Return the sparsest ticket whose mean validation accuracy is within `margin` of the dense.

    It is chosen on the validation images alone, so that its test accuracy is not the best
    of many, and may be compared with the dense one.

    Returns
    -------
    dict or None
        ``threshold``, ``rewind_epoch``, ``density``, ``validation_accuracy``,
        ``test_accuracy``, ``dense_test_accuracy`` (means over replicates; the best on the
        validation images where several are as sparse) and ``replicates``.
    """
    tickets = results.sel(arm="ticket")
    complete = (tickets.status == flags(results)["done"]).all("replicate")
    means = tickets[["density", "validation_accuracy", "test_accuracy"]]
    means = means.mean("replicate", skipna=False)
    dense = float(results.dense_validation_accuracy.mean())
    # Accuracies are counts of images; half a millionth is rounding, not an image.
    matching = complete & (means.validation_accuracy >= dense - margin - 5e-7)
    if not bool(matching.any()):
        return None
    density, accuracy = means.density.values, means.validation_accuracy.values
    candidates = np.argwhere(matching.values)
    i, j = min(candidates, key=lambda at: (density[*at], -accuracy[*at]))
    return {
        "threshold": float(tickets.threshold[i]),
        "rewind_epoch": int(tickets.rewind_epoch[j]),
        **{str(name): float(mean[i, j]) for name, mean in means.items()},
        "dense_test_accuracy": float(results.dense_test_accuracy.mean()),
        "replicates": int(results.sizes["replicate"]),
    }


def emptied_layers(results: xr.Dataset) -> dict[float, list[str]]:
    """Return, per threshold, the layers that pruning left without a single weight."""
    dims = [d for d in results.layer_density.dims if d not in ("threshold", "layer")]
    empty = (results.layer_density == 0).any(dims)
    return {
        float(threshold): [str(layer) for layer in row.layer.values[row.values]]
        for threshold, row in zip(empty.threshold.values, empty, strict=True)
        if row.any()
    }


def accuracy_map(results: xr.Dataset) -> Table:
    """Return test accuracy in percent, thresholds by rewind epochs, the dense run below.

    With replicates, mean ± standard deviation, and how many of them are done if not all. A
    cell of which none is done shows its status.
    """
    title = "test accuracy, %"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_style="", title_justify="left")
    table.add_column("threshold", justify="right")
    table.add_column("density", justify="right")
    for k in results.rewind_epoch.values:
        table.add_column(f"k={k}", justify="right")
    names = {code: name for name, code in flags(results).items()}
    tickets = results.sel(arm="ticket")
    tickets = tickets.assign(test_accuracy=_of_done(results, "test_accuracy").sel(arm="ticket"))
    emptied = emptied_layers(results)
    for threshold in tickets.threshold.values:
        row = tickets.sel(threshold=threshold)
        shown = [
            _percent(row.test_accuracy.sel(rewind_epoch=k).values, results.sizes["replicate"])
            or "/".join(dict.fromkeys(names[c] for c in row.status.sel(rewind_epoch=k).values))
            for k in results.rewind_epoch.values
        ]
        density = row.density.values
        counted = f"{np.nanmean(density):.4f}" if np.isfinite(density).any() else ""
        mark = "*" if float(threshold) in emptied else ""
        table.add_row(f"{threshold:g}{mark}", counted, *shown)
    dense = _percent(results.dense_test_accuracy.values, results.sizes["replicate"])
    dense = dense or "not trained"
    table.add_section()
    table.add_row("dense", "1", dense, *[""] * (results.sizes["rewind_epoch"] - 1))
    return table


def print_map(console: Console, results: xr.Dataset) -> None:
    """Print the accuracy map at its own width: cut to that of a screen it would lose digits."""
    table = accuracy_map(results)
    unbounded = console.options.update(max_width=100_000)
    console.width = max(console.width, console.measure(table, options=unbounded).maximum)
    console.print(table)


def sentences(results: xr.Dataset, margin: float) -> list[str]:
    """Return what the map does not say by itself, in a few sentences."""
    said = []
    for threshold, layers in emptied_layers(results).items():
        more = f" and {len(layers) - 5} more" if len(layers) > 5 else ""
        said.append(f"* threshold {threshold:g} empties {', '.join(layers[:5])}{more}")
    for status in ("diverged", "failed", "pending"):
        if cells := cells_with(results, status):
            listed = ", ".join(
                f"threshold {c['threshold']:g} k={c['rewind_epoch']} replicate {c['replicate']}"
                for c in cells[:5]
            )
            more = f" and {len(cells) - 5} more" if len(cells) > 5 else ""
            said.append(f"{len(cells)} {status}: {listed}{more}")
    best = sparsest_matching(results, margin)
    points = f"{100 * margin:g} points of the dense accuracy"
    if best:
        one = ", one replicate" if best["replicates"] == 1 else ""
        said.append(
            f"sparsest within {points}, chosen on the validation images: "
            f"{100 * best['density']:.2f} % of the weights "
            f"(threshold {best['threshold']:g}, k={best['rewind_epoch']}), "
            f"test accuracy {100 * best['test_accuracy']:.2f} %, "
            f"dense {100 * best['dense_test_accuracy']:.2f} %{one}"
        )
    else:
        said.append(f"no cell is within {points} on the validation images")
    return said


def outcome(results: xr.Dataset, margin: float) -> dict[str, Any]:
    """Return the outcome for scripts, as values that JSON can hold; NaN is null."""
    names = {code: name for name, code in flags(results).items()}
    done = {name: _of_done(results, name) for name in ("test_accuracy", "density")}
    stacked = results[["status"]].assign(done).stack(cell=results.status.dims)
    cells = []
    for i in range(stacked.sizes["cell"]):
        cell = stacked.isel(cell=i)
        cells.append(
            {
                "arm": str(cell.arm.values),
                "replicate": int(cell.replicate),
                "threshold": float(cell.threshold),
                "rewind_epoch": int(cell.rewind_epoch),
                "status": names[int(cell.status)],
                "test_accuracy": _number(cell.test_accuracy),
                "density": _number(cell.density),
            }
        )
    return {
        "study": results.attrs["study"]["name"],
        "dense_test_accuracy": [_number(value) for value in results.dense_test_accuracy],
        "sparsest_matching": sparsest_matching(results, margin),
        "emptied_layers": {f"{t:g}": layers for t, layers in emptied_layers(results).items()},
        "cells": cells,
    }


def _of_done(results: xr.Dataset, name: str) -> xr.DataArray:
    """Return a variable where its cell is done: the status decides, not what is written."""
    return results[name].where(results.status == flags(results)["done"])


def _percent(values: np.ndarray[Any, Any], replicates: int) -> str:
    """Return mean ± standard deviation in percent; empty where there is no value."""
    known = values[np.isfinite(values)]
    if not len(known):
        return ""
    mean = f"{100 * known.mean():.1f}"
    spread = f" ± {100 * known.std(ddof=1):.1f}" if len(known) > 1 else ""
    some = f" ({len(known)}/{replicates})" if len(known) < replicates else ""
    return mean + spread + some


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
