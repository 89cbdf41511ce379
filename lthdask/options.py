"""The options of a run: how a study is trained, and nothing that belongs to the study itself."""

from dataclasses import dataclass

from lthdask.errors import InputError


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

    Raises
    ------
    InputError
        If a value is out of its range.
    """

    download: bool = False
    retry_failed: bool = False
    max_attempts: int = 3
    checkpoint_interval: float = 60.0
    masks_only: bool = False
    adaptive: float | None = None

    def __post_init__(self) -> None:
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
