"""What the readers promise: true formats, separate splits, and errors that help.

The files are small and made here, in the formats in which the data sets are distributed.
"""

import gzip
import hashlib
import io
import itertools
import pickle
import resource
import struct
import zlib

import numpy as np
import pytest
import scipy.io
import torch
import torch.nn.functional as F
import torchvision.datasets as published
from PIL import Image
from torch.overrides import TorchFunctionMode

from lthdask.data.batches import Images
from lthdask.data.decoding import MIDDLE, View, decoded
from lthdask.data.image_files import ImageFiles
from lthdask.data.readers import READERS, DataSource, load
from lthdask.data.splits import resized
from lthdask.errors import InputError

RANDOM = np.random.default_rng(0)


def pixels(*shape):
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def everything(data):
    """All training images, validation included, as a set of bytes."""
    splits = (data.train.images, data.validation.images)
    return {image.numpy().tobytes() for split in splits for image in split}


def write_cifar(folder, monkeypatch, name):
    """python pickles of rows: 1024 red, 1024 green, 1024 blue bytes."""
    kind = getattr(published, name)
    place = folder / kind.base_folder
    place.mkdir()
    images, listed = [], {}
    for part in ("train_list", "test_list"):
        listed[part] = []
        for file, _ in getattr(kind, part):
            rows = pixels(6, 3072)
            label = "fine_labels" if name == "CIFAR100" else "labels"
            (place / file).write_bytes(pickle.dumps({"data": rows, label: [0, 1, 2, 3, 4, 5]}))
            listed[part].append((file, hashlib.md5((place / file).read_bytes()).hexdigest()))
            images += [(part, row.reshape(3, 32, 32)) for row in rows]
        monkeypatch.setattr(kind, part, listed[part])
    meta = kind.meta
    (place / meta["filename"]).write_bytes(pickle.dumps({meta["key"]: [str(i) for i in range(10)]}))
    digest = hashlib.md5((place / meta["filename"]).read_bytes()).hexdigest()
    monkeypatch.setattr(kind, "meta", meta | {"md5": digest})
    return images


@pytest.mark.parametrize(
    ("name", "kind", "classes"), [("cifar10", "CIFAR10", 10), ("cifar100", "CIFAR100", 100)]
)
def test_cifar_is_read_from_its_batches(tmp_path, monkeypatch, name, kind, classes):
    written = write_cifar(tmp_path, monkeypatch, kind)
    data = load(DataSource(name, 32, validation=2), tmp_path)
    assert data.classes == classes
    assert everything(data) == {i.tobytes() for part, i in written if part == "train_list"}
    assert data.test.images.numpy().tobytes() == b"".join(
        i.tobytes() for part, i in written if part == "test_list"
    )
    assert data.test.labels.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
)
def test_mnist_is_read_from_its_idx_files(tmp_path, name, folder):
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    written = {}
    for part, count in (("train", 20), ("t10k", 6)):
        images = written[part] = pixels(count, 28, 28)
        header = struct.pack(">4I", 0x803, count, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = bytes(i % 10 for i in range(count))
        content = struct.pack(">2I", 0x801, count) + labels
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(content)
        with gzip.open(raw / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(content)
    data = load(DataSource(name, 28, validation=5), tmp_path)
    assert everything(data) == {image.tobytes() for image in written["train"]}
    assert torch.equal(data.test.images[:, 0], torch.from_numpy(written["t10k"]))
    assert data.test.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert data.shape[0] == 1


def test_svhn_is_read_from_its_matlab_files(tmp_path, monkeypatch):
    lists, written = {}, {}
    for part, count in (("train", 9), ("test", 4)):
        images = written[part] = pixels(32, 32, 3, count)
        labels = np.array([[10], [1], [2], [3], [4], [5], [6], [7], [8]][:count], dtype=np.uint8)
        file = tmp_path / f"{part}_32x32.mat"
        scipy.io.savemat(file, {"X": images, "y": labels})
        url, name, _ = published.SVHN.split_list[part]
        lists[part] = [url, name, hashlib.md5(file.read_bytes()).hexdigest()]
    monkeypatch.setattr(published.SVHN, "split_list", lists)
    data = load(DataSource("svhn", 32, validation=3), tmp_path)
    assert len(data.train) == 6
    assert data.test.labels.tolist() == [0, 1, 2, 3]  # its zero is written as 10
    assert torch.equal(
        data.test.images[1], torch.from_numpy(written["test"][..., 1]).permute(2, 0, 1)
    )


@pytest.fixture
def folder(tmp_path):
    """A folder as ImageNet's: three classes, images of different sizes, two file formats."""
    for part, count in (("train", 8), ("val", 3)):
        for number, label in enumerate(("cat", "dog", "eel")):
            place = tmp_path / part / label
            place.mkdir(parents=True)
            for i in range(count):
                colour = np.zeros((20 + i, 30, 3), dtype=np.uint8)
                colour[..., number] = 200 + i
                suffix = "png" if i % 2 else "bmp"
                Image.fromarray(colour).save(place / f"{i}.{suffix}")
    return tmp_path


def test_a_folder_of_class_folders_streams_from_disk(folder):
    data = load(DataSource("folder", 16, validation=4), folder)
    assert isinstance(data.train, ImageFiles)
    assert (len(data.train), len(data.validation), len(data.test), data.classes) == (20, 4, 9, 3)
    shown = list(data.epoch(10, 0, 0, 1))
    assert [tuple(x.shape) for x, _ in shown] == [(10, 3, 16, 16)] * 2
    for images, labels in shown:  # the colour tells the class
        assert images.mean((2, 3)).argmax(1).tolist() == labels.tolist()


def test_resized_crops_are_parts_of_the_image_and_the_same_when_resumed(folder):
    data = load(DataSource("folder", 16, 4, ("resized_crop", "flip")), folder)
    whole = list(data.epoch(5, 1, 0, 3))
    late = list(data.epoch(5, 1, 0, 3, start=2))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(whole[2:], late, strict=True))
    assert whole[0][0].shape == (5, 3, 16, 16)


def test_the_middle_of_an_image_is_shown_in_evaluation(tmp_path):
    for part in ("train", "val"):
        for label in ("a", "b"):
            (tmp_path / part / label).mkdir(parents=True)
            image = np.zeros((64, 128, 3), dtype=np.uint8)
            # The middle 56 columns, 7/8 of the shorter side, and one more for interpolation.
            image[:, 35:93] = 255
            for i in range(3):
                Image.fromarray(image).save(tmp_path / part / label / f"{i}.png")
    data = load(DataSource("folder", 28, validation=1), tmp_path)
    shown = next(iter(data.evaluation(data.test)))[0] * data.std + data.mean
    assert (shown > 254).all()


def test_the_splits_are_disjoint_and_the_same_for_every_seed():
    data = load(DataSource("digits", 8, validation=200))
    sizes = (len(data.train), len(data.validation), len(data.test))
    assert sizes == (1097, 200, 500)
    again = load(DataSource("digits", 8, validation=200))
    assert torch.equal(data.validation.images, again.validation.images)
    rows = [
        [i.tobytes() for i in s.images.numpy()] for s in (data.train, data.validation, data.test)
    ]
    from sklearn.datasets import load_digits

    original = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
    assert sorted(itertools.chain(*rows)) == sorted(image.tobytes() for image in original)
    # Every class is in every split.
    for split in (data.train, data.validation, data.test):
        assert torch.bincount(split.labels, minlength=10).min() > 5


def test_a_subset_is_the_first_training_images_and_validation_is_taken_from_it():
    whole, some = (load(DataSource("digits", 8, 20, subset=n)) for n in (None, 100))
    assert (len(some.train), len(some.validation), len(some.test)) == (80, 20, 500)
    assert everything(some) < everything(whole)
    assert torch.equal(some.test.images, whole.test.images)
    first = READERS["digits"](DataSource("digits", 8, 20), None, False)[0].images[:100]
    assert everything(some) == {image.numpy().tobytes() for image in first}
    assert some.digest.differences(whole.digest)[0] == "1,277 training images, not 80"
    assert load(DataSource("digits", 8, 20, subset=1297)).digest == whole.digest
    with pytest.raises(InputError, match=r"takes 1298 training images, but there are 1297; set"):
        load(DataSource("digits", 8, 20, subset=1298))


def test_a_subset_of_a_folder_has_the_first_images_of_each_class_in_turn(folder):
    (folder / "train" / "cat" / "1.png").unlink()  # classes differ in size
    some = load(DataSource("folder", 16, 2, subset=7), folder)
    names = {f"{p.parent.name}/{p.stem}" for p in (*some.train.paths, *some.validation.paths)}
    assert names == {"cat/0", "cat/2", "cat/3", "dog/0", "dog/1", "eel/0", "eel/1"}
    for path, label in zip(some.train.paths, some.train.labels.tolist(), strict=True):
        assert ("cat", "dog", "eel")[label] == path.parent.name
    with pytest.raises(InputError, match="takes 24 training images, but there are 23"):
        load(DataSource("folder", 16, 2, subset=24), folder)


def test_digits_are_brought_to_size():
    data = load(DataSource("digits", 32, validation=200))
    assert data.train.images.shape == (1097, 1, 32, 32)
    assert data.train.images.dtype == torch.uint8
    flat = data.train.images.float()
    assert data.mean.item() == pytest.approx(flat.mean().item(), rel=1e-3)
    assert data.std.item() == pytest.approx(flat.std().item(), rel=1e-3)


def test_a_source_says_whether_each_image_is_standardised_by_itself():
    data = load(DataSource("digits", 8, validation=200, normalisation="image"))
    shown = next(iter(data.evaluation(data.test)))[0].flatten(1)
    assert shown.mean(1).abs().max() < 1e-5
    assert shown.std(1, correction=0).sub(1).abs().max() < 1e-5


def test_images_are_resized_one_by_one_whatever_their_number():
    data = load(DataSource("digits", 24, validation=200))
    small = load(DataSource("digits", 8, validation=200))
    assert len(data.train) > 1000
    for split in ("train", "validation", "test"):
        large, few = getattr(data, split).images, getattr(small, split).images
        for image, original in zip(large, few, strict=True):
            alone = F.interpolate(original[None].float(), (24, 24), mode="bilinear", antialias=True)
            assert torch.equal(image, alone[0].round().byte())


def test_images_for_which_no_machine_has_the_memory_are_refused_before_any_is_made():
    many = torch.zeros(1, 1, 8, 8, dtype=torch.uint8).expand(10**9, 1, 8, 8)
    with pytest.raises(InputError, match="1,000,000,000 images of 1024 by 1024 pixels take .* GiB"):
        resized(Images(many, torch.zeros(1).expand(10**9)), 1024)


def test_a_data_set_is_never_held_in_floats_as_a_whole():
    largest = 0

    class Floats(TorchFunctionMode):
        def __torch_function__(self, function, types, arguments=(), kwargs=None):
            nonlocal largest
            made = function(*arguments, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and made.is_floating_point():
                largest = max(largest, made.numel())
            return made

    with Floats():
        load(DataSource("digits", 24, validation=200))
    assert largest <= 1000 * 24 * 24


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion_mnist", "svhn"])
def test_missing_files_are_named_and_nothing_is_downloaded_unasked(tmp_path, name):
    problem = r"no usable .*; put its (four )?files .*, or set `download`$"
    with pytest.raises(InputError, match=problem):
        load(DataSource(name, 32, 10), tmp_path)
    assert not any(p.is_file() for p in tmp_path.rglob("*"))


def test_malformed_files_are_refused(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, 5, 28, 28))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"")
    with pytest.raises(InputError, match="no usable MNIST"):
        load(DataSource("mnist", 28, 1), tmp_path)


def encoded(kind, size=64):
    """The bytes of an image of noise."""
    file = io.BytesIO()
    Image.fromarray(pixels(size, size, 3)).save(file, kind)
    return file.getvalue()


def bomb():
    """A small file whose header promises 40,000 by 40,000 pixels."""
    content = encoded("png", 8)
    header = b"IHDR" + struct.pack(">2I", 40_000, 40_000) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


DAMAGED = {
    "nothing": (b"", "cannot identify image file"),
    "noise": (RANDOM.bytes(500), "cannot identify image file"),
    "a JPEG that is cut": (encoded("jpeg")[:-100], "image file is truncated .*"),
    "a PNG that is cut": (encoded("png")[:-5000], "image file is truncated"),
    "a PNG without pixels": (encoded("png")[:60], "image file is truncated"),
    "a PNG with a broken part": (encoded("png").replace(b"IDAT", b"IDOT"), ".+"),
    "a bomb": (bomb(), "Image size .* could be decompression bomb DOS attack."),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_an_image_that_cannot_be_decoded_is_named_before_anything_is_trained(folder, damage):
    content, why = DAMAGED[damage]
    path = min((folder / "train").rglob("*.*"))
    path.write_bytes(content)
    problem = rf"the image {path} cannot be decoded \({why}\); replace it, or take it out of the "
    with pytest.raises(InputError, match=problem):
        load(DataSource("folder", 16, 4), folder)


def test_an_image_that_is_lost_or_damaged_later_is_named_as_it_is_needed(folder):
    data = load(DataSource("folder", 16, 4), folder)
    path = data.train.paths[3]
    path.write_bytes(b"")
    with pytest.raises(InputError, match=rf"the image {path} cannot be decoded"):
        list(data.epoch(len(data.train), 0, 0, 1))
    path.unlink()
    with pytest.raises(InputError, match=rf"cannot read the image {path}: No such file"):
        list(data.epoch(len(data.train), 0, 0, 1))


def test_that_a_process_has_too_many_open_files_is_no_fault_of_an_image(folder):
    files = load(DataSource("folder", 16, 4), folder).train
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            files.shown(0, MIDDLE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, 5, 28, 28))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 5) + bytes(5))
    problem = "no usable MNIST in .*: its file MNIST/raw/train-images-idx3-ubyte cannot be read"
    with pytest.raises(InputError, match=problem):
        load(DataSource("mnist", 28, 1), tmp_path)


def test_a_folder_with_another_layout_is_refused(tmp_path, folder):
    with pytest.raises(InputError, match="not laid out as train/CLASS"):
        load(DataSource("folder", 16, 4), tmp_path / "train")
    (folder / "val" / "eel").rename(folder / "val" / "fox")
    with pytest.raises(InputError, match="differ in their classes: eel, fox"):
        load(DataSource("folder", 16, 4), folder)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (
            lambda: DataSource("imagenet21k", 32, 10),
            "unknown data set 'imagenet21k'; known: cifar10",
        ),
        (lambda: DataSource("digits", 4, 10), "image_size must be 8 pixels or more; got 4"),
        (lambda: DataSource("digits", 2048, 10), "must be 1,024 pixels or fewer; got 2048"),
        (lambda: DataSource("digits", 8, 0), "validation must be 1 image or more"),
        (lambda: DataSource("digits", 8, 10, subset=10), "more than the 10 validation images"),
        (lambda: DataSource("digits", 8, 10, subset=-1), "are set aside from it; got -1"),
        (lambda: DataSource("digits", 8, 10, ("resized_crop",)), "for folders of images"),
        (lambda: load(DataSource("digits", 8, 1297)), "leaves none to train on"),
        (lambda: load(DataSource("mnist", 28, 10)), "give its folder with `data`"),
    ],
)
def test_impossible_data_are_refused(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load(DataSource("mnist", 28, 10), tmp_path / "nowhere")


def test_a_study_shows_its_images_as_its_augmentation_says(folder):
    plain = load(DataSource("digits", 8, 200))
    flipped = load(DataSource("digits", 8, 200, ("flip",)))
    pairs = zip(plain.epoch(64, 0, 0, 1), flipped.epoch(64, 0, 0, 1), strict=True)
    assert any(not torch.equal(a, b) for (a, _), (b, _) in pairs)
    # A random part of an image is not its middle, and another one in each epoch.
    gradient = np.arange(64, dtype=np.uint8)[None, :, None].repeat(64, 0).repeat(3, 2)
    for path in folder.rglob("*.png"):
        Image.fromarray(gradient).save(path)
    for path in folder.rglob("*.bmp"):
        Image.fromarray(gradient).save(path)
    parts = load(DataSource("folder", 16, 4, ("resized_crop",)), folder)
    means = [x.mean((1, 2, 3)) for epoch in (1, 2) for x, _ in parts.epoch(20, 0, 0, epoch)]
    assert len({round(m, 3) for epoch in means for m in epoch.tolist()}) > 20
    middle = load(DataSource("folder", 16, 4), folder)
    (shown, _) = next(middle.epoch(20, 0, 0, 1))
    assert shown.mean((1, 2, 3)).std() < 1e-3


def test_the_validation_split_is_drawn_from_every_class_of_a_sorted_folder(folder):
    data = load(DataSource("folder", 16, validation=9), folder)
    assert len(set(data.validation.labels.tolist())) > 1
    assert len(set(data.train.labels.tolist())) == 3


def test_files_that_are_noise_or_have_labels_of_no_class_are_refused(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for file in ("images-idx3-ubyte", "labels-idx1-ubyte"):
            (raw / f"{part}-{file}").write_bytes(RANDOM.bytes(500))
    with pytest.raises(InputError, match="no usable MNIST"):
        load(DataSource("mnist", 28, 1), tmp_path)
    for labels in (bytes([77] * 5), bytes(4)):
        for part in ("train", "t10k"):
            header = struct.pack(">4I", 0x803, 5, 28, 28)
            (raw / f"{part}-images-idx3-ubyte").write_bytes(header + bytes(5 * 28 * 28))
            header = struct.pack(">2I", 0x801, len(labels))
            (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + labels)
        with pytest.raises(InputError, match="no usable MNIST .*5 images and"):
            load(DataSource("mnist", 28, 1), tmp_path)


def idx_files(images=b"", labels=b"", count=5):
    """The four files of MNIST, by name, each image of noise."""
    files = {}
    for part in ("train", "t10k"):
        header = struct.pack(">4I", 0x803, count, 28, 28)
        files[f"{part}-images-idx3-ubyte"] = header + (images or pixels(count, 28, 28).tobytes())
        header = struct.pack(">2I", 0x801, count)
        files[f"{part}-labels-idx1-ubyte"] = header + (labels or bytes(count))
    return files


@pytest.mark.parametrize("place", ["FashionMNIST/raw", "FashionMNIST", "raw", "."])
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
def test_idx_files_are_found_as_torchvision_has_them_flat_and_compressed(
    tmp_path, place, compressed
):
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    written = idx_files()
    for name, content in written.items():
        if compressed:  # as they lie in Debian's dataset-fashion-mnist
            (tmp_path / place / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (tmp_path / place / name).write_bytes(content)
    data = load(DataSource("fashion_mnist", 28, validation=2), tmp_path)
    assert data.test.images.numpy().tobytes() == written["t10k-images-idx3-ubyte"][16:]
    assert len(everything(data)) == 5


def test_idx_files_of_two_places_are_not_taken_for_one_data_set(tmp_path):
    (tmp_path / "MNIST").mkdir()
    for name, content in idx_files().items():
        place = "MNIST" if name.startswith("train") else "."
        (tmp_path / place / name).write_bytes(content)
    with pytest.raises(InputError, match="there is no t10k-images-idx3-ubyte or"):
        load(DataSource("mnist", 28, 1), tmp_path)


CUT = gzip.compress(idx_files()["t10k-images-idx3-ubyte"], mtime=0)[:-900]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("train-images-idx3-ubyte", b"\0\0\x08", "unpack requires a buffer of 4 bytes"),
        ("train-images-idx3-ubyte", b"\0\0\x0d\x03" + bytes(99), "does not begin as an IDX file"),
        (
            "train-images-idx3-ubyte",
            struct.pack(">4I", 0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1),
            "does not hold the 79,228,162,458,924,105,385,300,197,375 values",
        ),
        ("train-labels-idx1-ubyte", struct.pack(">2I", 0x801, 5) + bytes(6), "hold the 5 values"),
        ("t10k-labels-idx1-ubyte", struct.pack(">3I", 0x802, 5, 1) + bytes(5), "labels of 1, not"),
        ("t10k-images-idx3-ubyte", struct.pack(">4I", 0x803, 5, 0, 0), "without pixels"),
        ("t10k-images-idx3-ubyte.gz", b"no gzip", "Not a gzipped file"),
        ("t10k-images-idx3-ubyte.gz", CUT, "ended before"),
    ],
    ids=["short", "floats", "absurd", "too long", "dimensions", "no pixels", "not packed", "cut"],
)
def test_an_idx_file_that_is_none_is_named_and_nothing_is_allocated_for_it(
    tmp_path, name, content, problem
):
    for file, good in idx_files().items():
        (tmp_path / file).write_bytes(good)
    (tmp_path / name.removesuffix(".gz")).unlink()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"no usable MNIST in {tmp_path}.*{problem}"):
        load(DataSource("mnist", 28, 1), tmp_path)


def test_the_folder_of_cifar_s_files_may_be_given_itself(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch, "CIFAR10")
    data = load(DataSource("cifar10", 32, validation=2), tmp_path / "cifar-10-batches-py")
    assert len(data.test) == 6


def test_an_archive_that_is_still_packed_is_named(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").touch()
    problem = "unpack .*cifar-10-python.tar.gz there, so that .*cifar-10-batches-py/data_batch_1 ex"
    with pytest.raises(InputError, match=problem):
        load(DataSource("cifar10", 32, validation=2), tmp_path)


def test_a_download_that_fails_is_not_advised_again(tmp_path, monkeypatch):
    monkeypatch.setattr(published.MNIST, "mirrors", ["http://127.0.0.1:1/"])
    with pytest.raises(InputError, match="no usable MNIST in") as error:
        load(DataSource("mnist", 28, 1), tmp_path, download=True)
    assert "set `download`" not in str(error.value)


def test_hidden_folders_are_no_classes_and_hidden_files_no_images(folder):
    before = load(DataSource("folder", 16, validation=4), folder)
    for part in ("train", "val"):
        (folder / part / ".ipynb_checkpoints").mkdir()
        (folder / part / ".ipynb_checkpoints" / "1.jpg").write_bytes(encoded("jpeg"))
        (next((folder / part).iterdir()) / "._1.jpg").write_bytes(b"of another system")
    data = load(DataSource("folder", 16, validation=4), folder)
    assert (data.classes, data.digest) == (before.classes, before.digest)


def test_pixels_of_16_bits_are_scaled_and_those_without_a_range_refused(folder):
    levels = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
    sixteen, floats = levels.astype(np.uint16), (levels / 65535).astype(np.float32)
    file = next((folder / "train").glob("*/*"))
    paths = [file.with_name(name) for name in ("grey.png", "grey.tif")]
    for path in paths:
        Image.fromarray(sixteen).save(path)
    eight = file.with_name("eight.png")
    Image.fromarray((sixteen / 257).round().astype(np.uint8)).save(eight)
    read = ImageFiles([*paths, eight], torch.zeros(3), View(16), folder)
    ((images, _),) = read.batches([torch.arange(3)], torch.device("cpu"), None)
    assert torch.equal(images[0], images[2])
    assert torch.equal(images[1], images[2])
    Image.fromarray(floats).save(file.with_name("floats.tif"))
    with pytest.raises(InputError, match="floats.tif cannot be decoded .its pixels are floats"):
        load(DataSource("folder", 16, validation=4), folder)


def test_colours_of_a_palette_are_shown_without_their_transparency(tmp_path):
    path, colours = tmp_path / "palette.png", Image.effect_mandelbrot((9, 9), (-2, -1, 1, 1), 9)
    palette = colours.convert("RGB").quantize(4)
    palette.save(path, transparency=bytes([0, 90, 180, 255]))
    assert np.array_equal(decoded(path)[0], palette.convert("RGB"))
