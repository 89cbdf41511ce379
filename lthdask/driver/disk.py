"""How much a run will write to disk, and keep there."""

from typing import Any

from lthdask import needs
from lthdask.driver.keeping import ticket_bytes
from lthdask.driver.opening import Opened
from lthdask.driver.remaining import Remaining
from lthdask.pruning.rule import prunable_weights
from lthdask.study import Study

BYTES_PER_CELL = 15 * 4096
"""Bytes of eight files and seven folders, each at least a block of the file system."""


def bytes_to_keep(study: Study, left: Remaining, sizes: tuple[int, int], steps: int) -> int:
    """Return the size of what is written and kept."""
    weights, complete = sizes
    again = left.again_epochs * (complete - weights)  # weights are there, as a rule
    dense_runs = len(left.dense_runs) * checkpoint_bytes(study, sizes, steps)
    return dense_runs + again + len(left.cells) * BYTES_PER_CELL


def bytes_of_tickets(opened: Opened, left: Remaining, sizes: tuple[int, int], own: Any) -> int:
    """Return about the size of the tickets that are kept, `matching` or not."""
    kept = [cell for cell in left.cells if opened.options.keeps(cell)]
    network = own or opened.study.outline()
    prunable = sum(weight.numel() for weight in prunable_weights(network).values())
    parts = 2 if opened.options.keep_rewound else 1
    found = (ticket_bytes(opened.study, cell, sizes[0], prunable) for cell in kept)
    return sum(sum(ticket[:parts]) for ticket in found)


def checkpoint_bytes(study: Study, sizes: tuple[int, int], steps: int = 0) -> int:
    """Return the size of the checkpoints of one dense run, without their headers."""
    weights, whole = sizes
    complete = min(needs.kept_until(study, steps) + 1, study.recipe.epochs)
    inside = len(needs.inside(study, steps)) if steps else 0
    return (study.recipe.epochs + 1) * weights + complete * (whole - weights) + inside * whole


def checkpoint_sizes(study: Study, own: Any = None) -> tuple[int, int]:
    """Return the bytes of the weights of a checkpoint, and of a complete one."""
    network = own or study.outline()
    weights = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    buffers = study.recipe.optimizer.buffers
    moments = buffers * sum(p.numel() * p.element_size() for p in network.parameters())
    return weights, weights + moments
