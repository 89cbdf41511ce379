"""What is left to train of a study, and how long that is."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from lthdask.driver.opening import Opened
from lthdask.grid import Cell, longest_first
from lthdask.storage import checkpoints
from lthdask.storage.schema import Status
from lthdask.study import Study


@dataclass(frozen=True)
class Remaining:
    """What a run of a study would train.

    Attributes
    ----------
    cells : list of Cell
        Longest first.
    replicates : list of int
        Replicates that have something to train.
    dense_runs : set of int
        Replicates whose dense run is to be trained.
    every : collection of Cell
        Every cell of the study.
    lost : mapping of Cell to Cell
        Those of `cells` that cannot be trained: each starts from a cell that has failed.
    """

    cells: list[Cell]
    replicates: list[int]
    dense_runs: set[int]
    every: Collection[Cell] = ()
    lost: Mapping[Cell, Cell] = field(default_factory=dict)


def remaining(opened: Opened) -> Remaining:
    """Return what is left to train.

    This includes cells that are done, but whose final weights are lost and still needed. It
    includes none that has failed, unless failed cells are asked for.
    """
    wanted = {Status.PENDING, Status.SKIPPED}
    if opened.options.retry_failed:
        wanted.add(Status.FAILED)
    unfinished = {cell for cell, status in opened.cells.items() if status in wanted}
    lost = dict[Cell, Cell]()
    for cell in list(unfinished):
        awaited, again = opened.study.waits_for(cell), list[Cell]()
        while (
            awaited
            and awaited not in unfinished
            and not checkpoints.holds_ticket(opened.folder.final(awaited))
        ):
            if opened.cells.get(awaited) is Status.FAILED and Status.FAILED not in wanted:
                lost[cell], again = awaited, []
                break
            again.append(awaited)
            awaited = opened.study.waits_for(awaited)
        unfinished.update(again)
    trained = opened.manifest.checkpoints.keys() if opened.manifest else set()
    # Failed cells do not call for a dense run: theirs may be what failed.
    needing = wanted | {Status.DONE, Status.DIVERGED}
    dense_runs = {c.replicate for c, status in opened.cells.items() if status in needing}
    dense_runs -= trained
    if opened.options.masks_only:
        every = range(opened.study.grid.replicates)
        return Remaining([], list(every), dense_runs, opened.cells)
    replicates = {cell.replicate for cell in unfinished} | dense_runs
    cells = longest_first(unfinished)
    return Remaining(cells, sorted(replicates), dense_runs, opened.cells, lost)


def epochs_to_train(study: Study, cells: Iterable[Cell], dense_runs: int) -> int:
    """Return how many epochs it takes to train this many dense runs and these cells."""
    epochs = study.recipe.epochs
    return dense_runs * epochs + sum(epochs - cell.first_epoch for cell in cells)


def plain_epochs(study: Study, cells: int, dense_runs: int) -> int:
    """Return how many epochs the plain nested loop would train in place of these.

    It trains each dense run once, too, but every cell for all T epochs: it shares no epoch of the
    dense run with a cell that is rewound to it.
    """
    return (dense_runs + cells) * study.recipe.epochs
