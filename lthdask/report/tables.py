"""The tables that are printed: accuracy map, arms, verdicts and frontier."""

import numpy as np
import xarray as xr
from rich import box
from rich.table import Table

from lthdask.arms import ARMS
from lthdask.report.accuracy_map import (
    MOST,
    accuracies,
    left_out,
    map_of,
    named,
    row_head,
    some,
)
from lthdask.report.controls import at_chosen, chosen_rewind_epochs, controls
from lthdask.report.early_stop import early_stop_table, measures_inside_epochs
from lthdask.report.labels import k_of, ks_of
from lthdask.report.layers import emptied_layers
from lthdask.report.paired import MAP, Means, collapsed, one_image
from lthdask.report.selection import margin_of
from lthdask.report.summary import points
from lthdask.report.verdict import (
    MATCHING,
    NO_BETTER,
    UNDECIDED,
    WINNING,
    WORSE,
    frontier,
    verdicts,
)
from lthdask.rewinding import Rewind, epochs_before
from lthdask.source import is_one
from lthdask.storage.results import study_of

SHORT = {
    WINNING: "winning",
    MATCHING: "matching",
    NO_BETTER: "no better",
    WORSE: "worse",
    UNDECIDED: "undecided",
}


def tables(results: xr.Dataset, margin: float | None = None) -> list[Table]:
    """Return the tables that these results can fill: some need several arms, or replicates."""
    shown = [accuracy_map(results)]
    if results.sizes["arm"] > 1:
        shown.append(arms_table(results))
    if measures_inside_epochs(results):
        shown.append(early_stop_table(results, margin))
    if results.sizes["replicate"] > 1:
        shown.append(verdict_map(results, margin))
    return shown


def accuracy_map(results: xr.Dataset) -> Table:
    """Return the accuracies of the tickets as :func:`accuracies` shows them, with its marks."""
    tickets = results.sel(arm="ticket")
    return accuracies(
        results.threshold.values.tolist(),
        ks_of(results),
        tickets.status.values,
        tickets.test_accuracy.values,
        tickets.counted_density.values,
        results.dense_test_accuracy.values,
        emptied_layers(results),
        collapsed(results, "test_accuracy").sel(arm="ticket").any("replicate").values,
    )


def verdict_map(results: xr.Dataset, margin: float | None = None) -> Table:
    """Return the verdicts, thresholds by rewind epochs, and the frontier below.

    A cell says how many replicates were compared if not all were, and shows its status if none
    could be.
    """
    margin = margin_of(results, margin)
    source = study_of(results).get("source")
    alone = ", on the one ticket alone" if source and is_one(source["files"]) else ""
    thresholds, ks = results.threshold.values.tolist(), ks_of(results)
    rows, columns = some(range(len(thresholds)), MOST), some(range(len(ks)), MOST)
    title = f"verdict, at a margin of {points(margin)}{alone}"
    table = map_of(title + left_out(len(thresholds), len(ks)), [ks[j] for j in columns])
    judged, replicates = verdicts(results, margin), results.sizes["replicate"]
    counts, verdict = (judged[name].transpose(*MAP).values for name in ("replicates", "verdict"))
    tickets, emptied = (
        results.sel(arm="ticket").transpose("replicate", *MAP, ...),
        emptied_layers(results),
    )
    status, density = tickets.status.values, tickets.counted_density.values
    for i in rows:
        shown = []
        for j in columns:
            count = int(counts[i, j])
            part = f" ({count}/{replicates})" if count < replicates else ""
            shown.append(SHORT[verdict[i, j]] + part if count else named(status[:, i, j]))
        head = row_head(thresholds[i], density[:, i], thresholds[i] in emptied)
        table.add_row(*head, *shown)
    found = frontier(results, margin).isel(rewind_epoch=columns)
    table.add_section()
    estimates = zip(found.density.values, found.at_edge.values, strict=True)
    table.add_row("frontier", "%", *(("≤ " if edge else "") + _density(d) for d, edge in estimates))
    table.add_row("interval", "%", *(between(*ends) for ends in found.density_interval.values))
    return table


def arms_table(results: xr.Dataset) -> Table:
    """Return every arm at the k chosen on the validation images, per threshold.

    Accuracies and their differences to the ticket's come with half their 95 % interval; "to
    settle" is roughly how many replicates such a difference needs to be told from 0, with its
    80 % interval. Epochs are shown without and with what the mask took: the dense run and, in
    iterative pruning, the tickets of the rounds before. Late rewinding, fine-tuning and starting
    anew spend unequally.
    """
    chosen = chosen_rewind_epochs(results)
    spread = " ± half its 95 % interval" if results.sizes["replicate"] > 1 else ""
    title = f"arms, at the k chosen on the validation images: test accuracy, %{spread}"
    title += left_out(chosen.sizes["threshold"])
    table = Table(title=title, box=box.SIMPLE_HEAD, title_style="", title_justify="left")
    heads = ("threshold", "k", "arm", "n", "accuracy", "ticket − arm", "to settle", "epochs")
    for name in (*heads, "+ mask"):
        table.add_column(name, justify="left" if name == "arm" else "right")
    means = Means.over_replicates(*at_chosen(results, "test_accuracy", chosen), one_image(results))
    lengths, counts = at_chosen(results, "epochs_trained", chosen)
    epochs = lengths.where(counts).mean("replicate")
    interval, minus = means.interval(0.05), controls(results)
    for threshold in some(chosen.threshold.values.tolist(), MOST):
        head = [f"{threshold:g}", f"{k_of(results, chosen.sel(threshold=threshold)):g}"]
        for arm in results.arm.values:
            at = {"threshold": threshold, "arm": arm}
            if not (count := int(means.count.sel(at))):
                continue
            compared = ["", ""]
            if arm in minus.control:
                row = minus.sel(threshold=threshold, control=arm)
                compared = [
                    _points(row.minus_control, row.minus_control_interval),
                    _about(row.replicates_to_settle, *row.replicates_to_settle_interval),
                ]
            trained = epochs.sel(at)
            k = chosen.sel(threshold=threshold) if ARMS[arm].has_k else results.rewind_epoch[0]
            table.add_row(
                *head,
                arm,
                str(count),
                _points(means.mean.sel(at), interval.sel(at)),
                *compared,
                _epochs(trained),
                _epochs(trained + _epochs_of_mask(results, threshold, k_of(results, k))),
            )
            head = ["", ""]
        table.add_section()
    return table


def _epochs_of_mask(results: xr.Dataset, threshold: float, k: Rewind) -> float:
    """Return how many epochs a mask took: the dense run, and the rounds before it."""
    study = study_of(results)
    if study.get("source"):
        return np.nan  # those of another study
    dense = int(study["recipe"]["epochs"])
    iterative = study["pruning"]["schedule"] == "iterative"
    rounds = int((results.threshold < threshold).sum()) if iterative else 0
    return dense + rounds * (dense - epochs_before(k, int(results.attrs.get("steps", 0))))


def _points(mean: xr.DataArray, interval: xr.DataArray) -> str:
    """Return mean ± half its interval; the mean alone where no interval is known."""
    half = 0.5 * float(interval.sel(bound="high") - interval.sel(bound="low"))
    shown = f"{float(mean):.1f}".replace("-", "−")
    return f"{shown} ± {half:.1f}" if np.isfinite(half) else shown


def _density(density: float) -> str:
    return f"{100 * density:.2f}" if np.isfinite(density) else "?"


def between(low: float, high: float) -> str:
    """Return the interval of a frontier: an end that no ticket gives is open."""
    if low > 0 and high < 1:
        return f"{_density(low)} to {_density(high)}"
    if low > 0:
        return f"≥ {_density(low)}"
    return f"≤ {_density(high)}" if high < 1 else "?"


def _about(count: xr.DataArray, low: xr.DataArray, high: xr.DataArray) -> str:
    """Return a rough number of replicates with its interval, to one digit."""
    if not np.isfinite(low):
        return ""
    least, most = (f"{float(f'{float(end):.0e}'):.0f}" for end in (low, high))
    ends = f"{least}–{most}" if np.isfinite(high) else f"≥ {least}"
    return f"~{float(f'{float(count):.0e}'):.0f} ({ends})" if np.isfinite(count) else ends


def _epochs(value: xr.DataArray) -> str:
    """Return epochs, which are no whole number where a cell starts inside one."""
    epochs = round(float(value), 1)
    return f"{epochs:.{int(epochs % 1 > 0)}f}" if np.isfinite(value) else ""
