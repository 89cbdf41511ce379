"""What a worker does with cells: draw what they train, train it, and write their results.

The cells of a cohort are trained side by side; on a CPU, that is one cell.
"""

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite, nan

import torch

from lthdask import needs
from lthdask.arms import ARMS
from lthdask.errors import InputError
from lthdask.events import Event, TaskContext
from lthdask.grid import Cell
from lthdask.lottery import drawing, runs
from lthdask.lottery.density import densities
from lthdask.lottery.learning_speed import learning_speed
from lthdask.lottery.stability import barrier
from lthdask.lottery.ticket import Ticket
from lthdask.storage.cube import Cube
from lthdask.storage.schema import Status
from lthdask.storage.tickets import final_weights
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.loop import Diverged, Progress
from lthdask.worker.keeping import is_lacking, keep
from lthdask.worker.resuming import ResumableRun, follow
from lthdask.worker.work import Work, cube_of


def train_cells(
    work: Work, cells: Sequence[Cell], here: TaskContext, *dense: Checkpoint
) -> list[str | Exception]:
    """Train the cells of a cohort, and write their results into the cube.

    Parameters
    ----------
    work : Work
    cells : sequence of Cell
        Cells of one `Cell.cohort`.
    here : TaskContext
    *dense : Checkpoint
        The checkpoints of the dense run that :func:`lthdask.needs.checkpoints_for` names.

    Returns
    -------
    list of str or Exception
        What became of each: ``done``, ``diverged``, or what it raised while the others went on.
        A cell may be done already, by a worker that died before it could say so. It is left as
        it is, unless its ticket is to be kept and is not, or its final weights are lost and
        others wait for them. Then it is trained again for these, and its results stay as they are.

    Raises
    ------
    Stopped
        If the worker has to go; the states are saved.
    Exception
        Whatever training itself raised, for any of the cells.
    """
    cube, steps = cube_of(work), work.experiment().steps
    states = {state.place(steps): state for state in dense}
    outcomes = dict[Cell, str | Exception]()
    waiting, done = list[tuple[Cell, ResumableRun]](), set[Cell]()
    for cell in cells:
        status = cube.status(cell) if work.folder.runs.begun(cell) else Status.PENDING
        if status is Status.DIVERGED or (status is Status.DONE and not is_lacking(work, cell)):
            outcomes[cell] = status.name.lower()
        else:
            waiting.append((cell, ResumableRun(work, cell, here)))
            done |= {cell} if status is Status.DONE else set()

    def point(pair: tuple[Cell, ResumableRun]) -> tuple[int, int]:
        start = pair[1].start
        return (start.epoch, start.step) if start else pair[0].begins(steps)

    for _, together in groupby(sorted(waiting, key=point), point):
        begun, group = [], list(together)
        for cell, training in group:
            try:
                begun.append(_Run.begun(training, cell, states, len(group), cell in done))
            except Exception as problem:
                outcomes[cell] = problem
        outcomes |= _train(work, begun, states)
    return [outcomes[cell] for cell in cells]


@functools.lru_cache(maxsize=64)
def _dense_accuracy(cube: Cube, replicate: int) -> float:
    """Return what stays the same while cells are trained: their dense runs do not change."""
    return cube.dense_accuracy(replicate)


@dataclass
class _Run:
    """A cell while it is trained.

    Attributes
    ----------
    training : ResumableRun
    cell : Cell
    drawn : Ticket
    before : Ticket or None
        Final weights of the cell that this one waits for.
    again : bool
        Whether it was done before, and is trained for its weights alone.
    status : Status
    """

    training: ResumableRun
    cell: Cell
    drawn: Ticket
    before: Ticket | None
    again: bool
    status: Status = Status.DONE

    @classmethod
    def begun(
        cls, training: ResumableRun, cell: Cell, dense: drawing.Dense, beside: int, again: bool
    ) -> "_Run":
        """Record the attempt, and draw what is trained."""
        work = training.work
        training.begin(cell.begins(work.experiment().steps), beside)
        waited = needs.waits_for(work.study, cell)
        before = final_weights(work.folder, waited, cube_of(work).identity) if waited else None
        if waited and not before:
            raise InputError(f"the final weights of {waited}, which {cell} needs, are lost")
        drawn = drawing.draw(work.experiment(), cell, dense, before)
        return cls(training, cell, drawn, before, again)


def _train(work: Work, together: list[_Run], dense: drawing.Dense) -> dict[Cell, str | Exception]:
    """Train runs that start at the same point; fewer at a time if they do not fit."""
    if not together:
        return {}
    outcomes = dict[Cell, str | Exception]()
    try:
        trainings = [run.training for run in together]
        for found in follow(trainings, _epochs(work, together), work.experiment()):
            for run, outcome in zip(together, found.outcomes, strict=True):
                if isinstance(outcome, Diverged):
                    run.status = Status.DIVERGED
            if found.epoch == work.study.recipe.epochs:  # before training, and its states, are gone
                for run, end in zip(together, found.states(), strict=True):
                    if not end.is_finite():  # which a dead unit hides from the loss
                        run.status = Status.DIVERGED
                    if run.status is Status.DONE:
                        outcomes[run.cell] = _written(work, run, dense, end)
        return outcomes | _all_diverged(work, together, dense)
    except RuntimeError as problem:  # too little memory, or more elements than a kernel counts
        if len(together) == 1:
            raise
        reason = f"{len(together)} cells cannot be trained side by side; trying fewer: {problem}"
    torch.cuda.empty_cache()
    together[0].training.here.tell(Event("warning", "cohort", reason))
    outcomes |= _all_diverged(work, together, dense)
    living = [run for run in together if run.cell not in outcomes]
    half = max(1, len(living) // 2)
    return outcomes | _train(work, living[:half], dense) | _train(work, living[half:], dense)


def _all_diverged(
    work: Work, together: list[_Run], dense: drawing.Dense
) -> dict[Cell, str | Exception]:
    """Write the results of the cells that diverged."""
    return {r.cell: _written(work, r, dense) for r in together if r.status is Status.DIVERGED}


def _epochs(work: Work, together: list[_Run]) -> Iterator[Progress]:
    cell = together[0].cell
    return runs.train_tickets(
        work.experiment(),
        cell.replicate,
        [run.training.start or run.drawn.origin for run in together],
        [run.drawn.mask for run in together],
        together[0].training.due,
        arm=cell.arm,
    )


def _written(
    work: Work, run: _Run, dense: drawing.Dense, end: Checkpoint | None = None
) -> str | Exception:
    try:
        _write(work, run, dense, end)
    except Exception as problem:
        return problem
    return run.status.name.lower()


def _write(work: Work, run: _Run, dense: drawing.Dense, end: Checkpoint | None) -> None:
    """Write the results of a cell. One that diverged has no `end`, and needs no state."""
    study, cube, experiment = work.study, cube_of(work), work.experiment()
    training, cell, drawn = run.training, run.cell, run.drawn
    metrics, line, steps = dict[str, float](), list[float](), experiment.steps
    epoch, step = cell.begins(steps)
    if end:
        metrics = training.curves[end.epoch] | learning_speed(
            training.learning, epoch * steps + step, _dense_accuracy(cube, cell.replicate)
        )
        if ARMS[cell.arm].reordered:
            sibling = run.before.origin if run.before else dense[study.recipe.epochs]
            line = runs.errors_on_line(experiment, sibling, end)
            metrics["barrier"] = barrier(line)
    left, layers = densities(experiment, end or drawn.start)
    metrics |= left | {"epochs_trained": max(0.0, len(training.curves) - step / steps)}
    if end:
        keep(work, cell, drawn, end, metrics)
    if run.again:
        _compare(training, cube.metrics(cell), metrics)
        training.end()
        return
    cube.write(
        cell,
        run.status,
        metrics,
        training.curves,
        {name: layer | {"cutoff": drawn.cutoffs.get(name, nan)} for name, layer in layers.items()},
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


def _compare(training: ResumableRun, then: Mapping[str, float], now: Mapping[str, float]) -> None:
    """Say where a cell that was trained again is not the one that its results are of."""
    odd = [name for name, value in then.items() if isfinite(value) and now.get(name) != value]
    if odd:
        training.warn(
            f"{training.name}, trained again for its weights, is not the same as before, and its "
            f"results stay as they are: {odd[0]} {now.get(odd[0], nan):.6g} now, "
            f"{then[odd[0]]:.6g} then; on a GPU, another processor or with other versions, no two "
            f"runs need agree"
        )
