"""What "matches" means: as accurate as the dense network, within the study's margin."""

from typing import Any

ROUNDING = 5e-7
"""Accuracies are counts of images; half a millionth, of a share or of a point, is no image."""


def matches(difference: Any, margin: float = 0.0) -> Any:
    """Return whether an accuracy matches another one.

    Parameters
    ----------
    difference : float or array
        The accuracy minus the one that it is compared with.
    margin : float
        How far below the other one it still matches, in the unit of the difference.

    Returns
    -------
    bool, or array of bool

    Examples
    --------
    >>> [matches(difference, 0.01) for difference in (0.5, 0.0, 0.7 - 0.71, -0.011)]
    [True, True, True, False]
    """
    return difference >= -margin - ROUNDING
