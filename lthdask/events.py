"""What a running study tells those who watch it: for display, never as the record."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Event:
    """Something that has just happened.

    Attributes
    ----------
    kind : {"plan", "dense", "epoch", "cell"}
        The work is known; a dense run has ended; a run has trained one more epoch; a cell
        has ended.
    name : str
        Of the dense run or cell.
    status : str
        With "dense" and "cell": what became of it.
    cells, epochs : int
        With "plan": how many are to be trained, dense runs' epochs included.
    """

    kind: Literal["plan", "dense", "epoch", "cell"]
    name: str = ""
    status: str = ""
    cells: int = 0
    epochs: int = 0
