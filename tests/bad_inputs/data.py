"""Data sets as they may lie on a disk: each is written into an empty folder, and read wholly."""

import gzip
import os
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from lthdask.data.image_files import ImageFiles
from lthdask.data.readers import DataSource, load
from tests.bad_inputs.trying import Bad

SIZE = 16
GREY = np.full((SIZE, SIZE), 100, np.uint8)


def picture(mode: str = "RGB", size: tuple[int, int] = (SIZE, SIZE)) -> Image.Image:
    """Return an image of a mode."""
    return Image.new("RGB", size, (200, 100, 50)).convert(mode)


def a_folder(root: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 6) -> Path:
    """Write images as ImageNet's lie; return the first of them."""
    for part in ("train", "val"):
        for name in classes:
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                picture().save(root / part / name / f"{number}.png")
    return root / "train" / classes[0] / "0.png"


def _bomb(path: Path, size: int) -> None:
    """Write a PNG whose header announces size × size pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def _instead(write: Callable[[Path], object], name: str = "0.png") -> Callable[[Path], object]:
    """Return what writes a folder of images, one of which is something else."""

    def layout(root: Path) -> None:
        first = a_folder(root)
        first.unlink()
        write(first.parent / name)

    return layout


def _saved(image: Image.Image, **how: object) -> Callable[[Path], object]:
    return lambda path: image.save(path, **how)


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _cut(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:2000])


def _unreadable(path: Path) -> None:
    path.symlink_to("/proc/1/mem" if os.getuid() else "nowhere.png")


def _after(root: Path, change: Callable[[Path], object], **how: object) -> None:
    a_folder(root, **how)  # type: ignore[arg-type]
    change(root)


def _moved(old: str, new: str) -> Callable[[Path], object]:
    return lambda root: _after(root, lambda r: (r / old).rename(r / new))


FOLDERS: list[tuple[str, Callable[[Path], object], str | None]] = [
    ("as it should be", a_folder, None),
    ("an image cut off", _instead(_cut, "0.jpg"), "cat/0.jpg cannot be decoded"),
    ("an empty image", _instead(_bytes(b"")), "cat/0.png cannot be decoded"),
    ("text", _instead(_bytes(b"hello")), "cat/0.png cannot be decoded"),
    ("a header alone", _instead(_bytes(b"\x89PNG\r\n\x1a\n")), "cat/0.png cannot be decoded"),
    ("a PNG bomb", _instead(partial(_bomb, size=60_000)), "cat/0.png cannot be decoded"),
    ("a large PNG bomb", _instead(partial(_bomb, size=2_000_000_000)), "cat/0.png cannot be"),
    ("a PNG below the bomb limit", _instead(partial(_bomb, size=12_000)), "cat/0.png cannot be"),
    ("an image by another name", _instead(_saved(picture(), format="BMP")), None),
    ("16 bits", _instead(_saved(Image.fromarray(GREY.astype(np.uint16) * 257))), None),
    (
        "32 bits",
        _instead(_saved(Image.fromarray(GREY.astype(np.int32)), format="TIFF"), "0.tif"),
        "of 32 bits",
    ),
    ("floats", _instead(_saved(Image.fromarray(GREY.astype(np.float32))), "0.tif"), "floats"),
    ("CMYK", _instead(_saved(picture("CMYK")), "0.jpg"), None),
    ("palette", _instead(_saved(picture("P"))), None),
    ("transparent", _instead(_saved(picture("RGBA"))), None),
    ("grey and transparent", _instead(_saved(picture("LA"))), None),
    ("one bit", _instead(_saved(picture("1"))), None),
    ("Lab", _instead(_saved(picture("RGB").convert("HSV").convert("RGB")), "0.tif"), None),
    ("one pixel", _instead(_saved(picture(size=(1, 1)))), None),
    ("one pixel high", _instead(_saved(picture(size=(500, 1)))), None),
    (
        "animated",
        _instead(_saved(picture("P"), format="GIF", save_all=True, append_images=[picture("L")])),
        None,
    ),
    ("a GIF", _instead(_saved(picture("P")), "0.gif"), None),
    ("a pipe", _instead(os.mkfifo), "0.png"),
    ("a device", _instead(lambda path: path.symlink_to("/dev/zero")), "0.png"),
    ("a dangling link", _instead(_unreadable), "0.png"),
    ("a loop of links", _instead(lambda path: path.symlink_to(path)), "0.png"),
    ("a folder that is named as an image", _instead(Path.mkdir), None),
    ("nothing", lambda root: None, "is not laid out as train/CLASS/* and val/CLASS/*"),
    ("no train", _moved("train", "training"), "train"),
    ("no val", _moved("val", "test"), "val"),
    (
        "train is a file",
        lambda root: _after(
            root, lambda r: [(r / "train").rename(r / "x"), (r / "train").write_text("")]
        ),
        "train",
    ),
    (
        "images without classes",
        lambda root: [
            (root / p).mkdir() or picture().save(root / p / "0.png") for p in ("train", "val")
        ],
        "class",
    ),
    ("one class", partial(a_folder, classes=("cat",)), "one class"),
    ("other classes", _moved("val/dog", "val/wolf"), "differ in their classes: dog, wolf"),
    (
        "a class more",
        lambda root: _after(
            root, lambda r: [(r / "train/x").mkdir(), picture().save(r / "train/x/0.png")]
        ),
        "differ in their classes: x",
    ),
    (
        "an empty class",
        lambda root: _after(root, lambda r: [(r / p / "x").mkdir() for p in ("train", "val")]),
        "x",
    ),
    (
        "a hidden class",
        lambda root: _after(
            root, lambda r: [(r / "train/.x").mkdir(), picture().save(r / "train/.x/0.png")]
        ),
        None,
    ),
    (
        "hidden images",
        lambda root: _after(root, lambda r: (r / "train/cat/._0.png").write_bytes(b"x")),
        None,
    ),
    (
        "other files",
        lambda root: _after(root, lambda r: (r / "train/cat/notes.txt").write_bytes(b"x")),
        None,
    ),
    ("names with spaces", partial(a_folder, classes=("a cat", "ein Käfer")), None),
    ("classes that differ in case", partial(a_folder, classes=("cat", "Cat")), None),
    ("too few images", partial(a_folder, count=1), "validation takes"),
    ("links to images", _instead(lambda path: path.symlink_to("1.png")), None),
]
"""Folders of images."""


def idx(values: np.ndarray, kind: int = 8, shape: tuple[int, ...] | None = None) -> bytes:
    """Return an IDX file."""
    shape = values.shape if shape is None else shape
    return struct.pack(f">HBB{len(shape)}I", 0, kind, len(shape), *shape) + values.tobytes()


def _mnist(root: Path, place: str = "MNIST/raw", count: int = 30, **other: bytes | None) -> None:
    """Write MNIST's four files, some of which have other contents, or are not there."""
    folder = root / place
    folder.mkdir(parents=True, exist_ok=True)
    images = np.arange(count * 64, dtype=np.uint8).reshape(count, 8, 8)
    labels = np.arange(count, dtype=np.uint8) % 10
    files = {
        f"{part}_{what}": idx(of)
        for part in ("train", "t10k")
        for what, of in (("images", images), ("labels", labels))
    }
    for name, content in (files | other).items():
        part, _, what = name.partition("_")
        end = {"images": "images-idx3-ubyte", "labels": "labels-idx1-ubyte"}[
            what.removesuffix("_gz")
        ]
        if what.endswith("_gz"):
            (folder / f"{part}-{end}").unlink()
            end += ".gz"
        if content is not None:
            (folder / f"{part}-{end}").write_bytes(content)


IMAGES, LABELS = np.zeros((30, 8, 8), np.uint8), np.arange(30, dtype=np.uint8) % 10
IDX: list[tuple[str, Callable[[Path], object], str | None]] = [
    ("as it should be", _mnist, None),
    ("flat", partial(_mnist, place="."), None),
    ("in raw", partial(_mnist, place="raw"), None),
    ("in its own folder", partial(_mnist, place="MNIST"), None),
    ("in another folder", partial(_mnist, place="data"), "train-images-idx3-ubyte"),
    ("of Fashion-MNIST", partial(_mnist, place="FashionMNIST/raw"), "train-images-idx3-ubyte"),
    ("compressed", partial(_mnist, train_images_gz=gzip.compress(idx(IMAGES))), None),
    (
        "compressed and cut off",
        partial(
            _mnist,
            train_images_gz=gzip.compress(
                idx(np.random.default_rng(0).integers(0, 255, (30, 8, 8), np.uint8))
            )[:900],
        ),
        "train-images-idx3-ubyte.gz cannot be read",
    ),
    (
        "compressed in name only",
        partial(_mnist, train_images_gz=idx(IMAGES)),
        "train-images-idx3-ubyte.gz cannot be read",
    ),
    (
        "a gz that is empty",
        partial(_mnist, train_images_gz=b""),
        "train-images-idx3-ubyte.gz cannot be read",
    ),
    (
        "a gz bomb",
        partial(_mnist, train_images_gz=gzip.compress(bytes(50_000_000))),
        "cannot be read",
    ),
    (
        "a gz with rubbish behind it",
        partial(_mnist, train_images_gz=gzip.compress(idx(IMAGES)) + b"rubbish"),
        "cannot be read",
    ),
    ("no labels", partial(_mnist, train_labels=None), "train-labels-idx1-ubyte"),
    ("no test", partial(_mnist, t10k_images=None, t10k_labels=None), "t10k-images-idx3-ubyte"),
    ("cut off", partial(_mnist, train_images=idx(IMAGES)[:500]), "it announces"),
    ("too long", partial(_mnist, train_images=idx(IMAGES) + b"x"), "it announces"),
    ("empty", partial(_mnist, train_images=b""), "train-images-idx3-ubyte cannot be read"),
    (
        "three bytes",
        partial(_mnist, train_images=b"\0\0\x08"),
        "train-images-idx3-ubyte cannot be read",
    ),
    ("huge", partial(_mnist, train_images=idx(IMAGES, shape=(2**32 - 1,) * 3)), "it announces"),
    (
        "large",
        partial(_mnist, train_images=idx(IMAGES, shape=(60_000, 1000, 1000))),
        "it announces",
    ),
    (
        "of no images",
        partial(_mnist, train_images=idx(IMAGES[:0]), train_labels=idx(LABELS[:0])),
        "0 images",
    ),
    (
        "of no test images",
        partial(_mnist, t10k_images=idx(IMAGES[:0]), t10k_labels=idx(LABELS[:0])),
        "images",
    ),
    ("without pixels", partial(_mnist, train_images=idx(IMAGES[:, :0])), "without pixels"),
    (
        "of floats",
        partial(_mnist, train_images=idx(IMAGES.astype(np.float32), kind=13)),
        "IDX file of bytes",
    ),
    (
        "of other magic",
        partial(_mnist, train_images=b"\1\2\3\4" + idx(IMAGES)[4:]),
        "IDX file of bytes",
    ),
    (
        "of seven dimensions",
        partial(_mnist, train_images=idx(IMAGES.reshape((30, 8, 8) + (1,) * 4))),
        "IDX file of bytes",
    ),
    ("of flat images", partial(_mnist, train_images=idx(IMAGES.reshape(30, 64))), "dimensions"),
    ("labels for images", partial(_mnist, train_images=idx(LABELS)), "dimensions"),
    ("fewer labels", partial(_mnist, train_labels=idx(LABELS[:20])), "30 images and 20 labels"),
    ("a label too high", partial(_mnist, train_labels=idx(LABELS + 1)), "from 1 to 10"),
    ("labels of 255", partial(_mnist, train_labels=idx(LABELS * 0 + 255)), "from 255 to 255"),
    (
        "other test images",
        partial(_mnist, t10k_images=idx(np.zeros((30, 9, 9), np.uint8))),
        "test images (1, 9, 9)",
    ),
    (
        "a pipe",
        lambda root: [
            _mnist(root, train_images=None),
            os.mkfifo(root / "MNIST/raw/train-images-idx3-ubyte"),
        ],
        "no regular file",
    ),
    (
        "a folder",
        lambda root: [
            _mnist(root, train_images=None),
            (root / "MNIST/raw/train-images-idx3-ubyte").mkdir(),
        ],
        "directory",
    ),
    (
        "a device",
        lambda root: [
            _mnist(root, train_images=None),
            (root / "MNIST/raw/train-images-idx3-ubyte").symlink_to("/dev/zero"),
        ],
        "no regular file",
    ),
    ("nothing", lambda root: None, "put its four files into one of them"),
    ("too few", partial(_mnist, count=5), "validation takes"),
]
"""MNIST, as it may lie."""

OTHERS = [
    ("cifar10", "cifar-10-batches-py"),
    ("cifar100", "cifar-100-python"),
    ("svhn", "train_32x32.mat"),
    ("fashion_mnist", "train-images-idx3-ubyte"),
]


def _read(source: DataSource, layout: Callable[[Path], object], folder: Path) -> None:
    root = folder / "data"
    root.mkdir()
    layout(root)
    data = load(source, root)
    for split in (data.train, data.validation, data.test):
        if isinstance(split, ImageFiles):
            for _ in data.evaluation(split):
                pass
    list(data.epoch(2, 0, 0, 0))


def _places(name: str, place: str, folder: Path) -> None:
    (folder / "file").write_text("")
    where = {"file": folder / "file", "empty": folder, "long": Path("x" * 5000)}.get(place)
    load(DataSource(name, 8, 2), where or Path(place))


def rows() -> list[Bad]:
    """Return every bad input of this kind."""
    images, mnist = DataSource("folder", 8, 2), DataSource("mnist", 8, 5)
    return [
        *(
            Bad("folder of images", n, partial(_read, images, make), told)
            for n, make, told in FOLDERS
        ),
        *(Bad("IDX files", n, partial(_read, mnist, make), told) for n, make, told in IDX),
        *(
            Bad("data set", f"{name}: {place}", partial(_places, name, place), told)
            for name, file in OTHERS
            for place, told in (
                ("empty", file),
                ("file", "is no folder"),
                ("nowhere", "does not exist"),
                ("long", "does not exist"),
            )
        ),
    ]
