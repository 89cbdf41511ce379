"""What is left to train of a study, and how long that is."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from lthdask import needs
from lthdask.driver.keeping import not_kept
from lthdask.driver.kept import Kept
from lthdask.driver.opening import Opened
from lthdask.grid import Cell, longest_first
from lthdask.storage.schema import Status
from lthdask.storage.tickets import final_weights
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
        Every cell that was asked for.
    lost : mapping of Cell to Cell
        Those of `cells` that cannot be trained: each starts from a cell that has failed.
    again : mapping of int to range
        Replicate → what of its dense run is to be trained again, as :meth:`Kept.lacking` says.
    others : collection of Cell
        Cells that are left, too, but were not asked for.
    done : collection of Cell
        Those of `cells` that are done, and are trained again for their weights alone.
    """

    cells: list[Cell]
    replicates: list[int]
    dense_runs: set[int]
    every: Collection[Cell] = ()
    lost: Mapping[Cell, Cell] = field(default_factory=dict)
    again: Mapping[int, range] = field(default_factory=dict)
    others: Collection[Cell] = ()
    done: Collection[Cell] = ()

    @property
    def again_epochs(self) -> int:
        """Epochs of dense runs that are trained again."""
        return sum(map(len, self.again.values()))


def remaining(opened: Opened) -> Remaining:
    """Return what is left to train.

    This includes cells that are done, but whose ticket is to be kept and is not, or whose final
    weights are lost and still needed. It includes none that has failed, unless failed cells are
    asked for.
    """
    wanted = {Status.PENDING, Status.SKIPPED}
    if opened.options.retry_failed:
        wanted.add(Status.FAILED)
    unfinished = {cell for cell, status in opened.cells.items() if status in wanted}
    unfinished |= not_kept(opened)
    lost = dict[Cell, Cell]()
    identity = opened.manifest.identity if opened.manifest else ""
    for cell in list(unfinished):
        awaited, again = needs.waits_for(opened.study, cell), list[Cell]()
        while (
            awaited
            and awaited not in unfinished
            and not final_weights(opened.folder, awaited, identity)
        ):
            if opened.cells.get(awaited) is Status.FAILED and Status.FAILED not in wanted:
                lost[cell], again = awaited, []
                break
            again.append(awaited)
            awaited = needs.waits_for(opened.study, awaited)
        unfinished.update(again)
    trained = opened.manifest.checkpoints.keys() if opened.manifest else set()
    # Failed cells do not call for a dense run: theirs may be what failed.
    needing = wanted | {Status.DONE, Status.DIVERGED}
    dense_runs = {c.replicate for c, status in opened.cells.items() if status in needing}
    dense_runs -= trained
    if opened.options.masks_only:
        every = range(opened.asked.grid.replicates)
        return Remaining([], list(every), dense_runs, opened.cells)
    replicates = {cell.replicate for cell in unfinished} | dense_runs
    cells = longest_first(unfinished)
    others = [c for c, status in opened.every.items() if status in wanted and c not in opened.cells]
    return Remaining(
        cells,
        sorted(replicates),
        dense_runs,
        opened.cells,
        lost,
        _again(opened, cells, replicates - dense_runs),
        others,
        {cell for cell in cells if opened.every[cell] is Status.DONE},
    )


def _again(opened: Opened, cells: Iterable[Cell], trained: Iterable[int]) -> dict[int, range]:
    """Return what of dense runs that are trained is lacking, as far as their files tell at once."""
    of = {replicate: list[Cell]() for replicate in trained}
    for cell in cells:
        of.get(cell.replicate, []).append(cell)
    about = opened.study, opened.folder.path
    kept = {replicate: Kept(*about, replicate, opened.steps) for replicate in of}
    found = {replicate: kept[replicate].lacking(of[replicate]) for replicate in sorted(of)}
    return {replicate: epochs for replicate, epochs in found.items() if epochs is not None}


def epochs_to_train(
    study: Study, cells: Iterable[Cell], dense_runs: int, steps: int = 0
) -> int | float:
    """Return how many epochs it takes to train this many dense runs and these cells.

    Where the `steps` of an epoch are not known, iterations of the dense run save nothing.
    """
    epochs = study.recipe.epochs
    of_cells = sum((epochs - cell.epochs_before(steps) for cell in cells), 0.0)
    return tidy(dense_runs * epochs + of_cells)


def tidy(epochs: float) -> int | float:
    """Return a sum of epochs without what rounding adds, and as a whole number where it is one."""
    found = round(epochs, 6)
    return int(found) if found == int(found) else found


def plain_epochs(study: Study, cells: int, dense_runs: int) -> int:
    """Return how many epochs the plain nested loop would train in place of these.

    It trains each dense run once, too, but every cell for all T epochs: it shares no epoch of the
    dense run with a cell that is rewound to it.
    """
    return (dense_runs + cells) * study.recipe.epochs
