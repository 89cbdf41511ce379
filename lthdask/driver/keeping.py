"""Keeping tickets: which are still to be kept, how large, and which the verdict drops."""

from lthdask.arms import ARMS
from lthdask.driver.opening import Opened
from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.report.verdict import MATCHING, NO_BETTER, WINNING, WORSE, verdicts
from lthdask.rewinding import number
from lthdask.storage.results import open_asked, open_results
from lthdask.storage.schema import Status
from lthdask.storage.sparse import SKIP
from lthdask.storage.tickets import Tickets
from lthdask.study import Study


def not_kept(opened: Opened) -> set[Cell]:
    """Return the cells that are done, and whose tickets are to be kept and are not there.

    Where ``matching`` are kept, they are those that are shown to match: what nothing is shown of
    is not trained a second time.
    """
    options, tickets = opened.options, Tickets(opened.folder)
    if options.keep == "none" or options.masks_only:
        return set()
    lacking = {
        cell
        for cell, status in opened.cells.items()
        if status is Status.DONE
        and options.keeps(cell)
        and not tickets.are_there(cell, options.keep_rewound)
    }
    if options.keep == "matching" and lacking:
        lacking &= _judged(opened, MATCHING, WINNING, NO_BETTER)
    return lacking


def drop_worse(opened: Opened) -> None:
    """Drop the tickets that are shown to be worse than the dense run, where ``matching`` are kept.

    Whatever is undecided stays: with one replicate, that is everything.
    """
    if opened.options.keep == "matching" and not opened.options.masks_only:
        for cell in _judged(opened, WORSE):
            Tickets(opened.folder).drop(cell)


def ticket_bytes(study: Study, cell: Cell, weights: int, prunable: int) -> tuple[int, int]:
    """Return about how large a ticket is: trained weights and mask, and rewound weights.

    Parameters
    ----------
    study : Study
    cell : Cell
    weights : int
        Bytes of all weights of the network.
    prunable : int
        How many of them are prunable.
    """
    is_share = study.pruning.by == "share" and ARMS[cell.arm].mask != "none"
    left = prunable * (1 - cell.threshold) if is_share else prunable
    places = min(prunable / 8, left + prunable / SKIP)
    values = weights - 4 * prunable + 4 * left
    return int(values + places), int(values)


def _judged(opened: Opened, *wanted: str) -> set[Cell]:
    """Return the tickets, of what was asked for, that have one of these verdicts."""
    try:
        results = open_asked(opened.folder.path, opened.asked)
    except InputError:  # the study grows, and not all that was asked for is there yet
        results = open_results(opened.folder.path)
    judged = verdicts(results).verdict

    found = judged.to_series().to_dict()

    def of(cell: Cell) -> object:
        return found.get((cell.threshold, number(cell.rewind_epoch)))

    return {cell for cell in opened.cells if cell.arm == "ticket" and of(cell) in wanted}
