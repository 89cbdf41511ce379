"""What a sweep promises of cells that wait for one another, and of those it leaves out."""

import json

import numpy as np
import pytest

from lthdask.arms import ARMS
from lthdask.checks.folder import check
from lthdask.driver.remaining import Remaining
from lthdask.driver.sweep import Sweep
from lthdask.errors import InputError
from lthdask.flow import run
from lthdask.grid import Cell
from lthdask.options import Options
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.manifest import Manifest
from lthdask.storage.schema import Status
from lthdask.worker.work import Work
from tests.conftest import ran
from tests.test_flow import RESULTS, TINY

SMALL = TINY.changed({"data.validation": "300", "grid.thresholds": "0.5,0.95"})
EVERY = SMALL.changed(
    {
        "grid.arms": [n for n, arm in ARMS.items() if arm.start != "before" and not arm.of_source],
        "recipe.fine_tune_rate": "0.005",
        "recipe.measure_every": "7",
        "grid.replicates": "2",
    }
)
ROUNDS = SMALL.changed(
    {
        "pruning.schedule": "iterative",
        "pruning.rate": "0.5",
        "pruning.rounds": "3",
        "grid.arms": "ticket,random_mask,reinit,lr_rewind_iterated",
    }
)


@pytest.fixture(scope="module")
def every(local_client, tmp_path_factory):
    """All arms, run on two workers."""
    folder = tmp_path_factory.mktemp("runs") / "every"
    return ran(EVERY, local_client, folder), folder


@pytest.fixture(scope="module")
def rounds(local_client, tmp_path_factory):
    """Three rounds of iterative pruning, run on two workers."""
    folder = tmp_path_factory.mktemp("runs") / "rounds"
    return ran(ROUNDS, local_client, folder), folder


def started(folder):
    """The event log: name of the run → how often it was begun."""
    names = [place.name for place in (folder / "cells").iterdir()]
    return {name: len(Folder(folder).runs.attempts(name)) for name in names}


def test_all_arms_are_trained_once_from_one_dense_run_each(every):
    results, folder = every
    applicable = EVERY.grid.cells()
    assert len(applicable) == 2 * (6 * 4 + 2 * 2 + 2)
    for cell in Cube(folder / "results.zarr").cells():
        expected = Status.DONE if cell in applicable else Status.NOT_APPLICABLE
        assert results.status.sel(vars(cell)) == expected, cell
    names = {str(cell) for cell in applicable} | {"dense-r0", "dense-r1"}
    assert started(folder) == dict.fromkeys(names, 1)
    assert not list(folder.glob("cells/*/*.safetensors"))
    assert check(folder) == []


def test_the_epochs_of_each_arm_are_on_record(every):
    at = every[0].sel(replicate=0, threshold=0.95)
    assert at.epochs_trained.sel(arm="ticket").values.tolist() == [3, 1]
    assert at.epochs_trained.sel(arm="fine_tune").values.tolist() == [3, 1]
    assert at.epochs_trained.sel(arm="equal_epochs").values.tolist() == [3, 3]
    assert float(at.epochs_trained.sel(arm="reinit", rewind_epoch=0)) == 3
    assert np.isfinite(at.train_loss_curve.sel(arm="reinit", rewind_epoch=0)).all()
    assert np.isnan(at.epochs_trained.sel(arm="reinit", rewind_epoch=2))


def test_a_control_has_the_density_of_its_ticket(every):
    results, _ = every
    for arm in [arm for arm in results.arm.values if arm != "dense_child"]:
        theirs = results.layer_density.sel(arm=arm, rewind_epoch=0)
        np.testing.assert_array_equal(theirs, results.layer_density.sel(arm="ticket")[:, :, 0])
    dense = results.counted_density.sel(arm="dense_child", threshold=0.5)
    np.testing.assert_array_equal(dense, np.ones((2, 2)))


def test_children_have_a_line_and_a_barrier_and_nobody_else_has(every):
    results, _ = every
    line = results.line.sel(arm="ticket_child")
    assert np.isfinite(line).all()
    rise = line.max("point") - (line.isel(point=0) + line.isel(point=-1)) / 2
    barrier = results.barrier.sel(arm="ticket_child")
    np.testing.assert_allclose(barrier, np.maximum(0, rise))
    assert np.isfinite(results.barrier.sel(arm="dense_child", threshold=0.5)).all()
    assert np.isnan(results.barrier.sel(arm=["ticket", "reinit"])).all()


def test_learning_speed_is_read_off_the_measurements(every):
    results, _ = every
    # 1,797 − 500 − 300 images are 15 batches of 64, and three epochs 45 steps.
    assert results.iteration.values.tolist() == list(range(7, 46, 7))
    at = results.sel(arm="ticket", replicate=0, threshold=0.5, rewind_epoch=0)
    inside = at.validation_loss_by_iteration.values
    ends = at.validation_loss_curve.values
    iterations = [*results.iteration.values, 15, 30, 45]
    stop = iterations[int(np.argmin([*inside, *ends]))]
    assert at.early_stop_iteration == stop
    late = results.sel(arm="ticket", replicate=0, threshold=0.5, rewind_epoch=2)
    assert late.early_stop_iteration <= 15  # counted from where it started
    assert np.isnan(late.validation_loss_by_iteration.values[:4]).all()
    dense = results.dense_validation_loss_by_iteration.sel(replicate=0)
    assert np.isfinite(dense).all()


def test_rounds_nest_keep_the_rate_and_leave_no_weights_behind(rounds):
    results, folder = rounds
    assert results.threshold.values.tolist() == [0.5, 0.75, 0.875]
    density = results.counted_density.sel(arm="ticket", replicate=0)
    np.testing.assert_allclose(density, [[0.5] * 2, [0.25] * 2, [0.125] * 2], atol=1e-4)
    for arm in ("random_mask", "reinit"):
        theirs = results.layer_density.sel(arm=arm, rewind_epoch=0)
        mine = results.layer_density.sel(arm="ticket", rewind_epoch=0)
        np.testing.assert_array_equal(theirs, mine)
    first = [results.train_loss_curve.sel(arm="ticket", threshold=t).values for t in (0.5, 0.75)]
    assert not np.array_equal(*first)
    assert not list(folder.glob("cells/*/*.safetensors"))
    assert check(folder) == []


def test_a_chain_that_is_broken_off_goes_on_from_the_round_before(local_client, tmp_path, rounds):
    """The round before was done, and its weights are still there; the rest is trained."""

    class StopError(Exception):
        pass

    def stop(event):
        if event.kind == "cell" and event.name == "ticket-r0-t0.5-k0":
            raise StopError

    with pytest.raises(StopError):
        run(ROUNDS, local_client, tmp_path, watch=stop)
    done = {c for c, s in Cube(tmp_path / "results.zarr").cells().items() if s is Status.DONE}
    assert Cell("ticket", 0, 0.5, 0) in done
    assert (tmp_path / "cells/ticket-r0-t0.5-k0/final.safetensors").exists()
    before = started(tmp_path)
    results = ran(ROUNDS, local_client, tmp_path)
    for name in RESULTS:
        np.testing.assert_array_equal(results[name].values, rounds[0][name].values)
    after = started(tmp_path)
    assert {str(cell): before[str(cell)] for cell in done} == {
        str(cell): after[str(cell)] for cell in done
    }


def test_a_round_whose_weights_are_lost_is_trained_again_for_those_that_follow(
    local_client, tmp_path, rounds
):
    run(ROUNDS, local_client, tmp_path)
    cube = Cube(tmp_path / "results.zarr")
    cube.erase(Cell("ticket", 0, 0.875, 0))
    before = started(tmp_path)
    results = ran(ROUNDS, local_client, tmp_path)
    for name in RESULTS:
        np.testing.assert_array_equal(results[name].values, rounds[0][name].values)
    again = {name for name, times in started(tmp_path).items() if times > before[name]}
    assert again == {f"ticket-r0-t{t}-k0" for t in ("0.5", "0.75", "0.875")}


def test_a_round_that_fails_fails_those_that_follow_and_no_other(local_client, tmp_path):
    chunk = tmp_path / "results.zarr/curves/c/0/0/1/0"  # of ticket, 0.75, k=0

    def block(event):
        if event.kind == "dense":
            chunk.parent.mkdir(parents=True, exist_ok=True)
            chunk.write_text("in the way")

    results = ran(ROUNDS, local_client, tmp_path, watch=block, options=Options(max_attempts=1))
    failed = results.status == Status.FAILED
    assert failed.sel(arm="ticket", rewind_epoch=0).values.tolist() == [[False, True, True]]
    assert not failed.sel(rewind_epoch=2).any()
    reason = Folder(tmp_path).runs.reason("random_mask-r0-t0.875-k0")
    assert "ticket-r0-t0.75-k0, which it starts from, failed" in reason


def test_a_new_cell_that_starts_from_one_that_failed_fails_and_trains_it_no_more(
    local_client, tmp_path
):
    run(SMALL, local_client, tmp_path)
    failed, cube = Cell("ticket", 0, 0.95, 0), Cube(tmp_path / "results.zarr")
    cube.mark(failed, Status.FAILED)
    grown = SMALL.changed({"grid.arms": "ticket,ticket_child"})
    status = run(grown, local_client, tmp_path).status.load()
    child = {"arm": "ticket_child", "threshold": 0.95, "rewind_epoch": 0}
    assert status.sel(child) == Status.FAILED
    assert int((status == Status.FAILED).sum()) == 2
    assert int((status == Status.DONE).sum()) == 6
    assert len(Folder(tmp_path).runs.attempts(failed)) == 1
    reason = Folder(tmp_path).runs.reason("ticket_child-r0-t0.95-k0")
    assert reason == f"RuntimeError: {failed}, which it starts from, failed"
    results = run(grown, local_client, tmp_path, options=Options(retry_failed=True))
    assert (results.status == Status.DONE).all()


def test_an_adaptive_study_finds_the_frontier_of_the_full_grid(local_client, tmp_path):
    thresholds = [0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99]
    study = SMALL.changed(
        {
            "grid.thresholds": ",".join(map(str, thresholds)),
            "grid.rewind_epochs": "0,1,2",
            "matching_margin": "0.03",
        }
    )
    whole = ran(study, local_client, tmp_path / "whole")
    found = ran(study, local_client, tmp_path / "adaptive", options=Options(adaptive=0.5))
    for k in range(3):
        last = []
        for results in (whole, found):
            at = results.sel(arm="ticket", replicate=0, rewind_epoch=k)
            short = at.dense_validation_accuracy - at.validation_accuracy  # NaN if skipped
            matching = (short <= 3 + 1e-6).values
            last.append(max(np.flatnonzero(matching), default=-1))
        assert abs(last[0] - last[1]) <= 1, f"k={k}"
    done = found.status == Status.DONE
    assert ((found.status == Status.SKIPPED) | done).all()
    assert found.epochs_trained.where(done).sum() <= 0.5 * whole.epochs_trained.sum()
    skipped = json.loads((tmp_path / "adaptive/skipped.json").read_text())
    assert len(skipped) == int((~done).sum())
    assert all("margin" in why or "budget" in why for why in skipped.values())
    assert check(tmp_path / "adaptive") == []


def test_skipped_cells_are_trained_when_the_whole_grid_is_asked_for(local_client, tmp_path):
    run(SMALL, local_client, tmp_path, options=Options(adaptive=0.6))
    first = Cube(tmp_path / "results.zarr").cells()
    assert Status.SKIPPED in first.values()
    results = ran(SMALL, local_client, tmp_path)
    assert (results.status == Status.DONE).all()


def test_masks_only_trains_no_cell_and_leaves_the_distances(local_client, tmp_path):
    study = SMALL.changed({"grid.arms": "reinit"})  # masks are compared whatever arms there are
    results = ran(study, local_client, tmp_path, options=Options(masks_only=True))
    assert set(results.status.values.flat) == {Status.PENDING, Status.NOT_APPLICABLE}
    assert set(started(tmp_path)) == {"dense-r0"}
    found = results.mask_distances.sel(replicate=0)
    assert found.sizes == {"threshold": 2, "mask_epoch": 4, "other_mask_epoch": 4}
    np.testing.assert_array_equal(found, found.transpose("threshold", ...).values.swapaxes(1, 2))
    to_last = found.isel(other_mask_epoch=-1)
    assert (to_last.isel(mask_epoch=0) > to_last.isel(mask_epoch=2)).all()
    assert (to_last.isel(mask_epoch=-1) == 0).all()
    results = run(study, local_client, tmp_path)
    assert set(results.status.values.flat) == {Status.DONE, Status.NOT_APPLICABLE}
    assert started(tmp_path)["dense-r0"] == 1


@pytest.mark.parametrize(
    ("changes", "given", "problem"),
    [
        ({}, {"adaptive": 0}, "`adaptive` is a share"),
        (
            {"pruning.schedule": "iterative", "pruning.rounds": "2"},
            {"adaptive": 0.5},
            "every round",
        ),
        ({"pruning.score": "snip"}, {"masks_only": True}, "none to compare"),
        ({"grid.arms": "reinit"}, {"adaptive": 0.5}, "add the arm ticket"),
    ],
)
def test_what_cannot_be_searched_or_compared_is_refused(
    local_client, tmp_path, changes, given, problem
):
    with pytest.raises(InputError, match=problem):
        run(SMALL.changed(changes), local_client, tmp_path, options=Options(**given))
    assert not (tmp_path / "study.yaml").exists()


def test_a_study_in_cohorts_is_the_study(local_client, tmp_path, every):
    alone, _ = every
    study = EVERY.changed({"engine.cohort": "3"})
    results = ran(study, local_client, tmp_path)
    assert (results.status == alone.status).all()
    assert Folder(tmp_path).manifest().engine.cohort == 3
    np.testing.assert_array_equal(results.counted_density, alone.counted_density)
    np.testing.assert_allclose(results.test_loss, alone.test_loss, rtol=0.01)
    assert (results.test_loss != alone.test_loss).any(), "they were not trained side by side"
    assert float(abs(results.test_accuracy - alone.test_accuracy).max()) <= 1


def test_a_search_skips_no_cell_that_is_done_though_its_final_weights_are_lost(
    local_client, tmp_path
):
    study = SMALL.changed({"grid.thresholds": "0.5,0.8,0.95", "grid.rewind_epochs": "0,1,2"})
    before = ran(study, local_client, tmp_path)
    grown = study.changed({"grid.arms": "ticket,ticket_child"})
    options = Options(adaptive=0.6)  # children need final weights that were not kept
    after = ran(grown, local_client, tmp_path, options=options)
    tickets = after.sel(arm="ticket")
    assert (tickets.status == Status.DONE).all()
    np.testing.assert_array_equal(tickets.test_accuracy, before.test_accuracy.sel(arm="ticket"))
    skipped = json.loads((tmp_path / "skipped.json").read_text())
    assert skipped
    assert all(name.startswith("ticket_child") for name in skipped)


def test_comparing_masks_removes_no_final_weights_that_cells_wait_for(local_client, tmp_path):
    study = SMALL.changed({"grid.arms": "ticket,ticket_child"})

    def stop(event):
        if event.kind == "cell" and event.name.startswith("ticket-"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(study, local_client, tmp_path, watch=stop)
    kept = set(tmp_path.glob("cells/*/final.safetensors"))
    assert kept
    run(study, local_client, tmp_path, options=Options(masks_only=True))
    assert set(tmp_path.glob("cells/*/final.safetensors")) >= kept


def test_a_search_on_a_grown_grid_trains_an_arm_without_a_k_where_it_is_stored(
    local_client, tmp_path
):
    study = SMALL.changed({"grid.rewind_epochs": "1,2", "keep_until": "2"})
    run(study, local_client, tmp_path)
    grown = study.changed({"grid.rewind_epochs": "0,1,2", "grid.arms": "ticket,reinit"})
    results = ran(grown, local_client, tmp_path, options=Options(adaptive=1.0))
    reinit = results.status.sel(arm="reinit", rewind_epoch=1)
    assert (reinit == Status.DONE).all()
    assert (results.status.sel(arm="reinit", rewind_epoch=0) == Status.NOT_APPLICABLE).all()


def test_a_chain_of_more_rounds_than_python_has_frames_is_queued_and_failed(tmp_path):
    rounds = {"pruning.schedule": "iterative", "pruning.rate": "0.005", "pruning.rounds": "1000"}
    study = SMALL.changed(rounds | {"grid.rewind_epochs": "0"})
    cells = study.grid.cells()
    marked = []

    class Marked:
        def mark(self, cell, status):
            marked.append(cell)

    work = Work(study, study.engine.chosen(), Folder(tmp_path))
    sweep = Sweep(
        work,
        Manifest({}, "", study.engine, "", "", {}, steps=6),
        Marked(),
        Remaining(cells, [0], set()),
        None,
    )
    assert sweep.chains.length(cells[:1]) == len(cells) * study.recipe.epochs
    sweep._fail(cells[0], RuntimeError("the first round"))
    assert marked == cells
