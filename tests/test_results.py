"""What opened results promise: right at first sight, and whole under every operation."""

import json
import pickle
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import cf_xarray  # noqa: F401, gives `status` words
import google_crc32c
import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner

from lthdask.arms import ARMS
from lthdask.commands.main import main
from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.storage.arrays import Arrays
from lthdask.storage.chunks import Chunks
from lthdask.storage.creation import create_cube
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.meanings import CURVES, LEARNING
from lthdask.storage.results import follow, open_results, study_of
from lthdask.storage.schema import ARRAYS, CELL, GROUPS, Extent, Status

matplotlib.use("agg")
from matplotlib import pyplot

PACKED = Path(__file__).parent / "formats" / "format-3.tar.xz"
ALL = tuple(GROUPS)


@pytest.fixture(scope="session")
def packed(tmp_path_factory):
    """The folder of a small study of four arms, two thresholds and two rewind epochs."""
    folder = tmp_path_factory.mktemp("packed")
    with tarfile.open(PACKED) as file:
        file.extractall(folder, filter="data")
    return folder / "small"


@pytest.fixture
def results(packed):
    return open_results(packed)


def made(folder, axes=None, written=(), thresholds=(0.5, 0.9), steps=10, about=None):
    """A cube of tickets on disk; `written`: (replicate, threshold, k) → metrics."""
    given = {"arm": ["ticket"], "replicate": [0, 1], "rewind_epoch": [0, 2]}
    given |= {"threshold": list(thresholds)} | (axes or {})
    folder.mkdir(parents=True, exist_ok=True)
    extent = Extent(given, 3, ["a", "b"], steps=steps, iterations=[5, 15, 25])
    create_cube(
        folder / "results.zarr", extent, {"study": {"name": "made"}, "steps": steps} | (about or {})
    )
    cube = Cube(folder / "results.zarr")
    for at, metrics in dict(written).items():
        write(cube, at, **metrics)
    return cube


def write(cube, at, status=Status.DONE, **metrics):
    cell = Cell("ticket", *at)
    plain = {"epochs_trained": 3, "early_stop_iteration": 20, "density": 1 - cell.threshold}
    cube.write(cell, status, plain | metrics, {}, {}, {"seconds": 1.5, "started": 1e9}, "n1 cpu")


# First sight


def test_at_first_sight_there_are_few_variables_and_each_has_a_label(results):
    assert len(results.data_vars) <= 15
    assert not {"iteration", "point", "mask_epoch"} & set(results.dims)
    for name, of in results.variables.items():
        assert of.attrs["long_name"], name
        assert of.attrs["description"], name
        assert "_" not in of.attrs["long_name"]
    assert results.test_accuracy.attrs["units"] == "%"
    assert results.barrier.attrs["units"] == "points"
    assert results.test_accuracy.sel(arm="ticket", threshold=0.5, rewind_epoch=0).item() == 88.6


def test_no_variable_but_the_status_is_there_for_what_a_study_does_not_have(tmp_path):
    made(tmp_path)
    assert "barrier" not in open_results(tmp_path)
    assert np.isnan(open_results(tmp_path).density).all()


def test_the_attributes_are_short_and_of_types_that_every_format_has(results):
    for name, value in results.attrs.items():
        assert isinstance(value, str | int | float), name
        assert name == "study" or len(str(value)) < 200, name
    assert study_of(results)["grid"]["thresholds"] == [0.5, 0.9]
    assert results.attrs["study"].startswith("name: small\n")


def test_arms_stand_in_the_order_of_their_table_the_ticket_first(tmp_path):
    arms = ["ticket_child", "random_mask", "reinit", "ticket"]
    made(tmp_path, {"arm": arms})
    assert open_results(tmp_path).arm.values.tolist() == [arm for arm in ARMS if arm in arms]


def test_the_status_reads_as_words(results):
    assert int((results.status.cf == "done").sum()) == 14
    assert int((results.status.cf == "not_applicable").sum()) == 2


def test_more_is_read_only_when_it_is_asked_for(packed, monkeypatch):
    read = []
    real = Chunks.read_all

    def spied(self, places):
        read.append(self.path.name)
        return real(self, places)

    monkeypatch.setattr(Chunks, "read_all", spied)
    for groups in ((), ("layers",), ALL):
        read.clear()
        found = open_results(packed, *groups)
        assert len(read) == len(set(read)), "nothing is read twice"
        expected = {n for n, of in ARRAYS.items() if not of.group or of.group in groups}
        assert set(read) == expected | {"dense_curves", "dense_learning"}
        assert ("layer_density" in found) == ("layers" in groups)
    assert {"train_loss_curve", "test_accuracy_by_iteration", "line", "seconds"} < set(found)
    assert found.started.dtype.kind == "M"
    assert (found.place == "n1 cpu").any() or set(found.place.values.flat) - {""}


def test_what_is_read_is_what_zarr_reads(packed):
    group = zarr.open_group(packed / "results.zarr", mode="r")
    arrays = Arrays(packed)
    for name in ARRAYS.keys() & group.keys():
        size = [len(arrays.axes[axis]) for axis in ARRAYS[name].cell]
        found = Chunks(group.store.root / name, ARRAYS[name], group[name])
        places = [np.arange(length) for length in size]
        expected = group[name][:]
        np.testing.assert_array_equal(found.read_all(places), expected)
        last = tuple(length - 1 for length in size)
        np.testing.assert_array_equal(found.read(last), expected[last])
        some = [np.arange(length)[::-1] for length in size]  # in another order
        np.testing.assert_array_equal(found.read_all(some), expected[np.ix_(*some)])


@pytest.mark.parametrize(
    ("name", "chunk"),
    [
        ("metrics", b"0123"),
        ("metrics", bytes(8)),
        ("place", b""),
        ("place", bytes([2, 0, 0, 0])),
        ("place", bytes([1, 0, 0, 0, 9, 0, 0, 0]) + b"short"),
    ],
)
def test_a_chunk_of_another_length_is_damaged_though_its_checksum_is_right(tmp_path, name, chunk):
    cube = made(tmp_path, written={(0, 0.5, 0): {"test_accuracy": 0.5}})
    file = cube._chunk(name, (0, 0, 0, 0))
    file.write_bytes(chunk + google_crc32c.value(chunk).to_bytes(4, "little"))
    with pytest.raises(InputError, match=r"results\.zarr cannot be read: .*lthdask check"):
        open_results(tmp_path, *ALL)


def test_an_array_in_another_form_than_ours_is_refused(tmp_path):
    made(tmp_path)
    file = tmp_path / "results.zarr" / "metrics" / "zarr.json"
    about = json.loads(file.read_text())
    about["codecs"] = about["codecs"][:1]
    file.write_text(json.dumps(about))
    with pytest.raises(InputError, match="the array metrics is not made as lthdask makes it"):
        Cube(tmp_path / "results.zarr")


def test_an_unknown_group_is_refused_with_the_nearest_one(packed):
    with pytest.raises(InputError, match="no group 'curve'; did you mean 'curves'"):
        open_results(packed, "curve")


# Density


def test_density_is_the_median_that_was_counted_and_survives_means(tmp_path):
    counted = {(0, 0.9, 0): 0.1, (1, 0.9, 0): 0.12, (0, 0.9, 2): 0.11, (0, 0.5, 0): 0.5}
    made(tmp_path, written={at: {"density": value} for at, value in counted.items()})
    results = open_results(tmp_path)
    for found in (results, results.mean("replicate"), results.mean(("replicate", "arm"))):
        np.testing.assert_allclose(found.density, [0.5, 0.11])
        assert found.density.dims == ("threshold",)
    at = results.counted_density.sel(arm="ticket", threshold=0.9)
    np.testing.assert_array_equal(at, [[0.1, 0.11], [0.12, np.nan]])


def test_a_map_and_lines_over_density_are_labelled_without_more_words(results):
    mean = results.test_accuracy.sel(arm="ticket").mean("replicate")
    _, axes = pyplot.subplots()
    mean.plot(ax=axes)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("rewind epoch", "threshold")
    assert "test accuracy [%]" in [a.get_ylabel() for a in axes.figure.axes]
    _, axes = pyplot.subplots()
    lines = mean.plot.line(x="density", xscale="log", ax=axes)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("density", "test accuracy [%]")
    assert axes.get_xscale() == "log"
    assert [line.get_xdata().tolist() for line in lines] == 2 * [[0.5, 0.1]]
    pyplot.close("all")


# Whole


def parts(results, axis):
    return [results.isel({axis: [i]}) for i in range(results.sizes[axis])]


STUDIES = pd.Index(["one", "other"], name="study", dtype=object)
OPERATIONS = {
    "where": lambda r: r.where(r.test_accuracy > 60),
    "where by words": lambda r: r.where(r.status.cf == "done"),
    "merge": lambda r: xr.merge([r[["test_accuracy"]], r[["status", "test_loss"]]]),
    "merge of a part": lambda r: xr.merge(
        [r, r.isel(threshold=[0])], join="left", compat="override"
    ),
    **{
        f"concat along {axis}": lambda r, axis=axis: xr.concat(parts(r, axis), axis, join="outer")
        for axis in CELL
    },
    "concat of two studies": lambda r: xr.concat(
        [r, r.isel(threshold=[0], arm=[0, 2])], STUDIES, join="outer"
    ),
    "reindex": lambda r: r.reindex(threshold=[0.5, 0.7, 0.9], arm=["ticket", "lr_rewind"]),
    "fillna": lambda r: r.fillna(0),
    "max": lambda r: r.max(),
    "max over replicates": lambda r: r.max("replicate"),
    "mean": lambda r: r.mean(("replicate", "arm")),
    "median": lambda r: r.median("replicate"),
    "nearest": lambda r: r.sel(threshold=0.8, rewind_epoch=0.9, method="nearest"),
    "combine": lambda r: xr.combine_by_coords(parts(r, "threshold")),
    "pickle": lambda r: pickle.loads(pickle.dumps(r)),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_works_on_all_variables_without_a_warning(packed, operation):
    found = OPERATIONS[operation](open_results(packed, *ALL))
    assert found.test_accuracy.notnull().any()
    assert not found.dims or len(found.to_dataframe())


@pytest.mark.parametrize("operation", ["where", "concat of two studies"])
def test_every_file_format_holds_results_and_what_was_made_of_them(packed, tmp_path, operation):
    found = OPERATIONS[operation](open_results(packed, *ALL))
    for engine in ("netcdf4", "h5netcdf", "scipy"):
        found.to_netcdf(tmp_path / engine, engine=engine)
        with xr.open_dataset(tmp_path / engine, engine=engine) as back:
            xr.testing.assert_equal(back.load().drop_vars("place"), found.drop_vars("place"))
            assert back.test_accuracy.attrs == found.test_accuracy.attrs
    found.to_zarr(tmp_path / "copy.zarr", consolidated=False)
    xr.testing.assert_equal(xr.open_zarr(tmp_path / "copy.zarr", consolidated=False), found)


def test_two_studies_side_by_side_are_each_the_study(results):
    both = xr.concat([results, results.isel(threshold=[0])], STUDIES, join="outer")
    assert both.sel(study="one").test_accuracy.equals(
        results.test_accuracy.assign_coords(study="one")
    )
    other = both.sel(study="other", threshold=0.5).test_accuracy
    np.testing.assert_array_equal(other, results.test_accuracy.sel(threshold=0.5))


# Learning speed


def test_a_run_that_never_reached_the_dense_accuracy_cannot_be_left_out_of_a_mean(tmp_path):
    never, reached = {"iterations_to_dense": np.nan}, {"iterations_to_dense": 12}
    made(tmp_path, written={(0, 0.9, 0): reached, (1, 0.9, 0): never})
    at = open_results(tmp_path).iterations_to_dense.sel(arm="ticket", threshold=0.9)
    np.testing.assert_array_equal(at, [[12, np.nan], [np.inf, np.nan]])
    assert at.mean("replicate").sel(rewind_epoch=0) == np.inf


def test_the_learning_speed_of_a_dense_run_is_that_of_its_measurements(tmp_path):
    cube = made(tmp_path)
    names = ("validation_loss", "validation_accuracy", "test_accuracy")
    rows = {10: (0.5, 0.7, 0.6), 20: (0.4, 0.8, 0.7), 30: (0.45, 0.8, 0.9)}
    inside = {5: (0.9, 0.2, 0.1), 15: (0.3, 0.8, 0.75), 25: (0.6, 0.5, 0.4)}
    epochs, steps = (
        {at: dict(zip(names, of, strict=True)) for at, of in d.items()} for d in (rows, inside)
    )
    cube.write_dense(0, {at // 10: of for at, of in epochs.items()}, steps)
    results = open_results(tmp_path)
    dense = results.sel(replicate=0).coords
    assert dense["dense_test_accuracy"] == 90
    assert dense["dense_early_stop_iteration"] == 15
    assert dense["dense_early_stop_test_accuracy"] == 75
    assert dense["dense_iterations_to_dense"] == 15
    assert np.isnan(results.dense_iterations_to_dense.sel(replicate=1))  # not trained


# Looking again


def same_as_opened(looked, folder):
    xr.testing.assert_identical(looked, open_results(folder, *ALL))


def test_a_later_look_reads_the_cells_that_are_new_and_nothing_else(tmp_path, monkeypatch):
    cube = made(tmp_path, written={(0, 0.5, 0): {"test_accuracy": 0.5}})
    looks = follow(tmp_path, *ALL)
    first = next(looks)
    kept = first.copy(deep=True)
    write(cube, (1, 0.9, 2), test_accuracy=0.25)
    write(cube, (0, 0.9, 2), Status.DIVERGED)
    cube.write_dense(0, {3: dict.fromkeys(CURVES, 0.5)}, {5: dict.fromkeys(LEARNING, 0.5)})
    read = []
    real = Chunks.read
    monkeypatch.setattr(
        Chunks, "read", lambda s, index: read.append((s.path.name, tuple(index))) or real(s, index)
    )
    looked = next(looks)
    of_cells = [index for name, index in read if name == "status"]
    assert sorted(of_cells) == [(0, 0, 1, 1), (0, 1, 1, 1)]
    monkeypatch.undo()
    same_as_opened(looked, tmp_path)
    xr.testing.assert_identical(first, kept)  # what was given is left alone


def test_a_later_look_sees_what_was_tried_again_erased_or_grown(tmp_path):
    cube = made(tmp_path)
    write(cube, (0, 0.5, 0), test_accuracy=0.5)
    cube.mark(Cell("ticket", 1, 0.9, 0), Status.FAILED)
    looks = follow(tmp_path, *ALL)
    assert next(looks).status.sel(replicate=1, threshold=0.9, rewind_epoch=0) == Status.FAILED
    write(cube, (1, 0.9, 0), test_accuracy=0.75)
    same_as_opened(next(looks), tmp_path)
    cube.erase(Cell("ticket", 0, 0.5, 0))
    looked = next(looks)
    assert np.isnan(looked.test_accuracy.sel(replicate=0, threshold=0.5, rewind_epoch=0))
    same_as_opened(looked, tmp_path)
    shutil.rmtree(tmp_path / "results.zarr")
    made(tmp_path, written={(0, 0.7, 0): {"test_accuracy": 0.5}}, thresholds=(0.9, 0.5, 0.7))
    looked = next(looks)
    assert looked.threshold.values.tolist() == [0.5, 0.7, 0.9]
    same_as_opened(looked, tmp_path)


def test_a_cube_that_is_growing_is_read_within_its_axes(tmp_path):
    """Arrays grow first, and cells beyond the axes may be there before them."""
    cube = made(tmp_path, written={(0, 0.5, 0): {"test_accuracy": 0.5}})
    looks = follow(tmp_path)
    before = next(looks)
    beyond = cube.path / "status/c/0/0/2/0"
    beyond.parent.mkdir(parents=True)
    shutil.copy(cube.path / "status/c/0/0/0/0", beyond)
    xr.testing.assert_identical(next(looks), before)


def test_after_an_error_the_next_look_begins_anew(tmp_path):
    made(tmp_path, written={(0, 0.5, 0): {"test_accuracy": 0.5}})
    looks = follow(tmp_path, *ALL)
    next(looks)
    away = (tmp_path / "results.zarr").rename(tmp_path / "away")
    for _ in range(2):
        with pytest.raises(InputError, match="there are no results at"):
            next(looks)
    away.rename(tmp_path / "results.zarr")
    same_as_opened(next(looks), tmp_path)
    with pytest.raises(InputError, match="there are no results at"):
        follow(tmp_path / "nowhere")  # at once


def test_a_dense_run_whose_results_are_being_written_is_judged_by_what_is_there(tmp_path):
    cube = made(tmp_path)
    rows = {e: dict.fromkeys(CURVES, 0.5) | {"validation_loss": 1 / e} for e in (1, 2, 3)}
    cube.write_dense(0, rows, {})
    dense = open_results(tmp_path).sel(replicate=0)
    assert (dense.dense_early_stop_iteration, dense.dense_early_stop_test_accuracy) == (30, 50)


# Commands


def test_a_status_says_why_cells_failed(packed, tmp_path):
    folder = shutil.copytree(packed, tmp_path / "small")
    cell = Cell("ticket", 0, 0.9, 1)
    Cube(folder / "results.zarr").mark(cell, Status.FAILED)
    reason = "Traceback (most recent call last):\nValueError: out of luck"
    Folder(folder).runs.write_traceback(cell, reason)
    done = CliRunner().invoke(main, ["status", str(folder)])
    assert done.exit_code == 1
    assert "1 failed" in done.output
    assert "failed: ValueError: out of luck; see" in done.output


def test_a_status_needs_neither_torch_nor_xarray_nor_scipy(packed):
    heavy = ("torch", "xarray", "pandas", "scipy", "dask", "distributed")
    code = f"import sys; sys.modules.update(dict.fromkeys({heavy!r})); "
    code += "from lthdask.commands.main import main; main()"
    arguments = [sys.executable, "-c", code, "status", str(packed)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "small: 14 done, 2 not_applicable; 1 of 1 dense run trained" in done.stdout
    assert "88.6   86.4" in done.stdout


# The page about them


def test_the_page_about_results_is_what_is_declared(packed):
    script = Path(__file__).parents[1] / "docs" / "results.py"
    page = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert page.stdout == script.with_suffix(".md").read_text(), (
        "run: python docs/results.py > docs/results.md"
    )
    for name in open_results(packed, *ALL).variables:
        assert f"`{name}`" in page.stdout, name
