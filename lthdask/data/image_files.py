"""Images of a folder, decoded from their files as they are needed."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lthdask.data.decoding import View, decoded
from lthdask.data.digest import SplitDigest, of_files, of_numbers
from lthdask.data.streamed import Streamed, threads


class ImageFiles(Streamed):
    """Images of one split, decoded from their files when they are needed.

    Parameters
    ----------
    paths : list of Path
        Absolute, or relative as `root` is.
    labels : Tensor of int64, (N,)
    view : View
        How they are shown.
    root : Path
        Folder below which their names identify the files.
    """

    def __init__(self, paths: list[Path], labels: Tensor, view: View, root: Path) -> None:
        super().__init__(labels, view.size)
        self.paths, self.view, self.root = paths, view, root

    def subset(self, indices: Tensor) -> "ImageFiles":
        """Return the images at `indices`."""
        paths = [self.paths[i] for i in indices.tolist()]
        return ImageFiles(paths, self.labels[indices], self.view, self.root)

    def digest(self) -> SplitDigest:
        """Return what identifies these images; see :func:`lthdask.data.digest.of_files`."""
        labels = of_numbers(self.labels.numpy())
        return SplitDigest(len(self), labels, of_files(self.paths, self.root))

    def shown(self, index: int, part: Sequence[float]) -> NDArray[np.uint8]:
        """Return one image as bytes, (H, W, 3): its middle, or the `part` that was drawn."""
        return self.view.shown(self.paths[index], part)

    def require_readable(self, most: int = 64) -> None:
        """Decode some images, spread evenly.

        Raises
        ------
        InputError
            If one of them cannot be read.
        """
        with ThreadPoolExecutor(threads()) as pool:
            list(pool.map(decoded, self.paths[:: max(1, len(self) // most)]))
