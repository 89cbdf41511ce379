"""What a worker does with cells: draw what they train, train it, and write their results.

The cells of a cohort are trained side by side; on a CPU, that is one cell.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import nan

import torch

from lthdask import lottery
from lthdask.cohort import Found
from lthdask.events import Event, Here
from lthdask.grid import CHILDREN, Cell
from lthdask.learning_speed import learning_speed
from lthdask.rewinding import Checkpoint, Ticket
from lthdask.stability import barrier
from lthdask.storage import checkpoints
from lthdask.storage.results import Status
from lthdask.tasks import Training, Work, cube_of, follow
from lthdask.training import Diverged


def train_cells(work: Work, cells: Sequence[Cell], here: Here, *dense: Checkpoint) -> list[str]:
    """Train the cells of a cohort, and write their results into the cube.

    Parameters
    ----------
    work : Work
    cells : sequence of Cell
        With the same data at the same rates: of one `Cell.cohort`.
    here : Here
    *dense : Checkpoint
        Of the dense run: those of :meth:`lthdask.study.Study.checkpoints_for`.

    Returns
    -------
    list of str
        What became of each: ``done`` or ``diverged``. One that was done already, by a worker
        that died before it could say so, is left as it is.
    """
    cube, by_epoch = cube_of(work), {state.epoch: state for state in dense}
    finished = dict[Cell, Status]()
    for cell in cells:
        status = cube.status(cell)
        needed = work.study.awaited(cell)
        lost = needed and not checkpoints.holds_ticket(work.folder.final(cell))
        if status in (Status.DONE, Status.DIVERGED) and not lost:
            finished[cell] = status
    runs = [_Run.begun(work, cell, here, by_epoch) for cell in cells if cell not in finished]
    runs.sort(key=_Run.point)
    for _, together in groupby(runs, _Run.point):
        finished |= _train(work, list(together), by_epoch)
    return [finished[cell].name.lower() for cell in cells]


@dataclass
class _Run:
    """A cell while it is trained.

    Attributes
    ----------
    training : Training
    cell : Cell
    drawn : Ticket
    before : Ticket or None
        Final weights of the cell that this one waits for.
    last : Checkpoint
        The newest state with a loss that is a number.
    status : Status
    """

    training: Training
    cell: Cell
    drawn: Ticket
    before: Ticket | None
    last: Checkpoint
    status: Status = Status.DONE

    @classmethod
    def begun(cls, work: Work, cell: Cell, here: Here, dense: lottery.Dense) -> "_Run":
        """Record the attempt, and draw what is trained."""
        training = Training(work, cell, here)
        training.begin(cell.first_epoch)
        waited = work.study.waits_for(cell)
        before = checkpoints.load_ticket(work.folder.final(waited)) if waited else None
        drawn = lottery.draw(work.experiment(), cell, dense, before)
        return cls(training, cell, drawn, before, training.start or drawn.start)

    def point(self) -> tuple[int, int]:
        """Return where it goes on: after which epoch, and step."""
        return self.last.epoch, self.last.step


def _train(work: Work, runs: list[_Run], dense: lottery.Dense) -> dict[Cell, Status]:
    """Train runs that go on from the same point; fewer at a time if they do not fit."""
    experiment = work.experiment()
    starts = [run.last for run in runs]
    try:
        for found in follow([run.training for run in runs], _epochs(work, runs), experiment):
            for run, (checkpoint, outcome) in zip(runs, found, strict=True):
                if isinstance(outcome, Diverged):
                    run.status = Status.DIVERGED
                else:
                    run.last = checkpoint
    except torch.OutOfMemoryError:
        if len(runs) == 1:
            raise
    else:
        for run in runs:
            _write(work, run, dense)
        return {run.cell: run.status for run in runs}
    torch.cuda.empty_cache()
    half = len(runs) // 2
    few = f"{len(runs)} cells at a time do not fit on the device, {len(runs) - half} are tried"
    runs[0].training.here.tell(Event("warning", "cohort", few))
    for run, start in zip(runs, starts, strict=True):
        run.last, run.status = start, Status.DONE
    return _train(work, runs[:half], dense) | _train(work, runs[half:], dense)


def _epochs(work: Work, runs: list[_Run]) -> Iterator[Found]:
    cell = runs[0].cell
    return lottery.train_tickets(
        work.experiment(),
        cell.replicate,
        [run.drawn for run in runs],
        [run.last for run in runs],
        runs[0].training.due,
        arm=cell.arm,
    )


def _write(work: Work, run: _Run, dense: lottery.Dense) -> None:
    """Write the results of a cell; its saved state is not needed any more."""
    study, folder, cube, experiment = work.study, work.folder, cube_of(work), work.experiment()
    training, cell, last = run.training, run.cell, run.last
    metrics, line = dict[str, float](), list[float]()
    if run.status is Status.DONE:
        steps = experiment.data.steps(study.recipe.batch_size)
        metrics = training.curves[last.epoch] | learning_speed(
            training.learning, cell.first_epoch * steps, cube.dense_accuracy(cell.replicate)
        )
        if cell.arm in CHILDREN:
            sibling = run.before.start if run.before else dense[study.recipe.epochs]
            line = lottery.line(experiment, sibling, last)
            metrics["barrier"] = barrier(line)
        if study.awaited(cell):
            final = Ticket(replace(last, buffers={}), run.drawn.mask, {})
            checkpoints.save_ticket(folder.final(cell), final)
    left, layers = lottery.densities(experiment, last)
    cutoffs = run.drawn.cutoffs
    cube.write(
        cell,
        run.status,
        metrics | left | {"epochs_trained": len(training.curves)},
        training.curves,
        {name: layer | {"cutoff": cutoffs.get(name, nan)} for name, layer in layers.items()},
        {
            "seconds": training.seconds(),
            "attempts": training.attempt,
            "started": training.began,
            "ended": time.time(),
        },
        training.place,
        training.learning,
        line,
    )
    training.end()
