"""The digest of data: enough to tell them from any others, and to say in what they differ.

It is made of what lies on disk, before images are brought to size and moved to a device. So it is
the same wherever the same data are read.
"""

import itertools
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lthdask.errors import InputError, OtherData, listed

READ_WHOLE = 2**30
"""Bytes in the files of a split up to which all are read: a second for the hash, and no more than
an epoch reads."""
SAMPLE, BEGINNING = 1000, 2**20
"""Of a larger split: how many files are opened, and how many bytes are read of each."""
THREADS, AT_ONCE = 8, 256
"""Threads that ask for files, since a network answers late; and how many files each asks for."""

Found = TypeVar("Found")


@dataclass(frozen=True)
class SplitDigest:
    """What identifies one split of a data set.

    Attributes
    ----------
    count : int
        Number of inputs.
    labels, inputs : str
        SHA-256 of all labels, and of all inputs, in their order.
    """

    count: int
    labels: str
    inputs: str


@dataclass(frozen=True)
class DataDigest:
    """What identifies data.

    Attributes
    ----------
    shape : tuple of int
        Shape of one input of the network.
    classes : int
        Number of classes.
    splits : mapping of str to SplitDigest
        For each of ``training``, ``validation`` and ``test``; empty where a study was begun by a
        version that did not record them.
    """

    shape: tuple[int, ...]
    classes: int
    splits: Mapping[str, SplitDigest] = field(default_factory=dict)

    def differences(self, other: "DataDigest") -> list[str]:
        """Return in what `other` differs, one text for each; what is not recorded does not."""
        lines = []
        if self.shape != other.shape:
            lines.append(f"inputs of shape {other.shape}, not {self.shape}")
        if self.classes != other.classes:
            lines.append(f"{other.classes} classes, not {self.classes}")
        labels, inputs = [], []
        for name, mine in self.splits.items():
            theirs = other.splits[name]
            if mine.count != theirs.count:
                lines.append(f"{theirs.count:,} {name} images, not {mine.count:,}")
                continue
            labels += [name] if mine.labels != theirs.labels else []
            inputs += [name] if mine.inputs != theirs.inputs else []
        lines += [f"other labels ({listed(labels)})"] if labels else []
        lines += [f"other images, or in another order ({listed(inputs)})"] if inputs else []
        return lines


def other_data(reader: str, folder: Path, differences: Iterable[str]) -> OtherData:
    """Return the error for data that are not those of the study in `folder`."""
    return OtherData(
        f"{reader} reads other data than the study in {folder} was computed on: "
        f"{'; '.join(differences)}; give the same data with `data`, or choose another folder "
        f"with `out`"
    )


def of_numbers(numbers: NDArray[np.generic]) -> str:
    """Return the digest of an array: of its type, its shape and its values."""
    plain = np.ascontiguousarray(numbers, numbers.dtype.newbyteorder("<"))
    found = sha256(f"{plain.dtype.str} {plain.shape}".encode())
    found.update(plain.data)
    return found.hexdigest()


def of_files(paths: Sequence[Path], root: Path) -> str:
    """Return the digest of files: of their names below `root`, their sizes and their contents.

    Contents are read whole up to `READ_WHOLE` bytes in all. Beyond that, the beginnings of
    `SAMPLE` files are read, spread evenly.

    Raises
    ------
    OSError
        If a file cannot be read.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        sizes = of_each(pool, _size, paths)
        step, most = what_is_read(sizes)
        contents = of_each(pool, lambda path: _content(path, most), paths[::step])
    return of_contents(names_of(paths, root), sizes, contents)


def names_of(paths: Iterable[Path], root: Path) -> Iterator[bytes]:
    """Yield the names of files below `root`."""
    start = len(os.fsencode(root)) + 1
    return (os.fsencode(path)[start:] for path in paths)


def what_is_read(sizes: Sequence[int]) -> tuple[int, int]:
    """Return which files are read of some, every n-th, and how many bytes at most; -1 is all."""
    if sum(sizes) <= READ_WHOLE:
        return 1, -1
    return math.ceil(len(sizes) / SAMPLE), BEGINNING


def of_contents(names: Iterable[bytes], sizes: Iterable[int], contents: Iterable[bytes]) -> str:
    """Return the digest of files, given that of each content that is read."""
    whole = sha256()
    for name, size in zip(names, sizes, strict=True):
        whole.update(b"%s\0%d\0" % (name, size))
    for content in contents:
        whole.update(content)
    return whole.hexdigest()


def of_each(
    pool: ThreadPoolExecutor, ask: Callable[[Path], Found], paths: Sequence[Path]
) -> list[Found]:
    """Return what is found of each path, in their order."""
    parts = [paths[begin : begin + AT_ONCE] for begin in range(0, len(paths), AT_ONCE)]
    found = pool.map(lambda part: [ask(path) for path in part], parts)
    return list(itertools.chain.from_iterable(found))


def _size(path: Path) -> int:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # a pipe, for example, would be waited for
        raise InputError(f"cannot read the data file {path}: it is no regular file")
    return found.st_size


def _content(path: Path, most: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        return sha256(file.read(most)).digest()
