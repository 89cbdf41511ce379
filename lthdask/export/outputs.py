"""Whether a network that was written in another way computes the same."""

import numpy as np
from numpy.typing import ArrayLike

CLOSE = 1e-4
"""How far outputs may be from those that are wanted, as a share of the largest."""


def agree(found: ArrayLike, wanted: ArrayLike) -> bool:
    """Return whether outputs are those that are wanted, but for rounding; NaN never is.

    Examples
    --------
    >>> agree([1.00001, 0.0], [1.0, 0.0]), agree([1.001, 0.0], [1.0, 0.0])
    (True, False)
    """
    found, wanted = np.asarray(found), np.asarray(wanted)
    return bool(np.abs(found - wanted).max() <= CLOSE * np.abs(wanted).max())
