"""Whether what the cube holds of cells, dense runs and masks is whole, and was written for them."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from lthdask.checks.completeness import is_complete
from lthdask.checks.damage import Damage, problem_of
from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.rewinding import Iterations
from lthdask.storage import checkpoints
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.manifest import Manifest
from lthdask.storage.schema import Status
from lthdask.study import Study


def damaged_cell(
    folder: Folder, sound: Cube, cell: Cell, study: Study, steps: int, lacking: set[str]
) -> Iterator[Damage]:
    """Find out whether a cell has damaged chunks, or is done but not complete.

    It may have been trained by an earlier version, which did not have what is `lacking`.
    """
    found, damaged = sound.read(cell)
    wrong = {array: f"results.zarr/{file} is damaged" for array, file in damaged.items()}
    status = int(found.get("status", Status.PENDING))
    if status not in list(Status):
        wrong["status"] = f"its status is {status}, which is not a valid status"
    if status != Status.PENDING:
        for array in sound.strangers(str(cell), found):
            wrong.setdefault(array, f"what results.zarr/{array} holds was not written for it")
    if status == Status.DONE:
        for array, values in found.items():
            epochs = study.recipe.epochs
            if not is_complete(array, values, cell, epochs, lacking, max(steps, 1)):
                missing = f"it is done, but some of its values are missing in results.zarr/{array}"
                wrong.setdefault(array, missing)
    if not wrong:
        return
    if status in (Status.DONE, Status.DIVERGED) and wrong.keys() <= {"record", "place"}:
        remedy = "its results are whole; when and where it was trained is restored"
        mend = partial(_write_record, folder, cell)
    else:
        remedy, mend = "the cell is trained again", partial(_erase, folder, cell)
    yield Damage(str(cell), "; ".join(wrong.values()), remedy, mend)


def damaged_dense_run(
    folder: Folder, sound: Cube, manifest: Manifest, replicate: int, study: Study
) -> Iterator[Damage]:
    """Find damage in the checkpoints and the curves of a dense run."""
    trained, digests = replicate in manifest.checkpoints, manifest.checkpoints.get(replicate, {})
    remedy = f"the dense run of replicate {replicate} is trained again"
    inside = (at for at in digests if isinstance(at, Iterations))
    for at in (*range(study.recipe.epochs + 1), *inside) if trained else ():
        file, digest = checkpoints.path_of(folder.path, replicate, at), digests.get(at, "")
        try:
            checkpoints.load(file, digest)
        except InputError:
            if checkpoints.holds_more(file, digest):
                continue
            mend = partial(_forget_dense_run, folder, replicate)
            yield Damage(str(file.relative_to(folder.path)), problem_of(file), remedy, mend)
    found, damaged = sound.read_dense(replicate)
    complete = not trained or bool(np.isfinite(found.get("dense_curves", 0.0)).all())
    foreign = trained and sound.strangers(f"dense-r{replicate}", found)
    if damaged or foreign or not complete:
        problem = "values are missing in it"
        if damaged or foreign:
            problem = "it is damaged" if damaged else "it was not written for this dense run"
        mend = partial(_forget_dense_run, folder, replicate, curves=True)
        file = next(iter(damaged.values()), sound.dense_chunk(replicate).relative_to(sound.path))
        yield Damage(f"results.zarr/{file}", problem, remedy, mend)


def damaged_masks(folder: Folder, sound: Cube, replicate: int) -> Iterator[Damage]:
    """Find distances between masks that are damaged, or are those of other masks."""
    for threshold in sound.axis("threshold"):
        run, found, damaged = sound.read_masks(replicate, threshold)
        known = bool(np.isfinite(found.get("mask_distances", np.nan)).any())
        if damaged or (known and sound.strangers(run, found)):
            problem = "it is damaged" if damaged else "it was not written for these masks"
            mend = partial(_erase_masks, folder, replicate, threshold)
            file = sound.masks_chunk(replicate, threshold).relative_to(sound.path)
            file = next(iter(damaged.values()), file)
            remedy = "a run with `masks_only` makes it again"
            yield Damage(f"results.zarr/{file}", problem, remedy, mend)


def _write_record(folder: Folder, cell: Cell) -> None:
    attempts = folder.runs.attempts(cell) or [{}]
    last = {"place": "?"} | attempts[-1]
    record = {"attempts": len(attempts), "started": last.get("started", np.nan)}
    Cube(folder.cube).write_record(cell, record, last["place"])


def _erase(folder: Folder, cell: Cell) -> None:
    Cube(folder.cube).erase(cell)


def _forget_dense_run(folder: Folder, replicate: int, curves: bool = False) -> None:
    if manifest := folder.manifest():
        folder.write_manifest(manifest.without_dense_run(replicate))
    if curves:
        Cube(folder.cube).erase_dense(replicate)


def _erase_masks(folder: Folder, replicate: int, threshold: float) -> None:
    Cube(folder.cube).erase_masks(replicate, threshold)
