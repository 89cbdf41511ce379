"""What the digest of data promises: other data never get into a study, the same always do."""

import os
import shutil
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lthdask.data import digest
from lthdask.data.batches import Images
from lthdask.data.decoding import View
from lthdask.data.digest import DataDigest, SplitDigest, of_files
from lthdask.data.image_files import ImageFiles
from lthdask.data.readers import DataSource, load
from lthdask.errors import InputError, OtherData
from lthdask.flow import run
from lthdask.storage.results import open_results
from lthdask.storage.schema import Status
from lthdask.study import Study

STUDY = Study.read("mnist-lenet").changed(
    {
        "data.validation": "50",
        "recipe.epochs": "1",
        "recipe.batch_size": "50",
        "pruning.schedule": "one_shot",
        "grid.thresholds": "0.5",
        "grid.rewind_epochs": "0",
        "grid.replicates": "2",
    }
)
SPLIT = SplitDigest(400, "labels", "inputs")
DATA = DataDigest((1, 28, 28), 10, {"training": SPLIT, "test": SPLIT})


def changed(split, **changes):
    return replace(DATA, splits=DATA.splits | {split: replace(SPLIT, **changes)})


@pytest.mark.parametrize(
    ("other", "lines"),
    [
        (DATA, []),
        (replace(DATA, shape=(3, 28, 28)), ["inputs of shape (3, 28, 28), not (1, 28, 28)"]),
        (replace(DATA, classes=4), ["4 classes, not 10"]),
        (changed("training", count=1600, inputs="more"), ["1,600 training images, not 400"]),
        (changed("test", labels="others"), ["other labels (test)"]),
        (changed("test", inputs="others"), ["other images, or in another order (test)"]),
    ],
)
def test_what_differs_is_said(other, lines):
    assert DATA.differences(other) == lines
    nothing = DataDigest(DATA.shape, DATA.classes)  # as format 2 recorded them
    assert nothing.differences(other) == [
        line for line in lines if "inputs" in line or "cla" in line
    ]


def test_the_digest_is_of_values_in_their_order_however_they_lie_in_memory():
    pixels = torch.arange(96, dtype=torch.uint8).view(2, 4, 4, 3)
    images = Images(pixels.permute(0, 3, 1, 2), torch.tensor([0, 1]))
    found = images.digest()
    assert Images(images.images.contiguous(), images.labels).digest() == found
    swapped = images.subset(torch.tensor([1, 0])).digest()
    assert (swapped.labels != found.labels, swapped.inputs != found.inputs) == (True, True)
    assert Images(images.images.flip(3), images.labels).digest().labels == found.labels
    assert Images(images.images.reshape(2, 3, 16, 1), images.labels).digest() != found


def test_the_digest_is_the_same_on_every_machine_and_at_every_size():
    """Pinned: with another value, every study would be refused its own data."""
    small, large = (load(DataSource("digits", size, 200)).digest for size in (8, 16))
    assert small.splits == large.splits
    assert {name: (s.count, s.labels[:8], s.inputs[:8]) for name, s in small.splits.items()} == {
        "training": (1097, "b11c081e", "89a9ea3f"),
        "validation": (200, "3d414721", "0868af1d"),
        "test": (500, "b5f753d8", "209a308b"),
    }


@pytest.fixture
def folder(tmp_path):
    """Image files; nothing here decodes them."""
    for number, name in enumerate(["train/cat/é.png", "train/dog/1.png", "val/cat/1.png"]):
        (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / name).write_bytes(bytes([number]) * 3000)
    return tmp_path / "a"


def digest_of(folder):
    paths = sorted(folder.glob("train/*/*"))
    labels = torch.tensor([path.parent.name == "dog" for path in paths]).long()
    return ImageFiles(paths, labels, View(8), folder / "train").digest()


def test_a_folder_is_the_same_wherever_it_lies(folder, monkeypatch):
    found = digest_of(folder)
    assert found.inputs[:8] == "cf0fb373"  # pinned, as above
    copy = shutil.copytree(folder, folder.parent / "elsewhere")
    os.utime(copy / "train/dog/1.png", (0, 0))
    assert digest_of(copy) == found
    monkeypatch.setattr(digest, "AT_ONCE", 1)
    monkeypatch.chdir(folder.parent)
    assert digest_of(folder.relative_to(folder.parent)) == found


@pytest.mark.parametrize("whole", [True, False])
def test_names_sizes_and_labels_of_files_count_and_contents_as_far_as_they_are_read(
    folder, monkeypatch, whole
):
    if not whole:
        monkeypatch.setattr(digest, "READ_WHOLE", 5999)
        monkeypatch.setattr(digest, "BEGINNING", 1000)
    before = digest_of(folder)
    cat, dog = folder / "train/cat/é.png", folder / "train/dog/1.png"
    dog.write_bytes(bytes([1]) * 2999 + bytes(1))
    assert (digest_of(folder).inputs != before.inputs) == whole
    dog.write_bytes(bytes(3000))
    assert digest_of(folder).inputs != before.inputs
    dog.write_bytes(bytes([1]) * 3001)
    assert digest_of(folder).inputs != before.inputs
    dog.write_bytes(bytes([1]) * 3000)
    assert digest_of(folder) == before
    cat.rename(folder / "train/cat/e.png")
    assert digest_of(folder).inputs != before.inputs
    (folder / "train/cat/e.png").rename(folder / "train/dog/é.png")
    assert digest_of(folder).labels != before.labels


def test_of_many_large_files_some_are_read_evenly(tmp_path, monkeypatch):
    for name, value in (("READ_WHOLE", 0), ("SAMPLE", 3)):
        monkeypatch.setattr(digest, name, value)
    paths = [tmp_path / f"{number}" for number in range(8)]
    for path in paths:
        path.write_bytes(b"a")
    before, read = of_files(paths, tmp_path), []
    for number, path in enumerate(paths):
        path.write_bytes(b"b")
        read += [number] if of_files(paths, tmp_path) != before else []
        path.write_bytes(b"a")
    assert read == [0, 3, 6]


def test_an_image_file_that_cannot_be_read_is_named(folder):
    shutil.copytree(folder / "train/dog", folder / "val/dog")
    for image in folder.rglob("*.png"):
        Image.new("L", (2, 2)).save(image)
    (folder / "train/dog/1.png").unlink()
    (folder / "train/dog/1.png").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"cannot read the .*/dog/1.png: No such file"):
        load(DataSource("folder", 8, validation=1), folder)


def write_mnist(folder, seed=0, train=150):
    """Images of noise, in the files of MNIST."""
    raw, random = folder / "MNIST" / "raw", np.random.default_rng(seed)
    raw.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", train), ("t10k", 20)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8).tobytes()
        header = struct.pack(">4I", 0x803, count, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + images)
        labels = struct.pack(">2I", 0x801, count) + bytes(i % 10 for i in range(count))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(labels)


def files_of(folder):
    return {f: f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.name[0] != "."}


def test_other_data_are_refused_before_anything_is_queued_and_nothing_is_lost(
    local_client, tmp_path
):
    data, out = tmp_path / "data", tmp_path / "run"
    write_mnist(data)
    run(STUDY, local_client, out, data)
    before = files_of(out)
    grown = STUDY.changed({"grid.thresholds": "0.5,0.9"})
    for change, what in (
        ({"seed": 1}, r"other images, or in another order \(training, validation, test\)"),
        ({"train": 200}, "150 training images, not 100; .*; give the same data with `data`"),
    ):
        write_mnist(data, **change)
        with pytest.raises(OtherData, match=f"the worker on .* from {data}, reads other .*{what}"):
            run(grown, local_client, out, data, watch=pytest.fail)
        assert files_of(out) == before
    write_mnist(data)
    assert (run(grown, local_client, out, data).status == Status.DONE).all()


def test_another_copy_on_one_node_stops_the_run_and_no_cell_is_failed(local_client, tmp_path):
    data, out = tmp_path / "data", tmp_path / "run"
    write_mnist(data)

    def exchange(event):
        if event.kind == "plan":  # one worker has read the data, the other has not
            write_mnist(data, seed=1)

    with pytest.raises(OtherData, match="the worker on .* reads other data"):
        run(STUDY, local_client, out, data, watch=exchange)
    assert (open_results(out).status != Status.FAILED).all()  # the sound worker may be ahead
    write_mnist(data)
    assert (run(STUDY, local_client, out, data).status == Status.DONE).all()
