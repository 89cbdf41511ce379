"""An arm of one's own: a function of a ticket's weights and mask that returns other ones."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.lottery.experiment import Experiment
from lthdask.own import explained, function, parameters, plain
from lthdask.pruning.masks import Mask
from lthdask.streams import Purpose, stream
from lthdask.training.checkpoint import Checkpoint


def begun(
    experiment: Experiment,
    cell: Cell,
    start: Checkpoint,
    mask: Mask,
    initial: Mapping[str, Tensor],
) -> tuple[Checkpoint, dict[str, Tensor]]:
    """Return what a cell of one's own arm starts from, and its mask.

    Parameters
    ----------
    experiment : Experiment
    cell : Cell
    start : Checkpoint
        Checkpoint k, which the ticket starts from.
    mask : dict of str to Tensor
        The ticket's.
    initial : mapping of str to Tensor
        The dense run's weights before training.

    Raises
    ------
    InputError
        If the function raises, or returns what cannot be trained or compared with the ticket:
        other names or shapes, weights that are not finite, or a mask that keeps another number.
    """
    name = next(arm for arm in experiment.own_arms if plain(arm) == cell.arm)
    bits = stream(experiment.seed, cell.replicate, Purpose.OWN_ARM)
    known = {
        "weights": _copied(start.weights),
        "mask": _copied(mask),
        "initial": _copied(initial),
        "generator": torch.Generator().manual_seed(int(bits.random_raw() >> 1)),
    }
    with explained(f"the arm {cell.arm} fails"):
        found = function(name)(**{part: known[part] for part in parameters("arm", name, known)})
    pair = isinstance(found, tuple | list) and len(found) == 2
    if not pair or not all(isinstance(part, Mapping) for part in found):
        raise InputError(
            f"the arm {cell.arm} must return two dicts of tensors, weights and mask; got "
            f"{type(found)}"
        )
    weights = _fitting(cell.arm, "weights", found[0], start.weights)
    kept = _fitting(cell.arm, "mask", found[1], mask)
    if odd := [n for n, weight in weights.items() if not weight.isfinite().all()]:
        raise InputError(f"the arm {cell.arm} returns weights of {odd[0]!r} that are not finite")
    left, wanted = (sum(int(part.sum()) for part in of.values()) for of in (kept, mask))
    if left != wanted:
        raise InputError(
            f"the mask of the arm {cell.arm} keeps {left:,} weights, and the ticket's {wanted:,}; "
            f"at another density, the two cannot be compared"
        )
    return replace(start, weights=weights), kept


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _fitting(
    arm: str, what: str, found: Mapping[str, Tensor], before: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the ticket's tensors with those that were found; refuse what does not fit them."""
    fitting = dict(before)
    for name, tensor in found.items():
        if name not in before:
            raise InputError(f"the arm {arm} returns {what} of {name!r}, which are not there")
        of = before[name]
        is_tensor = isinstance(tensor, Tensor)
        if not is_tensor or (tensor.shape, tensor.dtype) != (of.shape, of.dtype):
            got = f"{tensor.dtype} of {tuple(tensor.shape)}" if is_tensor else type(tensor)
            raise InputError(
                f"the arm {arm} must return {what} of {name!r} as {of.dtype} of "
                f"{tuple(of.shape)}; got {got}"
            )
        fitting[name] = tensor.detach().clone()
    return fitting
