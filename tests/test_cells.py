"""What training cells side by side promises: each cell ends as it would alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lthdask.cluster.sick_places import SickPlaces
from lthdask.driver.remaining import Remaining
from lthdask.driver.sweep import Sweep
from lthdask.errors import ExhaustedError
from lthdask.events import Stopped
from lthdask.grid import Cell
from lthdask.lottery import drawing, runs
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.manifest import Manifest
from lthdask.storage.schema import Status
from lthdask.worker.cells import train_cells
from lthdask.worker.resuming import ResumableRun
from lthdask.worker.tasks import train_dense
from lthdask.worker.work import Work
from tests.conftest import everything
from tests.test_flow import RESULTS
from tests.test_tasks import STUDY, dense, fresh, here

KNOWN = Manifest({}, "", STUDY.engine.chosen(), "", "", {}, steps=6)
COHORT = [Cell("ticket", 0, threshold, 0) for threshold in (0.5, 0.9)]


def trained(folder, **changes):
    """A folder with nothing but a dense run, and what its cells need."""
    work = fresh(folder)
    work = replace(work, options=replace(work.options, **changes))
    digests = train_dense(work, 0, here())
    return work, dense(work, COHORT[0], digests)


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """Two cells that were trained side by side."""
    work, needed = trained(tmp_path_factory.mktemp("beside") / "run")
    assert train_cells(work, COHORT, here(), *needed) == ["done", "done"]
    return everything(work.folder.path)


def assert_equal(work, expected, cells=COHORT):
    results = everything(work.folder.path)
    for name in RESULTS:
        for cell in cells if "threshold" in results[name].dims else [None]:
            at = vars(cell) if cell else {}
            found, wanted = results[name].sel(at), expected[name].sel(at)
            np.testing.assert_array_equal(found.values, wanted.values)


def test_cells_side_by_side_end_as_each_alone_within_rounding(tmp_path, beside):
    work, needed = trained(tmp_path / "run")
    for cell in COHORT:
        assert train_cells(work, [cell], here(), *needed) == ["done"]
    alone = everything(work.folder.path)
    for name in RESULTS:
        np.testing.assert_allclose(beside[name].values, alone[name].values, rtol=1e-3, atol=1e-3)
    assert_equal(work, beside.assign(test_loss=alone.test_loss), cells=[])  # the dense run


def test_a_cohort_that_is_stopped_at_every_step_ends_in_the_same_bits(tmp_path, beside):
    work, needed = trained(tmp_path / "run", checkpoint_interval=1000)
    for attempts in range(100):
        looks = iter([False] * len(COHORT))  # as each begins; then it has to go
        try:
            train_cells(work, COHORT, here(lambda looks=looks: next(looks, True)), *needed)
            break
        except Stopped:
            continue
    assert attempts >= 15  # 3 epochs of 6 steps, less the last one
    assert_equal(work, beside)
    assert not list(work.folder.path.glob("cells/ticket-*/state-*"))


def test_cells_that_go_on_from_different_states_are_not_trained_side_by_side(tmp_path, beside):
    work, needed = trained(tmp_path / "run")
    looks = iter([False] * 5)
    with pytest.raises(Stopped):
        train_cells(work, COHORT[:1], here(lambda: next(looks, True)), *needed)
    assert train_cells(work, COHORT, here(), *needed) == ["done", "done"]
    assert [len(work.folder.runs.attempts(cell)) for cell in COHORT] == [2, 1]
    second = work.folder.runs.attempts(COHORT[0])[1]
    assert (second["epoch"], second["step"]) > (0, 0)


def test_a_cell_that_diverges_disturbs_no_other(tmp_path, beside, monkeypatch):
    work, needed = trained(tmp_path / "run")
    draw = drawing.draw

    def poisoned(experiment, cell, *rest):
        drawn = draw(experiment, cell, *rest)
        if cell == COHORT[1]:
            weights = drawn.origin.weights
            weights = weights | {"5.bias": torch.full_like(weights["5.bias"], float("nan"))}
            return replace(drawn, origin=replace(drawn.origin, weights=weights))
        return drawn

    monkeypatch.setattr(drawing, "draw", poisoned)
    assert train_cells(work, COHORT, here(), *needed) == ["done", "diverged"]
    assert_equal(work, beside, COHORT[:1])
    results = everything(work.folder.path)
    assert int(results.epochs_trained.sel(vars(COHORT[1]))) == 0
    density = float(results.counted_density.sel(vars(COHORT[1])))
    assert density == pytest.approx(1 - COHORT[1].threshold, abs=1e-3)


def test_a_weight_that_is_no_number_is_a_divergence_whatever_the_loss(tmp_path, monkeypatch):
    """ReLU hides a bias of −∞: its unit is 0, and has no gradient."""
    work, needed = trained(tmp_path / "run")
    alone = {"recipe.optimizer.decay_norm_and_bias": "false"}  # −∞ − rate · decay · −∞ is NaN
    work = replace(work, study=work.study.changed(alone))
    draw = drawing.draw

    def poisoned(*given):
        drawn = draw(*given)
        drawn.origin.weights["1.bias"][0] = -torch.inf
        return drawn

    monkeypatch.setattr(drawing, "draw", poisoned)
    assert train_cells(work, COHORT[:1], here(), *needed) == ["diverged"]
    results = everything(work.folder.path).sel(vars(COHORT[0]))
    assert int(results.epochs_trained) == STUDY.recipe.epochs
    assert np.isfinite(results.train_loss_curve).all()
    assert np.isnan(results.test_accuracy)


def test_cells_that_do_not_fit_together_are_trained_in_smaller_cohorts(tmp_path, monkeypatch):
    work, needed = trained(tmp_path / "run")
    train_cohort, tried, events = runs.train_cohort, [], []

    def on_a_small_device(network, data, recipe, starts, *rest, **more):
        tried.append(len(starts))
        if len(starts) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train_cohort(network, data, recipe, starts, *rest, **more)

    monkeypatch.setattr(runs, "train_cohort", on_a_small_device)
    assert train_cells(work, COHORT, here(events=events), *needed) == ["done", "done"]
    assert tried == [2]
    (warning,) = [event.status for event in events if event.kind == "warning"]
    assert warning.startswith("2 cells cannot be trained side by side; trying fewer: CUDA out")
    assert [len(work.folder.runs.attempts(cell)) for cell in COHORT] == [1, 1]


def test_a_cell_that_raises_beside_others_is_alone_in_it(tmp_path, beside):
    work, needed = trained(tmp_path / "run")
    in_the_way = work.folder.cube / "curves/c/0/0/1/0"  # of the second threshold
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("no directory")
    done, problem = train_cells(work, COHORT, here(), *needed)
    assert done == "done"
    assert isinstance(problem, NotADirectoryError)
    assert_equal(work, beside, COHORT[:1])
    assert Cube(work.folder.cube).status(COHORT[1]) is Status.PENDING


def test_cells_that_were_killed_together_may_each_be_tried_alone(tmp_path):
    work, needed = trained(tmp_path / "run", max_attempts=2)
    killed = here(lambda: False)
    for _ in range(2):
        for cell in COHORT:
            ResumableRun(work, cell, killed).begin(beside=2)
    together = train_cells(work, COHORT, here(), *needed)
    assert all(isinstance(problem, ExhaustedError) for problem in together)
    assert [train_cells(work, [cell], here(), *needed) for cell in COHORT] == [["done"]] * 2


class Written:
    """Where a queue stands: it keeps what is added."""

    def __init__(self, workers):
        self.tasks, self.count, self.places = [], workers, SickPlaces(None)

    def workers(self):
        return self.count

    def add(self, task):
        self.tasks.append(task)


@pytest.mark.parametrize(("workers", "sizes"), [(1, [2, 2]), (2, [2, 2]), (4, [1, 1, 1, 1])])
def test_a_cohort_never_leaves_a_worker_idle(tmp_path, workers, sizes):
    cells = STUDY.changed({"grid.thresholds": "0.5,0.9", "grid.rewind_epochs": "0,2"}).grid.cells()
    engine = replace(STUDY.engine.chosen(), cohort=8)
    queue = Written(workers)
    sweep = Sweep(
        Work(STUDY, engine, Folder(tmp_path)), KNOWN, None, Remaining(cells, [0], set()), queue
    )
    sweep.queue_cells(cells)
    assert [len(task.arguments[1]) for task in queue.tasks] == sizes


@pytest.mark.parametrize("outcome", [RuntimeError("whoever"), [ExhaustedError("together")] * 2])
def test_cells_that_raised_together_are_tried_again_one_at_a_time(tmp_path, outcome):
    engine = replace(STUDY.engine.chosen(), cohort=2)
    queue = Written(1)
    sweep = Sweep(
        Work(STUDY, engine, Folder(tmp_path)), KNOWN, None, Remaining(COHORT, [0], set()), queue
    )
    sweep.queue_cells(COHORT)
    (task,) = queue.tasks
    task.then(outcome)
    assert [task.arguments[1] for task in queue.tasks[1:]] == [[cell] for cell in COHORT]
    assert not list(tmp_path.iterdir()), "nobody is blamed"
