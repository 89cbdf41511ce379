"""What the study's folder promises: whole files, labelled results, and no cell half done."""

import os
import platform
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from lthdask.errors import ExhaustedError, InputError
from lthdask.grid import Cell
from lthdask.storage import checkpoints
from lthdask.storage.creation import create_cube
from lthdask.storage.cube import Cube
from lthdask.storage.driver import driver_of, driving
from lthdask.storage.files import write_whole
from lthdask.storage.folder import Folder
from lthdask.storage.growth import grow
from lthdask.storage.results import open_results
from lthdask.storage.schema import Extent, Status
from lthdask.training.checkpoint import Checkpoint
from tests.conftest import MANIFEST, everything
from tests.studies import made_study

AXES = {"arm": ["ticket"], "replicate": [0], "threshold": [0.5, 0.9], "rewind_epoch": [0, 2]}
CELL = Cell("ticket", 0, 0.9, 2)
RESULTS = {
    "metrics": {"test_accuracy": 0.9, "density": 0.1, "epochs_trained": 1},
    "curves": {3: {"train_loss": 0.5, "test_accuracy": 0.9}},
    "layers": {"conv.weight": {"density": 0.2, "cutoff": 0.03}},
    "record": {"seconds": 2.5, "attempts": 1},
    "place": "node1 cpu",
}
CHECKPOINT = Checkpoint(
    3,
    {
        "w": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "norm.num_batches_tracked": torch.tensor(7),
    },
    {"w": {"momentum_buffer": torch.randn(2, 3, 4, 4), "step": torch.tensor(5.0)}},
    step=2,
    loss=0.1 + 0.2,
)


def damaged(content):
    """Ways in which a file goes bad."""
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :]
    return {"cut": content[:-9], "flip": flipped, "empty": b"", "zeroed": bytes(len(content))}


@pytest.fixture
def cube(tmp_path):
    layers = ["conv.weight", "fc.weight"]
    about = {"study": {"name": "small"}}
    create_cube(tmp_path / "results.zarr", Extent(AXES, 3, layers), about)
    return Cube(tmp_path / "results.zarr")


def test_a_cell_is_read_back_by_its_coordinates(cube):
    cube.write(CELL, Status.DONE, **RESULTS)
    results = everything(cube.path)
    cell = results.sel(arm="ticket", replicate=0, threshold=0.9, rewind_epoch=2)
    assert cell.status == Status.DONE
    assert (cell.test_accuracy, cell.counted_density, cell.seconds) == (90, 0.1, 2.5)
    assert np.isnan(cell.test_loss)
    assert cell.train_loss_curve.values.tolist()[2] == 0.5
    assert np.isnan(cell.train_loss_curve.values[:2]).all()
    assert cell.layer_density.sel(layer="conv.weight") == 0.2
    assert np.isnan(cell.layer_cutoff.sel(layer="fc.weight"))
    assert str(cell.place.values) == "node1 cpu"
    assert int((results.status == Status.DONE).sum()) == 1


def test_xarray_opens_the_cube_without_a_warning(cube):
    cube.write(CELL, Status.DONE, **RESULTS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = xr.open_zarr(cube.path).load()
    assert plain.metrics.dims == (*AXES, "metric")
    assert plain.metrics.sel(metric="density", threshold=0.9, rewind_epoch=2).item() == 0.1
    assert plain.attrs["study"] == {"name": "small"}


def test_a_cell_has_one_chunk_in_every_array(cube):
    cube.write(CELL, Status.DONE, **RESULTS)
    arrays = ("status", "metrics", "curves", "layers", "record", "place")
    chunks = [p for a in arrays for p in (cube.path / a / "c").rglob("*") if p.is_file()]
    assert len(chunks) == len(arrays)


def test_what_was_written_stays_when_the_axes_grow(cube):
    cube.write(CELL, Status.DONE, **RESULTS)
    cube.write_dense(0, {1: {"test_accuracy": 0.5}})
    axes = {
        "arm": ["ticket"],
        "replicate": [0, 1],
        "threshold": [0.5, 0.9, 0.7],
        "rewind_epoch": [0, 2, 1],
    }
    extent = Extent(axes, 3, ["conv.weight", "fc.weight"], steps=7)
    assert grow(cube.path, extent, {"study": {"name": "small"}})
    cube = Cube(cube.path)
    cube.write(Cell("ticket", 1, 0.7, 1), Status.DIVERGED, **RESULTS)
    results = everything(cube.path)
    assert results.threshold.values.tolist() == [0.5, 0.7, 0.9]
    assert results.rewind_epoch.values.tolist() == [0, 1, 2]
    assert results.sel(replicate=0, threshold=0.9, rewind_epoch=2).test_accuracy == 90
    assert results.sel(replicate=1, threshold=0.7, rewind_epoch=1).status == Status.DIVERGED
    assert results.dense_test_accuracy_curve.sel(replicate=0, epoch=1) == 50
    assert sum(status is not Status.PENDING for status in cube.cells().values()) == 2
    assert results.rewind_step.values.tolist() == [0, 7, 14]
    assert not grow(cube.path, extent, {"study": {"name": "small"}}), "nothing is left to be done"
    assert Cube(cube.path).cells() == cube.cells()


def test_a_cube_does_not_grow_to_a_network_with_other_weights(cube):
    extent = Extent(AXES, 3, ["conv.weight", "head.weight"])
    with pytest.raises(InputError, match="another version .* fc.weight there, but .*head.weight"):
        grow(cube.path, extent, {"study": {"name": "small"}})
    assert everything(cube.path).layer.values.tolist() == ["conv.weight", "fc.weight"]


def test_the_status_is_written_last(cube, monkeypatch):
    written = []
    array = Cube._array

    class Spy:
        def __init__(self, name, real):
            self.name, self.real = name, real

        def __setitem__(self, index, value):
            written.append(self.name)
            self.real[index] = value

        def __getattr__(self, name):
            return getattr(self.real, name)

    monkeypatch.setattr(Cube, "_array", lambda self, name: Spy(name, array(self, name)))
    cube.write(CELL, Status.DONE, **RESULTS)
    assert written[-1] == "status"
    assert set(written) == {"metrics", "curves", "layers", "record", "place", "digests", "status"}


def test_flipped_bits_in_a_result_are_found(cube):
    cube.write(CELL, Status.DONE, **RESULTS)
    chunk = cube.path / "metrics/c/0/0/1/1/0"
    content = bytearray(chunk.read_bytes())
    content[3] ^= 16
    chunk.write_bytes(content)
    with pytest.raises(Exception, match="checksum"):
        open_results(cube.path).test_accuracy.load()


def test_no_results_are_said_to_be_none(tmp_path):
    with pytest.raises(InputError, match="there are no results at"):
        everything(tmp_path)
    with pytest.raises(InputError, match="there are no results at"):
        Cube(tmp_path / "results.zarr")


def test_a_checkpoint_is_read_back_bit_for_bit(tmp_path):
    path = checkpoints.path_of(tmp_path, 0, 3)
    digest = checkpoints.save(path, CHECKPOINT)
    back = checkpoints.load(path, digest)
    assert back.digest() == CHECKPOINT.digest()
    assert (back.epoch, back.step, back.loss) == (3, 2, CHECKPOINT.loss)
    assert checkpoints.save(path, CHECKPOINT) == digest  # the same state, the same bytes
    light = checkpoints.save(path, CHECKPOINT, complete=False)
    assert checkpoints.load(path, light).buffers == {}


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone"])
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    path = tmp_path / "c.safetensors"
    digest = checkpoints.save(path, CHECKPOINT)
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(damaged(path.read_bytes())[damage])
    with pytest.raises(InputError, match="cannot read" if damage == "gone" else "is damaged"):
        checkpoints.load(path, digest)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_file_may_be_read_by_whom_the_mask_of_its_writer_lets(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "file", b"shared")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    write_whole(path, b"old")
    with pytest.raises(TypeError):
        write_whole(path, "not bytes")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_attempts_that_get_no_further_are_limited(tmp_path):
    folder = Folder(tmp_path)

    def begin(epoch, step=0, driver="a"):
        about = {"driver": driver, "epoch": epoch, "step": step, "place": "node1 cpu"}
        return folder.runs.begin(CELL, about, most=2)

    assert [begin(0), begin(0)] == [1, 2]
    assert [begin(0, 1), begin(0, 1)] == [3, 4]  # both got further than the first two
    with pytest.raises(ExhaustedError, match=r"2 attempts .* epoch 0, step 1; .* node1 cpu"):
        begin(0, 1)
    assert [begin(0, 1, "b"), begin(2), begin(2)] == [5, 6, 7]  # another driver, or further
    with pytest.raises(ExhaustedError):
        begin(2)
    (tmp_path / "cells" / str(CELL) / "attempt-8.json").touch()  # killed as it began
    assert begin(3) == 9
    assert [attempt.get("epoch") for attempt in folder.runs.attempts(CELL)][5:] == [2, 2, None, 3]


def test_the_reason_of_a_failed_cell_is_what_it_raised_last_in_one_line(tmp_path):
    folder, raised = Folder(tmp_path), "Traceback (most recent call last):\n  line 3\n"
    assert folder.runs.reason(CELL) == ""
    for text, reason in (
        (f"{raised}OSError: full\n\n  \n", "OSError: full"),
        (f"{raised}KeyError: 1\n\nThe above exception\n\n{raised}OSError: full\n", "OSError: full"),
        (f"{raised}RuntimeError: CUDA error\nCompile with DSA.\n", "RuntimeError: CUDA error"),
        (f"{raised}lthdask.errors.InputError: no data\n", "no data"),
        ("RuntimeError: a round before failed\n", "RuntimeError: a round before failed"),
        ("", ""),
    ):
        folder.runs.write_traceback(CELL, text)
        assert folder.runs.reason(CELL) == reason


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="contains something other than a study"):
        Folder(tmp_path).make()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write to the folder .*file is not a folder"):
        Folder(tmp_path / "file" / "run").make()


@pytest.mark.parametrize("text", ["{", "[]", "null", '"engine": {', "cpu"])
def test_a_damaged_manifest_is_refused(tmp_path, text):
    Folder(tmp_path).write_manifest(MANIFEST)
    path = tmp_path / "manifest.json"
    assert Folder(tmp_path).manifest() == MANIFEST
    whole = path.read_text()
    path.write_text(whole.replace("cpu", "cpv") if text == "cpu" else text)
    with pytest.raises(InputError, match="is damaged"):
        Folder(tmp_path).manifest()


def test_a_state_comes_back_with_its_notes_and_the_newest_wins(tmp_path):
    state = checkpoints.State(tmp_path / "run")
    assert state.load() is None
    state.save(replace(CHECKPOINT, step=1), {"seconds": 0.1})
    state.save(CHECKPOINT, {"seconds": 0.1 + 0.2, "curves": {"3": {"train_loss": 1 / 3}}})
    checkpoint, notes = checkpoints.State(tmp_path / "run").load()
    assert checkpoint.digest() == CHECKPOINT.digest()
    assert notes == {"seconds": 0.1 + 0.2, "curves": {"3": {"train_loss": 1 / 3}}}
    state.remove()
    assert checkpoints.State(tmp_path / "run").load() is None


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "zeroed"])
def test_a_damaged_state_is_set_aside_and_the_last_good_one_is_taken(tmp_path, damage):
    warned = []
    state = checkpoints.State(tmp_path, warned.append)
    state.save(replace(CHECKPOINT, step=1), {})
    before = set(tmp_path.iterdir())
    state.save(CHECKPOINT, {})
    (newest,) = set(tmp_path.iterdir()) - before
    content = newest.read_bytes()
    newest.write_bytes(damaged(content)[damage])
    checkpoint, _ = state.load()
    assert checkpoint.step == 1
    (said,) = warned
    assert said.startswith(f"the state {newest} is damaged")
    assert said.endswith(f"; it was set aside as {newest.stem}.damaged")
    # ... and the good one is not the next to be overwritten.
    state.save(CHECKPOINT, {})
    assert set(tmp_path.glob("*.safetensors")) == {newest, *before}
    assert state.load()[0].step == CHECKPOINT.step


def test_one_driver_at_a_time_and_it_is_named(tmp_path):
    assert driver_of(tmp_path) is None
    with driving(tmp_path):
        problem = rf"is being run by process {os.getpid()} on {platform.node()}, since 20"
        with pytest.raises(InputError, match=problem), driving(tmp_path):
            pass
        assert f"process {os.getpid()}" in driver_of(tmp_path)
    assert driver_of(tmp_path) is None
    with driving(tmp_path):
        pass


def test_a_dead_driver_holds_nothing(tmp_path):
    code = f"""if True:
        from pathlib import Path
        from lthdask.storage.driver import driving
        with driving(Path({str(tmp_path)!r})):
            print("in", flush=True)
            input()"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "in\n"
        assert f"process {process.pid}" in driver_of(tmp_path)
        process.kill()
    assert driver_of(tmp_path) is None
    with driving(tmp_path):
        pass


def test_a_tilde_in_a_folder_is_the_user_s_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Folder(Path("~/runs")).path == tmp_path / "runs"
    made_study(tmp_path / "study")
    assert open_results("~/study").sizes == open_results(tmp_path / "study").sizes
