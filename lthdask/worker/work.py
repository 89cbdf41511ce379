"""Work: what every task of a study needs to know, and what a worker opens once for all of them."""

import functools
from dataclasses import dataclass
from pathlib import Path

import torch

from lthdask.data.batches import Data
from lthdask.data.readers import DataSource, load
from lthdask.lottery.experiment import Experiment
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.study import Study
from lthdask.training.engine import Engine


@dataclass(frozen=True)
class Work:
    """What every task of a study needs to know.

    Attributes
    ----------
    study : Study
    engine : Engine
        With nothing left on ``auto``, once a worker has looked around.
    folder : Folder
        Of the study.
    data : Path or None
        Folder of the data set.
    download : bool
        Whether a missing data set may be fetched.
    driver : str
        Names the run of the command that asks for the work.
    checkpoint_interval : float
        Seconds between two saved states of a run.
    max_attempts : int
        How many attempts at a run may end without a newer state.
    """

    study: Study
    engine: Engine
    folder: Folder
    data: Path | None = None
    download: bool = False
    driver: str = ""
    checkpoint_interval: float = 60.0
    max_attempts: int = 3

    def experiment(self) -> Experiment:
        """Return the experiment; its data are read once per process."""
        study = self.study
        return Experiment(
            network=study.network,
            data=_data(study.data, self.data, self.download, self.engine.device),
            recipe=study.recipe,
            pruning=study.pruning,
            seed=study.seed,
            engine=self.engine,
            fresh_buffers=study.fresh_buffers,
            mask_epoch=study.mask_epoch,
        )


@functools.lru_cache(maxsize=1)
def _data(source: DataSource, folder: Path | None, download: bool, device: str) -> Data:
    return load(source, folder, download).to(torch.device(device))


def cube_of(work: Work) -> Cube:
    """Return the cube of the study, opened once per process and driver.

    Its arrays take as long to open as a cell takes to be written, and no driver changes
    them once tasks run.
    """
    return _cube(work.folder.cube, work.driver)


@functools.lru_cache(maxsize=1)
def _cube(path: Path, driver: str) -> Cube:
    return Cube(path)
