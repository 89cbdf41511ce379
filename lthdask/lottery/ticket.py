"""Tickets: sparse networks at the start of their training.

A ticket is checkpoint k under a mask that was taken from the *final* dense weights
(Frankle & Carbin 2019, section 1).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from lthdask.pruning.masks import Mask
from lthdask.source import Source
from lthdask.training.checkpoint import Checkpoint


@dataclass(frozen=True, eq=False)
class Ticket:
    """A sparse network at the start of its training, or what a control puts in its place.

    Attributes
    ----------
    origin : Checkpoint
        Checkpoint k, or what the arm starts from, before the mask is laid over it.
    mask : dict of str to Tensor
        ``True`` where a weight survives.
    cutoffs : dict of str to float
        The lowest score that survives, per weight; NaN where spared.
    """

    origin: Checkpoint
    mask: dict[str, Tensor]
    cutoffs: dict[str, float]

    @cached_property
    def start(self) -> Checkpoint:
        """`origin` with pruned weights, and their optimizer buffers, at zero: a copy."""
        return masked(self.origin, self.mask)


@dataclass(frozen=True)
class Transferred:
    """The tickets of another study, which those of this one are.

    Attributes
    ----------
    source : Source
    load : callable
        Returns what a file of the source holds, by its name.
    new_head : bool
        Whether the classes are others.
    """

    source: Source
    load: Callable[[str], Ticket]
    new_head: bool


def masked(checkpoint: Checkpoint, mask: Mask) -> Checkpoint:
    """Return a copy of `checkpoint` with everything that the mask prunes set to zero.

    Momentum is set to zero, too: else it would revive the weight at the next step.
    """

    def zeroed(name: str, tensor: Tensor) -> Tensor:
        kept = mask.get(name)
        if kept is None or kept.shape != tensor.shape:
            return tensor.clone()
        return tensor * kept

    return replace(
        checkpoint,
        weights={name: zeroed(name, tensor) for name, tensor in checkpoint.weights.items()},
        buffers={
            name: {buffer: zeroed(name, tensor) for buffer, tensor in of_weight.items()}
            for name, of_weight in checkpoint.buffers.items()
        },
    )
