"""Write the figures of docs/fashion.md, and its picture: python docs/fashion.py DIR."""

import sys
from collections import Counter
from datetime import datetime
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import lthdask
from lthdask.report.verdict import WINNING

PAGE = Path(__file__).with_suffix(".md")
PICTURE = PAGE.parent / "pictures" / "fashion.png"
MARK = "<!-- What follows is written by `python docs/fashion.py DIR`. -->\n"
ARMS = {"ticket": "ticket", "reinit": "reinit", "random_mask": "random mask"}


def figures(folder: Path) -> str:
    """Return what a study of one rewind epoch shows, as the end of the page."""
    results = _complete(lthdask.open_results(folder))
    judged = lthdask.verdicts(results).isel(rewind_epoch=0)
    speed = lthdask.early_stop(results).isel(rewind_epoch=0)
    parts = [_run(folder, results), _dense(results, speed)]
    return "\n".join([*parts, _accuracy(results, judged), _speed(results, speed)])


def picture(results: xr.Dataset, path: Path) -> None:
    """Draw test accuracy over density, with bars from the lowest replicate to the highest."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    final, places = _final(results), 100 * results.density
    for arm, name in ARMS.items():
        of = final.sel(arm=arm)
        mean = of.mean("replicate")
        bars = [mean - of.min("replicate"), of.max("replicate") - mean]
        axes.errorbar(places, mean, bars, marker="o", capsize=3, label=name)
    axes.axhline(results.dense_test_accuracy.mean(), color="grey", zorder=0, label="dense")
    axes.set(xscale="log", xlabel="weights that remain, %", ylabel="test accuracy, %")
    axes.set_xticks(places[:: 1 + len(places) // 8].values.round(1))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(plt.NullLocator())
    axes.invert_xaxis()
    axes.legend()
    figure.savefig(path, dpi=150)


def _complete(results: xr.Dataset) -> xr.Dataset:
    """Leave out the rounds of which cells are still to be trained."""
    waiting = (results.status == 0).any(("arm", "replicate", "rewind_epoch"))
    return results.sel(threshold=results.threshold[~waiting.values])


def _final(results: xr.Dataset) -> xr.DataArray:
    return results.test_accuracy.where(results.status == 1).isel(rewind_epoch=0)


def _run(folder: Path, results: xr.Dataset) -> str:
    """Say how long it took, and by which versions, as its log has it."""
    lines = (folder / "log.txt").read_text().splitlines()
    began, ended = (datetime.fromisoformat(line.split()[0]) for line in (lines[0], lines[-1]))
    minutes = (ended - began).total_seconds() / 60
    named = [part for part in lines[0].split(", ") if part.startswith(("torch ", "python "))]
    done = int((results.status == 1).sum())
    rounds, asked = results.sizes["threshold"], lthdask.open_results(folder).sizes["threshold"]
    missing = (
        "" if rounds == asked else f" The tables have the {rounds} of {asked} rounds that are done."
    )
    return (
        f"\n## The run\n\n{done} cells and {results.sizes['replicate']} dense runs, on "
        f"{began:%Y-%m-%d}, in {minutes:.0f} minutes by its log ({', '.join(named)}).{missing}\n\n"
        "![Test accuracy over the share of weights that remain, with bars from the lowest\n"
        "replicate to the highest.](pictures/fashion.png)\n"
    )


def _dense(results: xr.Dataset, speed: xr.Dataset) -> str:
    last = results.dense_test_accuracy
    return (
        f"The dense network ends at {last.mean().item():.2f} %, with a standard deviation of\n"
        f"{last.std(ddof=1).item():.2f} over the replicates. Its validation loss is lowest after\n"
        f"{speed.dense_early_stop_iteration.item():,.0f} steps, where it has "
        f"{speed.dense_early_stop_test_accuracy.item():.2f} %.\n"
    )


def _accuracy(results: xr.Dataset, judged: xr.Dataset) -> str:
    rows = [
        "## Accuracy\n\nTest accuracy after the last epoch in %, the mean of the replicates;"
        "\ndifferences in points, with half of their 95 % interval.\n",
        "| density, % | ticket | reinit | random mask | ticket − dense | ticket − reinit "
        "| ticket − random mask | verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    final = _final(results).mean("replicate")
    for threshold in results.threshold.values:
        of = judged.sel(threshold=threshold)
        row = [f"{final.sel(arm=arm, threshold=threshold).item():.2f}" for arm in ARMS]
        row.append(_difference(of.minus_dense, of.minus_dense_interval))
        for control in list(ARMS)[1:]:
            beside = of.sel(control=control)
            row.append(_difference(beside.minus_control, beside.minus_control_interval))
        rows.append(_line(results, threshold, [*row, of.verdict.item()]))
    counted = Counter(judged.verdict.values.tolist())
    said = ", ".join(f"{count} {verdict}" for verdict, count in counted.most_common())
    winning = results.density.values[judged.verdict.values == WINNING]
    where = f" Winning tickets have {_share(winning)} of the weights." if len(winning) else ""
    return "\n".join([*rows, f"\nOf these {len(rows) - 3} rounds: {said}.{where}\n"])


def _share(densities: np.ndarray) -> str:
    """Say from which to which density."""
    return f"{100 * densities.max():.1f} % to {100 * densities.min():.1f} %"


def _speed(results: xr.Dataset, speed: xr.Dataset) -> str:
    rows = [
        "## Learning speed\n\nSteps until the lowest validation loss, and test accuracy there.\n",
        "| density, % | ticket | reinit | random mask | ticket, % | reinit, % | random mask, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for threshold in results.threshold.values:
        of = speed.sel(threshold=threshold)
        steps = [f"{of.early_stop_iteration.sel(arm=arm).item():,.0f}" for arm in ARMS]
        there = [f"{of.early_stop_test_accuracy.sel(arm=arm).item():.2f}" for arm in ARMS]
        rows.append(_line(results, threshold, steps + there))
    ticket = speed.early_stop_iteration.sel(arm="ticket")
    fastest = ticket.idxmin("threshold").item()
    early = speed.sel(threshold=fastest).early_stop_iteration
    times = {name: early.sel(arm=arm).item() for arm, name in ARMS.items() if arm != "ticket"}
    times["the dense network"] = speed.dense_early_stop_iteration.item()
    said = ", ".join(
        f"{t / ticket.min().item():.1f} times as early as {n}" for n, t in times.items()
    )
    density = 100 * results.density.sel(threshold=fastest).item()
    rows.append(f"\nTickets are fastest at {density:.1f} %: {said}.")
    return "\n".join(rows) + "\n"


def _difference(mean: xr.DataArray, interval: xr.DataArray) -> str:
    half = (interval.sel(bound="high") - interval.sel(bound="low")).item() / 2
    return f"{mean.item():.2f} ± {half:.2f}".replace("-", "−")


def _line(results: xr.Dataset, threshold: float, values: list[str]) -> str:
    density = f"{100 * results.density.sel(threshold=threshold).item():.1f}"
    return f"| {' | '.join([density, *values])} |"


if __name__ == "__main__":
    kept = PAGE.read_text().partition(MARK)[0]
    PAGE.write_text(kept + MARK + figures(Path(sys.argv[1])))
    picture(_complete(lthdask.open_results(sys.argv[1])), PICTURE)
