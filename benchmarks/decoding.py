"""Images a second from a folder of JPEGs: ours, streamed and prepared, beside torchvision's.

    uv run python benchmarks/decoding.py                     # --sizes 224 for that alone

Images of 500 × 375 pixels, as large as most of ImageNet's, as JPEGs of quality 90; random resized
crops and flips, batches of 64, normalised floats at the end. Theirs is the ImageFolder with a
DataLoader of a process for each core; `draft` is a loader for it, in one line, that decodes JPEGs
at a part of their size. Ours takes as many threads as a worker would; both keep memory that is
freed, as a worker does. `its decoding alone` is what Pillow takes to decode the same images at
the same scale, and bounds what is possible. All are first shown to have the same labels, and ours
prepared the same pixels as streamed. Each round takes an epoch of each way in turn; ratios are
medians over the rounds. Those of CPU seconds hold on a busy machine, too.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from lthdask.cluster.client import open_client
from lthdask.cluster.overrides import MEMORY
from lthdask.cluster.queue import Queue
from lthdask.data.batches import Data, _resized_crops
from lthdask.data.decoding import decoded
from lthdask.data.image_files import ImageFiles
from lthdask.data.readers import DataSource, load
from lthdask.driver.copying import copying_of, make_copy
from lthdask.streams import Purpose, below, stream

BATCH, CLASSES, QUALITY = 64, 4, 90
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Way = Callable[[], Iterator[object]]


def write_images(root: Path, count: int) -> None:
    """Write `count` photographs to train on, and a few to test on."""
    random = np.random.default_rng(0)
    for part, many in (("train", count), ("val", 2 * CLASSES)):
        for number in range(many):
            coarse = random.integers(0, 256, (12, 16, 3), np.uint8)
            image = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
            grain = random.standard_normal((375, 500, 1), np.float32) * 8
            pixels = np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8)
            place = root / part / f"class {number % CLASSES}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"{number:05}.jpg", quality=QUALITY)


def drafted(size: int, path: str) -> Image.Image:
    """Return an image decoded at the smallest part of its size that has `size` pixels."""
    image = Image.open(path)
    image.draft("RGB", (size, size))
    return image.convert("RGB")


def theirs(root: Path, size: int, draft: bool = False) -> DataLoader[object]:
    """Return torchvision's loader, as its own training script has it."""
    shown = transforms.Compose(
        [
            transforms.RandomResizedCrop(size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    more = {"loader": partial(drafted, size)} if draft else {}
    return DataLoader(
        ImageFolder(str(root / "train"), shown, **more),
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=len(os.sched_getaffinity(0)),
        persistent_workers=True,
    )


def ours(source: DataSource, folder: Path) -> tuple[Data, Way]:
    """Return our data, and what yields their batches."""
    data, epochs = load(source, folder), iter(range(1, 10**6))
    return data, lambda: data.epoch(BATCH, 0, 0, next(epochs))


class Undone(ImageFiles):
    """Images of files that are decoded as they are shown, and with which nothing else is done."""

    def shown(self, index: int, part: Sequence[float]) -> NDArray[np.uint8]:
        """Decode an image."""
        decoded(self.paths[index], partial(self.view._smallest, part))
        return np.zeros((), np.uint8)


def decoding_alone(streamed: Data) -> Way:
    """Return what takes no longer than it takes to decode the images at the scale of ours."""
    files = streamed.train
    assert isinstance(files, ImageFiles)
    undone = Undone(files.paths, files.labels, files.view, files.root)
    draw = partial(below, stream(0, 0, Purpose.AUGMENTATION, 1), count=len(files))
    steps = streamed.steps(BATCH)
    batches = [torch.arange(step * BATCH, (step + 1) * BATCH) for step in range(steps)]
    parts = list(_resized_crops(draw).split(BATCH))
    return lambda: undone.batches(batches, torch.device("cpu"), parts)


def require_equal(streamed: Data, prepared: Data, root: Path) -> None:
    """Check that all have the same images of the same classes."""
    labels = sorted(ImageFolder(str(root / "train")).targets)
    for data in (streamed, prepared):
        parts = (data.train, data.validation)
        assert sorted(label for part in parts for label in part.labels.tolist()) == labels
    pairs = zip(streamed.epoch(BATCH, 1, 0, 0), prepared.epoch(BATCH, 1, 0, 0), strict=True)
    for (images, classes), (others, same) in pairs:
        assert torch.equal(images, others)
        assert torch.equal(classes, same)


def cpu_seconds() -> float:
    """Return what this process and its children have taken."""
    children = psutil.Process().children(recursive=True)  # in ticks of 10 ms
    return time.process_time() + sum(sum(child.cpu_times()[:2]) for child in children)


def speeds(ways: dict[str, Way], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return images a second, and a second of CPU, of each way in each round."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(rounds + 1):  # the first one warms up
        for name, epoch in ways.items():
            images, before, began = 0, cpu_seconds(), time.perf_counter()
            for batch in epoch():
                images += len(batch[1])  # type: ignore[index]
            if number:
                seconds = time.perf_counter() - began
                found[name].append((images / seconds, images / (cpu_seconds() - before)))
    return found


def show(size: int, found: dict[str, list[tuple[float, float]]]) -> None:
    """Print the table of one size of images."""
    base = found["torchvision"]
    print(f"\n{size} pixels           images/s   ÷ torchvision's (least to most)   by CPU seconds")
    for name, of in found.items():
        ratios, by_cpu = ([a[i] / b[i] for a, b in zip(of, base, strict=True)] for i in (0, 1))
        print(
            f"{name:22} {median(s for s, _ in of):8.0f}   {median(ratios):5.2f} "
            f"({min(ratios):5.2f} to {max(ratios):5.2f})          {median(by_cpu):5.2f}"
        )


def sources_of(size: int) -> dict[str, DataSource]:
    """Return our ways, each as a study names it."""
    source, crops = partial(DataSource, "folder", size, CLASSES), ("resized_crop", "flip")
    smaller = {"decoding": "scaled", "shorter_side": math.ceil(size * 8 / 7)}
    return {
        "streamed": source(crops),
        "streamed, scaled": source(crops, decoding="scaled"),
        "prepared": source(crops, **smaller),
        "prepared, no crops": source(("flip",)),
    }


def measure(root: Path, size: int, rounds: int) -> None:
    """Measure one size of images."""
    ways: dict[str, Way] = {}
    for name, draft in (("torchvision", False), ("torchvision, draft", True)):
        ways[name] = partial(iter, theirs(root, size, draft))
    for name, source in sources_of(size).items():
        folder = copy_of(root, name, size) if "prepared" in name else root
        data, ways[name] = ours(source, folder)
        if folder != root:
            require_equal(load(source, root), data, root)
        if name == "streamed, scaled":
            ways["  its decoding alone"] = decoding_alone(data)
    show(size, speeds(ways, rounds))


def copy_of(root: Path, name: str, size: int) -> Path:
    """Return the folder of a copy."""
    return root.parent / f"{name} {size}"


def keep_freed_memory() -> None:
    """Begin again as workers begin, which are told how to by their environment."""
    told = {name: str(value) for name, value in MEMORY.items()}
    if told.items() <= os.environ.items():
        return
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[112, 224])
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    print(
        f"{len(os.sched_getaffinity(0))} cores, torch {torch.__version__}, Pillow "
        f"{Image.__version__}, load {os.getloadavg()[0]:.1f}"
    )
    with TemporaryDirectory() as folder:
        root = Path(folder, "images")
        write_images(root, given.images + CLASSES)
        files = [path.stat().st_size for path in root.rglob("*.jpg")]
        print(f"{len(files)} files of {np.mean(files) / 1e3:.0f} kB on average")
        with open_client(deployment="local", say=lambda line: None) as client:
            for size in given.sizes:
                for name, source in sources_of(size).items():
                    if "prepared" in name:
                        out = copy_of(root, name, size)
                        make_copy(copying_of(source, root, out), Queue(client))
        for size in given.sizes:
            measure(root, size, given.rounds)


if __name__ == "__main__":
    main()
