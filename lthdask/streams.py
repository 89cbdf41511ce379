"""Random streams: every draw of a study is a function of (seed, replicate, purpose, epoch).

A child of a run draws another order of the same data, from a stream of its own. Nothing about
randomness has to be saved: a run that starts in the middle draws what the undisturbed one drew.
Streams come from ``SeedSequence(seed, spawn_key=(replicate, purpose, epoch))``. Only raw bits of
PCG64 are used: NumPy keeps them from release to release (NEP 19), unlike the results of
``Generator`` methods.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Purpose(IntEnum):
    """What a stream is drawn for; the numbers are part of a study's identity."""

    INITIALISATION = 0
    ORDER = 1
    AUGMENTATION = 2
    RANDOM_MASK = 3
    RANDOM_SCORE = 4
    OWN_ARM = 5
    NETWORK = 6


def stream(
    seed: int, replicate: int, purpose: Purpose, epoch: int = 0, child: int = 0
) -> np.random.PCG64:
    """Return the bit stream of one purpose in one epoch of one replicate, or of its child."""
    key = (replicate, int(purpose), epoch, *([child] if child else []))
    return np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key))


def permutation(bits: np.random.PCG64, count: int) -> NDArray[np.int64]:
    """Return a random order of ``range(count)``."""
    return np.argsort(bits.random_raw(count), kind="stable")


def below(bits: np.random.PCG64, limit: int, count: int) -> NDArray[np.int64]:
    """Return `count` random integers in [0, `limit`)."""
    return (bits.random_raw(count) % np.uint64(limit)).astype(np.int64)
