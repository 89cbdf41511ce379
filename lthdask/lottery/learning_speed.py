"""How fast a run learns: early stop, and the way to the dense accuracy.

Frankle & Carbin 2019, section 2: the iteration of minimum validation loss stands for where
training would be stopped. Nothing is chosen on the test images.
"""

import math
from collections.abc import Iterable, Mapping

from lthdask.lottery.matching import matches

MEASURES = ("validation_loss", "validation_accuracy", "test_accuracy")
"""What is measured on the way."""


def learning_speed(
    measured: Mapping[int, Mapping[str, float]], first: int, dense_accuracy: float
) -> dict[str, float]:
    """Return how fast a run learnt.

    Parameters
    ----------
    measured : mapping of int to mapping of str to float
        Iteration, counted from epoch 0 of the schedule → `MEASURES`.
    first : int
        Iterations that were done when the run started; the results are counted from there.
    dense_accuracy : float
        Validation accuracy of the dense run after its last epoch, in [0, 1].

    Returns
    -------
    dict of str to float
        ``early_stop_iteration``, where the validation loss was lowest (the first of several);
        ``early_stop_test_accuracy``, the test accuracy there; ``iterations_to_dense``, until
        the validation accuracy first reached that of the dense run, NaN if it never did.

    Examples
    --------
    >>> measured = {
    ...     10: {"validation_loss": 0.5, "validation_accuracy": 0.8, "test_accuracy": 0.7},
    ...     20: {"validation_loss": 0.3, "validation_accuracy": 0.9, "test_accuracy": 0.8},
    ...     30: {"validation_loss": 0.4, "validation_accuracy": 0.9, "test_accuracy": 0.9},
    ... }
    >>> list(learning_speed(measured, first=5, dense_accuracy=0.85).values())
    [15, 0.8, 15]
    """
    stop = min(sorted(measured), key=lambda at: measured[at]["validation_loss"])
    there = _first(
        at for at, m in measured.items() if matches(m["validation_accuracy"] - dense_accuracy)
    )
    return {
        "early_stop_iteration": stop - first,
        "early_stop_test_accuracy": measured[stop]["test_accuracy"],
        "iterations_to_dense": there - first,
    }


def _first(iterations: Iterable[int]) -> float:
    return min(iterations, default=math.nan)
