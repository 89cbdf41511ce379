"""Rewinding: where in a dense run a cell starts, in epochs or in iterations.

k is a number of epochs, whole or not, or of iterations, such as ``500it`` (Frankle, Dziugaite,
Roy & Carbin 2020 count it in iterations: one is one step of the optimizer). How many steps an
epoch has is known once the data are, so what needs them takes them as an argument.
"""

import math
import re
from functools import total_ordering
from typing import Any

from lthdask.errors import InputError

ITERATION = "iteration"
"""Units of an axis of rewind epochs that are given in iterations."""
_ITERATIONS = re.compile(r"(0|[1-9][0-9]{0,8})it")


@total_ordering
class Iterations:
    """A number of steps from the start of training, at least 1, where epochs could stand.

    Two of them can be ordered, and 0 comes before each. Whether it comes before an epoch is
    not known without the data: that raises a TypeError.

    Examples
    --------
    >>> Iterations(500), 0 < Iterations(5) < Iterations(10), Iterations(5) == 5
    (500it, True, False)
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Iterations) and self.count == other.count

    def __lt__(self, other: Any) -> bool:
        if isinstance(other, Iterations):
            return self.count < other.count
        return False if other == 0 else NotImplemented

    def __hash__(self) -> int:
        return hash((ITERATION, self.count))

    def __repr__(self) -> str:
        return f"{self.count}it"

    def __format__(self, spec: str) -> str:
        return repr(self)


Rewind = int | float | Iterations
"""k: a whole number of epochs, one that is not whole, or a number of iterations."""
Place = int | Iterations
"""A state of a dense run: after so many epochs, or, inside an epoch, after so many steps."""


def rewind(given: Any) -> Rewind:
    """Return k as it is given in a study; a float keeps the twelve digits of a cell's name.

    Raises
    ------
    ValueError, TypeError or OverflowError
        If it is no k.

    Examples
    --------
    >>> rewind(2), rewind(2.0), rewind(0.5), rewind("500it"), rewind("0it")
    (2, 2, 0.5, 500it, 0)
    """
    if isinstance(given, Iterations):
        return given
    if isinstance(given, str):
        found = _ITERATIONS.fullmatch(given)
        if found is None:
            raise ValueError
        return on_axis(int(found[1]), ITERATION)
    if isinstance(given, bool):
        raise TypeError
    if not math.isfinite(given):
        raise ValueError
    return on_axis(float(f"{given:.12g}"))


def as_given(k: Rewind) -> int | float | str:
    """Return k as a study has it, of types that YAML and JSON know."""
    return str(k) if isinstance(k, Iterations) else k


def on_axis(value: float, units: str = "") -> Rewind:
    """Return the k at a value of an axis of rewind epochs, which may be in iterations."""
    if units == ITERATION and value:
        return Iterations(int(value))
    return int(value) if float(value).is_integer() else float(value)


def number(k: Rewind) -> float:
    """Return the value of k on its axis."""
    return float(k.count if isinstance(k, Iterations) else k)


def step_of(k: Rewind, steps: int) -> int:
    """Return how many steps are done at k, given those of an epoch: the nearest, a half up.

    Examples
    --------
    >>> step_of(2, steps=97), step_of(0.3, steps=97), step_of(Iterations(500), steps=97)
    (194, 29, 500)
    """
    return k.count if isinstance(k, Iterations) else math.floor(k * steps + 0.5)


def place_of(k: Rewind, steps: int) -> Place:
    """Return the state of the dense run at k.

    Examples
    --------
    >>> place_of(0.5, steps=8), place_of(1.5, steps=8), place_of(Iterations(16), steps=8)
    (4it, 12it, 2)
    """
    if isinstance(k, int):
        return k
    epoch, step = divmod(step_of(k, steps), steps)
    return Iterations(epoch * steps + step) if step else epoch


def place(text: str) -> Place:
    """Return what names a state in a manifest, and in notes beside one: ``2``, or ``12it``.

    Raises
    ------
    ValueError
        If it names none.
    """
    found = rewind(text) if text.endswith("it") else int(text)
    if isinstance(found, float) or str(found) != text:
        raise ValueError(f"{text!r} names no state of a dense run")
    return found


def epochs_before(k: Rewind, steps: int = 0) -> int | float:
    """Return how many epochs are done at k.

    Where the `steps` of an epoch are not known yet, it is k as it is given; and 0 for iterations.
    """
    if isinstance(k, int) or not steps:
        return 0 if isinstance(k, Iterations) else k
    epoch, step = divmod(step_of(k, steps), steps)
    return epoch + step / steps if step else epoch


def ordered(name: str, ks: "list[Rewind]") -> list[Rewind]:
    """Return some k of one axis in their order.

    Raises
    ------
    InputError
        If some are in epochs and some in iterations, so that the order is not known.
    """
    try:
        return sorted(ks)
    except TypeError:
        epochs = next(k for k in ks if k and not isinstance(k, Iterations))
        iterations = next(k for k in ks if isinstance(k, Iterations))
        raise InputError(
            f"{name} are in epochs or in iterations, not both, but for 0: how many steps an epoch "
            f"has is known once the data are read; got {epochs:g} and {iterations}"
        ) from None


def require_apart(ks: "list[Rewind]", epochs: int, steps: int) -> None:
    """Refuse rewind epochs that do not lie on steps of their own, now that the steps are known.

    Raises
    ------
    InputError
        If two of them are the same step, one is none, or one leaves nothing to train.
    """
    before: dict[int, Rewind] = {}
    for k in ks:
        step, of = step_of(k, steps), f"an epoch has {steps:,} steps"
        if k and not step:
            raise InputError(
                f"the rewind epoch {k:.12g} is less than half a step, because {of}; give 0, or 1it"
            )
        if step in before:
            raise InputError(
                f"the rewind epochs {before[step]:.12g} and {k:.12g} are both step {step:,}, "
                f"because {of}; leave one out"
            )
        if step >= epochs * steps:
            raise InputError(
                f"the rewind epoch {k:.12g} leaves nothing to train: {of}, and the study has "
                f"{epochs} epochs, so the last possible one is {epochs * steps - 1}it"
            )
        before[step] = k


def rounded(ks: "list[Rewind]", steps: int) -> list[str]:
    """Return what is to be said of rewind epochs that lie between two steps.

    Examples
    --------
    >>> rounded([0, 0.25, 0.3], steps=8)
    ['k=0.3 is 2.4 steps of 8 to the epoch: taken as step 2']
    """
    return [
        f"k={k:g} is {k * steps:.4g} steps of {steps:,} to the epoch: taken as step "
        f"{step_of(k, steps):,}"
        for k in ks
        if isinstance(k, float) and is_between(k, steps)
    ]


def is_between(k: float, steps: int) -> bool:
    """Return whether k lies between two steps."""
    return abs(k * steps - step_of(k, steps)) > 1e-6 * k * steps
