"""A folder of images: train/CLASS/* and val/CLASS/*, as ImageNet has it, or a prepared copy."""

from pathlib import Path
from typing import Any

import torch

from lthdask.data.copies import is_copy
from lthdask.data.decoding import View
from lthdask.data.image_files import ImageFiles
from lthdask.data.prepared import read_copy
from lthdask.data.streamed import Streamed
from lthdask.errors import OF_FILES, InputError, first_sentence

IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""The ends of names of images, as in torchvision."""
PARTS = ("train", "val")


def read_folder(folder: Path, view: View, crops: bool) -> tuple[Streamed, Streamed, int]:
    """Return training and test images of a folder or a copy of it, and the number of classes.

    Parameters
    ----------
    folder : Path
    view : View
    crops : bool
        Whether random parts of images are shown.

    Raises
    ------
    InputError
        If it is laid out otherwise, an image cannot be read, or a copy was prepared for something
        else.
    """
    if is_copy(folder):
        return read_copy(folder, view, crops)
    train, test, classes = read_files(folder, view)
    return train, test, len(classes)


def read_files(folder: Path, view: View) -> tuple[ImageFiles, ImageFiles, list[str]]:
    """Return training and test images of a folder, and the names of the classes.

    Raises
    ------
    InputError
        If it is laid out otherwise, or an image cannot be read.
    """
    kind = _image_folder()
    parts, names = [], []
    for part in PARTS:
        try:
            found = kind(folder / part, is_valid_file=_is_image)
        except OF_FILES as error:
            raise InputError(
                f"{folder} is not laid out as train/CLASS/* and val/CLASS/*: "
                f"{first_sentence(error)}"
            ) from error
        paths = [Path(path) for path, _ in found.samples]
        labels = torch.tensor(found.targets)
        parts.append(ImageFiles(paths, labels, view, folder / part))
        names.append(found.classes)
    if names[0] != names[1]:
        odd = sorted(set(names[0]) ^ set(names[1]))
        raise InputError(f"{folder}: train and val differ in their classes: {', '.join(odd[:5])}")
    if len(names[0]) < 2:
        raise InputError(
            f"{folder / 'train'} has one class, {names[0][0]}; there must be two to tell apart"
        )
    for files in parts:
        files.require_readable()
    return parts[0], parts[1], names[0]


def _image_folder() -> Any:
    """Return torchvision's reader of folders, for which hidden ones are no classes."""
    import torchvision.datasets

    def classes(directory: str) -> tuple[list[str], dict[str, int]]:
        found, _ = torchvision.datasets.folder.find_classes(directory)
        names = [name for name in found if not name.startswith(".")]
        return names, {name: number for number, name in enumerate(names)}

    kind = torchvision.datasets.ImageFolder
    return type("Visible", (kind,), {"find_classes": staticmethod(classes)})


def _is_image(path: str) -> bool:
    """Return whether a file is an image by its name; what other systems hide beside it is none."""
    name = Path(path).name.lower()
    return name.endswith(IMAGES) and not name.startswith(".")
