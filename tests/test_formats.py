"""What every version promises of older studies: it opens, reports and grows them.

``formats/`` holds a small study as each format wrote it, without its checkpoints. A change of what
lies on disk raises `FORMAT`, and adds one: ``python -m tests.test_formats FOLDER`` packs a study.
"""

import dataclasses
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
from zarr.codecs import Crc32cCodec

from lthdask.checks.folder import check
from lthdask.commands.main import main
from lthdask.data.digest import DataDigest, SplitDigest
from lthdask.data.readers import load
from lthdask.driver.opening import driving_study, open_study
from lthdask.driver.preparing import write_down
from lthdask.errors import InputError, OtherData
from lthdask.events import TaskContext
from lthdask.storage import schema
from lthdask.storage.arrays import Arrays
from lthdask.storage.creation import consolidate
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.manifest import FORMAT, Manifest, digest_of
from lthdask.storage.results import open_results
from lthdask.storage.schema import Status
from lthdask.study import Study
from lthdask.training.engine import Engine
from lthdask.worker.tasks import look_around
from lthdask.worker.work import Work
from tests.conftest import change_manifest, everything, ran

FORMATS = Path(__file__).parent / "formats"
ACCURACY = [[88.6, 86.4], [63.4, 54.6]]
"""Test accuracy of the tickets in percent, by threshold and rewind epoch."""


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
            compressors=[Crc32cCodec()],
            overwrite=True,
            **like,
        )
        new[...] = values
    cube.attrs.put({name: value for name, value in cube.attrs.items() if name != "format"})
    consolidate(folder / "results.zarr")
    if "format" in json.loads((folder / "manifest.json").read_text()):
        change_manifest(folder, format=1, first_format=1)


def test_an_old_study_is_opened(old):
    results = everything(old)
    tickets = results.test_accuracy.sel(arm="ticket", replicate=0)
    assert tickets.values.tolist() == ACCURACY
    assert tickets.rewind_epoch.values.tolist() == [0.0, 1.0]
    assert float(results.dense_test_accuracy[0]) == 87.6
    barriers = results.barrier.sel(arm="ticket_child", replicate=0, threshold=0.9)
    assert barriers.values == pytest.approx([0.5, 1.2])


def test_an_old_study_is_reported(old):
    done = CliRunner().invoke(main, ["status", str(old)])
    assert (done.exit_code, "88.6   86.4" in done.output) == (0, True), done.output
    planned = CliRunner().invoke(
        main, ["plan", "--study", str(old / "study.yaml"), "--out", str(old), "--json"]
    )
    assert (json.loads(planned.stdout)["cells"], json.loads(planned.stdout)["done"]) == (0, 14)


def test_an_old_study_grows_and_what_it_had_is_kept(old, local_client, caplog):
    known = Folder(old).manifest().format > 2
    study, folder = study_of(old), Folder(old)
    before = everything(old)
    names = [place.name for place in (old / "cells").iterdir() if place.name != "dense-r0"]
    begun = {name: len(folder.runs.attempts(name)) for name in names}
    grown = study.changed({"grid.thresholds": "0.5,0.7,0.9"})
    results = ran(grown, local_client, old)
    assert set(results.status.values.flat) == {Status.DONE, Status.NOT_APPLICABLE}
    kept_as_they_were = ["test_accuracy", "counted_density", "barrier", "train_loss_curve"]
    for name in (*kept_as_they_were, "place", "seconds"):
        kept = results[name].sel(threshold=[0.5, 0.9])
        np.testing.assert_array_equal(kept.values, before[name].values, err_msg=name)
    assert results.rewind_step.values.tolist() == [0, 8]
    assert {name: len(folder.runs.attempts(name)) for name in names} == begun
    assert check(old) == []
    recorded = load(study.data).digest
    assert folder.manifest().data == recorded
    assert Arrays(old).attributes["data"] == json.loads(json.dumps(dataclasses.asdict(recorded)))
    assert ("are recorded from now on" in caplog.text) != known


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
def test_an_old_study_whose_update_was_killed_before_its_end_is_looked_at_all_the_same(old):
    before = (old / "manifest.json").read_bytes()
    with driving_study(study_of(old), old):
        (old / "manifest.json").write_bytes(before)  # it is written last
    assert set(open_study(study_of(old), old).cells.values()) == {Status.DONE}
    with driving_study(study_of(old), old):
        assert Folder(old).manifest().format == FORMAT


def test_a_folder_of_another_study_is_refused_and_left_as_it_is(old):
    before = {file: file.read_bytes() for file in old.rglob("*") if file.is_file()}
    other = study_of(old).changed({"recipe.batch_size": "64"})
    refused = pytest.raises(InputError, match="recipe.batch_size: 128 in the folder, 64 given")
    with refused, driving_study(other, old):
        pass
    assert {f: f.read_bytes() for f in before} == before


def test_a_metric_and_an_array_that_an_older_cube_lacks_read_as_nan_and_are_added(old):
    lessened(old)
    before = everything(old)
    assert np.isnan(before.barrier).all()
    assert np.isnan(before.line).all()
    assert before.test_accuracy.sel(arm="ticket", replicate=0).values.tolist() == ACCURACY
    with driving_study(study_of(old), old) as opened:
        assert set(opened.cells.values()) == {Status.DONE}
    cube = Cube(old / "results.zarr")
    assert (cube.format, cube.axis("metric")) == (FORMAT, list(schema.METRICS))
    after = everything(old)
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
    monkeypatch.setattr("lthdask.checks.folder.ADDED", schema.ADDED | {"barrier": 2, "line": 2})
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
    for read in (lambda: Cube(old / "results.zarr"), lambda: everything(old)):
        with pytest.raises(InputError, match="update lthdask"):
            read()


def tried(study, folder):
    """Open a study, and do what a run does before anything is queued, in this process."""
    with driving_study(study, folder) as opened:
        before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        work = Work(study, opened.engine, opened.folder, recorded=opened.data)
        try:
            with opened.folder.probe() as probe:
                around = look_around(work, probe, TaskContext(print, lambda: False))
            write_down(opened, around)
        except InputError:
            assert {file: file.read_bytes() for file in before} == before
            raise


@pytest.mark.parametrize("old", [2], indirect=True)
@pytest.mark.parametrize(
    ("recorded", "problem"),
    [
        ({"steps": 9}, "a worker reads other data .*: 8 batches in an epoch, not 9; give"),
        ({"majority": 0.5}, "0.1400 of the validation images belong to .*, not 0.5000"),
        ({"shape": [3, 8, 8]}, r"from digits, .*: inputs of shape \(1, 8, 8\), not \(3, 8, 8\)"),
        ({"classes": 9}, "10 classes, not 9"),
    ],
)
def test_other_data_than_an_old_study_recorded_are_refused_as_far_as_it_did(old, recorded, problem):
    change_manifest(old, **recorded)
    with pytest.raises(OtherData, match=problem):
        tried(study_of(old), old)


def test_an_engine_that_says_nothing_of_products_and_evaluation_computed_as_pytorch_does(old):
    values = json.loads((old / "manifest.json").read_text())
    for name in ("matmul", "evaluation", "digest"):
        values.pop(name, None)
        values["engine"].pop(name, None)
    (old / "manifest.json").write_text(json.dumps(values | {"digest": digest_of(values)}))
    engine = Folder(old).manifest().engine
    assert (engine.matmul, engine.evaluation) == ("default", "plain")


def test_a_lost_manifest_lets_neither_another_engine_nor_other_data_in(old, caplog):
    study, lost = study_of(old), Folder(old).manifest()
    (old / "manifest.json").unlink()
    with pytest.raises(InputError, match="with engine.precision float32, but bfloat16 is asked"):
        tried(study.changed({"engine.precision": "bfloat16"}), old)
    assert "manifest.json of " in caplog.text
    cube = zarr.open_group(old / "results.zarr", use_consolidated=False)
    about = dict(cube.attrs)
    other = {"data": {**about["data"], "classes": 9}} if "data" in about else {"majority": 0.5}
    cube.attrs.put(about | other)
    with pytest.raises(OtherData, match=r"10 classes, not 9|belong to .*, not 0.5000"):
        tried(study, old)
    cube.attrs.put(about)
    tried(study, old)
    found = Folder(old).manifest()
    assert (found.engine, found.axes, found.majority) == (lost.engine, lost.axes, lost.majority)
    assert found.first_format == lost.first_format
    assert found.checkpoints == {}  # so that the dense runs are trained again


def test_states_count_as_long_as_it_is_known_how_they_were_computed(old):
    state = old / "cells" / "dense-r0" / "state-0.safetensors"
    state.touch()
    (old / "manifest.json").unlink()
    tried(study_of(old), old)
    assert state.exists()
    (old / "manifest.json").unlink()
    shutil.rmtree(old / "results.zarr")
    tried(study_of(old), old)
    assert not state.exists()


DECLARED = {5: "1d02e63e1834af82"}
"""Format → digest of what its version declares."""


def test_what_lies_on_disk_does_not_change_without_a_new_format():
    declared = [
        *(
            (n, of.description, of.dimensions, of.cell, of.dtype, list(of.names), of.units)
            for n, of in schema.ARRAYS.items()
        ),
        *(
            (n, of.description, of.dtype, of.units, of.along)
            for n, of in schema.COORDINATES.items()
        ),
    ]
    of = (Manifest, DataDigest, SplitDigest, Engine)
    fields = [field.name for kind in of for field in dataclasses.fields(kind)]
    digest = hashlib.sha256(repr((declared, fields)).encode()).hexdigest()[:16]
    assert DECLARED[FORMAT] == digest, "raise FORMAT, and pack a study of it into tests/formats"


KILLED = """
import json, logging, os, shutil, sys
from pathlib import Path
from lthdask.data.readers import load
from lthdask.driver import preparing
from lthdask.driver.opening import driving_study, open_study
from lthdask.study import Study
from lthdask.training.choice import Choice
from lthdask.worker.tasks import Surroundings
logging.disable()

place, how = Path(sys.argv[1]), sys.argv[2]
study = Study.parse((place / "study.yaml").read_text())
if how == "axes":
    study = study.changed({"grid.thresholds": "0.5,0.7,0.9", "grid.replicates": "2"})
data, layers = load(study.data), ["1.weight", "3.weight", "5.weight"]

def grow(out):
    with driving_study(study, out) as opened:
        if how in ("axes", "anew"):
            around = Surroundings(Choice(study.engine.chosen(), ""), layers, 8, 0.14, data.digest)
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
    files += [out / "manifest.json", out / "study.yaml"]
    return {
        str(file.relative_to(out)): json.loads(file.read_bytes())
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
    writes += 7  # for each is two processes
print(writes, "writes")
"""


@pytest.mark.faults
@pytest.mark.parametrize("old", [1], indirect=True)
@pytest.mark.parametrize("how", ["format", "metrics", "axes", "anew"])
def test_a_growth_that_is_killed_in_the_middle_is_finished_by_the_same_command(old, how):
    """Every file of the cube, and the manifest, are then as if nothing had happened."""
    if how == "anew":  # somebody deleted the cube
        shutil.rmtree(old / "results.zarr")
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
