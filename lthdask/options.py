"""The options of a run: how a study is trained, and nothing that belongs to the study itself."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lthdask.errors import InputError

LOOPBACK = ("127.0.0.1:*", "localhost:*")
"""Where a browser of this machine has a page from, also one at the end of a tunnel."""


def origins_with(more: Iterable[str]) -> tuple[str, ...]:
    """Return the origins whose pages may connect to one of ours: of this machine, and more.

    Raises
    ------
    InputError
        If one of them is no host, or host and port.
    """
    for origin in more:
        if not re.fullmatch(r"[\w.*-]+(:(\d+|\*))?", origin):
            raise InputError(
                f"`allow_origin` takes a host, or host and port, such as hub.example.org:443; "
                f"got {origin!r}"
            )
    return *LOOPBACK, *(origin.lower() for origin in more)


@dataclass(frozen=True)
class Options:
    """How a run trains a study. None of it changes a result.

    Parameters
    ----------
    download : bool
        Fetch a data set that is missing from the data folder.
    retry_failed : bool
        Train failed cells again.
    max_attempts : int
        Mark a cell as failed after this many attempts without new saved progress, at least 1.
    checkpoint_interval : float
        Seconds between two saved states of a cell, at least 0. At most that much work is lost
        with a worker.
    masks_only : bool
        Train the dense runs and compare the masks of their epochs, but train no cell.
    adaptive : float, optional
        Search for the frontier, and spend at most this share of the grid's epochs, in (0, 1].
    allow_origin : tuple of str
        Further origins, such as ``hub.example.org:443``, from which a browser may have the page
        of the grid; those of this machine always may.

    Raises
    ------
    InputError
        If a value is out of its range.

    Examples
    --------
    >>> Options(adaptive=0.5, max_attempts=5).retry_failed
    False
    >>> Options(max_attempts=0)
    Traceback (most recent call last):
    lthdask.errors.InputError: `max_attempts` must be 1 or more; got 0
    """

    download: bool = False
    retry_failed: bool = False
    max_attempts: int = 3
    checkpoint_interval: float = 60.0
    masks_only: bool = False
    adaptive: float | None = None
    allow_origin: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        origins_with(self.allow_origin)
        if self.max_attempts < 1:
            raise InputError(f"`max_attempts` must be 1 or more; got {self.max_attempts}")
        if not self.checkpoint_interval >= 0:
            raise InputError(
                f"`checkpoint_interval` must be 0 seconds or more; got {self.checkpoint_interval:g}"
            )
        if self.adaptive is not None and not 0 < self.adaptive <= 1:
            raise InputError(
                f"`adaptive` is a share of the grid's epochs, above 0 and at most 1; "
                f"got {self.adaptive:g}"
            )
