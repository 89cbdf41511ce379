"""What is computed for one run of a study is not taken for that of another, and is found."""

import json
import os
import shutil
from itertools import product

import numpy as np
import pytest
import zarr

from lthdask.checks.folder import check, repair
from lthdask.driver.opening import driving_study, open_study
from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.options import Options
from lthdask.storage import checkpoints, schema
from lthdask.storage.creation import consolidate
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.identity import run_of
from lthdask.storage.schema import ARRAYS, CELL, OF_CELLS, Status
from lthdask.storage.tickets import Tickets, final_weights
from lthdask.worker.resuming import ResumableRun
from tests.conftest import everything
from tests.test_flow import RESULTS
from tests.test_storage import CHECKPOINT
from tests.trained import HERE, STUDY, trained

KEEP = Options(keep="all", keep_rewound=True)
A, B = Cell("ticket", 0, 0.5, 1), Cell("ticket", 1, 0.5, 1)
LAST = [Cell("ticket", replicate, 0.95, 1) for replicate in (0, 1)]
"""Of two replicates: all are complete, and nothing but their bits differs."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("identity") / "tiny"
    trained(folder, STUDY, KEEP, masks=True)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "tiny")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The same study of another seed."""
    folder = tmp_path_factory.mktemp("other") / "tiny"
    trained(folder, STUDY.changed({"seed": "5", "grid.replicates": "2"}), KEEP, masks=True)
    return folder


def swap(one, other):
    aside = one.with_name(f"{one.name}.aside")
    os.replace(one, aside)
    os.replace(other, one)
    os.replace(aside, other)


def chunk(folder, array, *at):
    whole = (*at, *[0] * (len(ARRAYS[array].dimensions) - len(at)))
    return folder.joinpath("results.zarr", array, "c", *map(str, whole))


def place(folder, cell):
    cube = Cube(folder / "results.zarr")
    return tuple(cube.axis(name).index(getattr(cell, name)) for name in CELL)


def pending(folder):
    return {c for c, s in Cube(folder / "results.zarr").cells().items() if s is Status.PENDING}


def found(folder):
    """What a check names; and nothing is left of it after a repair."""
    damages = repair(folder)
    assert check(folder) == []
    return [damage.what for damage in damages]


def test_chunks_of_two_cells_that_are_exchanged_are_found(folder):
    written = [n for n in OF_CELLS if n not in ("status", "place", "learning", "line")]
    pairs, cells = list[tuple[str, list[Cell]]](), list(Cube(folder / "results.zarr").cells())
    for array, of in zip(written, product([0.5, 0.95], [0, 1], repeat=1), strict=False):
        pairs.append((array, [Cell("ticket", replicate, *of) for replicate in (0, 1)]))
    for array, pair in pairs:
        swap(*(chunk(folder, array, *place(folder, cell)) for cell in pair))
    assert written[: len(pairs)] == ["metrics", "curves", "layers", "record"]
    assert set(found(folder)) == set(map(str, cells))
    assert pending(folder) == set(cells) - set(pairs[-1][1])
    trained(folder, STUDY, KEEP)
    for array in (*written, "status"):  # and all that is of a cell
        swap(*(chunk(folder, array, *place(folder, cell)) for cell in (A, B)))
    swap(*(chunk(folder, "digests", *place(folder, C)) for C in LAST))
    assert set(found(folder)) == {str(cell) for cell in (A, B, *LAST)}
    assert pending(folder) == {A, B, *LAST}


def test_a_place_and_a_status_of_another_cell_are_found(folder):
    cube, other = Cube(folder / "results.zarr"), Cell("ticket", 0, 0.95, 0)
    zarr.open_array(folder / "results.zarr" / "place")[place(folder, A)] = "elsewhere"
    assert found(folder) == [str(A)]
    assert pending(folder) == set()
    Tickets(Folder(folder)).drop(other)
    cube.erase(other)
    cube.mark(other, Status.FAILED)
    assert check(folder) == []
    swap(*(chunk(folder, "status", *place(folder, cell)) for cell in (A, other)))
    assert found(folder) == [str(A), str(other)]
    assert pending(folder) == {A, other}


def test_dense_runs_and_masks_that_are_exchanged_are_found_and_no_run_goes_on_from_them(folder):
    names = [f"results.zarr/dense_curves/c/{r}/0/0" for r in (0, 1)]
    for array in ("dense_curves", "dense_digests"):
        swap(chunk(folder, array, 0), chunk(folder, array, 1))
        with pytest.raises(InputError, match=r"dense_curves holds of dense-r0 was not .* --repair"):
            open_study(STUDY, folder)
        assert [damage.what for damage in check(folder)] == names
        swap(chunk(folder, array, 0), chunk(folder, array, 1))
    swap(chunk(folder, "dense_curves", 0), chunk(folder, "dense_curves", 1))
    swap(chunk(folder, "mask_distances", 0, 1), chunk(folder, "mask_distances", 1, 0))
    swap(chunk(folder, "mask_digests", 0, 0), chunk(folder, "mask_digests", 1, 1))
    masks = [f"results.zarr/mask_distances/c/{r}/{t}/0/0" for r in (0, 1) for t in (0, 1)]
    assert sorted(found(folder)) == [*names, *masks]
    assert set(Folder(folder).manifest().checkpoints) == set()


def test_the_damaged_file_of_a_dense_run_is_named(folder):
    file = "results.zarr/dense_digests/c/0"
    (folder / file).write_bytes(b"")
    assert [damage.what for damage in check(folder)] == [file]
    repair(folder)
    assert not [damage for damage in check(folder) if "dense_digests" in damage.what]


@pytest.mark.parametrize("name", ["metrics", "dense_curves", "mask_distances"])
def test_an_array_of_another_study_is_found(folder, other, name):
    shutil.rmtree(folder / "results.zarr" / name)
    shutil.copytree(other / "results.zarr" / name, folder / "results.zarr" / name)
    each = {str(Cell(*at)) for at in product(*STUDY.grid.axes().values())}
    dense = {f"results.zarr/dense_curves/c/{r}/0/0" for r in (0, 1)}
    masks = {f"results.zarr/mask_distances/c/{at}/0/0" for at in ("0/0", "0/1", "1/0", "1/1")}
    of = {"dense_curves": dense, "mask_distances": masks}
    assert set(found(folder)) == of.get(name, each)


def test_a_cube_of_another_study_is_found_and_no_run_goes_on_from_it(folder, other):
    shutil.rmtree(folder / "results.zarr")
    shutil.copytree(other / "results.zarr", folder / "results.zarr")
    with pytest.raises(InputError, match="are not those of the study that manifest.json"):
        open_study(STUDY, folder)
    with pytest.raises(InputError, match="are not those"), driving_study(STUDY, folder):
        pass
    assert {str(A), str(B), "results.zarr/zarr.json"} <= set(found(folder))
    assert len(pending(folder)) == 8


def relabelled(folder, name, values):
    array = zarr.open_array(folder / "results.zarr" / name)
    array[:] = values
    consolidate(folder / "results.zarr")


RELABELLED = {
    "threshold": [0.5, 0.9],
    "replicate": [1, 0],
    "rewind_epoch": [1.0, 0.0],
    "rewind_step": [8, 0],
    "epoch": [2, 1],
    "layer": ["3.weight", "1.weight", "5.weight"],
    "curve": [*schema.CURVES][::-1],
    "mask_epoch": [0, 2, 1],
}


def test_axes_that_are_relabelled_are_found_and_mended(folder):
    files = [folder / f"results.zarr/{axis}/c/0" for axis in RELABELLED]
    before = [file.read_bytes() for file in files]
    for axis, values in RELABELLED.items():
        relabelled(folder, axis, values)
    assert {f"results.zarr/{axis}/c/0" for axis in RELABELLED} <= set(found(folder))
    assert [file.read_bytes() for file in files] == before
    assert pending(folder) == set()


def test_a_run_goes_by_the_axes_of_the_manifest_and_without_one_by_no_others(folder, caplog):
    relabelled(folder, "replicate", [1, 0])
    with driving_study(STUDY, folder) as opened:
        assert opened.axes["replicate"] == [0, 1]
    assert "did not match its manifest; they do now" in caplog.text
    assert check(folder) == []
    (folder / "manifest.json").unlink()
    open_study(STUDY, folder)
    relabelled(folder, "replicate", [1, 0])
    with pytest.raises(InputError, match="of ticket-r1-.* was not written for it"):
        open_study(STUDY, folder)
    relabelled(folder, "threshold", [0.5, 0.9])
    with pytest.raises(InputError, match="have the threshold 0.9, which the study does not have"):
        open_study(STUDY, folder)


def test_what_is_trained_is_not_decided_by_results_of_other_cells(folder):
    deciding = [Options(adaptive=0.5), Options(keep="matching")]
    for options in deciding:
        open_study(STUDY, folder, options)
    swap(*(chunk(folder, "metrics", *place(folder, cell)) for cell in (A, B)))
    for options in deciding:
        with pytest.raises(InputError, match=f"metrics holds of {A} was not written for it"):
            open_study(STUDY, folder, options)


def test_checkpoints_of_another_replicate_are_found(folder):
    files = [f"checkpoints/replicate-{r}/epoch-0001.safetensors" for r in (0, 1)]
    swap(*(folder / file for file in files))
    assert found(folder) == files


def test_states_and_final_weights_of_another_run_are_found_and_not_gone_on_from(whole, tmp_path):
    work = trained(tmp_path / "tiny", STUDY.changed({"grid.replicates": "1"}))
    folder, names = work.folder, [str(A), "ticket-r0-t0.95-k1"]
    for name in names:
        run = run_of(Cube(folder.cube).identity, name)
        checkpoints.State(folder.runs.of(name), run=run).save(CHECKPOINT, {})
    assert check(folder.path) == []
    states = [folder.runs.of(name) / "state-0.safetensors" for name in names]
    swap(*states)
    copies = [state.read_bytes() for state in states]
    assert found(folder.path) == [str(state.relative_to(folder.path)) for state in states]
    for state, copy in zip(states, copies, strict=True):
        state.write_bytes(copy)
    assert ResumableRun(work, A, HERE).start is None


def test_final_weights_of_another_cell_or_study_are_found_and_not_gone_on_from(folder, whole):
    tickets, identity = Tickets(Folder(folder)), Folder(folder).manifest().identity
    finals = [Folder(folder).runs.final(cell) for cell in (A, B)]
    for cell, file in zip((A, B), finals, strict=True):
        checkpoints.save_ticket(file, tickets.load(cell), run_of(identity, cell))
        tickets.drop(cell)
    assert check(folder) == []
    assert final_weights(Folder(folder), A, identity)
    assert final_weights(Folder(folder), A, "another") is None
    swap(*finals)
    assert final_weights(Folder(folder), A, identity) is None
    assert found(folder) == [str(file.relative_to(folder)) for file in finals]


@pytest.mark.parametrize("names", ["trained", "rewound", "record", "all"])
def test_kept_tickets_of_another_cell_are_found_and_not_gone_on_from(folder, names):
    tickets, identity = Tickets(Folder(folder)), Folder(folder).manifest().identity
    files = {
        "trained": [tickets.trained(cell) for cell in (A, B)],
        "rewound": [tickets.rewound(cell) for cell in (A, B)],
        "record": [folder / f"cells/{cell}/kept.json" for cell in (A, B)],
    }
    for name in files if names == "all" else [names]:
        swap(*files[name])
    if names != "rewound":
        assert final_weights(Folder(folder), A, identity) is None
    for file in found(folder):
        assert str(A) in file or str(B) in file
    assert not all(tickets.are_there(cell, True) for cell in (A, B))


def test_a_kept_ticket_of_another_study_is_found(folder, other):
    for name in (f"tickets/{A}.safetensors", f"cells/{A}/kept.json"):
        shutil.copy(other / name, folder / name)
    damages = {damage.what: damage.problem for damage in check(folder)}
    assert damages[f"tickets/{A}.safetensors"] == "it is of another study"


def test_records_of_attempts_at_another_run_are_found_and_do_not_count(folder):
    files = [folder / f"cells/{cell}/attempt-1.json" for cell in (A, B)]
    assert json.loads(files[0].read_text())["run"] == str(A)
    swap(*files)
    assert Folder(folder).runs.attempts(A) == [{}]
    assert found(folder) == [str(file.relative_to(folder)) for file in files]
    assert pending(folder) == set()


def test_what_is_repaired_and_run_again_is_as_before(folder, whole):
    for array in ("metrics", "layers"):
        swap(*(chunk(folder, array, *place(folder, cell)) for cell in (A, B)))
    swap(*(folder / f"checkpoints/replicate-{r}/epoch-0002.safetensors" for r in (0, 1)))
    swap(*(chunk(folder, "dense_curves", r) for r in (0, 1)))
    repair(folder)
    trained(folder, STUDY, KEEP)
    assert check(folder) == []
    again, before = everything(folder), everything(whole)
    for name in RESULTS:
        np.testing.assert_array_equal(again[name].values, before[name].values)
