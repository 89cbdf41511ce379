"""The data sets that torchvision has, read from disk as they are distributed."""

import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lthdask.data.batches import Images
from lthdask.data.idx import read_idx
from lthdask.errors import OF_FILES, InputError, first_sentence

EXPECTED = {
    "CIFAR10": ("cifar-10-batches-py", "data_batch_1"),
    "CIFAR100": ("cifar-100-python", "train"),
    "SVHN": ("", "train_32x32.mat"),
}
"""Data set → the folder that its files lie in, and one of them."""


def read_published(name: str, folder: Path, download: bool) -> tuple[Images, Images]:
    """Return the training and the test images of one of torchvision's data sets.

    Parameters
    ----------
    name : str
        The name of its class in torchvision.
    folder : Path
        The data folder, or the folder of its files itself.
    download : bool
        Fetch what is missing.

    Raises
    ------
    InputError
        If its files are not there, or are not what they should be.
    """
    if name not in EXPECTED:
        if download:
            _of_torchvision(name, folder, {"train": True}, download)
        return read_idx(name, folder)
    splits: list[dict[str, Any]] = [{"split": part} for part in ("train", "test")]
    if name != "SVHN":
        splits = [{"train": True}, {"train": False}]
    train, test = (_images(name, folder, split, download) for split in splits)
    return train, test


def _images(name: str, folder: Path, split: dict[str, Any], download: bool) -> Images:
    found = _of_torchvision(name, folder, split, download)
    images = torch.as_tensor(np.asarray(found.data))
    if images.ndim == 4 and images.shape[3] == 3:
        images = images.permute(0, 3, 1, 2)
    labels = found.labels if name == "SVHN" else found.targets
    return Images(images, torch.as_tensor(labels).long())


def _of_torchvision(name: str, folder: Path, split: dict[str, Any], download: bool) -> Any:
    import torchvision.datasets

    kind = getattr(torchvision.datasets, name)
    place, file = EXPECTED.get(name, ("", ""))
    if place and not (folder / place).exists() and (folder / file).exists():
        kind = type(name, (kind,), {"base_folder": ""})  # the files' own folder was given
    try:
        return kind(folder, download=download, **split)
    except Exception as error:  # torchvision asserts, unpickles and unzips
        if getattr(error, "errno", None) and not (download or isinstance(error, OF_FILES)):
            raise  # which is no fault of the files
        if broken := _file_of(error, folder):
            raise InputError(
                f"no usable {name} in {folder}: its file {broken.relative_to(folder)} cannot "
                f"be read ({first_sentence(error)}); replace it"
            ) from error
        archive = next(folder.glob(f"{place.removesuffix('-batches-py')}*.tar.gz"), None)
        what = f"unpack {archive} there" if archive else "put its files there"
        raise InputError(
            f"no usable {name} in {folder} ({first_sentence(error)}); {what}, so that "
            f"{folder / place / file} exists{'' if download else ', or set `download`'}"
        ) from error


def _file_of(error: Exception, folder: Path) -> Path | None:
    """Return the file of a folder that was being read, which torchvision's errors do not tell."""
    if "not found" in str(error) or isinstance(error, FileNotFoundError):
        return None
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        for value in frame.f_locals.values():
            if isinstance(value, str) and value.startswith(f"{folder}/") and Path(value).is_file():
                return Path(value)
    return None
