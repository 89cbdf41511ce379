"""The options of a run: how a study is trained, and nothing that belongs to the study itself."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property

from lthdask.arguments import require
from lthdask.arms import ARMS
from lthdask.errors import InputError, listed, one_of
from lthdask.grid import Cell, Grid
from lthdask.rewinding import Rewind, rewind

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
class Kept:
    """Cells of which a run keeps the ticket: those of an arm at a threshold, and at a k or at all.

    An arm that has no threshold, or no k, is kept at any.
    """

    threshold: float
    rewind_epoch: Rewind | None = None
    arm: str = "ticket"

    @classmethod
    def parse(cls, text: str) -> "Kept":
        """Read ``threshold``, ``threshold:k`` or ``threshold:k:arm``."""
        from lthdask.strict_yaml import loaded  # --help must not wait for it

        threshold, _, rest = text.strip().partition(":")
        k, _, arm = rest.partition(":")
        try:
            at = rewind(loaded(k, "keep")) if k else None
            found = cls(float(threshold), at, arm or "ticket")
        except (TypeError, ValueError, OverflowError):
            raise InputError(
                f"`keep` takes none, matching, all, or a list such as 0.9:2,0.95:2:reinit, of "
                f"threshold, rewind epoch and arm; got {text!r}"
            ) from None
        if found.arm not in ARMS:
            raise one_of("arm", found.arm, list(ARMS))
        return found

    def has(self, cell: Cell) -> bool:
        """Return whether a cell is among them."""
        arm, k = ARMS[cell.arm], self.rewind_epoch
        at_threshold = not arm.has_threshold or _name(cell.threshold) == _name(self.threshold)
        at_k = not arm.has_k or k is None or cell.rewind_epoch == k
        return cell.arm == self.arm and at_threshold and at_k

    def require_in(self, grid: Grid) -> None:
        """Refuse what a grid does not have.

        Raises
        ------
        InputError
            If it lacks the arm, the threshold or the rewind epoch.
        """
        axes = grid.axes()
        thresholds, ks = (
            grid.along(axis, self.arm) if self.arm in ARMS else axes[axis]
            for axis in ("threshold", "rewind_epoch")
        )
        k = ks[0] if self.rewind_epoch is None else self.rewind_epoch
        for axis, named, there in (
            ("arm", self.arm, axes["arm"]),
            ("threshold", _name(self.threshold), [*map(_name, thresholds)]),
            ("rewind epoch", _name(k), [*map(_name, ks)]),
        ):
            if named not in there:
                raise InputError(
                    f"`keep` names the {axis} {named}, which is not asked for; there is "
                    f"{listed(there)}"
                )


def _name(value: Rewind) -> str:
    """Return a threshold or a rewind epoch as names of cells have it."""
    return f"{value:.12g}"


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
    keep : str
        Which trained networks stay in the study's folder, for :func:`lthdask.load_ticket`:
        ``none``; ``all``; ``matching``, all tickets until the verdict, and then those that are not
        worse than the dense run; or a list of threshold, rewind epoch and arm, such as
        ``0.9:2,0.95:2:reinit``. Without an arm it is the ticket, without a rewind epoch all of
        them. What is done and was not kept is trained again; its results stay as they are.
    keep_rewound : bool
        Keep the weights that each of them started from, too.

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
    keep: str = "none"
    keep_rewound: bool = False

    def __post_init__(self) -> None:
        for of in fields(self):
            require(of.name, getattr(self, of.name), of.type)
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
        if self.keep_rewound and self.keep == "none":
            raise InputError("`keep_rewound` keeps nothing without `keep`; say what to keep")
        if not isinstance(self.keep, str):
            raise InputError(f"`keep` takes a text, such as 0.9:2,0.95:2; got {self.keep!r}")
        if self.masks_only and self.keep != "none":
            raise InputError("`masks_only` trains no cell, so there is none to `keep`")
        if self.masks_only and self.adaptive is not None:
            raise InputError("`masks_only` trains no cell, so `adaptive` has nothing to search for")
        _ = self.kept

    @cached_property
    def kept(self) -> tuple[Kept, ...]:
        """The list of what to keep; empty where `keep` is a word."""
        if self.keep in ("none", "matching", "all"):
            return ()
        return tuple(map(Kept.parse, self.keep.split(",")))

    def keeps(self, cell: Cell) -> bool:
        """Return whether the ticket of a cell is kept once it is trained."""
        if self.keep == "matching":
            return cell.arm == "ticket"
        return self.keep == "all" or any(kept.has(cell) for kept in self.kept)
