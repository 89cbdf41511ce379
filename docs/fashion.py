"""Write what docs/fashion.md has of a cube, its picture, the README's part, and the card.

python docs/fashion.py DIR
python docs/fashion.py DIR longer     (a run that is as long as those of the paper)
"""

import re
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path

import card
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from scipy.stats import t

import lthdask
from lthdask.report.verdict import WINNING

PAGE = Path(__file__).with_suffix(".md")
README = PAGE.parent.parent / "README.md"
PICTURE = PAGE.parent / "pictures" / "fashion.png"
ARMS = {
    "ticket": "ticket",
    "reinit": "reinit",
    "random_mask": "random mask",
    "lr_rewind": "lr_rewind",
}
CONTROLS = ("reinit", "random_mask")
SHORT = slice(0, None, 2)
"""Which rounds the first table has."""


def short(results: xr.Dataset) -> str:
    """Return what the page and the README begin with: a table of every other round."""
    at, judged, speed = _at(results, 0), _judged(results, 0), _speed(results, 0)
    final = at.test_accuracy.mean("replicate")
    rows = [[f"{100 * d:.1f}" for d in at.density.values]]
    rows += [[f"{v:.2f}" for v in final.sel(arm=a).values] for a in ("ticket", *CONTROLS)]
    steps = speed.early_stop_iteration
    times = (steps.sel(arm="reinit") / steps.sel(arm="ticket")).values
    rows += [[f"{t:.1f} ×" for t in times], judged.verdict.values.tolist()]
    heads = ("weights left, %", "ticket, %", "reinit, %", "random mask, %")
    heads += ("reinit's steps ÷ ticket's", "verdict")
    lines = [*zip(*rows, strict=True)][SHORT]
    dense = results.dense_test_accuracy.mean().item()
    return _table(heads, lines) + f"\nThe dense network has {dense:.2f} %. {_in_words(results)}\n"


def _in_words(results: xr.Dataset) -> str:
    """Say what the verdicts come to, and by how much tickets gain."""
    at, judged, speed = _at(results, 0), _judged(results, 0), _speed(results, 0)
    gain = judged.minus_dense.max().item()
    wins = 100 * at.density.values[judged.verdict.values == WINNING]
    steps = speed.early_stop_iteration
    times = steps.sel(arm="reinit") / steps.sel(arm="ticket")
    where = 100 * at.density.sel(threshold=times.idxmax("threshold")).item()
    winning = ""
    if len(wins):
        winning = f"; the winning ones have {wins.max():.1f} % to {wins.min():.1f} % of the weights"
    return (
        f"Tickets end up to {gain:.1f} points above it. Of {at.sizes['threshold']} rounds: "
        f"{_counts(judged)}{winning}. At {where:.1f} % a ticket's validation loss is lowest "
        f"{times.max().item():.1f} times as early as that of `reinit`."
    )


def figures(folder: Path, results: xr.Dataset) -> str:
    """Return what follows on the page."""
    parts = [_run(folder, results), _accuracy(results), _later(results)]
    return "\n".join([*parts, _learning(results), _stability(results)])


def longer(folder: Path, results: xr.Dataset) -> str:
    """Return what the page has of the run that is as long as the paper's."""
    parts = [_run(folder, results), _accuracy(results), _learning(results)]
    dense = results.dense_test_accuracy.mean().item()
    at_stop = lthdask.verdicts(complete(results), accuracy="early_stop_test_accuracy")
    words = f"The dense network ends at {dense:.2f} %. {_in_words(complete(results))}\n"
    words += (
        f"Judged where each validation loss is lowest: {_counts(at_stop.sel(rewind_epoch=0))}.\n"
    )
    return words + "".join(f"\n#{part}" for part in parts)


def _counts(judged: xr.Dataset) -> str:
    """Say how many rounds have which verdict."""
    verdicts = Counter(judged.verdict.values.tolist())
    return ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())


def picture(results: xr.Dataset, path: Path) -> None:
    """Draw accuracy and steps to the early stop over density."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    at = _at(results, 0)
    places = 100 * at.density
    drawn = [(at.test_accuracy, "test accuracy, %", results.dense_test_accuracy)]
    stop = results.dense_early_stop_iteration
    drawn.append((at.early_stop_iteration, "steps to the lowest validation loss", stop))
    for plot, (values, label, dense) in zip(axes, drawn, strict=True):
        for arm in [arm for arm in ARMS if arm in at.arm]:
            of = values.sel(arm=arm)
            mean = of.mean("replicate")
            bars = [mean - of.min("replicate"), of.max("replicate") - mean]
            plot.errorbar(places, mean, bars, marker="o", ms=4, capsize=2, label=ARMS[arm])
        plot.axhline(dense.mean(), color="grey", zorder=0, label="dense")
        plot.set(xscale="log", xlabel="weights left, %", ylabel=label)
        plot.set_xticks(places[::3].values.round(1))
        plot.xaxis.set_major_formatter("{x:g}")
        plot.xaxis.set_minor_locator(plt.NullLocator())
        plot.invert_xaxis()
    axes[0].legend()
    figure.savefig(path, dpi=110)


def complete(results: xr.Dataset) -> xr.Dataset:
    """Leave out arms, and rewind epochs of them, of which cells are still to be trained."""
    waiting = ~results.status.isin([1, 5]).all(("replicate", "threshold"))
    kept = results.where(~waiting)
    arms = ~waiting.all("rewind_epoch")
    ks = ~waiting.sel(arm="ticket")
    return kept.sel(arm=results.arm[arms.values], rewind_epoch=results.rewind_epoch[ks.values])


def _at(results: xr.Dataset, k: float) -> xr.Dataset:
    """Return the arms that are trained at k in all rounds; one without a k is stored at 0."""
    at = results.sel(rewind_epoch=k)
    if k and "reinit" in results.arm:
        at = xr.where(results.arm == "reinit", results.sel(rewind_epoch=0), at, keep_attrs=True)
    there = at.test_accuracy.notnull().all(("replicate", "threshold"))
    return at.sel(arm=results.arm[there.transpose("arm").values])


def _judged(results: xr.Dataset, k: float) -> xr.Dataset:
    return lthdask.verdicts(results).sel(rewind_epoch=k)


def _speed(results: xr.Dataset, k: float) -> xr.Dataset:
    return lthdask.early_stop(results).sel(rewind_epoch=k)


def _run(folder: Path, results: xr.Dataset) -> str:
    """Say by which commands it was trained, when, and how long that took, by its log."""
    begun = r"^(\S+) INFO (lthdask run .*): process \d+ on .*?, (lthdask .*)$"
    text = (folder / "log.txt").read_text()
    sessions = [*re.finditer(begun, text, re.M)]
    ends = [*(session.start() for session in sessions[1:]), len(text)]
    rows = []
    for session, end in zip(sessions, ends, strict=True):
        part = text[session.start() : end].splitlines()
        times = [line.split()[0] for line in part if re.match(r"\d{4}-\d\d-\d\dT", line)]
        first, last = (datetime.fromisoformat(time) for time in (times[0], times[-1]))
        done = sum(bool(re.search(r" INFO [a-z_]+-r\d.* done: ", line)) for line in part)
        command = re.sub(r"--data \S+", "--data DIR", session[2])
        command = re.sub(r" --out \S+| --deploy \S+", "", command)
        minutes = f"{(last - first).total_seconds() / 60:.0f}"
        versions = re.findall(r"(?:lthdask|torch|python) [\w.]+", session[3])
        rows.append((f"{first:%Y-%m-%d}", f"`{command}`", str(done), minutes, ", ".join(versions)))
    status = results.status
    left = int(((status != 1) & (status != 5)).sum())
    missing = f"\n{left} cells are still to be trained; what needs them is left out below.\n"
    return (
        "## The run\n\n"
        + _table(("on", "command", "cells ended", "minutes", "versions"), rows)
        + (missing if left else "")
    )


def _accuracy(results: xr.Dataset) -> str:
    results = complete(results)
    last = results.dense_test_accuracy
    at, judged = _at(results, 0), _judged(results, 0)
    return (
        "## Accuracy\n\nTest accuracy after the last epoch in %, the mean of the replicates, at "
        "k = 0; differences in points,\nwith half of their 95 % interval. The dense network ends "
        f"at {last.mean().item():.2f} %, with a standard\ndeviation of "
        f"{last.std(ddof=1).item():.2f} over the replicates.\n\n"
        + _of_arms(at, judged, [control for control in CONTROLS if control in at.arm])
    )


def _later(results: xr.Dataset) -> str:
    """Return the table of the later rewind epoch, if there is one."""
    results = complete(results)
    later = [k for k in results.rewind_epoch.values if k]
    if not later:
        return ""
    at, judged = _at(results, later[0]), _judged(results, later[0])
    gain = (at - _at(results, 0)).test_accuracy.sel(arm="ticket")
    half = _half_interval(gain)
    means = gain.mean("replicate").values
    more = [_signed(mean, width) for mean, width in zip(means, half, strict=True)]
    title = (
        f"## Rewound to k = {later[0]:g}\n\nThe same; reinit, which has no k, is that of above. No "
        "random mask was trained here, so no ticket\nis called a winning one, however far it lies "
        "above reinit.\n\n"
    )
    return title + _of_arms(at, judged, ["reinit"], ("ticket − its k = 0", more))


def _of_arms(
    at: xr.Dataset, judged: xr.Dataset, controls: list[str], more: tuple[str, list[str]] = ("", [])
) -> str:
    arms = [arm for arm in ARMS if arm in at.arm]
    heads = ["weights left, %", *(ARMS[arm] for arm in arms), "ticket − dense"]
    heads += [f"ticket − {ARMS[control]}" for control in controls]
    columns = [[f"{100 * d:.1f}" for d in at.density.values]]
    final = at.test_accuracy.mean("replicate")
    columns += [[f"{v:.2f}" for v in final.sel(arm=arm).values] for arm in arms]
    columns.append(_differences(judged.minus_dense, judged.minus_dense_interval))
    for control in controls:
        of = judged.sel(control=control)
        columns.append(_differences(of.minus_control, of.minus_control_interval))
    if more[0]:
        heads, columns = [*heads, more[0]], [*columns, more[1]]
    columns.append(judged.verdict.values.tolist())
    return _table((*heads, "verdict"), [*zip(*columns, strict=True)])


def _half_interval(paired: xr.DataArray) -> np.ndarray:
    """Return half the 95 % t interval of a mean over replicates."""
    n = paired.sizes["replicate"]
    return t.isf(0.025, n - 1) * paired.std("replicate", ddof=1).values / n**0.5


def _learning(results: xr.Dataset) -> str:
    results = complete(results)
    columns, heads = [[f"{100 * d:.1f}" for d in results.density.values]], ["weights left, %"]
    for k in results.rewind_epoch.values:
        at, speed = _at(results, k), _speed(results, k)
        arms = ["ticket", *(c for c in CONTROLS if c in at.arm and not k)]
        for arm in arms:
            of = speed.sel(arm=arm)
            steps = of.early_stop_iteration.values
            there = of.early_stop_test_accuracy.values
            columns.append([f"{s:,.0f} ({a:.2f})" for s, a in zip(steps, there, strict=True)])
            heads.append(ARMS[arm] + (f", k = {k:g}" if arm == "ticket" else ""))
    speed = _speed(results, 0)
    dense = speed.dense_early_stop_iteration.item(), speed.dense_early_stop_test_accuracy.item()
    return (
        "## Learning speed\n\nSteps until the lowest validation loss, from a run's own start, and "
        "in brackets the test accuracy\nthere in %. The dense network takes "
        f"{dense[0]:,.0f} ({dense[1]:.2f}).\n\n" + _table(heads, [*zip(*columns, strict=True)])
    )


def _stability(results: xr.Dataset) -> str:
    """Return the barriers between siblings, where children are trained."""
    rows = []
    for arm, name in (("dense_child", "dense"), ("ticket_child", "ticket")):
        if arm not in results.arm:
            continue
        of = results.barrier.sel(arm=arm, rewind_epoch=0)
        for threshold in of.threshold.values:
            values = of.sel(threshold=threshold).values
            if np.isfinite(values).all():
                density = 100 * results.density.sel(threshold=threshold).item()
                left = "100" if arm == "dense_child" else f"{density:.1f}"
                each = ", ".join(f"{value:.2f}" for value in sorted(values))
                rows.append((name, left, f"{values.mean():.2f}", each))
    said = (
        "## Stability\n\nThe barrier, in points of test error, between two runs that start from "
        "the same checkpoint k = 0 under\nthe same mask and see the data in another order ([what "
        "that is](method.md#stability)).\n\n"
    )
    if not rows:
        return f"{said}The children are still to be trained.\n"
    return said + _table(("", "weights left, %", "barrier", "of each replicate"), rows)


def _differences(mean: xr.DataArray, interval: xr.DataArray) -> list[str]:
    half = (interval.sel(bound="high") - interval.sel(bound="low")).values / 2
    return [_signed(m, h) for m, h in zip(mean.values, half, strict=True)]


def _signed(mean: float, half: float) -> str:
    return f"{mean:.2f} ± {half:.2f}".replace("-", "−")


def _table(heads, rows) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def put(path: Path, name: str, text: str, by: str = "docs/fashion.py DIR") -> None:
    """Write what stands in a page between the lines of this name."""
    begin, end = (
        f"<!-- {name}: written by `python {by}` -->",
        f"<!-- end: {name} -->",
    )
    before, rest = path.read_text().split(begin)
    path.write_text(f"{before}{begin}\n\n{text}\n{end}{rest.split(end)[1]}")


if __name__ == "__main__":
    study = Path(sys.argv[1])
    found = lthdask.open_results(study)
    if "longer" in sys.argv[2:]:
        put(PAGE, "longer", longer(study, found), "docs/fashion.py DIR longer")
    else:
        for page in (PAGE, README):
            put(page, "short", short(complete(found)))
        put(PAGE, "figures", figures(study, found))
        picture(complete(found), PICTURE)
        card.write(study)
