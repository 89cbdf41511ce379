"""The chunks of an array of a cube, read as bytes.

A chunk is what one cell has, a few hundred bytes in a file of its own. Reading it takes 8 µs here,
and more than ten times as long through Zarr, which hands it from one coroutine to the next. Zarr
writes chunks, and reads all else.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from struct import Struct
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from lthdask.storage.schema import EMPTY, Array

Index = tuple[int, ...]
CHECKSUM, RESIDUE = 4, 0x48674BC7
"""Bytes of a CRC-32C; that of anything that ends with its own."""
TEXT = Struct("<II")
"""What a chunk of one text begins with: the number of texts, and the bytes of this one."""
LONGEST = 2**16
"""Bytes in a chunk of text, at most."""


class Chunks:
    """The chunks of one array.

    Parameters
    ----------
    path : Path
        The array in its cube.
    declared : Array
    array : zarr.Array
        The same, as it lies on disk.

    Raises
    ------
    ValueError
        If it is not made as lthdask makes it.
    """

    def __init__(self, path: Path, declared: Array, array: Any) -> None:
        self.path, self._folder, depth = path, f"{path}/c", len(declared.cell)
        self._text, self._empty = declared.dtype == "text", EMPTY[declared.dtype]
        self._dtype = np.dtypes.StringDType() if self._text else np.dtype(declared.dtype)
        self._rest: Index = array.shape[depth:]
        codecs = [codec.to_dict()["name"] for codec in array.metadata.codecs]
        if (
            codecs != ["vlen-utf8" if self._text else "bytes", "crc32c"]
            or array.dtype != self._dtype
            or array.chunks != (*[1] * depth, *(max(1, size) for size in self._rest))
        ):
            raise ValueError(f"the array {path.name} is not made as lthdask makes it")
        self._tail = "/0" * len(self._rest)
        self._most = LONGEST if self._text else prod(self._rest) * self._dtype.itemsize + CHECKSUM

    def read(self, index: Sequence[int]) -> Any:
        """Return what a chunk holds, as an array or a text; what is not written is empty.

        Raises
        ------
        ValueError
            If it is damaged.
        """
        content = self._content("/".join((self._folder, *map(str, index))) + self._tail)
        if content is not None:
            return self._value(content)
        return np.full(self._rest, self._empty, self._dtype)[()]

    def read_all(self, places: Sequence[NDArray[np.intp]]) -> NDArray[Any]:
        """Return what there is at places along each axis of cells, each once, in their order.

        Raises
        ------
        ValueError
            If a chunk is damaged.
        """
        shape = tuple(map(len, places))
        found = np.full((prod(shape), *self._rest), self._empty, self._dtype)
        for row, file in self.written(places):
            if (content := self._content(file)) is not None:
                found[row] = self._value(content)
        return found.reshape(*shape, *self._rest)

    def written(self, places: Sequence[NDArray[np.intp]]) -> Iterator[tuple[int, str]]:
        """Yield the chunks that there are at such places: the row of each, and its file.

        Rows are those of an array over these places that is flattened.
        """
        after = [prod(map(len, places[axis + 1 :])) for axis in range(len(places))]
        rows = [
            {str(place): by * row for row, place in enumerate(of.tolist())}
            for of, by in zip(places, after, strict=True)
        ]
        yield from _files(self._folder, rows, self._tail)

    def _content(self, file: str) -> bytes | None:
        """Return what a file holds; None where there is none. `open` takes twice as long."""
        try:
            handle = os.open(file, os.O_RDONLY)
            try:
                return os.read(handle, self._most + 1)
            finally:
                os.close(handle)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def _value(self, content: bytes) -> Any:
        """Return what the bytes of a chunk stand for."""
        if google_crc32c.value(content) != RESIDUE:
            raise ValueError("stored and computed checksum do not match")
        body = content[:-CHECKSUM]
        if self._text:
            if len(body) < TEXT.size or TEXT.unpack_from(body) != (1, len(body) - TEXT.size):
                raise ValueError("a chunk does not hold one text")
            return body[TEXT.size :].decode()
        return np.frombuffer(body, self._dtype).reshape(self._rest)[()]


def _files(folder: str, rows: Sequence[Mapping[str, int]], tail: str) -> Iterator[tuple[int, str]]:
    """Yield the row and the file of each chunk: a name's row is the sum of those of its parts."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    here, *inside = rows
    for name in names:
        if name not in here:  # a file that is being written, or of another part of the grid
            continue
        if not inside:
            yield here[name], f"{folder}/{name}{tail}"
        else:
            for row, file in _files(f"{folder}/{name}", inside, tail):
                yield here[name] + row, file
