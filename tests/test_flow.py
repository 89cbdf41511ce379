"""What a run promises: the cells that a serial loop would give, each trained once.

On a real LocalCluster with two worker processes, and real Zarr on disk.
"""

import dataclasses
import itertools
import json
import os
import shutil
import time
import warnings
from contextlib import nullcontext

import distributed
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lthdask.cluster.client import open_client
from lthdask.cluster.queue import Queue, Task
from lthdask.cluster.workers import Prepare
from lthdask.data.readers import load
from lthdask.driver.disk import checkpoint_bytes, checkpoint_sizes
from lthdask.driver.plan import plan
from lthdask.errors import InputError
from lthdask.events import Event
from lthdask.flow import run
from lthdask.grid import Cell
from lthdask.lottery import drawing, runs
from lthdask.lottery.density import densities
from lthdask.lottery.experiment import Experiment
from lthdask.options import Options
from lthdask.report.summary import cells_with
from lthdask.storage import checkpoints
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.results import study_of
from lthdask.storage.schema import Status
from lthdask.study import Study
from tests.conftest import everything, percent, ran

SMALL = Study.read("digits").changed(
    {
        "name": "small",
        "network.width": "0.25",
        "data.image_size": "16",
        "data.validation": "900",
        "data.augmentation": "crop",
        "recipe.epochs": "3",
        "grid.thresholds": "0.5,0.95",
        "grid.rewind_epochs": "0,2",
        "grid.replicates": "2",
        "keep_until": "2",
        "engine.matmul": "default",  # not what a busy machine measures
        "engine.evaluation": "plain",
    }
)
RESULTS = (
    "status",
    "test_accuracy",
    "validation_accuracy",
    "test_loss",
    "validation_loss",
    "counted_density",
    "parameters_left",
    "epochs_trained",
    "train_loss_curve",
    "validation_loss_curve",
    "test_accuracy_curve",
    "layer_density",
    "layer_dead_channels",
    "layer_cutoff",
    "dense_train_loss_curve",
    "dense_test_accuracy_curve",
)
TINY = SMALL.changed(
    {
        "name": "tiny",
        "network.name": "lenet_300_100",
        "network.width": "1.0",
        "data.image_size": "8",
        "grid.replicates": "1",
    }
)


@pytest.fixture(scope="session")
def small(local_client, tmp_path_factory):
    """A small study, run on two workers, and the events it told."""
    events = []
    folder = tmp_path_factory.mktemp("runs") / "small"
    return ran(SMALL, local_client, folder, watch=events.append), folder, events


def attempts(folder):
    """The event log: one file per attempt at a cell."""
    return sorted(f"{p.parent.name}/{p.name}" for p in folder.glob("cells/ticket-*/attempt-*.json"))


def test_the_grid_on_two_workers_equals_plain_serial_loops(small):
    results, _, _ = small
    data = load(SMALL.data)
    engine = SMALL.engine.chosen()
    experiment = Experiment(SMALL.network, data, SMALL.recipe, SMALL.pruning, SMALL.seed, engine)
    for replicate in range(2):
        dense, metrics = zip(*runs.train_dense(experiment, replicate), strict=True)
        at = results.sel(replicate=replicate)
        assert at.dense_test_accuracy_curve.values.tolist() == [
            percent(m.test_accuracy) for m in metrics[1:]
        ]
        for threshold in SMALL.grid.thresholds:
            for k in SMALL.grid.rewind_epochs:
                ticket = drawing.ticket(experiment, dense[-1], dense[k], threshold)
                trained, measured = zip(
                    *runs.train_ticket(experiment, replicate, ticket), strict=True
                )
                cell = at.sel(arm="ticket", threshold=threshold, rewind_epoch=k)
                assert cell.test_loss == measured[-1].test_loss
                assert cell.test_accuracy == percent(measured[-1].test_accuracy)
                curve = cell.train_loss_curve.values
                assert curve[k:].tolist() == [m.train_loss for m in measured]
                assert np.isnan(curve[:k]).all()
                left, layers = densities(experiment, trained[-1])
                assert cell.counted_density == left["density"]
                assert left["density"] == pytest.approx(1 - threshold, abs=1e-4)
                assert cell.density == pytest.approx(1 - threshold, abs=1e-4)
                assert cell.parameters_left == left["parameters_left"]
                for name in ("density", "dead_channels"):
                    found = cell[f"layer_{name}"].values.tolist()
                    assert found == [layer[name] for layer in layers.values()]
                assert cell.epochs_trained == 3 - k


def test_the_metrics_of_a_cell_are_those_of_its_last_epoch(small):
    results, _, _ = small
    for name in ("test_accuracy", "validation_accuracy", "validation_loss"):
        last = results[f"{name}_curve"].isel(epoch=-1)
        np.testing.assert_array_equal(results[name].values, last.values)
        assert np.isfinite(last).all()
    for name in ("dense_test_accuracy", "dense_validation_accuracy"):
        last = results[f"{name}_curve"].isel(epoch=-1)
        np.testing.assert_array_equal(results[name].values, last.values)


def test_the_cutoff_of_a_cell_is_the_lowest_score_that_survives(small):
    results, folder, _ = small
    manifest = json.loads((folder / "manifest.json").read_text())
    for replicate in range(2):
        path = checkpoints.path_of(folder, replicate, 3)
        weights = checkpoints.load(path, manifest["checkpoints"][str(replicate)]["3"]).weights
        scores = []
        for layer in results.layer.values:
            squares = np.sort(weights[layer].double().numpy().ravel() ** 2)
            # LAMP: a weight's square over the sum of those at least as large, in its layer.
            scores.append(squares / np.cumsum(squares[::-1])[::-1])
        ranked = np.sort(np.concatenate(scores))
        for threshold in SMALL.grid.thresholds:
            expected = ranked[int(threshold * len(ranked))]  # as many are pruned
            cutoffs = results.layer_cutoff.sel(replicate=replicate, threshold=threshold)
            np.testing.assert_allclose(cutoffs.values, expected, rtol=1e-9)


def test_every_cell_is_done_once_and_says_where(small):
    results, folder, _ = small
    assert (results.status == 1).all()
    assert len(attempts(folder)) == 8
    assert (results.attempts == 1).all()
    assert (results.seconds > 0).all()
    assert (results.ended >= results.started).all()
    assert all(str(place).endswith(" cpu") for place in results.place.values.ravel())


def test_the_folder_says_what_the_study_was_and_how_it_was_computed(small):
    results, folder, _ = small
    assert Study.parse((folder / "study.yaml").read_text()) == SMALL
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["engine"] == dataclasses.asdict(SMALL.engine.chosen())
    assert manifest["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert study_of(results) == SMALL.to_dict()
    assert yaml.safe_load(results.attrs["versions"]) == manifest["versions"]
    validation = load(SMALL.data).validation.labels.tolist()
    most = max(validation.count(label) for label in validation)
    assert results.attrs["majority"] == manifest["majority"] == most / 900
    for replicate in ("0", "1"):
        digests = manifest["checkpoints"][replicate]
        assert list(digests) == ["0", "1", "2", "3"]
        states = [
            checkpoints.load(checkpoints.path_of(folder, int(replicate), int(e)), d)
            for e, d in digests.items()
        ]
        assert [bool(state.buffers) for state in states] == [False, True, True, True]


def test_the_events_tell_every_epoch_and_every_end(small):
    _, _, events = small
    kinds = [event.kind for event in events]
    assert kinds.count("plan") == 1
    planned = next(event for event in events if event.kind == "plan")
    assert (planned.cells, planned.epochs) == (8, 2 * 3 + 2 * 2 * (3 + 1))
    assert (kinds.count("dense"), kinds.count("cell")) == (2, 8)
    assert {event.status for event in events if event.kind == "cell"} == {"done"}
    assert sum(event.epochs for event in events if event.kind == "epoch") == planned.epochs


def test_states_are_complete_as_far_as_they_are_kept_and_at_the_end(local_client, tmp_path):
    study = TINY.changed({"recipe.epochs": "5", "grid.rewind_epochs": "0,1", "keep_until": "2"})
    run(study, local_client, tmp_path)
    digests = json.loads((tmp_path / "manifest.json").read_text())["checkpoints"]["0"]
    states = [
        checkpoints.load(checkpoints.path_of(tmp_path, 0, int(epoch)), digest)
        for epoch, digest in digests.items()
    ]
    assert [bool(state.buffers) for state in states] == [False, True, True, False, False, True]


def test_fresh_buffers_change_the_tickets_that_had_some(local_client, tmp_path):
    kept = ran(TINY, local_client, tmp_path / "kept")
    fresh = ran(TINY.changed({"fresh_buffers": "true"}), local_client, tmp_path / "fresh")
    same = kept.test_loss == fresh.test_loss
    assert same.sel(rewind_epoch=0).all()
    assert not same.sel(rewind_epoch=2).any()


def test_no_state_of_a_done_cell_stays_behind_one_that_died_before_it_removed_it(
    local_client, tmp_path
):
    run(TINY, local_client, tmp_path)
    cube = Cube(tmp_path / "results.zarr")
    done, again = list(cube.cells())[:2]
    left, kept = (
        Folder(tmp_path).runs.of(name) / "state-0.safetensors" for name in (done, "dense-r7")
    )
    kept.parent.mkdir()
    for state in (left, kept):
        state.write_bytes(b"")
    cube.mark(again, Status.PENDING)
    run(TINY, local_client, tmp_path)
    assert not left.exists()
    assert kept.exists()


def test_the_longest_tasks_are_submitted_first(local_client):
    queue = Queue(local_client)
    for length in (1, 7, 3, 9, 5):
        queue.add(Task(f"task-{length}", _plus, (length, 1), length=length))
    submitted = queue._submit_next(0)
    assert [task.length for task, _ in submitted] == [9, 7, 5, 3, 1]


def test_a_queue_begins_afresh_whatever_became_of_the_one_before(local_client):
    """Also while what was raised is held, as a notebook holds it, with all futures in it."""
    outcomes = []

    def refuse(outcome):
        raise outcome

    before = Queue(local_client)
    for length in (3, 2, 1):
        before.add(Task("task", _fail, ("full",), length=length, then=refuse))
    with pytest.raises(ValueError, match="full") as held:
        before.run()
    after = Queue(local_client)
    after.add(Task("task", _plus, (1, 1), then=outcomes.append))
    after.run()
    assert outcomes == [2]
    assert held


def test_a_task_that_failed_is_tried_again_once_its_only_worker_is_replaced(tmp_path):
    """Dask would keep it for the process that is gone."""
    pids = []

    def again(outcome):
        pids.append(outcome)
        if isinstance(outcome, Exception):
            queue.add(task)

    with open_client(1, deployment="local", say=lambda line: None) as client:
        queue, task = Queue(client), Task("task", _fail_once, (tmp_path / "failed",), then=again)
        queue.add(task)
        queue.run()
    assert str(pids[0]) == (tmp_path / "failed").read_text()
    assert pids[1] != int(str(pids[0]))


def test_no_task_waits_behind_another_on_a_busy_worker(local_client):
    """Also where there are only few: Dask would give each of the two workers two at once."""
    local_client.wait_for_workers(2)  # one may be started anew after a task that failed
    places = _places_of_four(local_client)
    running = [key.split("-")[1] for key, place in places.items() if place != "queued"]
    assert sorted(running) == ["7", "9"]
    assert len(set(places.values())) == 3


def test_a_worker_alone_holds_the_next_tasks_already():
    """There is no other to keep them for, and each would wait 5 ms for the scheduler."""
    with open_client(1, deployment="local", say=lambda line: None) as client:
        (place,) = set(_places_of_four(client).values())
    assert place != "queued"


def test_what_the_file_says_of_a_worker_s_tasks_counts_for_one_alone_too(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text("distributed: {scheduler: {worker-saturation: 1.5}}")
    with open_client(1, cluster=path, deployment="local", say=lambda line: None) as client:
        places = list(_places_of_four(client).values())
    assert places.count("queued") == 2  # of four, 1.5 rounded up are on the worker


def _places_of_four(client):
    """Where each of four tasks is that none of them leaves: a worker, or the scheduler."""
    queue, gate = Queue(client), distributed.Event("gate", client=client)
    gate.clear()
    for length in (1, 7, 3, 9):
        queue.add(Task(f"task-{length}", _pass, (length,), length=length))
    try:
        futures = {future.key: future for _, future in queue._submit_next(0)}
        places = {}
        while places.keys() != futures.keys() or "waiting" in places.values():
            places = client.run_on_scheduler(_places, keys=list(futures))
        return places
    finally:
        gate.set()


def _places(keys, dask_scheduler):
    """Where each task that the scheduler knows is: the worker's address, or its state."""
    tasks = {key: dask_scheduler.tasks[key] for key in keys if key in dask_scheduler.tasks}
    return {
        key: task.processing_on.address if task.processing_on else task.state
        for key, task in tasks.items()
    }


def _fail_once(marker, here):
    if marker.exists():
        return os.getpid()
    marker.write_text(str(os.getpid()))
    raise RuntimeError(os.getpid())


def _pass(length, here):
    distributed.Event("gate").wait()


def test_a_shared_value_is_read_and_sent_once_for_all_its_tasks(local_client):
    queue, reads, landed = Queue(local_client), [], []
    queue.share("value", lambda: reads.append(1) or 40)
    queue.share("of no task", lambda: reads.append(2))
    for number in range(20):
        queue.add(Task(f"plus-{number}", _plus, (number,), ("value",), then=landed.append))
    queue.run()
    assert sorted(landed) == [40 + number for number in range(20)]
    assert reads == [1]


def test_long_tasks_begin_while_values_that_only_shorter_ones_need_are_not_sent(local_client):
    """More tasks than are submitted at once; the last value waits for the first task to begin."""
    queue, landed, begun = Queue(local_client), [], distributed.Event("begun", local_client)
    queue.share("long", lambda: 40)
    queue.share("short", lambda: begun.wait(timeout=30) and 20)
    for number in range(10):
        queue.add(Task(f"long-{number}", _plus_and_say, (0,), ("long",), 2, landed.append))
    queue.add(Task("short", _plus, (0,), ("short",), 1, landed.append))
    queue.run()
    assert sorted(landed) == [20] + [40] * 10


def _plus_and_say(number, here, value):
    distributed.Event("begun").set()
    return number + value


def test_a_second_run_trains_nothing(small, local_client):
    results, folder, _ = small
    before = attempts(folder)
    events = []
    again = ran(SMALL, local_client, folder, watch=events.append)
    assert attempts(folder) == before
    assert [event.kind for event in events] == ["plan"]
    for name in RESULTS:
        np.testing.assert_array_equal(again[name].values, results[name].values)


def test_a_study_that_grows_keeps_what_is_done(local_client, tmp_path):
    run(TINY, local_client, tmp_path)
    first = attempts(tmp_path)
    grown = TINY.changed({"grid.thresholds": "0.5,0.8,0.95", "grid.rewind_epochs": "0,1,2"})
    results = ran(grown, local_client, tmp_path)
    assert (results.status == 1).all()
    assert set(first) < set(attempts(tmp_path))
    assert len(attempts(tmp_path)) == 9
    alone = ran(grown, local_client, tmp_path / "alone")
    for name in RESULTS:
        np.testing.assert_array_equal(results[name].values, alone[name].values)


def test_another_study_in_the_same_folder_is_refused_with_the_difference(small, local_client):
    _, folder, _ = small
    with pytest.raises(InputError, match=r"another study.*batch_size: 64 in the folder, 32 given"):
        run(SMALL.changed({"recipe.batch_size": "32"}), local_client, folder)
    with pytest.raises(InputError, match=r"engine.threads 1, but 2 is asked for"):
        run(SMALL.changed({"engine.threads": "2"}), local_client, folder)


@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_a_damaged_checkpoint_is_computed_again(local_client, tmp_path, damage):
    run(TINY, local_client, tmp_path)
    grown = TINY.changed({"grid.thresholds": "0.5,0.8,0.95"})
    path = checkpoints.path_of(tmp_path, 0, 2)
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    results = run(grown, local_client, tmp_path)
    assert (results.status == 1).all()
    assert path.read_bytes() == whole


@pytest.mark.parametrize(("epoch", "failed"), [(2, [(0.5, 2), (0.95, 2)]), (3, None)])
def test_a_checkpoint_that_the_driver_cannot_read_fails_just_the_cells_that_need_it(
    local_client, tmp_path, epoch, failed
):
    """The masks come from epoch 3, so all of them need that."""
    path = checkpoints.path_of(tmp_path, 0, epoch)

    def damage(event):
        if event.kind == "dense":  # it has just been trained; no cell is queued yet
            path.write_bytes(path.read_bytes()[:-1])

    results = run(TINY, local_client, tmp_path, watch=damage)
    left = [(c["threshold"], c["rewind_epoch"]) for c in cells_with(results, "failed")]
    assert left == (failed or [(0.5, 0), (0.5, 2), (0.95, 0), (0.95, 2)])
    (reason,) = Folder(tmp_path).runs.reasons(Cell(**at) for at in cells_with(results, "failed"))
    assert f"the checkpoint {path} is damaged" in reason
    results = run(TINY, local_client, tmp_path, options=Options(retry_failed=True))
    assert (results.status == Status.DONE).all()


def test_checkpoints_that_the_workers_lost_are_sent_again(local_client):
    queue, seen, keys = Queue(local_client), [], set()

    def lose(outcome):
        keys.add(queue._shared["value"].key)
        queue._shared["value"].cancel()
        queue.add(Task("second", _plus, (2,), ("value",), then=seen.append))

    queue.share("value", lambda: 40)
    queue.add(Task("first", _plus, (1,), ("value",), then=lambda o: (seen.append(o), lose(o))))
    queue.run()
    assert seen == [41, 42]
    assert queue._shared["value"].key not in keys


def test_studies_that_share_a_scheduler_share_no_key(local_client):
    queues, landed = [Queue(local_client), Queue(local_client)], []
    for queue, value in zip(queues, (40, 50), strict=True):
        queue.share("checkpoint-r0-k1", lambda value=value: value)
        queue.add(Task("cell", _plus, (2,), ("checkpoint-r0-k1",), then=landed.append))
        queue.run()
    assert landed == [42, 52]


def test_a_shared_value_that_cannot_be_read_is_what_comes_of_the_tasks_that_need_it(local_client):
    def load():
        raise InputError("the checkpoint is damaged")

    queue, landed = Queue(local_client), []
    queue.share("damaged", load)
    queue.share("value", lambda: 40)
    queue.add(Task("needs-it", _plus, (1,), ("value", "damaged"), 2, landed.append))
    queue.add(Task("does-not", _plus, (2,), ("value",), 1, landed.append))
    queue.run()
    assert [str(outcome) for outcome in landed] == ["the checkpoint is damaged", "42"]
    queue.add(Task("alone", _plus, (1,), ("damaged",), 2, landed.append))
    queue.run()
    assert [str(outcome) for outcome in landed[2:]] == ["the checkpoint is damaged"]


def test_what_python_warns_of_on_a_worker_is_told_once(local_client):
    """Also where a worker is prepared again, by the next client."""
    told = []
    local_client.register_plugin(Prepare())
    queue = Queue(local_client, told.append)
    queue.add(Task("warns", _warn, ("without CUDA graphs",)))
    queue.run()
    assert [(event.kind, event.status) for event in told] == [("warning", "without CUDA graphs")]


def _warn(sentence, here):
    warnings.warn(sentence, stacklevel=1)


def _fail(reason, here):
    raise ValueError(reason)


def _plus(number, *others):
    (value,) = (other for other in others if isinstance(other, int))  # beside a `TaskContext`
    return number + value


def test_the_driver_never_holds_more_than_a_window_of_tasks(local_client):
    queue, most = Queue(local_client), 0

    def count(outcome):
        nonlocal most
        most = max(most, len([k for k in local_client.futures if str(k).startswith("plus")]))

    for number in range(60):
        queue.add(Task(f"plus-{number}", _plus, (number, 1), then=count))
    queue.run()
    assert most <= 4 * 8  # as for 8 workers


def test_a_cell_that_raises_is_failed_with_its_traceback_and_blocks_no_other(
    local_client, tmp_path
):
    run(TINY.changed({"grid.thresholds": "0.5"}), local_client, tmp_path)
    # A folder of the cell's name that is a file: the worker cannot record its attempt.
    (tmp_path / "cells" / "ticket-r0-t0.95-k0").write_text("in the way")
    once = Options(max_attempts=1)
    # Nor can the driver keep a traceback there.
    results = run(TINY, local_client, tmp_path, options=once)
    assert results.status.sel(threshold=0.95, rewind_epoch=0) == 2
    assert (results.status == 1).sum() == 3
    (tmp_path / "cells" / "ticket-r0-t0.95-k0").unlink()
    Cube(tmp_path / "results.zarr").mark(Cell("ticket", 0, 0.95, 0), Status.PENDING)
    attempt = tmp_path / "cells" / "ticket-r0-t0.95-k0"
    attempt.mkdir()
    array = tmp_path / "results.zarr" / "curves" / "c" / "0" / "0" / "1" / "0"
    array.parent.mkdir(parents=True, exist_ok=True)
    array.write_text("in the way")
    results = ran(TINY, local_client, tmp_path, options=once)
    cell = results.sel(threshold=0.95, rewind_epoch=0)
    assert cell.status == 2
    assert (results.status == 1).sum() == 3
    assert "Traceback" in (attempt / "traceback.txt").read_text()
    # It stays failed until it is asked for again.
    assert (run(TINY, local_client, tmp_path).status == 2).sum() == 1
    array.unlink()
    assert (run(TINY, local_client, tmp_path, options=Options(retry_failed=True)).status == 1).all()


def test_a_cell_whose_loss_is_not_finite_is_diverged_and_blocks_no_other(local_client, tmp_path):
    run(TINY, local_client, tmp_path / "sound")
    # Checkpoint 2 gets an infinite weight: only the cells rewound to it diverge.
    folder = tmp_path / "sound"
    path = checkpoints.path_of(folder, 0, 2)
    manifest = Folder(folder).manifest()
    state = checkpoints.load(path, manifest.checkpoints[0][2])
    state.weights["5.bias"][:] = float("inf")
    digests = {**manifest.checkpoints[0], 2: checkpoints.save(path, state)}
    Folder(folder).write_manifest(manifest.with_dense_run(0, digests))
    grown = TINY.changed({"grid.thresholds": "0.5,0.8,0.95"})
    results = ran(grown, local_client, folder).sel(threshold=0.8)
    assert results.status.sel(rewind_epoch=0) == 1
    assert results.status.sel(rewind_epoch=2) == 3
    assert np.isnan(results.test_accuracy.sel(rewind_epoch=2)).all()
    assert results.epochs_trained.sel(rewind_epoch=2) == 0


def test_a_dense_run_that_diverges_fails_the_cells_of_its_replicate_with_that_reason(
    local_client, tmp_path
):
    study = TINY.changed({"recipe.optimizer.rate": "1e30"})
    results = run(study, local_client, tmp_path)
    assert (results.status == 2).all()
    reason = (tmp_path / "cells" / "ticket-r0-t0.5-k0" / "traceback.txt").read_text()
    assert "Diverged: the loss is" in reason
    assert attempts(tmp_path) == []
    # Nor is it trained again, until its cells are asked for again.
    run(study, local_client, tmp_path)
    assert plan(study, tmp_path, here=False).dense_runs == 0
    assert len(Folder(tmp_path).runs.attempts("dense-r0")) == 1


def test_an_image_that_cannot_be_decoded_is_told_as_the_reason_of_all_that_need_it(
    local_client, tmp_path
):
    for part, label, number in itertools.product(("train", "val"), "ab", range(80)):
        (tmp_path / part / label).mkdir(parents=True, exist_ok=True)
        pixels = np.full((8, 8, 3), number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / part / label / f"{number:02}.png")
    broken = tmp_path / "train/a/01.png"  # only every other one is looked at ahead
    broken.write_bytes(b"no image")
    data = {"data.name": "folder", "data.validation": "20", "data.augmentation": ""}
    study = TINY.changed(data | {"recipe.batch_size": "70"})  # two of 140, so that all are needed
    results = run(study, local_client, tmp_path / "run", data=tmp_path)
    assert (results.status == Status.FAILED).all()
    why = Folder(tmp_path / "run").runs.reasons(Cell(**c) for c in cells_with(results, "failed"))
    assert list(why) == [
        f"the image {broken} cannot be decoded (cannot identify image file); replace it, or take "
        f"it out of the data folder"
    ]
    # It was tried in several places.
    attempts = Folder(tmp_path / "run").runs.attempts("dense-r0")
    assert {attempt["worker"] for attempt in attempts} == {"worker 0", "worker 1"}


def test_a_dense_run_that_was_lost_is_trained_again_where_no_cell_is_pending(
    local_client, tmp_path
):
    run(TINY, local_client, tmp_path)
    whole, cells = Folder(tmp_path).manifest(), attempts(tmp_path)
    Folder(tmp_path).write_manifest(whole.without_dense_run(0))
    found = plan(TINY, tmp_path)
    assert (len(found.cells), found.dense_runs, found.epochs) == (0, 1, 3)
    events = []
    run(TINY, local_client, tmp_path, watch=events.append)
    status = events[0].status
    assert events[0] == Event("plan", status=status, cells=0, epochs=3)
    assert Folder(tmp_path).manifest() == whole
    assert attempts(tmp_path) == cells


def test_results_that_were_deleted_are_computed_again_and_are_the_same(local_client, tmp_path):
    whole, manifest = ran(TINY, local_client, tmp_path), Folder(tmp_path).manifest()
    shutil.rmtree(tmp_path / "results.zarr")
    again = ran(TINY, local_client, tmp_path)
    for name in RESULTS:
        np.testing.assert_array_equal(again[name].values, whole[name].values, err_msg=name)
    assert Folder(tmp_path).manifest() == manifest


@pytest.mark.parametrize(
    ("changes", "arguments", "problem"),
    [
        ({"engine.device": "cuda"}, {}, "no CUDA device on .*set `device` to cpu"),
        ({"recipe.batch_size": "1000"}, {}, "batch_size is 1000, but there are only 397"),
        (
            {"recipe.measure_every": 1, "recipe.epochs": 100_000, "recipe.batch_size": 16},
            {},
            "measure_every 1 makes 2,400,000 measurements of each run, and 1,000,000",
        ),
        ({"data.name": "mnist"}, {}, "give its folder with `data`"),
        ({"data.name": "mnist"}, {"data": "nowhere"}, "nowhere does not exist"),
    ],
)
def test_what_a_worker_cannot_use_is_refused_before_anything_is_trained(
    local_client, tmp_path, changes, arguments, problem
):
    if changes.get("engine.device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match=problem):
        run(TINY.changed(changes), local_client, tmp_path / "run", **arguments)
    assert [p for p in (tmp_path / "run").iterdir() if p.name[0] != "."] == []
    # ... and the corrected study can have the folder.
    assert run(TINY, local_client, tmp_path / "run").attrs["study"].startswith("name: tiny")


def test_a_worker_that_does_not_see_the_folder_says_so(local_client, tmp_path, monkeypatch):
    from lthdask.storage.folder import Folder

    monkeypatch.setattr(Folder, "probe", lambda self: nullcontext(".probe-elsewhere"))
    with pytest.raises(InputError, match="does not see the folder .* shared file system"):
        run(TINY, local_client, tmp_path)


def test_the_plan_says_what_a_run_then_does(small, tmp_path):
    _, folder, _ = small
    fresh = plan(SMALL, tmp_path / "new")
    assert (len(fresh.cells), fresh.done, fresh.dense_runs, fresh.epochs) == (8, 0, 2, 22)
    assert fresh.on(2).seconds == 11 * fresh.seconds_per_epoch > 0
    assert not (tmp_path / "new").exists()
    written = sum(f.stat().st_size for f in (folder / "checkpoints").rglob("*") if f.is_file())
    assert 2 * checkpoint_bytes(SMALL, checkpoint_sizes(SMALL)) == pytest.approx(written, rel=0.1)
    tops = [*folder.glob("cells/ticket-*"), *folder.glob("results.zarr/*/c/0/?/?/?")]
    in_cells = sum(1 + len([*top.rglob("*")]) for top in tops)  # files and folders, of a block
    assert fresh.disk == 2 * checkpoint_bytes(SMALL, checkpoint_sizes(SMALL)) + 4096 * in_cells
    later = plan(SMALL, folder)
    assert (len(later.cells), later.done, later.epochs, later.disk) == (0, 8, 0, 0)
    assert later.source == "8 earlier cells"
    spent = everything(folder)
    assert later.seconds_per_epoch == pytest.approx(
        float((spent.seconds / spent.epochs_trained).median())
    )


def test_a_plan_without_the_device_here_leaves_the_time_out(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    found = plan(TINY.changed({"engine.device": "cuda"}), tmp_path / "new")
    assert found.on(2).seconds is None


def test_a_plan_says_why_the_time_is_not_known(tmp_path):
    out = tmp_path / "new"
    diverges = plan(TINY.changed({"recipe.optimizer.rate": "1e30"}), out)
    assert diverges.source.startswith("the loss is ")
    elsewhere = plan(TINY, out, here=False)
    assert elsewhere.source == "cells would train on other machines, and none is done yet"
    assert [p.on(2).seconds for p in (diverges, elsewhere)] == [None, None]


@pytest.mark.parametrize("here", [True, False])
def test_a_plan_refuses_data_that_a_run_refuses_where_they_can_be_read_from_here(tmp_path, here):
    mnist, data = TINY.changed({"data.name": "mnist"}), tmp_path / "data"
    if here:
        with pytest.raises(InputError, match="the data set 'mnist' is read from disk; give its"):
            plan(mnist, tmp_path / "new")
        with pytest.raises(InputError, match="the data folder .* does not exist"):
            plan(mnist, tmp_path / "new", data)
        fetched = plan(mnist, tmp_path / "new", data, Options(download=True))
        assert fetched.source == "the data are not there yet"
    else:  # a worker may see what this machine does not
        assert plan(mnist, tmp_path / "new", data, here=False).seconds_per_epoch is None
    data.mkdir()
    with pytest.raises(InputError, match="no usable MNIST in .* there is no train-images"):
        plan(mnist, tmp_path / "new", data, here=here)
    small = TINY.changed({"recipe.batch_size": "1500"})
    with pytest.raises(InputError, match="batch_size is 1500, but there are only .* training"):
        plan(small, tmp_path / "new", here=here)
    assert not (tmp_path / "new").exists()


def test_earlier_cells_tell_the_time_of_a_plan_wherever_it_is_carried_out(small):
    _, folder, _ = small
    assert plan(SMALL, folder, here=False).source == "8 earlier cells"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("validation", "batch"),
    [("1200", "64"), ("300", "900")],  # most of an epoch is evaluation, or its one step
)
def test_a_plan_counts_the_evaluation_and_an_epoch_of_one_step(tmp_path, validation, batch):
    changes = {"data.validation": validation, "recipe.batch_size": batch, "data.image_size": "32"}
    study = SMALL.changed(changes)
    data, engine = load(study.data), study.engine.chosen()
    assert data.steps(study.recipe.batch_size) == 1
    experiment = Experiment(study.network, data, study.recipe, study.pruning, study.seed, engine)
    clock = [time.perf_counter() for _ in runs.train_dense(experiment, 0)]
    estimate = plan(study, tmp_path / "new").seconds_per_epoch
    assert estimate > min(np.diff(clock)) / 2
