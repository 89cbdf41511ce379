"""What the named data sets show a network, known before they are read."""

from pathlib import Path

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
        train = as_path(folder) / "train"
        names = [path.name for path in train.glob("*") if path.is_dir()]
        classes = sum(not name.startswith(".") for name in names)
    return ((channels, source.image_size, source.image_size), classes) if classes else None
