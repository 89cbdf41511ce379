"""Write what docs/transfer.md has of two transfers: python docs/transfer.py ALL FEW."""

import sys
from pathlib import Path

import fashion
import numpy as np
import xarray as xr
from scipy.stats import t

import lthdask
from lthdask.report.paired import values_of

PAGE = Path(__file__).with_suffix(".md")
ARMS = {
    "dense": "dense, from scratch",
    "dense_pretrained": "dense, pretrained",
    "trained_ticket": "ticket, trained",
    "ticket": "ticket, rewound",
    "reinit": "its mask, a new initialisation",
    "random_mask": "random mask, rewound",
}
PAIRS = (
    ("ticket", "random_mask"),
    ("ticket", "reinit"),
    ("ticket", "dense"),
    ("trained_ticket", "ticket"),
    ("trained_ticket", "dense_pretrained"),
    ("dense_pretrained", "dense"),
)


def figures(folder: Path) -> str:
    """Return the tables of one transfer."""
    results = lthdask.open_results(folder, "curves")
    first = results.test_accuracy_curve.sel(epoch=1, drop=True)
    results = results.assign(after_one=first)
    results = results.assign_coords(
        dense_after_one=results.dense_test_accuracy_curve.sel(epoch=1, drop=True)
    )
    last, early = (_of_arms(results, name) for name in ("test_accuracy", "after_one"))
    shares = [f"{100 * share:.1f} %" for share in results.density.values]
    heads = ["test accuracy, %", *shares, *(f"{share}, after one epoch" for share in shares)]
    rows = [
        [name, *(_mean(of) for end in (last, early) for of in end[arm])]
        for arm, name in ARMS.items()
    ]
    judged = lthdask.verdicts(results).verdict.isel(rewind_epoch=0).values
    rows.append(["verdict on the rewound ticket", *map(str, judged), *[""] * len(shares)])
    pairs = [
        [
            f"{ARMS[one]} − {ARMS[other]}",
            *(_mean(a - b) for a, b in zip(last[one], last[other], strict=True)),
        ]
        for one, other in PAIRS
    ]
    return fashion._table(heads, rows) + "\n" + fashion._table(["points", *shares], pairs)


def _of_arms(results: xr.Dataset, name: str) -> dict[str, list[np.ndarray]]:
    """Return the values of each arm, and of the dense runs: by threshold, of all replicates."""
    values, _ = values_of(results, name)
    at = values.isel(rewind_epoch=0).transpose("arm", "threshold", "replicate")
    found = {arm: [*at.sel(arm=arm).values] for arm in at.arm.values}
    dense = results[f"dense_{name}"].values
    return found | {"dense": [dense] * at.sizes["threshold"]}


def _mean(values: np.ndarray) -> str:
    """Return mean ± half its 95 % interval over replicates."""
    half = t.isf(0.025, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.1f} ± {half:.1f}".replace("-", "−")


def _run(folder: Path) -> str:
    """Return by which commands it was trained, when, and how long that took."""
    return fashion._run(folder, lthdask.open_results(folder)).replace("## The run\n", "")


def page(every: Path, few: Path) -> str:
    """Return what stands on the page."""
    said = (
        "Means of five replicates with half their 95 % interval, and differences that are paired "
        "by replicate; the columns are the densities\nthat were counted, new head included.\n\n"
    )
    return (
        f"{said}All digits:\n\n{figures(every)}\n200 digits:\n\n{figures(few)}\n### The runs\n"
        + "".join(_run(folder) for folder in (every, few))
    )


if __name__ == "__main__":
    fashion.put(PAGE, "figures", page(*map(Path, sys.argv[1:])), "docs/transfer.py ALL FEW")
