"""How fast tickets learn: where training would be stopped, and the way to the dense accuracy.

Frankle & Carbin 2019, section 2: a winning ticket learns at least as fast as the dense network.
"""

import numpy as np
import xarray as xr
from rich import box
from rich.table import Table

from lthdask.arguments import checked
from lthdask.report.accuracy_map import MOST, left_out, some
from lthdask.report.controls import chosen_rewind_epochs
from lthdask.report.labels import k_of, labelled
from lthdask.report.paired import MAP, Means, one_image, values_of
from lthdask.report.selection import margin_of, require_level, whole
from lthdask.report.verdict import verdicts
from lthdask.storage.results import study_of

AT_EARLY_STOP = "early_stop_test_accuracy"


@checked
def early_stop(results: xr.Dataset, level: float = 0.05) -> xr.Dataset:
    """Return how fast each arm learns, over the replicates that are done.

    Steps are counted from a run's own start, so k is no head start. They are as fine as was
    measured: every ``recipe.measure_every`` steps, and at the end of each epoch.

    Parameters
    ----------
    results : Dataset
        What :func:`lthdask.open_results` returned, or a selection of it.
    level : float
        1 − confidence of the intervals.

    Returns
    -------
    Dataset
        Over (arm, threshold, rewind_epoch): ``replicates``; ``early_stop_iteration``, the mean
        number of steps until the lowest validation loss, and ``early_stop_test_accuracy``, the
        mean test accuracy there, each with ``…_interval`` along ``bound``;
        ``iterations_to_dense``, the median number of steps until the validation accuracy
        reached that of the dense run's end, ∞ where no more than half of them did, and
        ``reached``, how many did. Each but the last also of the dense runs, as the coordinate
        ``dense_…``. The attribute ``source`` is that of :func:`verdicts`.

    Examples
    --------
    >>> found = early_stop(results).sel(arm="ticket", threshold=0.5, rewind_epoch=0)
    >>> found.early_stop_iteration.item(), found.iterations_to_dense.item()
    (40.0, inf)
    >>> f"{found.reached.item()} of {found.replicates.item()} reached it"
    '1 of 3 reached it'
    """
    results = whole(results, AT_EARLY_STOP)
    require_level(level)
    found = xr.Dataset()
    for name, least in (("early_stop_iteration", 0.0), (AT_EARLY_STOP, one_image(results))):
        values, counts = values_of(results, name)
        means = Means.over_replicates(values, counts, least)
        dense = results[f"dense_{name}"]
        of_dense = Means.over_replicates(dense, dense.notnull(), least)
        found["replicates"], found["dense_replicates"] = means.count, of_dense.count
        for prefix, of in (("", means), ("dense_", of_dense)):
            found[f"{prefix}{name}"], found[f"{prefix}{name}_interval"] = (
                of.mean,
                of.interval(level),
            )
    values, counts = values_of(results, "iterations_to_dense")
    found["iterations_to_dense"] = values.where(counts).median("replicate")
    found["reached"] = (counts & (values < np.inf)).sum("replicate")
    found["dense_iterations_to_dense"] = results.dense_iterations_to_dense.median("replicate")
    beside = [name for name in found.data_vars if str(name).startswith("dense_")]
    return labelled(found, results).set_coords(beside).transpose("arm", *MAP, "bound", ...)


def early_stop_table(results: xr.Dataset, margin: float | None = None) -> Table:
    """Return how fast every arm learns at the k chosen on the validation images, and the dense run.

    The median of the steps to the dense accuracy counts a replicate that never reached it as
    ∞, and beside it stands how many did: a mean of the others would make slow tickets fast.
    """
    chosen = chosen_rewind_epochs(results)
    title = "learning speed, at the k chosen on the validation images: steps, test accuracy, %"
    title += left_out(chosen.sizes["threshold"])
    table = Table(title=title, box=box.SIMPLE_HEAD, title_style="", title_justify="left")
    heads = ("threshold", "k", "arm", "n", "early stop", "accuracy there", "to dense", "reached")
    for name in heads:
        table.add_column(name, justify="left" if name == "arm" else "right")
    several = results.sizes["replicate"] > 1
    if several:
        table.add_column("verdict there")
    found = early_stop(results)
    judged = verdicts(results, margin_of(results, margin), accuracy=AT_EARLY_STOP).verdict
    for threshold in some(chosen.threshold.values.tolist(), MOST):
        at = {"threshold": threshold, "rewind_epoch": chosen.sel(threshold=threshold).item()}
        head = [f"{threshold:g}", f"{k_of(results, at['rewind_epoch']):g}"]
        for arm in results.arm.values:
            row = found.sel(at, drop=True).sel(arm=arm, drop=True)
            if int(row.replicates):
                verdict = [str(judged.sel(at).item())] if arm == "ticket" and several else []
                table.add_row(*head, arm, *_cells(row, f"{int(row.reached)}"), *verdict)
                head = ["", ""]
        table.add_section()
    dense = dense_runs(found)
    if int(dense.replicates):
        table.add_row("", "", "dense", *_cells(dense, f"{int(dense.replicates)}"))
    return table


def dense_runs(found: xr.Dataset) -> xr.Dataset:
    """Return what :func:`early_stop` says of the dense runs, under the names of the arms'."""
    names = [str(name) for name in found.coords if str(name).startswith("dense_")]
    return found.reset_coords()[names].rename({n: n.removeprefix("dense_") for n in names})


def measures_inside_epochs(results: xr.Dataset) -> bool:
    """Return whether the study measures often enough for steps to mean something."""
    return bool(study_of(results).get("recipe", {}).get("measure_every"))


def _cells(row: xr.Dataset, reached: str) -> tuple[str, ...]:
    count, to_dense = int(row.replicates), float(row.iterations_to_dense)
    return (
        str(count),
        _spread(row, "early_stop_iteration", ".0f"),
        _spread(row, AT_EARLY_STOP, ".1f"),
        f"{to_dense:.0f}" if np.isfinite(to_dense) else "never",
        f"{reached}/{count}",
    )


def _spread(row: xr.Dataset, name: str, digits: str) -> str:
    """Return mean ± half its interval; the mean alone where no interval is known."""
    half = float(row[f"{name}_interval"].sel(bound="high") - row[name])
    shown = f"{float(row[name]):{digits}}"
    return f"{shown} ± {half:{digits}}" if np.isfinite(half) else shown
