"""Write docs/results.md from what is declared: python docs/results.py > docs/results.md."""

from collections.abc import Hashable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import xarray as xr

from lthdask.arms import ARMS
from lthdask.results import open_results
from lthdask.storage.creation import create_cube
from lthdask.storage.schema import CELL, GROUPS, Extent

BEGIN = """\
# Results

<!-- Written by `python docs/results.py > docs/results.md`: change that, or lthdask/storage/. -->

    import lthdask
    results = lthdask.open_results("runs/digits")

This is an xarray `Dataset` in memory: the results as they are at this moment, also while the
study runs. For another look, `looks = lthdask.follow("runs/digits")`; each `next(looks)` reads
only the cells that are new.

    tickets = results.test_accuracy.sel(arm="ticket").mean("replicate")
    tickets.plot()
    tickets.plot.line(x="density", xscale="log")
    results.test_accuracy.sel(rewind_epoch=0).mean("replicate").plot.line(x="density", hue="arm")
    results.test_accuracy.where(results.status.cf == "done")     # after: import cf_xarray
    lthdask.select(results, arm="ticket", density=0.05)

- Accuracies are in percent, their differences in points, everything else as it is named. What
  lies in the cube, in the study and in `--json` are shares.
- `density`, along `threshold`, is the median of what was counted in the tickets. It is there to
  plot over, and stays under means. What was counted in each cell is `counted_density`.
- What is known of the dense runs lies along `replicate`, as coordinates: `where`, `concat` and
  `fillna` leave them alone. `results.dense_test_accuracy.mean()` is their mean.
- A cell that was never as good as the dense run has `iterations_to_dense` ∞, so that no mean can
  leave it out; the median is right as long as half of the replicates were. A spread, such as
  `std`, is unknown there, and NumPy warns of it.
- `barrier` is there where the study has children; the group `learning` is empty where
  `recipe.measure_every` is 0.
- Metrics of a cell that is not done are missing, or partial: the status decides.

The questions: [what they answer](method.md), and `help(lthdask.verdicts)`. Ask them of the whole
results, or of arms, replicates and thresholds, and select from the answer: controls without a
rewind epoch are stored at the first one. Each is also `results.lth.verdicts()`, and so on; for
results that were saved elsewhere, after `import lthdask.results`.

| question | answer |
|---|---|
| `lthdask.difference_to_dense(results)` | each cell, less the dense run of its replicate |
| `lthdask.verdicts(results)` | which tickets win, match, or fall short, with p-values |
| `lthdask.frontier(results)` | how sparse tickets can be and still match, per rewind epoch |
| `lthdask.controls(results)` | ticket − control at the k that the validation images choose |
| `lthdask.early_stop(results)` | how fast each arm learns, and the dense runs |
| `lthdask.select(results, density=0.05)` | a selection, by the counted density too |

Two studies side by side:

    names = pandas.Index(["one", "other"], name="study", dtype=object)
    both = xarray.concat([one, other], names, join="outer", combine_attrs="drop_conflicts")
    lthdask.frontier(both, margin=1)     # in points, since each study may have its own
"""


def page() -> str:
    """Return the page."""
    with TemporaryDirectory() as folder:
        axes = {"arm": list(ARMS), "replicate": [0], "threshold": [0.5], "rewind_epoch": [0]}
        extent = Extent(axes, 1, ["layer"], steps=1, iterations=[1])
        create_cube(Path(folder) / "results.zarr", extent, {"study": {}})
        always = open_results(folder)
        parts = {group: open_results(folder, group) for group in GROUPS}
    said = [BEGIN, "## Axes\n", _table(always, CELL)]
    said += ["## Arms\n", _arms()]
    said += ["## Beside the axes\n", _table(always, [n for n in always.coords if n not in CELL])]
    said += ["## Of every cell\n", _table(always, always.data_vars)]
    for group, found in parts.items():
        more = [name for name in found.variables if name not in always.variables]
        title = f"## `open_results(path, {group!r})`\n"
        said += [title.replace("'", '"'), f"{GROUPS[group][0].upper()}{GROUPS[group][1:]}.\n"]
        said += [_table(found, more)]
    return "\n".join(said)


def _arms() -> str:
    """Return the table of the arms."""
    rows = ["| arm | what is trained | compared with | without the ticket's |", "|---|---|---|---|"]
    for name, arm in ARMS.items():
        rows.append(f"| `{name}` | {arm.meaning} | {arm.compared_with} | {arm.lacks} |")
    return "\n".join([*rows, ""])


def _table(found: xr.Dataset, names: Iterable[Hashable]) -> str:
    rows = ["| name | along | unit | what it is |", "|---|---|---|---|"]
    for name in names:
        of = found[name]
        along = "every cell" if of.dims[:4] == CELL else ", ".join(map(str, of.dims))
        along += "".join(f", {axis}" for axis in of.dims[4:]) if of.dims[:4] == CELL else ""
        about = of.attrs.get("description") or of.attrs["long_name"]
        rows.append(f"| `{name}` | {along} | {of.attrs.get('units', '')} | {about} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(page(), end="")
