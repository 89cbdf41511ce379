"""What the cells of a transfer start from: weights and masks of another study's tickets.

The head is what depends on the number of classes. Where the classes are others, it is new: drawn
as that of the dense run of the replicate, the same for all arms, and never pruned.
"""

import functools
from collections.abc import Mapping

import torch
from torch import Tensor

from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.lottery.experiment import Experiment
from lthdask.networks.build import Network, on_meta
from lthdask.source import Source
from lthdask.training.checkpoint import Checkpoint


def start(experiment: Experiment, cell: Cell) -> Checkpoint:
    """Return the weights that a cell starts from, where they are not new."""
    transferred = experiment.transferred
    assert transferred
    name = transferred.source.start_of(cell.arm, cell.replicate, cell.threshold)
    assert name
    weights = transferred.load(name).origin.weights
    if head := _new_head(experiment):
        drawn = experiment.build(cell.replicate).state_dict()
        weights = weights | {name: drawn[name].cpu() for name in head}
    return Checkpoint(0, {name: weights[name] for name in experiment.outline().state_dict()})


def mask(experiment: Experiment, cell: Cell) -> dict[str, Tensor]:
    """Return the mask of a cell."""
    transferred = experiment.transferred
    assert transferred
    name = transferred.source.ticket_of(cell.replicate, cell.threshold)
    found, head = transferred.load(name).mask, _new_head(experiment)
    return {
        name: torch.ones(weight.shape, dtype=torch.bool) if name in head else found[name]
        for name, weight in experiment.prunable().items()
    }


def _new_head(experiment: Experiment) -> frozenset[str]:
    """Return the names of the head where it is new."""
    if not (experiment.transferred and experiment.transferred.new_head):
        return frozenset()
    return head_of(experiment.network, experiment.data.shape, experiment.data.classes)


@functools.cache
def head_of(network: Network, shape: tuple[int, ...], classes: int) -> frozenset[str]:
    """Return the names of a network's tensors that depend on the number of classes."""
    one, more = (on_meta(network, shape, count).state_dict() for count in (classes, classes + 1))
    return frozenset(name for name, of in one.items() if of.shape != more[name].shape)


def require_fit(
    source: Source,
    weights: Mapping[str, Tensor],
    network: Network,
    shape: tuple[int, ...],
    head: frozenset[str],
    classes: int,
) -> None:
    """Refuse weights of another study that the network of this one, but for a new head, lacks.

    Raises
    ------
    InputError
        If it is so.
    """
    wanted = on_meta(network, shape, classes).state_dict()
    for name in dict.fromkeys([*wanted, *weights]):
        there, here = (
            tuple(of[name].shape) if name in of else "missing" for of in (weights, wanted)
        )
        if there != here and name not in head:
            theirs, ours = ("×".join(map(str, of)) for of in (source.input, shape))
            raise InputError(
                f"the tickets of {source.study} do not fit: {name} is {there} there and {here} "
                f"here; they are of inputs of {theirs}, and this study has {ours}, so leave the "
                f"network as they have it, and bring images to their size with data.image_size"
            )
