"""A mask of a study, drawn again as a worker draws it, from what the study's folder keeps."""

from dataclasses import replace
from operator import index
from pathlib import Path

import torch
from torch import Tensor

from lthdask import needs
from lthdask.arguments import checked
from lthdask.data.batches import Data, Images
from lthdask.errors import InputError, listed, permitted
from lthdask.grid import KS, Cell
from lthdask.lottery import drawing
from lthdask.lottery.experiment import Experiment
from lthdask.lottery.ticket import Ticket
from lthdask.own import require_given
from lthdask.rewinding import place_of, rewind
from lthdask.storage import checkpoints
from lthdask.storage.folder import Folder
from lthdask.storage.manifest import Manifest
from lthdask.storage.tickets import final_weights
from lthdask.study import Study
from lthdask.worker.work import Work


@checked
def open_mask(
    folder: str | Path,
    threshold: float,
    replicate: int = 0,
    rewind_epoch: float | str | None = None,
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
    rewind_epoch : float or str, optional
        One of the study's, such as 2 or ``500it``; by default, the first. Only rounds of iterative
        pruning have a mask for each.
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
    with permitted(opened.path):
        return _mask(opened, threshold, replicate, rewind_epoch, data)


def _mask(
    opened: Folder,
    threshold: float,
    replicate: int,
    rewind_epoch: float | str | None,
    data: str | Path | None,
) -> dict[str, Tensor]:
    text, manifest = opened.study(), opened.manifest()
    if text is None:
        raise InputError(f"there is no study in {opened.path}; give its folder")
    study = Study.parse(text, str(opened.path / "study.yaml"))
    require_given(study.own)
    cell = _cell(study, threshold, replicate, rewind_epoch)
    if manifest is None:
        raise InputError(f"the study in {opened.path} was not begun yet; run it")
    if (digests := manifest.checkpoints.get(replicate)) is None:
        raise InputError(
            f"the dense run of replicate {replicate} is not trained yet; run the study"
        )
    before, threads = _round_before(study, opened, cell, manifest), torch.get_num_threads()
    given = bool(study.pruning.masks or study.source or before)
    places = [] if given else [place_of(study.mask_at, manifest.steps)]
    places += [0] if study.pruning.needs_initial else []
    dense = {
        place: checkpoints.load(
            checkpoints.path_of(opened.path, replicate, place), digests.get(place, "")
        )
        for place in places
    }
    try:
        experiment = _experiment(study, manifest, opened, data)
        return drawing.MASKS["ticket"](experiment, cell, dense, before)[0]
    finally:
        torch.set_num_threads(threads)


def _round_before(study: Study, folder: Folder, cell: Cell, manifest: Manifest) -> Ticket | None:
    """Return the ticket of the round before, if there is one and it is there."""
    if not (waited := needs.waits_for(study, cell)):
        return None
    if found := final_weights(folder, waited, manifest.identity):
        return found
    raise InputError(
        f"the mask of {cell} was taken from the final weights of {waited}, which are not kept once "
        f"no cell waits for them, unless by `keep`; of iterative pruning, only the first round's "
        f"mask, {study.grid.thresholds[0]:g}, can always be drawn again"
    )


def _cell(study: Study, threshold: float, replicate: int, given: float | str | None) -> Cell:
    """Return the ticket that is meant; refuse one that the study does not have."""
    axes = study.grid.axes()
    if "ticket" not in axes["arm"]:
        raise InputError(f"the study has no tickets; its arms are {listed(axes['arm'])}")
    try:
        k = axes["rewind_epoch"][0] if given is None else rewind(given)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"rewind_epoch takes {KS}; got {given!r}") from None
    try:
        near = [known for known in axes["threshold"] if abs(known - threshold) < 1e-6]
        replicate = index(replicate)
    except TypeError:
        what = "a threshold is a number, and a replicate a whole one"
        raise InputError(f"{what}; got {threshold!r} and {replicate!r}") from None
    asked = {"threshold": near[0] if near else threshold, "replicate": replicate, "rewind_epoch": k}
    for axis, value in asked.items():
        if value not in axes[axis]:
            raise InputError(f"the study has no {axis} {value:g}; known: {listed(axes[axis])}")
    return Cell("ticket", replicate, near[0], k)


def _experiment(
    study: Study, manifest: Manifest, folder: Folder, data: str | Path | None
) -> Experiment:
    """Return the experiment; only gradients of the loss take its data and its device."""
    shaped = manifest.data
    of_loss = study.pruning.needs_gradients and study.pruning.score != "synflow"
    if of_loss or not shaped:
        return Work(study, manifest.engine.chosen(), folder, data, recorded=shaped).experiment()
    count = manifest.steps * study.recipe.batch_size  # so that an epoch has as many steps
    many = torch.empty(1, *shaped.shape).expand(count, *shaped.shape)
    none, zero = Images(many, torch.empty(1).expand(count)), torch.tensor(0.0)
    work = Work(study, replace(manifest.engine, device="cpu"), folder)
    return work.experiment(Data(none, none, none, shaped.classes, zero, zero + 1))
