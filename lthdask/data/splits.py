"""Splits as a study wants them: a part of them, at its size, and what normalises them."""

import os

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lthdask.data.batches import Images, Split
from lthdask.data.streamed import Streamed
from lthdask.data.tensors import are_images
from lthdask.errors import InputError

RESIZED_AT_ONCE = 1000
"""Number of images; their floats take four times the memory of their bytes."""


def first(everything: Split, subset: int | None) -> Split:
    """Return as many of the training images as are asked for, from the first on.

    Raises
    ------
    InputError
        If there are fewer.
    """
    if subset is None:
        return everything
    if subset > (known := len(everything)):
        raise InputError(
            f"subset takes {subset} training images, but there are {known}; set a smaller "
            f"data.subset, or leave it out"
        )
    order = torch.arange(known)
    if isinstance(everything, Streamed):  # which come class by class
        order = torch.from_numpy(np.argsort(_places(everything.labels), kind="stable"))
    return everything.subset(order[:subset])


def _places(labels: Tensor) -> NDArray[np.int64]:
    """Return which image of its class each image is, (N,); the first is 0."""
    places = np.empty(len(labels), np.int64)
    for label in labels.unique():
        of = np.flatnonzero(labels == label)
        places[of] = np.arange(len(of))
    return places


def statistics(train: Split) -> tuple[Tensor, Tensor]:
    """Return what inputs are normalised by: mean and deviation of each channel, (C, 1, 1).

    Those of files are ImageNet's; inputs other than images stay as they are.
    """
    if isinstance(train, Streamed):
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        return (mean * 255)[:, None, None], (std * 255)[:, None, None]
    if not are_images(train.images):
        return torch.zeros(()), torch.ones(())
    levels = torch.arange(256, dtype=torch.float64)
    means, stds = [], []
    for channel in train.images.unbind(1):
        share = torch.bincount(channel.flatten(), minlength=256) / channel.numel()
        mean = (share * levels).sum()
        means.append(mean)
        stds.append((share * (levels - mean) ** 2).sum().sqrt().clamp(min=1.0))
    return torch.stack(means).float()[:, None, None], torch.stack(stds).float()[:, None, None]


def resized(split: Split, size: int) -> Split:
    """Return byte images (N, C, H, W) at size × size pixels; files are resized as they are read.

    Raises
    ------
    InputError
        If they take more than this machine's memory.
    """
    if isinstance(split, Streamed):
        return split
    images = split.images
    if not size or images.shape[2:] == (size, size):
        return Images(images.contiguous(), split.labels)
    whole = len(images) * images.shape[1] * size**2
    if whole > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        raise InputError(
            f"{len(images):,} images of {size} by {size} pixels take {whole / 2**30:,.0f} GiB, "
            f"more than the memory of this machine; set a smaller data.image_size"
        )
    into = torch.empty((*images.shape[:2], size, size), dtype=torch.uint8)
    for part, some in zip(into.split(RESIZED_AT_ONCE), images.split(RESIZED_AT_ONCE), strict=True):
        pixels = F.interpolate(
            some.float(), (size, size), mode="bilinear", align_corners=False, antialias=True
        )
        part.copy_(pixels.round().clamp(0, 255))
    return Images(into, split.labels)
