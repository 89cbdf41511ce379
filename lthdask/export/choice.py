"""Which cell is exported: the one that is asked for, or the one that a study would show first."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from lthdask.arms import ARMS
from lthdask.errors import InputError, listed
from lthdask.grid import Cell
from lthdask.report.selection import select
from lthdask.report.summary import sparsest_matching
from lthdask.rewinding import number, on_axis, rewind
from lthdask.storage.folder import Folder
from lthdask.storage.results import open_results
from lthdask.storage.schema import Status
from lthdask.storage.ticket_file import REWOUND, SUFFIX
from lthdask.storage.tickets import Tickets


@dataclass(frozen=True)
class Asked:
    """What was asked for of a cell; None stands for what the study would show first.

    Attributes
    ----------
    threshold, rewind_epoch : float, optional
        By default those of the sparsest ticket within the margin of the dense accuracy; the
        rewind epoch by default the best of that threshold, on the validation images. Neither
        matters to an arm that has none.
    arm : str
    replicate : int, optional
        By default the one of median validation accuracy.
    """

    threshold: float | None = None
    rewind_epoch: float | None = None
    arm: str = "ticket"
    replicate: int | None = None


def chosen(path: Path, asked: Asked) -> tuple[Cell, xr.Dataset]:
    """Return the cell to export, which was kept, and the results that it is one of.

    Raises
    ------
    InputError
        If there is no such cell, it is not done, or its trained weights were not kept.
    """
    results = open_results(path)
    at = select(results, arm=asked.arm)
    at = at.where(at.status == int(Status.DONE))
    at = _of_map(results, at, asked)
    if asked.replicate is None:
        accuracy = at.validation_accuracy.dropna("replicate")
        if not accuracy.size:
            raise InputError(f"{_named(at, asked)} is not done in any replicate")
        order = accuracy.replicate.values[np.argsort(accuracy.values, kind="stable")]
        at = at.sel(replicate=order[(len(order) - 1) // 2])
    else:
        at = select(at, replicate=asked.replicate)
        if np.isnan(at.validation_accuracy):
            raise InputError(f"{_named(at, asked)} is not done in replicate {asked.replicate}")
    k = on_axis(float(at.rewind_epoch), results.rewind_epoch.attrs.get("units", ""))
    cell = Cell(asked.arm, int(at.replicate), float(at.threshold), k)
    _require_kept(Folder(path), cell)
    return cell, results


def _of_map(results: xr.Dataset, at: xr.Dataset, asked: Asked) -> xr.Dataset:
    """Return what there is of the threshold and the rewind epoch, with all replicates."""
    where: dict[str, Any] = {
        name: value
        for name in ("threshold", "rewind_epoch")
        if (value := getattr(asked, name)) is not None
    }
    if not where:
        best = sparsest_matching(results) if "ticket" in results.arm else None
        if best is None:
            raise InputError(
                "no ticket of this study is within its margin of the dense accuracy, so none is "
                "the one to show; say which is to be exported, with `threshold` and `rewind_epoch`"
            )
        where = {
            "threshold": best["threshold"],
            "rewind_epoch": number(rewind(best["rewind_epoch"])),
        }
    arm = ARMS[asked.arm]
    has = {"threshold": arm.has_threshold, "rewind_epoch": arm.has_k}
    where |= {axis: float(results[axis][0]) for axis in has if not has[axis]}  # where it is stored
    at = select(at, **where)
    if "threshold" in at.dims:
        raise InputError(f"give `threshold`, too: {listed(map(float, results.threshold))}")
    if "rewind_epoch" in at.dims:
        means = at.validation_accuracy.mean("replicate")
        if not means.notnull().any():
            raise InputError(f"{_named(at, asked)} is not done at any rewind epoch")
        at = at.sel(rewind_epoch=means.idxmax("rewind_epoch"))
    return at


def _named(at: xr.Dataset, asked: Asked) -> str:
    k = "" if "rewind_epoch" in at.dims else f", k={float(at.rewind_epoch):g}"
    return f"{asked.arm} at threshold {float(at.threshold):g}{k}"


def _require_kept(folder: Folder, cell: Cell) -> None:
    tickets = Tickets(folder)
    if not tickets.are_there(cell):
        files = tickets.path.glob(f"[!.]*{SUFFIX}")
        kept = sorted(f.name.removesuffix(SUFFIX) for f in files if not f.name.endswith(REWOUND))
        there = (
            f"kept are {listed(kept[:5])}{' and more' if len(kept) > 5 else ''}; " if kept else ""
        )
        raise InputError(
            f"the trained weights of {cell} were not kept; {there}the command of the run trains "
            f"it again in the same bits, and keeps it, with "
            f"`keep` {cell.threshold:.12g}:{cell.rewind_epoch:.12g}:{cell.arm}"
        )
