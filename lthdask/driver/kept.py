"""What is kept of a trained dense run, and what of it has to be trained again for new cells."""

import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from math import ceil
from pathlib import Path

from lthdask import needs
from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.rewinding import Iterations, Place, epochs_before
from lthdask.storage import checkpoints
from lthdask.study import Study

log = logging.getLogger(__name__)


class Kept:
    """The checkpoints of a trained dense run that lie in the folder of its study.

    Parameters
    ----------
    study : Study
    folder : Path
    replicate : int
    steps : int
        Batches in an epoch.
    digests : mapping of Place to str, optional
        Those of its checkpoints. With them, each file is read, once; without, only the
        heads of files are looked at.
    """

    def __init__(
        self,
        study: Study,
        folder: Path,
        replicate: int,
        steps: int,
        digests: Mapping[Place, str] | None = None,
    ) -> None:
        self.study, self.folder, self.replicate, self.digests = study, folder, replicate, digests
        self.steps = steps
        self._whole: dict[Place, bool] = {}

    def file(self, at: Place) -> tuple[Path, str]:
        """Return the file of a checkpoint, and its digest."""
        path = checkpoints.path_of(self.folder, self.replicate, at)
        return path, (self.digests or {}).get(at, "")

    def lacking(self, cells: Iterable[Cell]) -> range | None:
        """Return what has to be trained again, for cells of this replicate to start from it.

        Returns
        -------
        range or None
            From the nearest complete state before what is lacking, to the last epoch of it:
            ``range(2, 5)`` takes epochs 3 to 5, and is what a state inside one of them needs.
            None if nothing is lacking.
        """
        needed = {
            (at, at == needs.state_for(self.study, cell, self.steps))
            for cell in cells
            for at in needs.checkpoints_for(self.study, cell, self.steps)
        }
        self._read({at for at, _ in needed if self._is_listed(at)})
        lacking = {at for at, complete in needed if not self._holds(at, complete)}
        if not lacking:
            return None
        within = [epochs_before(at, self.steps) for at in lacking]
        first, last = ceil(min(within)) - 1, ceil(max(within))
        earlier = (epoch for epoch in range(first, -1, -1) if self._holds(epoch, True))
        return range(next(earlier, 0), last)

    def _is_listed(self, at: Place) -> bool:
        """Return whether it was made: an older, smaller study had no need of a state inside."""
        return not (isinstance(at, Iterations) and self.digests is not None) or at in self.digests

    def _holds(self, at: Place, complete: bool) -> bool:
        """Return whether a checkpoint is there and whole, `complete` with its buffers."""
        if not self._is_listed(at):
            return False
        self._read({at})
        complete = complete and needs.remembers(self.study, at) and self._remembers
        return self._whole.get(at, True) and checkpoints.is_there(self.file(at)[0], complete)

    @cached_property
    def _remembers(self) -> bool:
        """Whether the optimizer, which may be one's own, has buffers: those at T are kept."""
        last, _ = self.file(self.study.recipe.epochs)
        return checkpoints.is_there(last, complete=True) or not checkpoints.is_there(last)

    def _read(self, places: set[Place]) -> None:
        if self.digests is not None:
            new = list(places - self._whole.keys())
            with ThreadPoolExecutor() as threads:  # no cell is trained meanwhile
                self._whole |= zip(new, threads.map(self._is_whole, new), strict=True)

    def _is_whole(self, at: Place) -> bool:
        try:
            checkpoints.require(*self.file(at))
        except InputError as error:
            log.warning("%s: it is made again", error)
            return False
        return True
