"""Data of one's own: tensors that a function returns."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lthdask.data.batches import Images
from lthdask.errors import InputError
from lthdask.own import explained, function, plain


def are_images(inputs: Tensor) -> bool:
    """Return whether these are images: bytes, (N, C, H, W)."""
    return inputs.dtype == torch.uint8 and inputs.ndim == 4


def read(name: str, folder: Path | None) -> tuple[Images, Images, int]:
    """Return what a function of one's own reads: training, test, and the number of classes.

    Parameters
    ----------
    name : str
        Of a function of the data folder, or None, that returns two pairs of inputs and labels.
    folder : Path, optional

    Raises
    ------
    InputError
        If it raises, or returns something else.
    """
    with explained(f"the data of {plain(name)} cannot be read"):
        splits = [_split(*pair) for pair in function(name)(folder)]
    if len(splits) != 2:
        raise InputError(
            f"{plain(name)} must return (inputs, labels) twice, for training and for the test; "
            f"got {len(splits)} of them"
        )
    train, test = splits
    if train.shape != test.shape or train.images.dtype != test.images.dtype:
        raise InputError(
            f"{plain(name)} must return inputs of one kind; got {train.images.dtype} of shape "
            f"{train.shape} for training, and {test.images.dtype} of {test.shape} for the test"
        )
    return train, test, 1 + int(max(train.labels.max(), test.labels.max()))


def _split(inputs: Any, labels: Any) -> Images:
    """Return inputs and labels as tensors that are trained on."""
    inputs, labels = (torch.as_tensor(of).detach().cpu() for of in (inputs, labels))
    if labels.ndim != 1 or labels.is_floating_point() or not len(inputs) == len(labels) > 0:
        raise InputError(
            f"each input needs a label, a whole number; got inputs of shape {tuple(inputs.shape)}, "
            f"labels of {labels.dtype} and shape {tuple(labels.shape)}"
        )
    if labels.min() < 0:
        raise InputError(f"labels are numbers from 0 on; got {int(labels.min())}")
    if not are_images(inputs):
        whole = not inputs.is_floating_point() and inputs.dtype != torch.bool
        inputs = inputs.to(torch.int64 if whole else torch.float32)
    return Images(inputs.contiguous(), labels.long())
