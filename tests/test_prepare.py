"""What prepared copies promise: the bits of the folder, whatever happens as they are made."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from subprocess import PIPE

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import lthdask
from lthdask.cluster.queue import Queue
from lthdask.data import copies
from lthdask.data.decoding import MIDDLE, View, _by_pytorch, decoded
from lthdask.data.folders import read_folder
from lthdask.data.inputs import inputs_of
from lthdask.data.prepared import PreparedImages
from lthdask.data.readers import DataSource, load
from lthdask.driver import copy_folder
from lthdask.driver.copying import copying_of, make_copy
from lthdask.errors import InputError, OtherData
from lthdask.events import Stopped, TaskContext
from lthdask.storage.driver import driving
from lthdask.study import Study
from lthdask.worker.copying import list_images, make_file

RANDOM = np.random.default_rng(0)
NAMES = ("0.jpg", "a b.jpg", "line\nbreak.jpg", os.fsdecode(b"\xff.jpg"), "grey.jpg", "5.png")
ALL = {"flip": ("flip", "crop"), "crops": ("resized_crop", "flip")}


def photograph(width, height):
    """An image whose neighbouring pixels are alike, as a camera's are."""
    noise = Image.fromarray(RANDOM.integers(0, 256, (6, 8, 3), np.uint8))
    return noise.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    """Photographs of two classes with names of all kinds; one is grey, one is a link."""
    root = tmp_path / "images"
    for part in ("train", "val"):
        for label in ("ä", "b"):
            (root / part / label).mkdir(parents=True)
            for number, name in enumerate(NAMES):
                image = photograph(60 + 9 * number, 45)
                image = image.convert("L") if name == "grey.jpg" else image
                image.save(root / part / label / name, quality=95)
            (root / part / label / "link.jpg").symlink_to("0.jpg")
    return root


@pytest.fixture
def few(monkeypatch):
    """Files of pixels have three images at most."""
    monkeypatch.setattr(copies, "FEWEST_IMAGES", 3)
    monkeypatch.setattr(copies, "MOST_FILES", 1000)


def source(augmentation="flip", size=16, **more):
    return DataSource("folder", size, 2, ALL[augmentation], **more)


def prepare(client, of, folder, out, tell=lambda done, every: None):
    return make_copy(copying_of(of, folder, out), Queue(client), tell)


def digests(folder):
    """Every file of a copy and its digest, but for what tells when images were written."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.pixels")
    }


@pytest.mark.parametrize(
    "of",
    [
        source(),
        source(decoding="scaled"),
        source(shorter_side=20),
        source("crops"),
        source("crops", shorter_side=24),
        source("crops", shorter_side=24, decoding="scaled", subset=9),
    ],
    ids=["middles", "scaled", "shorter side", "crops", "smaller crops", "small scaled crops"],
)
def test_a_copy_shows_what_the_folder_shows_bit_for_bit_and_has_its_digest(
    local_client, folder, tmp_path, few, of
):
    out, told = tmp_path / "copy", []
    copied = prepare(local_client, of, folder, out, lambda *how_far: told.append(how_far))
    assert (copied.images, copied.kept) == (28, 0)
    assert (told[0], told[-1]) == ((0, 28), (28, 28))
    assert not [path for path in out.iterdir() if path.name.startswith((".", "preparing"))]
    one, other = load(of, folder), load(of, out)
    assert isinstance(other.train, PreparedImages)
    assert one.digest == other.digest
    for a, b in (
        (one.epoch(3, 0, 0, 1), other.epoch(3, 0, 0, 1)),
        (one.evaluation(one.validation), other.evaluation(other.validation)),
        (one.evaluation(one.test, 4), other.evaluation(other.test, 4)),
    ):
        for (images, labels), (as_images, as_labels) in zip(a, b, strict=True):
            assert torch.equal(images, as_images)
            assert torch.equal(labels, as_labels)
    assert inputs_of(of, folder) == inputs_of(of, out) == ((3, 16, 16), 2)


def test_a_study_of_a_folder_goes_on_with_a_copy(local_client, folder, tmp_path):
    study = Study.read("mnist-lenet").changed(
        {
            "data.name": "folder",
            "data.image_size": "8",
            "data.validation": "2",
            "recipe.epochs": "1",
            "recipe.batch_size": "6",
            "pruning.schedule": "one_shot",
            "grid.thresholds": "0.5",
            "grid.rewind_epochs": "0",
            "engine.matmul": "default",  # not what a busy machine measures
        }
    )
    prepare(local_client, study.data, folder, tmp_path / "copy")
    lthdask.run(study, local_client, tmp_path / "run", folder)
    grown = study.grown(thresholds=[0.8])
    found = lthdask.run(grown, local_client, tmp_path / "run", tmp_path / "copy")
    alone = lthdask.run(grown, local_client, tmp_path / "other", folder)
    np.testing.assert_array_equal(found.test_loss, alone.test_loss)


@pytest.fixture
def many(tmp_path):
    """A folder of 130 small images, of which every other one is looked at ahead."""
    for part, count in (("train", 65), ("val", 3)):
        for label in "ab":
            (tmp_path / "many" / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = RANDOM.integers(0, 256, (9, 9, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "many" / part / label / f"{number:02}.png")
    return tmp_path / "many"


def test_what_is_made_is_kept_and_what_is_torn_or_has_changed_is_made_again(
    local_client, many, tmp_path, monkeypatch
):
    monkeypatch.setattr(copies, "FEWEST_IMAGES", 20)
    out, of, broken = tmp_path / "copy", source(size=8), many / "train/b/64.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"no image")
    with pytest.raises(InputError, match=f"the image {broken} cannot be decoded"):
        prepare(local_client, of, many, out)
    with pytest.raises(InputError, match="is not complete; run the command `lthdask prepare`"):
        load(of, out)
    made = sorted(out.glob("train-*.npy"))
    assert 2 < len(made) < 7
    torn, _, *kept = [path.with_suffix(".pixels") for path in made]
    torn.write_bytes(torn.read_bytes()[:-1])
    changed = many / "train/a/21.png"
    photograph(9, 9).save(changed)  # in the second file
    before = {path: path.stat().st_ino for path in kept}
    broken.write_bytes(whole)
    # The test images may have been made before the broken one was met, or not.
    assert prepare(local_client, of, many, out).kept - 20 * len(kept) in (0, 6)
    assert {path: path.stat().st_ino for path in kept} == before
    prepare(local_client, of, many, tmp_path / "undisturbed")
    assert digests(out) == digests(tmp_path / "undisturbed")
    inodes = {path.name: path.stat().st_ino for path in out.iterdir()}
    assert prepare(local_client, of, many, out).kept == 136  # nothing is left to do
    assert {path.name: path.stat().st_ino for path in out.iterdir()} == inodes
    photograph(9, 9).save(changed)
    with pytest.raises(InputError, match="train has changed since the copy in .* was made; choose"):
        prepare(local_client, of, many, out)
    assert {path.name: path.stat().st_ino for path in out.iterdir()} == inodes


def test_nothing_is_left_of_images_that_are_gone_or_of_workers_that_were_killed(
    local_client, many, tmp_path, monkeypatch
):
    monkeypatch.setattr(copies, "FEWEST_IMAGES", 20)
    out, of, broken = tmp_path / "copy", source(size=8), many / "train/a/01.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"no image")
    with pytest.raises(InputError, match=f"the image {broken} cannot be decoded"):
        prepare(local_client, of, many, out)
    assert (out / "train-00006.npy").exists()
    broken.write_bytes(whole)
    for number in range(40, 65):
        (many / f"train/b/{number}.png").unlink()

    def killed(done, every):
        (out / ".train-00002.pixels.0123456789abcdef").write_bytes(bytes(9))

    copied = prepare(local_client, of, many, out, killed)
    prepare(local_client, of, many, tmp_path / "undisturbed")
    assert sorted(os.listdir(out)) == sorted(os.listdir(tmp_path / "undisturbed"))
    assert copied.size == copied.images * 3 * 8 * 8


def test_a_task_whose_worker_has_to_go_stops_and_leaves_no_half_a_file(folder, tmp_path):
    work = copying_of(source(), folder, tmp_path / "copy")
    work.out.mkdir()
    list_images(work, TaskContext(lambda event: None, lambda: False))
    before = sorted(work.out.iterdir())
    with pytest.raises(Stopped):
        make_file(work, "train", 0, 1000, TaskContext(lambda event: None, lambda: True))
    assert sorted(work.out.iterdir()) == before


def test_a_complete_copy_that_is_damaged_is_said_to_be_when_it_is_prepared_again(
    local_client, folder, tmp_path
):
    out = tmp_path / "copy"
    prepare(local_client, source(), folder, out)
    for name, problem in (("val-00000.pixels", "does not have .* bytes"), ("val.npy", "missing")):
        whole = (out / name).read_bytes()
        (out / name).write_bytes(whole[:-1]) if "bytes" in problem else (out / name).unlink()
        with pytest.raises(InputError, match=f"is damaged: {name} .*{problem}; remove the folder"):
            prepare(local_client, source(), folder, out)
        (out / name).write_bytes(whole)
    assert prepare(local_client, source(), folder, out).kept == 28


def test_two_commands_do_not_make_one_copy(folder, tmp_path):
    out = tmp_path / "copy"
    out.mkdir()
    with driving(out), pytest.raises(InputError, match="being made by process .*; wait for it"):
        copying_of(source(), folder, out)


def test_what_cannot_be_prepared_is_refused_before_anything_is_started(folder, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    out = tmp_path / "copy"
    scaled = source("crops", decoding="scaled")
    for of, data, where, problem in (
        (DataSource("digits", 8, 2), folder, out, "digits is not prepared, only a folder of im"),
        (source(), None, out, "give its folder with `data`"),
        (source(), tmp_path / "nowhere", out, "nowhere does not exist"),
        (source(), folder, folder / "train" / "c", "lies in the data folder"),
        (source(), folder, tmp_path / "file", "file is not a folder"),
        (source(), folder, tmp_path / "file" / "copy", "file is not a folder"),
        (source(), folder, tmp_path / "other", "other than a prepared copy, such as thesis.tex"),
        (scaled, folder, out, "decoded at a size of its own; set data.shorter_side"),
    ):
        with pytest.raises(InputError, match=problem):
            copying_of(of, data, where)
    assert not out.exists()
    with pytest.raises(ValueError, match="shorter_side must be 19 or more, as the middle 7/8 of"):
        source(shorter_side=18)
    with pytest.raises(ValueError, match="decoding is for folders of images"):
        DataSource("digits", 8, 2, decoding="scaled")


def test_a_disk_without_room_is_told_before_anything_is_made(
    local_client, folder, tmp_path, monkeypatch
):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(copy_folder.shutil, "disk_usage", lambda path: usage(0, 0, 20_000))
    with pytest.raises(InputError, match="take 21.5 kB, but there is room for 20.0 kB at .*; make"):
        prepare(local_client, source(), folder, tmp_path / "copy")
    assert not digests(tmp_path / "copy")
    monkeypatch.setattr(copy_folder.shutil, "disk_usage", lambda path: usage(0, 0, 28 * 768))
    assert prepare(local_client, source(), folder, tmp_path / "copy").size == 28 * 768


def test_a_copy_is_refused_where_it_would_show_something_else_or_is_damaged(
    local_client, folder, tmp_path, few
):
    out = tmp_path / "copy"
    prepare(local_client, source(), folder, out)
    for of, problem in (
        (source(size=24), "has images of 16 by 16 pixels .*, but data.image_size is 24; prepare"),
        (source("crops"), "data.augmentation has resized_crop, which needs whole images"),
        (source(decoding="scaled"), "data.decoding is scaled"),
        (source(shorter_side=20), "data.shorter_side is 20"),
    ):
        with pytest.raises(InputError, match=problem):
            load(of, out)
        with pytest.raises(InputError, match="has images of 16 by 16 .*, not .*; choose another"):
            copying_of(of, folder, out)
    with pytest.raises(InputError, match="is a prepared copy itself"):
        copying_of(source(), out, tmp_path / "again")
    pixels = out / "val-00001.pixels"
    for path, change, problem in (
        (pixels, lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]), "pixels of .* have changed"),
        (pixels, lambda whole: whole[:-1], "val-00001.pixels does not have 2,304 bytes"),
        (pixels, None, "val-00001.pixels is missing"),
        (out / "train.npy", lambda whole: whole.replace(b"5.png", b"6.png"), "npy has changed"),
        (out / "prepared.json", lambda whole: whole[:-1], "prepared.json cannot be read"),
        (out / "prepared.json", lambda whole: b"{}", "prepared.json cannot be read"),
        (out / "prepared.json", lambda whole: whole.replace(b"val", b"vel"), "json cannot be read"),
    ):
        whole = path.read_bytes()
        path.write_bytes(change(whole)) if change else path.unlink()
        with pytest.raises(OtherData, match=rf"copy in {out} is damaged: .*{problem}; remove the"):
            load(source(), out)
        path.write_bytes(whole)
    (out / "prepared.json").write_text('{"format": 2}')
    with pytest.raises(InputError, match="has format 2, but this version of lthdask knows only 1"):
        load(source(), out)


def test_images_are_decoded_in_full_as_pillow_does_unless_a_study_says_otherwise(folder):
    """Pinned: with other pixels, older studies would not go on as they began."""
    path = folder / "train" / "b" / "0.jpg"
    with Image.open(path) as file:
        image = file.convert("RGB")
    box = ((60 - 45 * 7 / 8) / 2, 45 / 16, (60 - 45 * 7 / 8) / 2 + 45 * 7 / 8, 45 / 16 + 45 * 7 / 8)
    middle = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR, box=box))
    train, _, _ = read_folder(folder, View(16), crops=False)
    assert np.array_equal(train.shown(train.paths.index(path), MIDDLE), middle)
    assert DataSource("folder", 16, 2).decoding == "full"


def test_a_jpeg_is_decoded_at_the_smallest_size_that_has_the_pixels_that_are_shown(tmp_path):
    path, file = tmp_path / "large.jpg", io.BytesIO()
    photograph(400, 300).save(file, "JPEG", quality=95)
    path.write_bytes(file.getvalue())
    whole = (1.0, 0.0, 0.0, 0.0)  # all of its area, in a square that is cut
    for part, size, width in (
        (MIDDLE, 16, 50),  # 262.5 pixels, which 16 go into 16 times
        (MIDDLE, 32, 50),
        (MIDDLE, 33, 100),
        (MIDDLE, 65, 100),
        (MIDDLE, 66, 200),
        (MIDDLE, 131, 200),
        (MIDDLE, 132, 400),
        (MIDDLE, 500, 400),
        (whole, 75, 100),
        ((0.08, 0.0, 0.5, 0.5), 75, 400),
    ):
        view, seen = View(size, "scaled"), []

        def smallest(*given, view=view, part=part, seen=seen):
            seen.append(view._smallest(part, *given))
            return seen[-1]

        image, original = decoded(path, smallest)
        assert (image.width, original, seen[0][0] <= image.width) == (width, (400, 300), size < 263)
        scaled, full = view.shown(path, part), View(size).shown(path, part)
        assert scaled.shape == full.shape == (size, size, 3)
        assert np.abs(scaled.astype(int) - full).mean() < 8  # of 255, in an image of coarse noise
    assert not np.array_equal(scaled, full)


@pytest.mark.parametrize("size", [(8, 8), (112, 112), (47, 90)])
@pytest.mark.parametrize("shape", [(1, 1), (300, 20), (37, 141)])
def test_pytorch_brings_an_image_to_size_in_the_same_bits_however_it_lies(shape, size):
    pixels = RANDOM.integers(0, 256, (*shape, 3), np.uint8)
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
    wanted = F.interpolate(planes, size[::-1], mode="bilinear", antialias=True)
    assert np.array_equal(_by_pytorch(pixels, size), wanted[0].permute(1, 2, 0))


@pytest.mark.faults
def test_a_command_that_is_killed_goes_on_and_the_copy_is_as_if_nothing_had_been(tmp_path):
    root, study = tmp_path / "images", tmp_path / "study.yaml"
    for part, count in (("train", 1500), ("val", 10)):
        for label in "ab":
            (root / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = RANDOM.integers(0, 256, (9, 9, 3), np.uint8)
                Image.fromarray(pixels).save(root / part / label / f"{number:04}.bmp")
    of = {"data.name": "folder", "data.image_size": "64", "data.validation": "100"}
    study.write_text(Study.read("mnist-lenet").changed(of).to_yaml())

    def command(out):
        more = ["--study", study, "--data", root, "--out", out, "--workers", 2]
        words = [sys.executable, "-m", "lthdask", "prepare", "--deploy", "local", *map(str, more)]
        return subprocess.Popen(words, stdout=PIPE, stderr=PIPE, start_new_session=True)

    out = tmp_path / "copy"
    for _ in range(2):
        before = {
            path: path.with_suffix(".pixels").stat().st_ino for path in out.glob("train-*.npy")
        }
        process = command(out)
        while not set(out.glob("train-*.npy")) - before.keys():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for path, inode in before.items():
            assert path.with_suffix(".pixels").stat().st_ino == inode
    for where in (out, tmp_path / "undisturbed"):
        process = command(where)
        told = process.communicate()
        assert process.returncode == 0, told
    assert digests(out) == digests(tmp_path / "undisturbed")
    for part in ("train", "val"):
        one, other = (np.load(of / f"{part}.npy") for of in (out, tmp_path / "undisturbed"))
        assert one.tobytes() == other.tobytes()
    assert sorted(os.listdir(out)) == sorted(os.listdir(tmp_path / "undisturbed"))
