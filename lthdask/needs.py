"""What a cell needs of the dense run and of other cells, and what is therefore kept."""

from dataclasses import replace

from lthdask.arms import ARMS
from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.own import is_own
from lthdask.rewinding import (
    Iterations,
    Place,
    epochs_before,
    place_of,
    require_apart,
    step_of,
)
from lthdask.study import Study


def checkpoints_for(study: Study, cell: Cell, steps: int) -> list[Place]:
    """Return the states of the dense run that a cell needs; an epoch has so many steps."""
    if study.source:
        return []
    arm, last = ARMS[cell.arm], study.recipe.epochs
    first = not study.iterative or cell.threshold == study.grid.thresholds[0]
    needed = set[Place]()
    if arm.start in ("rewound", "restarted"):
        needed.add(place_of(cell.rewind_epoch, steps))
    if arm.start == "final" or (arm.start == "before" and first):
        needed.add(last)
    if arm.reordered and arm.compared_with == "dense":
        needed.add(last)
    if arm.mask in ("ticket", "random") and not study.pruning.masks:
        if first:
            needed.add(place_of(study.mask_at, steps))
        if study.pruning.needs_initial:
            needed.add(0)
    if arm.start == "signs" or is_own(cell.arm):
        needed.add(0)
    return sorted(needed, key=lambda place: step_of(place, steps))


def state_for(study: Study, cell: Cell, steps: int) -> Place | None:
    """Return where the dense run's complete state is that a cell starts from.

    None if weights are enough: the optimizer remembers nothing there, or starts afresh.
    """
    arm = ARMS[cell.arm]
    if arm.begins_anew or (study.fresh_buffers and arm.mask != "none"):
        return None
    if arm.start == "before" and waits_for(study, cell):
        return None
    place = place_of(cell.rewind_epoch if arm.start == "rewound" else study.recipe.epochs, steps)
    return place if remembers(study, place) else None


def remembers(study: Study, place: Place) -> bool:
    """Return whether the optimizer has buffers at a state of the dense run."""
    return place != 0 and study.recipe.optimizer.buffers > 0


def waits_for(study: Study, cell: Cell) -> Cell | None:
    """Return the cell whose final weights a cell needs, or None."""
    arm = ARMS[cell.arm]
    if arm.parent:
        return replace(cell, arm=arm.parent)
    if not study.iterative or arm.mask == "none":
        return None
    earlier = [t for t in study.grid.thresholds if t < cell.threshold]
    chain = cell.arm if arm.start == "before" else "ticket"
    return replace(cell, arm=chain, threshold=earlier[-1]) if earlier else None


def awaited(study: Study, cell: Cell) -> bool:
    """Return whether a cell's final weights are needed by others."""
    if any(ARMS[name].parent == cell.arm for name in study.grid.arms):
        return True
    last = cell.threshold == study.grid.thresholds[-1]
    has_rounds = cell.arm == "ticket" or ARMS[cell.arm].start == "before"
    return has_rounds and study.iterative and not last


def kept_until(study: Study, steps: int = 0) -> int:
    """Return the last epoch of the dense run whose complete state is kept.

    Where the `steps` of an epoch are not known, it is so for iterations, too.
    """
    return max(study.keep_until, int(epochs_before(study.grid.ks[-1], steps)))


def inside(study: Study, steps: int) -> set[int]:
    """Return the steps inside epochs at which the dense run's state is kept, too."""
    places = {place_of(k, steps) for k in (*study.grid.ks, study.mask_at)}
    return {place.count for place in places if isinstance(place, Iterations)}


def require_steps(study: Study, steps: int) -> None:
    """Refuse rewind epochs and a mask epoch that do not lie on steps of their own.

    Raises
    ------
    InputError
        As for :func:`lthdask.rewinding.require_apart`.
    """
    require_apart(study.grid.ks, study.recipe.epochs, steps)
    if not 0 < step_of(study.mask_at, steps) <= study.recipe.epochs * steps:
        raise InputError(
            f"mask_epoch must lie between 1it and {study.recipe.epochs * steps}it; "
            f"got {study.mask_epoch}"
        )
