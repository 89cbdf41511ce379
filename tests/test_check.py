"""What a check promises: it finds all damage, and what is repaired and run again is as before."""

import hashlib
import os
import shutil
from importlib import import_module

import numpy as np
import pytest
import zarr
from click.testing import CliRunner

from lthdask.checks.folder import check, repair
from lthdask.errors import InputError
from lthdask.flow import run
from lthdask.grid import Cell
from lthdask.storage import checkpoints
from lthdask.storage.cube import Cube
from lthdask.storage.driver import driving
from lthdask.storage.folder import Folder
from lthdask.storage.schema import ARRAYS, METRICS, Status
from tests.conftest import change_manifest, everything, ran
from tests.test_flow import RESULTS, TINY, attempts
from tests.test_storage import CHECKPOINT

STUDY = TINY.changed({"grid.thresholds": "0.5,0.8,0.95"})
CELL = Cell("ticket", 0, 0.95, 0)
CHUNK = "c/0/0/1/0"  # of that cell
CHECKED = "checkpoints/replicate-0/epoch-0001.safetensors"
STATE = "cells/ticket-r0-t0.9-k2/state-0.safetensors"
CUBE = "results.zarr"
# File → what is named, and whether the cell and the dense run are trained again.
FILES = {
    "study.yaml": ("study.yaml", False, False),
    "manifest.json": ("manifest.json", False, False),
    CHECKED: (CHECKED, False, True),
    STATE: (STATE, False, False),
    f"{CUBE}/zarr.json": (f"{CUBE}/zarr.json", False, False),
    f"{CUBE}/metrics/zarr.json": (f"{CUBE}/metrics/zarr.json", False, False),
    f"{CUBE}/threshold/zarr.json": (f"{CUBE}/threshold/zarr.json", False, False),
    f"{CUBE}/threshold/c/0": (f"{CUBE}/threshold/c/0", False, False),
    f"{CUBE}/layer/c/0": (f"{CUBE}/layer/c/0", False, False),
    f"{CUBE}/status/{CHUNK}": (str(CELL), True, False),
    f"{CUBE}/metrics/{CHUNK}/0": (str(CELL), True, False),
    f"{CUBE}/curves/{CHUNK}/0/0": (str(CELL), True, False),
    f"{CUBE}/layers/{CHUNK}/0/0": (str(CELL), True, False),
    f"{CUBE}/record/{CHUNK}/0": (str(CELL), False, False),
    f"{CUBE}/place/{CHUNK}": (str(CELL), False, False),
    f"{CUBE}/dense_curves/c/0/0/0": (f"{CUBE}/dense_curves/c/0/0/0", False, True),
}
# A state that is gone is none, a cell without a status is pending.
NO_DAMAGE = [(STATE, "deleted"), (f"{CUBE}/status/{CHUNK}", "deleted")]


def damage(file, how):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 16
    if how == "deleted":
        file.unlink()
    else:
        whole = file.read_bytes()
        damaged = {"truncated": whole[:-3], "zeroed": bytes(len(whole)), "flipped": content}
        file.write_bytes(damaged[how])


def script(name):
    return import_module(f"lthdask.commands.{name}").command


@pytest.fixture(scope="session")
def whole(local_client, tmp_path_factory):
    """A study that grew until its axes are not in order, with the state of a run left behind."""
    folder = tmp_path_factory.mktemp("whole") / "tiny"
    run(TINY, local_client, folder)
    results = ran(STUDY, local_client, folder)
    checkpoints.State(folder / "cells" / "ticket-r0-t0.9-k2").save(CHECKPOINT, {})
    return results, folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole[1], tmp_path / "tiny")


def assert_as_before(results, whole):
    for name in RESULTS:
        np.testing.assert_array_equal(results[name].values, whole[0][name].values)


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_whole_study_has_no_damage_and_a_check_writes_nothing(whole):
    before = contents(whole[1])
    assert Cube(whole[1] / CUBE).axis("threshold") == [0.5, 0.95, 0.8]
    assert check(whole[1]) == []
    assert contents(whole[1]) == before


@pytest.mark.parametrize("how", ["truncated", "zeroed", "flipped", "deleted"])
@pytest.mark.parametrize("file", FILES)
def test_damage_is_named_and_just_that_is_marked_to_be_trained_again(folder, file, how):
    what, cell, dense = FILES[file]
    damage(folder / file, how)
    before = contents(folder)
    found = check(folder)
    assert contents(folder) == before
    assert [damage.what for damage in found] == ([] if (file, how) in NO_DAMAGE else [what])
    assert repair(folder) == found
    if what == "manifest.json":
        assert found[0].mend is None
        assert f"without it, `lthdask run --study {folder}/study.yaml --out {folder}`" in str(
            found[0]
        )
        assert check(folder) == found
        return
    assert ("trained again" in "".join(map(str, found))) == (
        bool(found) and (cell or dense or file == STATE)
    )
    assert check(folder) == []
    pending = [c for c, s in Cube(folder / CUBE).cells().items() if s is Status.PENDING]
    assert pending == ([CELL] if cell else [])
    assert list(Folder(folder).manifest().checkpoints) == ([] if dense else [0])
    everything(folder)  # is no error


@pytest.mark.parametrize("file", [file for file in FILES if file != "manifest.json"])
def test_repaired_and_run_again_results_are_as_before_bit_for_bit(
    whole, folder, local_client, file
):
    _, cell, dense = FILES[file]
    damage(folder / file, "flipped")
    repair(folder)
    assert_as_before(ran(STUDY, local_client, folder), whole)
    assert len(attempts(folder)) == len(attempts(whole[1])) + cell
    assert len([*folder.glob("cells/dense-r0/attempt-*")]) == 1 + dense
    assert (folder / CHECKED).read_bytes() == (whole[1] / CHECKED).read_bytes()
    assert check(folder) == []


@pytest.mark.parametrize("how", ["truncated", "zeroed", "deleted"])
def test_much_damage_at_once_is_repaired(whole, folder, local_client, how):
    files = FILES.keys() - {"manifest.json", "study.yaml"}
    for file in files:
        damage(folder / file, how)
    assert {d.what for d in check(folder)} <= {FILES[file][0] for file in files}
    repair(folder)
    assert check(folder) == []
    assert_as_before(ran(STUDY, local_client, folder), whole)
    assert check(folder) == []


def test_a_cube_that_is_gone_is_made_again(whole, folder, local_client):
    shutil.rmtree(folder / CUBE)
    assert all(damage.mend for damage in repair(folder))
    assert check(folder) == []
    assert_as_before(ran(STUDY, local_client, folder), whole)


def test_a_study_is_beyond_repair_where_its_copy_is_damaged_too(folder):
    for file in ("study.yaml", f"{CUBE}/zarr.json"):
        damage(folder / file, "truncated")
    (found,) = repair(folder)
    assert (found.what, found.mend) == ("study.yaml", None)
    assert f"--study FILE --out {folder}-again" in found.remedy


def test_where_and_when_of_a_cell_are_read_from_its_attempts(whole, folder):
    for file in (f"record/{CHUNK}/0", f"place/{CHUNK}"):
        damage(folder / CUBE / file, "flipped")
    repair(folder)
    cell = everything(folder).sel(arm="ticket", replicate=0, threshold=0.95, rewind_epoch=0)
    before = whole[0].sel(arm="ticket", replicate=0, threshold=0.95, rewind_epoch=0)
    for name in ("status", "place", "attempts", "started", "test_loss"):
        assert cell[name] == before[name], name
    assert np.isnan(cell.seconds)


def test_an_unknown_status_is_damage_and_no_traceback(folder):
    zarr.open_array(folder / CUBE / "status")[0, 0, 1, 0] = 77
    for read in (lambda: Cube(folder / CUBE).cells(), lambda: everything(folder)):
        with pytest.raises(InputError, match=r"77 is .*lthdask check"):
            read()
    (found,) = repair(folder)
    assert (found.what, "77" in found.problem) == (str(CELL), True)
    assert Cube(folder / CUBE).cells()[CELL] is Status.PENDING


def test_a_done_cell_of_too_few_epochs_is_not_complete(folder):
    metrics = zarr.open_array(folder / CUBE / "metrics")
    metrics[0, 0, 1, 0, list(METRICS).index("epochs_trained")] = 2
    assert [damage.what for damage in check(folder)] == [str(CELL)]


def test_what_is_not_done_yet_is_no_damage(folder):
    cube = Cube(folder / CUBE)
    cube.erase(CELL)
    for cell, status in zip(list(cube.cells())[-2:], (Status.FAILED, Status.DIVERGED), strict=True):
        cube.erase(cell)
        cube.mark(cell, status)
    assert check(folder) == []
    shutil.rmtree(folder / CUBE)
    (folder / "manifest.json").unlink()
    assert check(folder) == []  # the study was stopped before it began


def test_a_running_study_has_no_damage(local_client, tmp_path):
    found, seen = [], []

    def watch(event):
        if event.kind != "epoch":  # of which there are many
            seen.append(event.kind)
            found.extend(check(tmp_path))

    run(TINY, local_client, tmp_path, watch=watch)
    assert seen == ["plan", "dense", *["cell"] * 4]
    assert found == []


@pytest.mark.faults
@pytest.mark.parametrize("how", ["deleted", "truncated"])
def test_what_only_the_driver_knows_is_whole_at_its_end_whatever_became_of_it(
    local_client, tmp_path, how
):
    def watch(event):
        if event.kind == "cell" and "k2" in event.name:  # those that come last
            for name in {"study.yaml", "manifest.json"} & set(os.listdir(tmp_path)):
                damage(tmp_path / name, how)

    run(TINY, local_client, tmp_path, watch=watch)
    assert check(tmp_path) == []


def test_a_study_that_is_run_can_be_checked_and_not_repaired(folder):
    damage(folder / CHECKED, "flipped")
    with driving(folder):
        assert len(check(folder)) == 1
        with pytest.raises(InputError, match="is being run by process"):
            repair(folder)
    assert 0 in Folder(folder).manifest().checkpoints


def test_the_command_says_what_is_damaged_and_ends_accordingly(folder, tmp_path):
    def ends(code, *arguments):
        done = CliRunner().invoke(script("check"), [str(folder), *arguments])
        assert done.exit_code == code, done.output
        return done.stdout

    assert ends(0) == f"{folder} is whole\n"
    damage(folder / f"{CUBE}/metrics/{CHUNK}/0", "flipped")
    found = ends(1)
    assert f"{CELL}: {CUBE}/metrics/{CHUNK}/0 is damaged; the cell is trained again" in found
    assert f"check {folder} --repair marks exactly that" in found
    assert "repaired" in ends(0, "--repair")
    damage(folder / "manifest.json", "flipped")
    assert "beyond repair" in ends(1)
    assert "beyond repair" in ends(1, "--repair")
    done = CliRunner().invoke(script("check"), [str(tmp_path)])
    assert (done.exit_code, done.stderr[:23]) == (2, "error: there is no stud")
    assert [*tmp_path.iterdir()] == [folder]


@pytest.mark.parametrize("how", ["truncated", "zeroed", "deleted"])
@pytest.mark.parametrize(
    "file", ["zarr.json", "metrics/zarr.json", "threshold/c/0", f"status/{CHUNK}", "layer/c/0"]
)
def test_damaged_results_are_one_sentence_that_names_the_check(folder, file, how):
    if (f"{CUBE}/{file}", how) in NO_DAMAGE:
        return
    damage(folder / CUBE / file, how)
    arguments = ["--study", str(folder / "study.yaml"), "--out", str(folder), "--deploy", "local"]
    ways = [["--dry-run"]] + ([["--status"]] if file != "metrics/zarr.json" else [])
    if (file, how) not in [(axis, "deleted") for axis in AXES]:  # which a run mends
        ways.append([])
    for way in ways:
        done = CliRunner().invoke(script("run"), [*arguments, *way])
        assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1), done.output
        assert f"lthdask check {folder} --repair" in done.stderr


@pytest.mark.faults
def test_where_a_part_of_the_results_was_deleted_the_same_command_goes_on_or_names_the_check(
    folder, local_client, tmp_path
):
    """With what the check marks, it ends as before."""
    whole, named = everything(folder), {}
    for part in sorted(file.name for file in (folder / CUBE).iterdir()):
        out = shutil.copytree(folder, tmp_path / f"without-{part}")
        gone = out / CUBE / part
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
        try:
            run(STUDY, local_client, out)
        except InputError as error:
            named[part] = f"lthdask check {out} --repair" in str(error)
            repair(out)
            run(STUDY, local_client, out)
        again = everything(out)
        for name in RESULTS:
            np.testing.assert_array_equal(again[name].values, whole[name].values, err_msg=part)
        assert check(out) == []
    assert named == dict.fromkeys(["zarr.json", *ARRAYS], True)


AXES = ["threshold/c/0", "layer/c/0"]


@pytest.mark.parametrize("file", AXES)
def test_axes_that_are_missing_are_mended_by_the_manifest_and_that_is_said(folder, file, caplog):
    damage(folder / CUBE / file, "deleted")
    arguments = ["--study", str(folder / "study.yaml"), "--out", str(folder), "--deploy", "local"]
    done = CliRunner().invoke(script("run"), arguments)
    assert (done.exit_code, "every cell is done" in done.output) == (0, True), done.output
    assert "did not match its manifest; they do now" in caplog.text
    assert check(folder) == []


@pytest.mark.parametrize(
    ("file", "plan"), [(f"metrics/{CHUNK}/0", ["--dry-run"]), ("dense_curves/c/0/0/0", [])]
)
def test_a_damaged_value_is_one_sentence_that_names_the_check(folder, file, plan):
    """A plan reads no dense curve."""
    damage(folder / CUBE / file, "flipped")
    arguments = ["--study", str(folder / "study.yaml"), "--out", str(folder)]
    for way in ([], ["--status"], plan, ["--json"]):
        done = CliRunner().invoke(script("run"), [*arguments, *way])
        assert (done.exit_code, len(done.stderr.splitlines()) <= 2) == (2, True), done.output
        assert f"lthdask check {folder} --repair" in done.stderr


def test_results_of_another_version_are_refused(folder):
    axis = zarr.open_array(folder / CUBE / "quantity")
    axis[1] = "dead_neurons"
    for read in (lambda: Cube(folder / CUBE), lambda: everything(folder)):
        with pytest.raises(InputError, match=r"another version .* dead_neurons, cutoff there"):
            read()


def test_a_manifest_with_other_axes_than_the_study_is_beyond_repair(folder):
    axes = Folder(folder).manifest().axes
    change_manifest(folder, axes=axes | {"threshold": axes["threshold"][1:]})
    (found,) = check(folder)
    assert (found.what, found.mend) == ("manifest.json", None)


def test_growth_that_was_killed_is_finished_and_nothing_is_trained_again(folder, local_client):
    cube = zarr.open_group(folder / CUBE, use_consolidated=False)
    grown = STUDY.changed({"grid.thresholds": "0.5,0.7,0.8,0.95"})
    digest = hashlib.sha256(grown.to_yaml().encode()).hexdigest()
    axes = Folder(folder).manifest().axes
    axes = axes | {"threshold": [*axes["threshold"], 0.7]}
    (folder / "study.yaml").write_text(grown.to_yaml())
    change_manifest(folder, study_digest=digest, axes=axes)
    for name in ("status", "metrics"):
        cube[name].resize((1, 1, 4, 2, len(METRICS))[: cube[name].ndim])
    cube["threshold"].resize((4,))  # whose last value is not written
    before = attempts(folder)
    results = run(grown, local_client, folder)
    assert (results.status == Status.DONE).all()
    assert len(attempts(folder)) == len(before) + 2
