"""A mask of a study, drawn again as a worker draws it, from what the study's folder keeps."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lthdask.data.batches import Data, Images
from lthdask.errors import InputError, listed
from lthdask.grid import Cell
from lthdask.lottery import drawing
from lthdask.lottery.experiment import Experiment
from lthdask.own import require_given
from lthdask.storage import checkpoints
from lthdask.storage.folder import Folder
from lthdask.storage.manifest import Manifest
from lthdask.study import Study
from lthdask.worker.work import Work


def open_mask(
    folder: str | Path,
    threshold: float,
    replicate: int = 0,
    rewind_epoch: float | None = None,
    data: str | Path | None = None,
) -> dict[str, Tensor]:
    """Return the mask of the tickets of a threshold, for other tools.

    It is drawn again from the checkpoints of the dense run, to the same bits.

    Parameters
    ----------
    folder : path
        The study's folder.
    threshold : float
        One of the study's.
    replicate : int
    rewind_epoch : float, optional
        One of the study's; by default, the first. Only rounds of iterative pruning have a mask
        for each.
    data : path, optional
        The folder of the data set; only scores by gradients of the loss read it.

    Returns
    -------
    dict of str to Tensor
        Name of each prunable weight → booleans of its shape, true where it stays.

    Raises
    ------
    InputError
        If there is no such ticket, or what it was drawn from is not kept: from the second round
        of iterative pruning on, that is the final weights of the round before.

    Examples
    --------
    >>> import lthdask
    >>> small = {"network.name": "lenet_300_100", "data.image_size": "8", "recipe.epochs": "2"}
    >>> small |= {"grid.thresholds": "0.5,0.9", "grid.rewind_epochs": "0"}
    >>> study = lthdask.Study.read("digits").changed(small)
    >>> results = lthdask.run(study, client, "runs/small")  # client: from lthdask.open_client
    >>> mask = open_mask("runs/small", threshold=0.9)
    >>> sum(int(kept.sum()) for kept in mask.values()), sum(kept.numel() for kept in mask.values())
    (5020, 50200)
    """
    opened = Folder(Path(folder))
    text, manifest = opened.study(), opened.manifest()
    if text is None or manifest is None:
        raise InputError(f"there is no study in {opened.path} that was begun; give its folder")
    study = Study.parse(text, str(opened.path / "study.yaml"))
    require_given(study.own)
    cell = _cell(study, threshold, replicate, rewind_epoch)
    if replicate not in manifest.checkpoints:
        raise InputError(
            f"the dense run of replicate {replicate} is not trained yet; run the study"
        )
    waited = study.waits_for(cell)
    if waited and not checkpoints.holds_ticket(opened.final(waited)):
        raise InputError(
            f"the mask of {cell} was taken from the final weights of {waited}, which are not kept "
            f"once no cell waits for them; of iterative pruning, only the first round's mask, "
            f"{study.grid.thresholds[0]:g}, can always be drawn again"
        )
    before = checkpoints.load_ticket(opened.final(waited)) if waited else None
    digests, threads = manifest.checkpoints[replicate], torch.get_num_threads()
    dense = {
        epoch: checkpoints.load(
            checkpoints.path_of(opened.path, replicate, epoch), digests.get(epoch, "")
        )
        for epoch in study.checkpoints_for(cell)
    }
    try:
        return drawing.draw(_experiment(study, manifest, opened, data), cell, dense, before).mask
    finally:
        torch.set_num_threads(threads)


def _cell(study: Study, threshold: float, replicate: int, rewind_epoch: float | None) -> Cell:
    """Return the ticket that is meant; refuse one that the study does not have."""
    grid, axes = study.grid, study.grid.axes()
    if "ticket" not in grid.arms:
        raise InputError(f"the study has no tickets; its arms are {listed(grid.arms)}")
    k = grid.rewind_epochs[0] if rewind_epoch is None else rewind_epoch
    asked = {"threshold": threshold, "replicate": replicate, "rewind_epoch": k}
    found = {}
    for axis, value in asked.items():
        near = [known for known in axes[axis] if abs(known - value) < 1e-6]
        if not near:
            raise InputError(f"the study has no {axis} {value:g}; known: {listed(axes[axis])}")
        found[axis] = near[0]
    return Cell("ticket", **found)


def _experiment(
    study: Study, manifest: Manifest, folder: Folder, data: str | Path | None
) -> Experiment:
    """Return the experiment; only gradients of the loss take its data and its device."""
    shaped = manifest.data
    of_loss = study.pruning.needs_gradients and study.pruning.score != "synflow"
    if of_loss or not shaped:
        return Work(study, manifest.engine.chosen(), folder, data, recorded=shaped).experiment()
    none, zero = Images(torch.empty(0, *shaped.shape), torch.empty(0)), torch.tensor(0.0)
    work = Work(study, replace(manifest.engine, device="cpu"), folder)
    return work.experiment(Data(none, none, none, shaped.classes, zero, zero + 1))
