"""What every version promises of older studies: it opens, reports and grows them.

``formats/`` holds a small study as each format wrote it, without its checkpoints. A change of what
lies on disk raises `FORMAT`, and adds one: ``python -m tests.test_formats FOLDER`` packs a study.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from click.testing import CliRunner

from lthdask.checks.folder import check
from lthdask.commands.main import main
from lthdask.driver.opening import driving_study
from lthdask.errors import InputError
from lthdask.flow import run
from lthdask.storage import schema
from lthdask.storage.creation import consolidate
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.manifest import FORMAT
from lthdask.storage.results import open_results
from lthdask.storage.schema import Status
from lthdask.study import Study
from tests.conftest import change_manifest

FORMATS = Path(__file__).parent / "formats"
ACCURACY = [[0.886, 0.864], [0.634, 0.546]]
"""Test accuracy of the tickets, by threshold and rewind epoch."""


@pytest.fixture(params=range(1, FORMAT + 1))
def old(request, tmp_path):
    """The folder of the study as a format wrote it."""
    with tarfile.open(FORMATS / f"format-{request.param}.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path / "small"


def study_of(folder):
    return Study.parse((folder / "study.yaml").read_text())


def lessened(folder):
    """Make the cube one of a version that knew neither barriers nor what they are measured on."""
    cube = zarr.open_group(folder / "results.zarr", use_consolidated=False)
    shutil.rmtree(folder / "results.zarr" / "line")
    kept = [i for i, name in enumerate(schema.METRICS) if name != "barrier"]
    for name in ("metric", "metrics"):
        old = cube[name]
        values = old[...][..., kept]
        chunks = (*old.chunks[:-1], len(kept))
        like = {"dtype": old.dtype, "fill_value": old.fill_value, "attributes": dict(old.attrs)}
        dimensions = old.metadata.dimension_names
        new = cube.create_array(
            name,
            shape=values.shape,
            chunks=chunks,
            dimension_names=dimensions,
            overwrite=True,
            **like,
        )
        new[...] = values
    cube.attrs.put({name: value for name, value in cube.attrs.items() if name != "format"})
    consolidate(folder / "results.zarr")
    if "format" in json.loads((folder / "manifest.json").read_text()):
        change_manifest(folder, format=1, first_format=1)


def test_an_old_study_is_opened(old):
    results = open_results(old)
    tickets = results.test_accuracy.sel(arm="ticket", replicate=0)
    assert tickets.values.tolist() == ACCURACY
    assert tickets.rewind_epoch.values.tolist() == [0.0, 1.0]
    assert float(results.dense_test_accuracy[0]) == 0.876
    barriers = results.barrier.sel(arm="ticket_child", replicate=0, threshold=0.9)
    assert barriers.values == pytest.approx([0.005, 0.012])


def test_an_old_study_is_reported(old):
    done = CliRunner().invoke(main, ["status", str(old)])
    assert (done.exit_code, "88.6   86.4" in done.output) == (0, True), done.output
    planned = CliRunner().invoke(
        main, ["plan", "--study", str(old / "study.yaml"), "--out", str(old), "--json"]
    )
    assert (json.loads(planned.stdout)["cells"], json.loads(planned.stdout)["done"]) == (0, 14)


def test_an_old_study_grows_and_what_it_had_is_kept(old, local_client):
    study, folder = study_of(old), Folder(old)
    before = open_results(old).load()
    names = [place.name for place in (old / "cells").iterdir() if place.name != "dense-r0"]
    begun = {name: len(folder.attempts(name)) for name in names}
    grown = study.changed({"grid.thresholds": "0.5,0.7,0.9"})
    results = run(grown, local_client, old).load()
    assert set(results.status.values.flat) == {Status.DONE, Status.NOT_APPLICABLE}
    for name in ("test_accuracy", "density", "barrier", "train_loss_curve", "place", "seconds"):
        kept = results[name].sel(threshold=[0.5, 0.9])
        np.testing.assert_array_equal(kept.values, before[name].values, err_msg=name)
    assert results.rewind_step.values.tolist() == [0, 8]
    assert {name: len(folder.attempts(name)) for name in names} == begun
    assert check(old) == []


def test_an_old_study_is_brought_up_to_date_by_its_own_command_though_all_is_done(old, caplog):
    manifest = Folder(old).manifest()
    if manifest.format < FORMAT:
        with pytest.raises(InputError, match="earlier version .* `lthdask run --study"):
            check(old)
    arguments = ["run", "--study", str(old / "study.yaml"), "--out", str(old), "--deploy", "local"]
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, "every cell is done" in done.output) == (0, True), done.output
    assert ("is up to date now" in caplog.text) == (manifest.format < FORMAT)
    assert Folder(old).manifest().format == Cube(old / "results.zarr").format == FORMAT
    # The checkpoints were not packed; everything else is whole.
    assert [d.what for d in check(old) if not d.what.startswith("checkpoints/")] == []
    assert open_results(old).test_accuracy.sel(arm="ticket").values[0].tolist() == ACCURACY


@pytest.mark.parametrize("old", [1], indirect=True)
def test_a_folder_of_another_study_is_refused_and_left_as_it_is(old):
    before = {file: file.read_bytes() for file in old.rglob("*") if file.is_file()}
    other = study_of(old).changed({"recipe.batch_size": "64"})
    refused = pytest.raises(InputError, match="recipe.batch_size: 128 in the folder, 64 given")
    with refused, driving_study(other, old):
        pass
    assert {f: f.read_bytes() for f in before} == before


def test_a_metric_and_an_array_that_an_older_cube_lacks_read_as_nan_and_are_added(old):
    lessened(old)
    before = open_results(old).load()
    assert np.isnan(before.barrier).all()
    assert np.isnan(before.line).all()
    assert before.test_accuracy.sel(arm="ticket", replicate=0).values.tolist() == ACCURACY
    with driving_study(study_of(old), old) as opened:
        assert set(opened.cells.values()) == {Status.DONE}
    cube = Cube(old / "results.zarr")
    assert (cube.format, cube.axis("metric")) == (FORMAT, list(schema.METRICS))
    after = open_results(old).load()
    for name in before.data_vars:
        np.testing.assert_array_equal(after[name].values, before[name].values, err_msg=str(name))
    assert not list(old.glob(".results.zarr*"))


@pytest.mark.parametrize("old", [1], indirect=True)
def test_what_came_after_a_study_was_begun_is_no_damage_of_it(old, monkeypatch):
    lessened(old)
    with driving_study(study_of(old), old):
        pass
    children = {d.what for d in check(old) if not d.what.startswith("checkpoints/")}
    assert children == {str(c) for c in study_of(old).grid.cells() if c.arm == "ticket_child"}
    monkeypatch.setattr("lthdask.checks.folder.ADDED", {"barrier": 2, "line": 2})
    assert [d.what for d in check(old) if not d.what.startswith("checkpoints/")] == []


@pytest.mark.parametrize("old", [1], indirect=True)
def test_a_key_that_studies_got_later_is_no_damage_of_an_older_one(old, monkeypatch):
    text = (old / "study.yaml").read_text()
    older = text.replace("fresh_buffers: false\n", "")
    assert older != text
    (old / "study.yaml").write_text(older)
    change_manifest(old, study_digest=hashlib.sha256(older.encode()).hexdigest())
    cube = zarr.open_group(old / "results.zarr", use_consolidated=False)
    study = dict(cube.attrs["study"])
    del study["fresh_buffers"]
    cube.attrs["study"] = study
    consolidate(old / "results.zarr")
    with driving_study(study_of(old), old):
        pass
    assert [d for d in check(old) if not d.what.startswith("checkpoints/")] == []


@pytest.mark.parametrize("old", [1], indirect=True)
def test_a_study_that_was_written_before_its_manifest_leaves_the_cube_to_the_next_run(old):
    """Killed between the two, and then no worker came: the folder is whole after the next run."""
    study = study_of(old)
    with driving_study(study, old):
        pass
    grown = study.changed({"grid.thresholds": "0.5,0.7,0.9"})
    (old / "study.yaml").write_text(grown.to_yaml())
    with driving_study(grown, old):
        pass
    damages = [d for d in check(old) if not d.what.startswith("checkpoints/")]
    assert [(d.what, d.mend is None) for d in damages] == [("study.yaml", False)]


@pytest.mark.parametrize("old", [1], indirect=True)
def test_a_newer_format_is_refused_with_the_step_to_take(old):
    change_manifest(old, format=FORMAT + 1)
    with pytest.raises(InputError, match=rf"has format {FORMAT + 1}, .* update lthdask"):
        Folder(old).manifest()
    cube = zarr.open_group(old / "results.zarr", use_consolidated=False)
    cube.attrs["format"] = FORMAT + 1
    consolidate(old / "results.zarr")
    for read in (lambda: Cube(old / "results.zarr"), lambda: open_results(old)):
        with pytest.raises(InputError, match="update lthdask"):
            read()


DECLARED = {2: "d26e7df8080aba06"}
"""Format → digest of what its version declares."""


def test_what_lies_on_disk_does_not_change_without_a_new_format():
    declared = [
        *((n, *vars(of).values()) for n, of in schema.ARRAYS.items()),
        *(
            (n, of.description, of.dtype, of.units, of.along)
            for n, of in schema.COORDINATES.items()
        ),
    ]
    digest = hashlib.sha256(repr(declared).encode()).hexdigest()[:16]
    assert DECLARED[FORMAT] == digest, "raise FORMAT, and pack a study of it into tests/formats"


KILLED = """
import json, logging, os, shutil, sys
from pathlib import Path
from lthdask.driver import preparing
from lthdask.driver.opening import driving_study
from lthdask.study import Study
from lthdask.training.choice import Choice
from lthdask.worker.tasks import Surroundings
logging.disable()

place, how = Path(sys.argv[1]), sys.argv[2]
study = Study.parse((place / "study.yaml").read_text())
if how == "axes":
    study = study.changed({"grid.thresholds": "0.5,0.7,0.9", "grid.replicates": "2"})

def grow(out):
    with driving_study(study, out) as opened:
        if how == "axes":
            m = opened.manifest
            layers = ["1.weight", "3.weight", "5.weight"]
            around = Surroundings(Choice(m.engine, ""), layers, m.steps, m.majority, (1, 8, 8), 10)
            preparing.write_down(opened, around)

def until_write(n, out):
    left = n
    def hook(event, arguments):
        nonlocal left
        writes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
        if event == "open" and isinstance(arguments[2], int):
            writes = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if writes and str(out) in str(arguments[0]):
            left -= 1
            if left < 0:
                os._exit(9)
    sys.addaudithook(hook)
    grow(out)

def in_a_child(body, *arguments):
    child = os.fork()
    if not child:
        try:
            body(*arguments)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def files_of(out):
    cube = out / "results.zarr"
    files = [file for file in cube.rglob("*") if file.is_file() and file.suffix != ".partial"]
    return {
        str(file.relative_to(cube)): json.loads(file.read_bytes())
        if file.suffix == ".json"
        else file.read_bytes()
        for file in files
    }

def copied(name):
    out = place.parent / name
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(place, out)
    return out

whole = copied("whole")
assert in_a_child(grow, whole) == 0
wanted, writes, code = files_of(whole), 0, 9
while code:
    out = copied("killed")
    code = in_a_child(until_write, writes, out)
    assert code in (0, 9), code
    assert in_a_child(grow, out) == 0, f"killed at write {writes}"
    found = files_of(out)
    odd = [name for name in {*found, *wanted} if found.get(name) != wanted.get(name)]
    assert not odd, f"killed at write {writes}: {odd}"
    assert not list(out.glob(".results.zarr*"))
    writes += 1
print(writes, "writes")
"""


@pytest.mark.faults
@pytest.mark.parametrize("old", [1], indirect=True)
@pytest.mark.parametrize("how", ["format", "metrics", "axes"])
def test_a_growth_that_is_killed_at_any_write_is_finished_by_the_same_command(old, how):
    """Every file of the cube is then as if nothing had happened."""
    if how == "metrics":
        lessened(old)
    if how == "axes":
        with driving_study(study_of(old), old):
            pass  # so that nothing but the axes is left to grow
    arguments = [sys.executable, "-c", KILLED, str(old), how]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) > 20


def pack(folder: Path) -> None:
    """Pack a study as the one of today's format, without its checkpoints."""

    def plain(file):
        if file.name.endswith((".safetensors", ".lock")):
            return None
        file.uid = file.gid = file.mtime = 0
        file.uname = file.gname = ""
        return file

    with tarfile.open(FORMATS / f"format-{FORMAT}.tar.xz", "w:xz") as packed:
        packed.add(folder, "small", filter=plain)


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
