"""What a worker keeps of a trained cell: its ticket, or final weights while others wait."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from math import isfinite
from typing import Any

from lthdask import needs
from lthdask.arms import ARMS
from lthdask.data.batches import Data
from lthdask.grid import Cell
from lthdask.lottery.ticket import Ticket
from lthdask.rewinding import as_given
from lthdask.storage import checkpoints
from lthdask.storage.identity import run_of
from lthdask.storage.manifest import versions_here
from lthdask.storage.tickets import Tickets, final_weights
from lthdask.training.checkpoint import Checkpoint
from lthdask.worker.work import Work, cube_of


def keep(
    work: Work, cell: Cell, drawn: Ticket, end: Checkpoint, metrics: Mapping[str, float]
) -> None:
    """Keep what was asked for of a trained cell, and what others need of it.

    Parameters
    ----------
    work : Work
    cell : Cell
    drawn : Ticket
        What it was trained from.
    end : Checkpoint
        Its trained weights.
    metrics : mapping of str to float
        What was measured of them.
    """
    trained, options = Ticket(replace(end, buffers={}), drawn.mask, {}), work.options
    goes_on = ARMS[cell.arm].start == "before"  # with the optimizer's state, which no ticket has
    if options.keeps(cell):
        start = drawn.origin if options.keep_rewound else None
        Tickets(work.folder).keep(cell, trained, start, _about(work, cell, metrics))
    if needs.awaited(work.study, cell) and (goes_on or not options.keeps(cell)):
        ended = replace(trained, origin=end) if goes_on else trained
        run = run_of(cube_of(work).identity, cell)
        checkpoints.save_ticket(work.folder.runs.final(cell), ended, run)


def is_lacking(work: Work, cell: Cell) -> bool:
    """Return whether something of a cell is missing that was asked for, or others wait for."""
    options = work.options
    if options.keeps(cell) and not Tickets(work.folder).are_there(cell, options.keep_rewound):
        return True
    return needs.awaited(work.study, cell) and not final_weights(
        work.folder, cell, cube_of(work).identity
    )


def _about(work: Work, cell: Cell, metrics: Mapping[str, float]) -> dict[str, Any]:
    """Return what a kept file says of a ticket."""
    data = work.experiment().data
    return {
        "name": str(cell),
        "cell": asdict(cell) | {"rewind_epoch": as_given(cell.rewind_epoch)},
        "network": asdict(work.study.network),
        "input": list(data.shape),
        "classes": data.classes,
        "preprocessing": _preprocessing(data),
        "metrics": {name: value for name, value in metrics.items() if isfinite(value)},
        "study": work.study.to_dict(),
        "engine": asdict(work.engine),
        "versions": dict(versions_here(work.study.network.name)),
    }


def _preprocessing(data: Data) -> dict[str, Any]:
    """Return what is done with the bytes of an image before the network sees it."""
    if data.normalisation == "image":  # by its own mean and deviation
        return {"normalisation": "image"}
    return {"mean": data.mean.tolist(), "std": data.std.tolist()}
