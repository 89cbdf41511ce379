"""What the named data sets show a network, known before they are read."""

from pathlib import Path

from lthdask.data.copies import Header, header_of, is_copy
from lthdask.data.readers import DataSource
from lthdask.errors import as_path

KNOWN = {
    "digits": (1, 10),
    "mnist": (1, 10),
    "fashion_mnist": (1, 10),
    "cifar10": (3, 10),
    "cifar100": (3, 100),
    "svhn": (3, 10),
}
"""Data set → channels and classes."""


def inputs_of(source: DataSource, folder: str | Path | None) -> tuple[tuple[int, ...], int] | None:
    """Return the shape of an input and the number of classes; None if only reading tells."""
    channels, classes = KNOWN.get(source.name, (3, 0))
    if source.name == "folder" and folder:
        classes = _classes_of(as_path(folder))
    return ((channels, source.image_size, source.image_size), classes) if classes else None


def _classes_of(folder: Path) -> int:
    """Return how many classes a folder of images has, or a prepared copy that is complete."""
    if is_copy(folder):
        header = header_of(folder)
        return len(Header.read(header).classes) if header.exists() else 0
    names = [path.name for path in (folder / "train").glob("*") if path.is_dir()]
    return sum(not name.startswith(".") for name in names)
