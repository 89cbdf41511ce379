"""Work: what every task of a study needs to know, and what a worker opens once for all of them."""

import functools
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lthdask.data.batches import Data
from lthdask.data.readers import DataSource, load
from lthdask.lottery.experiment import Experiment
from lthdask.options import Options
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
        Once a worker has looked around, nothing in it is left on ``auto``.
    folder : Folder
        The study's folder.
    data : path, optional
        Folder of the data set.
    options : Options
    driver : str
        Names the run of the command that asks for the work.
    """

    study: Study
    engine: Engine
    folder: Folder
    data: str | Path | None = None
    options: Options = Options()
    driver: str = field(default_factory=lambda: secrets.token_hex(8))

    def __post_init__(self) -> None:
        if self.data is not None:  # the worker's working directory may be another one
            object.__setattr__(self, "data", Path(self.data).absolute())

    def experiment(self) -> Experiment:
        """Return the experiment; its data are read once per process."""
        study = self.study
        return Experiment(
            network=study.network,
            data=_data(study.data, self.data, self.options.download, self.engine.device),
            recipe=study.recipe,
            pruning=study.pruning,
            seed=study.seed,
            engine=self.engine,
            fresh_buffers=study.fresh_buffers,
            mask_epoch=study.mask_epoch,
        )


@functools.lru_cache(maxsize=1)
def _data(source: DataSource, folder: str | Path | None, download: bool, device: str) -> Data:
    return load(source, Path(folder) if folder else None, download).to(torch.device(device))


def cube_of(work: Work) -> Cube:
    """Return the cube of the study, opened once per process and driver.

    Its arrays take as long to open as a cell takes to be written, and no driver changes
    them once tasks run.
    """
    return _cube(work.folder.cube, work.driver)


@functools.lru_cache(maxsize=1)
def _cube(path: Path, driver: str) -> Cube:
    return Cube(path)
