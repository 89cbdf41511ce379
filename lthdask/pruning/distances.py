"""Mask distances: how much the masks of two dense epochs differ, before any cell is trained.

This is the early-bird diagram (You et al., "Drawing Early-Bird Tickets", ICLR 2020, section
3.4): once the mask that an epoch's weights would give hardly changes any more, the ticket is
known. They prune channels, and stop where the masks of consecutive epochs differ by less than
0.1. Here it is drawn for single weights and every pair of epochs, and when a mask has settled
is judged by its distance to the last one.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lthdask.pruning.masks import Mask

SETTLED = 0.1
"""Below it, the mask of an epoch is as good as the last one: the bound of You et al., as a share
of what two random masks differ in."""


def distances(masks: Iterable[Mask]) -> NDArray[np.float64]:
    """Return the Hamming distances between every two masks, as shares of their weights.

    Parameters
    ----------
    masks : iterable of Mask
        Masks of the same network at N epochs.

    Returns
    -------
    ndarray of float64, (N, N)
        Symmetric, 0 on the diagonal, in [0, 1].

    Examples
    --------
    >>> masks = [{"w": torch.tensor(kept)} for kept in ([True, True], [True, False])]
    >>> distances(masks)
    array([[0. , 0.5],
           [0.5, 0. ]])
    """
    packed, weights = [], 1
    for mask in masks:
        flat = torch.cat([kept.flatten() for kept in mask.values()]).cpu().numpy()
        weights = len(flat)
        packed.append(np.packbits(flat))  # an eighth: T masks are held at a time
    found = np.zeros((len(packed), len(packed)))
    for i, one in enumerate(packed):
        for j, other in enumerate(packed[:i]):
            found[i, j] = found[j, i] = np.bitwise_count(one ^ other).sum() / weights
    return found


def suggested(distances_: NDArray[np.float64], density: float) -> list[int]:
    """Return the rewind epochs that are worth running, judged by the masks alone.

    From the first epoch whose mask nearly equals the last one, the weights that matter are
    decided, and a later k is ever closer to fine-tuning. Suggested are that epoch, every
    doubling on the way there, and 0, which the others are compared with.

    Parameters
    ----------
    distances_ : ndarray, (T + 1, T + 1)
        Distances between the masks of epochs 0..T.
    density : float
        Density of the masks: two random ones differ in 2 · density · (1 − density), with which
        a distance is compared.

    Examples
    --------
    >>> to_last = np.array([0.30, 0.25, 0.15, 0.10, 0.06, 0.02, 0.0])
    >>> suggested(np.tile(to_last[:, None], 7), density=0.5)
    [0, 1, 2, 4, 5]
    """
    last = len(distances_) - 1
    relative = distances_[:, last] / (2 * density * (1 - density))
    settled = next(e for e in range(last + 1) if (relative[e:] <= SETTLED).all())
    doublings: Sequence[int] = [2**n for n in range(last.bit_length())]
    epochs = {0, *(e for e in doublings if e < settled), settled}
    return sorted(epoch for epoch in epochs if epoch < last)
