"""Work: what every task of a study needs to know, and what a worker opens once for all of them."""

import functools
import platform
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lthdask import given
from lthdask.data.batches import Data
from lthdask.data.digest import DataDigest, other_data
from lthdask.data.readers import DataSource, load, require_folder
from lthdask.errors import as_path
from lthdask.lottery.experiment import Experiment
from lthdask.lottery.ticket import Transferred
from lthdask.options import Options
from lthdask.own import is_own
from lthdask.own import load as load_code
from lthdask.storage import source
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
    recorded : DataDigest, optional
        What identifies the data that the study was begun with; every worker compares it with what
        it reads. None before a worker has read them.
    """

    study: Study
    engine: Engine
    folder: Folder
    data: str | Path | None = None
    options: Options = Options()
    driver: str = field(default_factory=lambda: secrets.token_hex(8))
    recorded: DataDigest | None = None

    def __post_init__(self) -> None:
        if self.data is not None:  # the worker's working directory may be another one
            object.__setattr__(self, "data", as_path(self.data).absolute())

    def require_folder(self, here: bool) -> None:
        """Refuse a data folder that is not given where one is needed, or not on this machine.

        The second only where workers are `here`: others may see what this machine does not.

        Raises
        ------
        InputError
            If it is so.
        """
        if here or self.data is None:
            folder = None if self.data is None else Path(self.data)
            require_folder(self.study.data, folder, self.options.download)

    def experiment(self, data: Data | None = None) -> Experiment:
        """Return the experiment; its `data`, if not given, are read once per process and driver.

        Raises
        ------
        InputError
            If the data, code of one's own or given masks cannot be read here, or are not those
            that the study was begun with.
        """
        study = self.study
        load_code(self.folder.code, study.own)
        data = data or self._data()
        masks = [given.load(self.folder.masks, mask) for mask in study.pruning.masks]
        return Experiment(
            network=study.network,
            data=data,
            recipe=study.recipe,
            pruning=study.pruning,
            seed=study.seed,
            engine=self.engine,
            fresh_buffers=study.fresh_buffers,
            mask_epoch=study.mask_at,
            given=dict(zip(study.grid.thresholds, masks, strict=True)) if masks else {},
            own_arms=tuple(arm for arm in study.grid.arms if is_own(arm)),
            transferred=self._transferred(data.classes),
        )

    def _transferred(self, classes: int) -> Transferred | None:
        if not (of := self.study.source):
            return None
        load = functools.partial(source.load, self.folder, of)
        return Transferred(of, load, source.has_new_head(self.study, classes))

    def _data(self) -> Data:
        """Return the data, once they are known to be those of the study."""
        source, download = self.study.data, self.options.download
        data = _read(source, self.data, download, self.engine.device, self.driver)
        if self.recorded and data.digest and (odd := self.recorded.differences(data.digest)):
            reader = f"the worker on {platform.node()}, from {self.data or source.name},"
            raise other_data(reader, self.folder.path, odd)
        return data


@functools.lru_cache(maxsize=1)
def _read(
    source: DataSource, folder: str | Path | None, download: bool, device: str, driver: str
) -> Data:
    """Read data; each run of a command reads its own, because the files may have changed."""
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
