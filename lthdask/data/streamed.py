"""Images that lie on disk: each batch is read as it is needed, one ahead."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lthdask.data.decoding import MIDDLE
from lthdask.data.digest import SplitDigest

AT_ONCE = 4
"""Images that a thread reads before it asks for more."""


def threads() -> int:
    """Return how many threads read: one for each core that this process may use, 4 to 32.

    They are not processes, because a Dask worker under its nanny cannot have children.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(max(cores, 4), 32)


class Streamed(ABC):
    """Images of one split, read when they are needed; cohorts see the same ones at once.

    Parameters
    ----------
    labels : Tensor of int64, (N,)
    image_size : int
    """

    def __init__(self, labels: Tensor, image_size: int) -> None:
        self.labels, self.image_size = labels, image_size

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width of an image as it is trained on."""
        return 3, self.image_size, self.image_size

    def to(self, device: torch.device) -> Self:
        """Return self: images stay on disk."""
        return self

    @abstractmethod
    def subset(self, indices: Tensor) -> Self:
        """Return the images at `indices`."""

    @abstractmethod
    def digest(self) -> SplitDigest:
        """Return what identifies these images."""

    @abstractmethod
    def shown(self, index: int, part: Sequence[float]) -> NDArray[np.uint8]:
        """Return one image as bytes, (H, W, 3): its `MIDDLE`, or the part that was drawn."""

    def batches(
        self, batches: list[Tensor], device: torch.device, resized_crop: list[Tensor] | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, labels) of each batch of indices, one batch read ahead."""
        with ThreadPoolExecutor(threads()) as pool:

            def start(number: int) -> tuple[NDArray[np.uint8], Iterator[None]]:
                indices = batches[number].tolist()
                parts = resized_crop[number].tolist() if resized_crop else [MIDDLE] * len(indices)
                into = np.empty((len(indices), *self.shape[1:], 3), np.uint8)

                def fill(first: int) -> None:
                    for at in range(first, min(first + AT_ONCE, len(indices))):
                        into[at] = self.shown(indices[at], parts[at])

                return into, pool.map(fill, range(0, len(indices), AT_ONCE))

            ahead = start(0) if batches else None
            for number, indices in enumerate(batches):
                assert ahead
                (images, filled), last = ahead, number + 1 == len(batches)
                ahead = None if last else start(number + 1)
                for _ in filled:  # raises what a thread has raised
                    pass
                there = torch.from_numpy(images).permute(0, 3, 1, 2)
                yield there.to(device, non_blocking=True), self.labels[indices].to(device)
