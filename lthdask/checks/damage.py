"""Damage: what is not as it was written, and what becomes of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Damage:
    """Something in a study's folder that is not as it was written.

    Attributes
    ----------
    what : str
        The cell, or the file relative to the folder.
    problem : str
        What is wrong with it.
    remedy : str
        What must be computed again.
    mend : callable or None
        Marks exactly that to be computed again; None if it is beyond repair.
    """

    what: str
    problem: str
    remedy: str
    mend: Callable[[], object] | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        """Return the damage as a sentence."""
        return f"{self.what}: {self.problem}; {self.remedy}"


def problem_of(file: Path) -> str:
    """Return what is wrong with a file that is not as it was written."""
    return "it is not what was written" if file.exists() else "it is missing"
