"""Data sets by name, read from disk in their own formats.

Train, validation and test are separate: the validation split comes out of the training
images, the same for every seed and replicate, so that accuracies of all runs are measured
on the same images.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lthdask.arguments import block
from lthdask.data.batches import Data, Images, Split
from lthdask.data.decoding import Decoding, View
from lthdask.data.digest import DataDigest
from lthdask.data.folders import read_folder
from lthdask.data.published import read_published
from lthdask.data.splits import first, resized, statistics
from lthdask.data.tensors import are_images, read
from lthdask.errors import InputError, is_of_file, listed
from lthdask.own import chosen, is_own, plain
from lthdask.streams import Purpose, permutation, stream

LARGEST_IMAGE = 1024


@block
@dataclass(frozen=True)
class DataSource:
    """Which images, or other inputs, a study trains on, and how they are shown.

    Parameters
    ----------
    name : str
        One of `READERS`, or a function of one's own: of the data folder, or None. It returns
        two pairs of inputs and labels, for training and for the test: tensors or arrays, labels
        from 0 on. Inputs of type uint8 and shape (N, C, H, W) are images; others are used as they
        are, as float32 or int64.
    image_size : int
        Height and width the images are brought to, in pixels, 8 to 1,024. With data of one's own,
        0 leaves them as they are.
    validation : int
        Training images that are set aside for validation, at least 1.
    augmentation : tuple of {"flip", "crop", "resized_crop"}
        What is done to training images: they are mirrored left to right with probability 1/2;
        moved by up to an eighth of their size over a black border; or, for folders, a random
        part of 8 % to 100 % of the image is brought to size (Szegedy et al. 2015).
    normalisation : {"channel", "image"}
        What images are normalised by: mean and deviation of each channel, over the training images;
        or each image by its own, over all its channels, after augmentation, as TensorFlow's
        ``per_image_standardization`` does.
    subset : int, optional
        How many of the training images there are to be, more than `validation`: the first ones;
        of a folder, the first of each class in turn. All of them by default.
    decoding : {"full", "scaled"}
        How files of a folder are decoded. ``scaled`` is faster, and its pixels differ a little:
        JPEGs at a half, a quarter or an eighth of their size, where what is shown still has as many
        pixels as it is to have; parts that begin and end between two pixels, brought to size by
        PyTorch in place of Pillow.
    shorter_side : int, optional
        For a folder: pixels that the shorter side of an image is brought to first, where it has
        more; what is shown is cut out of that. At least 8/7 of `image_size`.
    """

    name: str
    image_size: int = 0
    validation: int = 0
    augmentation: tuple[Literal["flip", "crop", "resized_crop"], ...] = ()
    normalisation: Literal["channel", "image"] = "channel"
    subset: int | None = None
    decoding: Decoding = "full"
    shorter_side: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", chosen("data set", self.name, READERS))
        if len(set(self.augmentation)) < len(self.augmentation):
            raise ValueError(f"augmentation holds a value twice: {listed(self.augmentation)}")
        if self.image_size < 8 and not (self.image_size == 0 and is_own(self.name)):
            raise ValueError(f"image_size must be 8 pixels or more; got {self.image_size}")
        if self.image_size > LARGEST_IMAGE:
            raise ValueError(
                f"image_size must be {LARGEST_IMAGE:,} pixels or fewer; got {self.image_size}"
            )
        if self.validation < 1:
            raise ValueError(
                f"validation must be 1 image or more, so that nothing is chosen on the "
                f"test images; got {self.validation}"
            )
        if self.subset is not None and self.subset <= self.validation:
            raise ValueError(
                f"subset must be more than the {self.validation} validation images, which are set "
                f"aside from it; got {self.subset}"
            )
        if "resized_crop" in self.augmentation and self.name != "folder":
            raise ValueError("resized_crop is for folders of images; use crop for this data set")
        if self.name != "folder" and (self.decoding != "full" or self.shorter_side):
            key = "decoding" if self.decoding != "full" else "shorter_side"
            raise ValueError(f"{key} is for folders of images; leave it out for this data set")
        least = math.ceil(self.image_size * 8 / 7)
        if self.shorter_side is not None and self.shorter_side < least:
            raise ValueError(
                f"shorter_side must be {least} or more, as the middle 7/8 of it are brought to "
                f"{self.image_size} pixels; got {self.shorter_side}"
            )

    @property
    def view(self) -> View:
        """How images of files are shown."""
        return View(self.image_size, self.decoding, self.shorter_side)

    @property
    def crops(self) -> bool:
        """Whether random parts of images are shown."""
        return "resized_crop" in self.augmentation


Reading = tuple[Split, Split, int]
"""All training images and the test images, as they lie on disk, and the number of classes."""


def load(source: DataSource, folder: Path | None = None, download: bool = False) -> Data:
    """Read a data set from disk.

    Parameters
    ----------
    source : DataSource
        Which one.
    folder : Path, optional
        Where its files lie; digits need none.
    download : bool
        Fetch what is missing (torchvision's data sets only).

    Raises
    ------
    InputError
        If the folder or its files are missing or malformed, there are fewer training images than
        the subset takes, or the validation split leaves none to train on.
    """
    require_folder(source, folder, download)
    everything: Split
    test: Split
    if is_own(source.name):
        everything, test, classes = read(source.name, folder)
        _require_images(source, everything.images)
    else:
        everything, test, classes = READERS[source.name](source, folder or Path(), download)
    everything = first(everything, source.subset)
    if source.validation >= len(everything):
        raise InputError(
            f"validation takes {source.validation} of {len(everything)} training images "
            f"and leaves none to train on; set a smaller data.validation"
        )
    # The study's seed plays no part: all replicates and seeds share one split.
    order = torch.from_numpy(permutation(stream(0, 0, Purpose.ORDER), len(everything)))
    splits = {
        "training": everything.subset(order[source.validation :]),
        "validation": everything.subset(order[: source.validation]),
        "test": test,
    }
    try:  # before they are resized: one machine may round otherwise than another
        digests = {name: split.digest() for name, split in splits.items()}
    except OSError as error:
        if not is_of_file(error):
            raise
        raise InputError(f"cannot read the data file {error.filename}: {error.strerror}") from None
    train, validation, test = (resized(split, source.image_size) for split in splits.values())
    mean, std = statistics(train)
    return Data(
        train,
        validation,
        test,
        classes,
        mean,
        std,
        source.augmentation,
        DataDigest(train.shape, classes, digests),
        source.normalisation,
    )


def require_folder(source: DataSource, folder: Path | None, download: bool = False) -> None:
    """Refuse a folder that is not given where one is needed, or not there.

    Raises
    ------
    InputError
        If it is so.
    """
    if folder is None and source.name != "digits" and not is_own(source.name):
        raise InputError(
            f"the data set {source.name!r} is read from disk; give its folder with `data`"
        )
    if folder is not None and not os.path.isdir(folder) and not download:
        wrong = "is no folder" if os.path.exists(folder) else "does not exist"
        raise InputError(f"the data folder {folder} {wrong}; choose another one with `data`")


def _require_images(source: DataSource, inputs: Tensor) -> None:
    """Refuse to do with other inputs what is for images."""
    shown = [key for key in ("image_size", "augmentation") if getattr(source, key)]
    shown += ["normalisation"] * (source.normalisation == "image")
    if shown and not are_images(inputs):
        raise InputError(
            f"data.{shown[0]} is for images, which are uint8 of shape (N, C, H, W); "
            f"{plain(source.name)} returns {inputs.dtype} of shape "
            f"{tuple(inputs.shape)}"
        )
    if source.augmentation and not source.image_size:
        raise InputError("data.augmentation needs data.image_size, the size of the images")


def _digits(source: DataSource, folder: Path, download: bool) -> Reading:
    """Read scikit-learn's 1,797 digits: 1,297 for training, 500 for the test."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images * (255 / 16)).round().byte()[:, None]
    labels = torch.from_numpy(digits.target).long()
    order = torch.from_numpy(permutation(stream(0, 0, Purpose.ORDER), len(labels)))
    everything = Images(images, labels)
    return everything.subset(order[500:]), everything.subset(order[:500]), 10


def _published(name: str, classes: int) -> Callable[..., Reading]:
    """Return the reader of a data set that torchvision has."""

    def read(source: DataSource, folder: Path, download: bool) -> Reading:
        train, test = read_published(name, folder, download)
        for labels, count in ((split.labels, len(split.images)) for split in (train, test)):
            known = not len(labels) or 0 <= labels.min() <= labels.max() < classes
            if not count or count != len(labels) or not known:
                span = f", from {labels.min()} to {labels.max()}" if len(labels) else ""
                raise InputError(
                    f"no usable {name} in {folder}: it has {count} images and {len(labels)} "
                    f"labels{span}"
                )
        if train.shape != test.shape:
            raise InputError(
                f"no usable {name} in {folder}: its training images have the shape {train.shape}, "
                f"and its test images {test.shape}"
            )
        return train, test, classes

    return read


def _folder(source: DataSource, folder: Path, download: bool) -> Reading:
    """Read a folder laid out as ImageNet, or a prepared copy of it."""
    return read_folder(folder, source.view, source.crops)


READERS: dict[str, Callable[[DataSource, Path, bool], Reading]] = {
    "digits": _digits,
    "cifar10": _published("CIFAR10", 10),
    "cifar100": _published("CIFAR100", 100),
    "mnist": _published("MNIST", 10),
    "fashion_mnist": _published("FashionMNIST", 10),
    "svhn": _published("SVHN", 10),
    "folder": _folder,
}
"""The known data sets: name → reader."""
