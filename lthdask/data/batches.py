"""Data: images, and batches of them as a function of (seed, replicate, epoch).

A data set that fits is one tensor of bytes on the device, cut, flipped and normalised a
batch at a time; a folder of images is decoded as it is needed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lthdask.data.digest import DataDigest, SplitDigest, of_numbers
from lthdask.data.streamed import Streamed
from lthdask.streams import Purpose, below, permutation, stream

EVALUATION_BATCH = 250
EVALUATION_BATCH_ON_A_GPU = 1000
"""For small images and at most 16 models: a GPU is done with 250 before the next are launched."""

LARGE = 10_000
"""Values of an image from which on a CPU mirrors one by one: ``where`` takes ten times as long."""


class Images:
    """Inputs of one split, as one tensor: images as bytes, or any other numbers.

    Parameters
    ----------
    images : Tensor, (N, ...)
        Inputs; images are uint8, (N, C, H, W), other numbers float32 or int64.
    labels : Tensor of int64, (N,)
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input; for an image: channels, height and width."""
        return tuple(self.images.shape[1:])

    def to(self, device: torch.device) -> "Images":
        """Return the same images, held on `device`."""
        return Images(self.images.to(device), self.labels.to(device))

    def subset(self, indices: Tensor) -> "Images":
        """Return the images at `indices`."""
        return Images(self.images[indices], self.labels[indices])

    def digest(self) -> SplitDigest:
        """Return what identifies these images, as they are."""
        inputs = of_numbers(self.images.numpy(force=True))
        return SplitDigest(len(self), of_numbers(self.labels.numpy(force=True)), inputs)

    def batches(
        self, batches: list[Tensor], device: torch.device, resized_crop: list[Tensor] | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, labels) of each batch of indices."""
        for indices in torch.cat(batches).to(device).split([len(batch) for batch in batches]):
            yield self.images[indices], self.labels[indices]


Split = Images | Streamed


@dataclass(frozen=True)
class Data:
    """A data set, ready to train on.

    Attributes
    ----------
    train, validation, test : Split
        Disjoint.
    classes : int
        Number of classes; labels are 0..classes - 1.
    mean, std : Tensor
        What inputs are normalised by: for images, mean and standard deviation of their bytes per
        channel, (C, 1, 1); 0 and 1 for inputs that are used as they are.
    augmentation : tuple of str
        As in `lthdask.data.readers.DataSource`.
    digest : DataDigest, optional
        What identifies them, where they were read from disk.
    normalisation : {"channel", "image"}
        Whether images are normalised by `mean` and `std`, or each by its own (`standardised`).
    """

    train: Split
    validation: Split
    test: Split
    classes: int
    mean: Tensor
    std: Tensor
    augmentation: tuple[str, ...] = ()
    digest: DataDigest | None = None
    normalisation: Literal["channel", "image"] = "channel"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input; for an image: channels, height and width."""
        return self.train.shape

    def to(self, device: torch.device) -> "Data":
        """Return the same data, held on `device`."""
        moved: dict[str, Any] = {
            name: getattr(self, name).to(device)
            for name in ("train", "validation", "test", "mean", "std")
        }
        return replace(self, **moved)

    def steps(self, batch_size: int) -> int:
        """Return the number of batches in an epoch; an incomplete last one is left out.

        The images in it differ from epoch to epoch. A batch of a few images would disturb
        batch norm, which sees single pixels at the end of MobileNetV2.
        """
        return len(self.train) // batch_size

    def epoch(
        self,
        batch_size: int,
        seed: int,
        replicate: int,
        epoch: int,
        start: int = 0,
        child: int = 0,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the (images, labels) of `epoch`, from step `start` on; a child has its own.

        Images are float32, normalised, (batch_size, ...); whole numbers stay int64. They depend
        on nothing but the arguments.
        """
        count, steps = len(self.train), self.steps(batch_size)
        device, shape = self.mean.device, (steps, batch_size)
        order = permutation(stream(seed, replicate, Purpose.ORDER, epoch, child), count)
        indices = torch.from_numpy(order[: steps * batch_size]).view(shape)
        bits = stream(seed, replicate, Purpose.AUGMENTATION, epoch, child)
        draw = partial(below, bits, count=steps * batch_size)
        mirrored, moves, parts = None, None, None
        if "flip" in self.augmentation:
            mirrored = torch.from_numpy(draw(2).reshape(shape) == 1).to(device)
        if "crop" in self.augmentation:
            places = 2 * self._border + 1
            drawn = np.stack([draw(places), draw(places)], 1).reshape(*shape, 2)
            moves = torch.from_numpy(drawn).to(device)
        if "resized_crop" in self.augmentation:
            parts = list(_resized_crops(draw).view(*shape, 4)[start:])
        batches = self.train.batches(list(indices[start:]), device, parts)
        for step, (images, labels) in enumerate(batches, start):
            if moves is not None:
                images = _moved(images, moves[step], self._border)
            if mirrored is not None:
                images = _mirrored(images, mirrored[step])
            yield self._normalised(images), labels

    def evaluation(
        self, split: Split, batch: int = EVALUATION_BATCH
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the (images, labels) of a split in its own order, none left out."""
        batches = list(torch.arange(len(split)).split(batch))
        for images, labels in split.batches(batches, self.mean.device, None):
            yield self._normalised(images), labels

    def evaluation_batch(self, models: int = 1) -> int:
        """Return how many images are evaluated at once, by this many models side by side."""
        many = self.mean.is_cuda and max(self.shape, default=1) <= 64 and models <= 16
        return EVALUATION_BATCH_ON_A_GPU if many else EVALUATION_BATCH

    @property
    def _border(self) -> int:
        return self.shape[-1] // 8

    def _normalised(self, images: Tensor) -> Tensor:
        if images.dtype == torch.int64:  # numbers of words, say
            return images
        if self.normalisation == "image":
            return standardised(images.to(self.mean.dtype))
        if images.dtype != torch.uint8:
            return (images.float() - self.mean) / self.std
        floats, mean, std = images.to(self.mean.dtype), self.mean, self.std
        each = floats  # a new tensor, so in place: memory that was never touched is slow
        if mean.numel() > 1 and floats.is_contiguous(memory_format=torch.channels_last):
            each = floats.permute(0, 2, 3, 1).flatten(2)  # whole rows, or each pixel were a loop
            mean, std = (of.flatten().repeat(images.shape[3]) for of in (mean, std))
        each.sub_(mean).div_(std)
        return floats


def standardised(images: Tensor) -> Tensor:
    """Return images (N, ...), each less its mean, over its deviation.

    The deviation is that of all its values (divided by their number, not by one less), and at least
    1 / √number, as in TensorFlow's ``tf.image.per_image_standardization``.
    """
    values = images.flatten(1)
    deviations, means = torch.std_mean(values, 1, correction=0, keepdim=True)
    deviations = deviations.clamp(min=values.shape[1] ** -0.5)
    return ((values - means) / deviations).view_as(images)


def _mirrored(images: Tensor, which: Tensor) -> Tensor:
    """Return the images, (N, C, H, W), those of `which` (N,) mirrored; large ones in place."""
    if images.device.type != "cpu" or images[0].numel() < LARGE:
        return torch.where(which[:, None, None, None], images.flip(3), images)
    for place in which.nonzero().flatten().tolist():
        images[place] = images[place].flip(2)
    return images


def _moved(images: Tensor, moves: Tensor, border: int) -> Tensor:
    """Return the images, each cut out of its black border at its own place."""
    size = images.shape[3]
    padded = F.pad(images, (border,) * 4)
    span = torch.arange(size, device=images.device)
    rows = (moves[:, 0, None] + span)[:, None, :, None]
    columns = (moves[:, 1, None] + span)[:, None, None, :]
    image = torch.arange(len(images), device=images.device)[:, None, None, None]
    channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return padded[image, channel, rows, columns]


def _resized_crops(draw: Callable[[int], NDArray[np.int64]]) -> Tensor:
    """Return (area in 0.08..1, log of aspect ratio in ±log 4/3, x, y in 0..1) per image."""
    unit = np.stack([draw(2**24) / 2**24 for _ in range(4)], 1)
    area = 0.08 + 0.92 * unit[:, 0]
    log_ratio = (2 * unit[:, 1] - 1) * np.log(4 / 3)
    return torch.from_numpy(np.stack([area, log_ratio, unit[:, 2], unit[:, 3]], 1))
