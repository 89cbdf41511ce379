"""What is kept of a trained dense run, and what of it has to be trained again for new cells."""

import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

from lthdask.errors import InputError
from lthdask.grid import Cell
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
    digests : mapping of int to str, optional
        Those of its checkpoints, by epoch. With them, each file is read, once; without, only the
        heads of files are looked at.
    """

    def __init__(
        self, study: Study, folder: Path, replicate: int, digests: Mapping[int, str] | None = None
    ) -> None:
        self.study, self.folder, self.replicate, self.digests = study, folder, replicate, digests
        self._whole: dict[int, bool] = {}

    def file(self, epoch: int) -> tuple[Path, str]:
        """Return the file of a checkpoint, and its digest."""
        path = checkpoints.path_of(self.folder, self.replicate, epoch)
        return path, (self.digests or {}).get(epoch, "")

    def lacking(self, cells: Iterable[Cell]) -> range | None:
        """Return what has to be trained again, for cells of this replicate to start from it.

        Returns
        -------
        range or None
            From the nearest complete state before what is lacking, to the last epoch of it:
            ``range(2, 5)`` takes epochs 3 to 5. None if nothing is lacking.
        """
        needed = {
            (epoch, epoch == self.study.state_for(cell))
            for cell in cells
            for epoch in self.study.checkpoints_for(cell)
        }
        self._read({epoch for epoch, _ in needed})
        epochs = {epoch for epoch, complete in needed if not self._holds(epoch, complete)}
        if not epochs:
            return None
        earlier = (epoch for epoch in range(min(epochs) - 1, -1, -1) if self._holds(epoch, True))
        return range(next(earlier, 0), max(epochs))

    def _holds(self, epoch: int, complete: bool) -> bool:
        """Return whether a checkpoint is there and whole, `complete` with its buffers."""
        self._read({epoch})
        complete = complete and self.study.remembers(epoch) and self._remembers
        return self._whole.get(epoch, True) and checkpoints.is_there(self.file(epoch)[0], complete)

    @cached_property
    def _remembers(self) -> bool:
        """Whether the optimizer, which may be one's own, has buffers: those at T are kept."""
        last, _ = self.file(self.study.recipe.epochs)
        return checkpoints.is_there(last, complete=True) or not checkpoints.is_there(last)

    def _read(self, epochs: set[int]) -> None:
        if self.digests is not None:
            new = sorted(epochs - self._whole.keys())
            with ThreadPoolExecutor() as threads:  # no cell is trained meanwhile
                self._whole |= zip(new, threads.map(self._is_whole, new), strict=True)

    def _is_whole(self, epoch: int) -> bool:
        try:
            checkpoints.require(*self.file(epoch))
        except InputError as error:
            log.warning("%s: it is made again", error)
            return False
        return True
