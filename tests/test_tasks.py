"""What a run on a worker promises: stopped or killed anywhere, it ends in the same bits.

In this process, and in forks of it that kill themselves, so that thousands of moments can
be tried.
"""

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lthdask.errors import ExhaustedError, InputError
from lthdask.events import Stopped, TaskContext
from lthdask.grid import Cell
from lthdask.options import Options
from lthdask.pruning.rule import prunable_weights
from lthdask.storage import checkpoints
from lthdask.storage.creation import create_cube
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.schema import Extent, Status
from lthdask.worker import resuming
from lthdask.worker.cells import train_cells
from lthdask.worker.tasks import look_around, train_dense
from lthdask.worker.work import Work
from tests.conftest import everything
from tests.test_flow import RESULTS, TINY

STUDY = TINY.changed({"grid.thresholds": "0.5,0.9"})
CELLS = [Cell("ticket", 0, threshold, k) for threshold in (0.5, 0.9) for k in (0, 2)]


def here(stops=lambda: False, events=None, lifetime=None):
    return TaskContext((events if events is not None else []).append, stops, lifetime)


def fresh(folder, interval=0.0):
    """An empty folder of the study, and the work in it."""
    folder.mkdir(parents=True)
    options = Options(checkpoint_interval=interval, max_attempts=99)
    work = Work(STUDY, STUDY.engine.chosen(), Folder(folder), None, options, "driver")
    axes = {
        "arm": ["ticket"],
        "replicate": [0],
        "threshold": [0.5, 0.9],
        "rewind_epoch": [0, 2],
    }
    layers = list(prunable_weights(work.experiment().build()))
    create_cube(folder / "results.zarr", Extent(axes, 3, layers), {"study": STUDY.to_dict()})
    return work


def dense(work, cell, digests):
    """The checkpoints that a cell needs, from disk."""
    epochs = (3, cell.rewind_epoch)
    paths = {epoch: checkpoints.path_of(work.folder.path, 0, epoch) for epoch in epochs}
    return [checkpoints.load(paths[epoch], digests[epoch]) for epoch in epochs]


def train(work, cell, digests):
    """Train a cell from the checkpoints on disk."""
    (outcome,) = train_cells(work, [cell], here(), *dense(work, cell, digests))
    return outcome


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder in which nothing happened, and the digests of its dense run."""
    work = fresh(tmp_path_factory.mktemp("whole") / "run")
    digests = train_dense(work, 0, here())
    for cell in CELLS:
        assert train(work, cell, digests) == "done"
    return work, digests


def test_epochs_are_told_rarely_and_all_of_them_at_the_end_or_where_it_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(resuming, "BETWEEN_TELLING", float("inf"))
    events = []
    train_dense(fresh(tmp_path / "whole"), 0, here(events=events))
    assert [(e.kind, e.name, e.epochs) for e in events] == [
        ("epoch", "dense-r0", 1),
        ("epoch", "dense-r0", 2),
    ]
    events.clear()
    work, asked = fresh(tmp_path / "stopped"), iter(range(1000))
    late = 2 * work.experiment().data.steps(STUDY.recipe.batch_size) + 1
    with pytest.raises(Stopped):
        train_dense(work, 0, here(lambda: next(asked) > late, events))
    state, _ = checkpoints.State(tmp_path / "stopped" / "cells" / "dense-r0").load()
    assert sum(e.epochs for e in events) == state.epoch == 2


def equal(folder, other):
    mine, theirs = everything(folder), everything(other)
    for name in RESULTS:
        np.testing.assert_array_equal(mine[name].values, theirs[name].values)


def test_a_run_that_is_stopped_at_every_step_ends_in_the_same_bits(tmp_path, whole):
    work = fresh(tmp_path / "run", interval=1000)

    def stepwise(task, name, *dense):
        """Let each attempt do a single step."""
        for attempts in range(100):
            looks = iter([False])  # at the start; from then on it has to go
            try:
                stop = here(lambda looks=looks: next(looks, True))
                return task(work, name, stop, *dense), attempts
            except Stopped:
                continue
        raise AssertionError("it never ends")

    digests, attempts = stepwise(train_dense, 0)
    assert digests == whole[1]
    assert attempts >= 15  # 3 epochs of 6 steps, less the last one
    for cell in CELLS:
        outcome, attempts = stepwise(train_cells, [cell], *dense(work, cell, digests))
        assert outcome == ["done"]
        assert attempts >= 5
    equal(work.folder.path, whole[0].folder.path)
    assert not list(work.folder.path.glob("cells/ticket-*/state-*"))


def test_a_worker_that_dies_as_it_looks_around_is_followed_by_another(tmp_path):
    work = fresh(tmp_path / "run")
    with work.folder.probe() as probe:
        first, second = (look_around(work, probe, here()) for _ in range(2))
    assert first.layers == second.layers
    assert not list(work.folder.path.glob(".probe-*"))
    with pytest.raises(InputError, match="does not see the folder"):
        look_around(work, probe, here())


def test_a_worker_that_has_to_go_begins_nothing(tmp_path):
    work = fresh(tmp_path / "run")
    with pytest.raises(Stopped):
        train_dense(work, 0, here(lambda: True))
    assert work.folder.runs.attempts("dense-r0") == []


def test_a_damaged_checkpoint_is_found_before_the_dense_run_goes_on(tmp_path, whole):
    work, events = fresh(tmp_path / "run"), []
    looks = iter([False] * 12)
    with pytest.raises(Stopped):
        train_dense(work, 0, here(lambda: next(looks, True)))
    path = checkpoints.path_of(work.folder.path, 0, 0)
    path.write_bytes(path.read_bytes()[:-1])
    assert train_dense(work, 0, here(events=events)) == whole[1]
    (warning,) = [event.status for event in events if event.kind == "warning"]
    assert "dense-r0 starts anew: the checkpoint" in warning
    equal_dense = [everything(w.folder.path).dense_train_loss_curve for w in (work, whole[0])]
    np.testing.assert_array_equal(*(curve.values for curve in equal_dense))


def test_a_damaged_state_costs_one_interval_and_is_said(tmp_path, whole):
    work, events = fresh(tmp_path / "run"), []
    looks = iter([False] * 10)
    with pytest.raises(Stopped):
        train_dense(work, 0, here(lambda: next(looks, True)))
    states = work.folder.runs.of("dense-r0").glob("state-*")
    files = sorted(states, key=lambda file: file.stat().st_mtime_ns)
    files[-1].write_bytes(b"nonsense")
    assert train_dense(work, 0, here(events=events)) == whole[1]
    assert [e.status for e in events if e.kind == "warning"] == [
        f"the state {files[-1]} is damaged: its digest does not match its content; it was set "
        f"aside as {files[-1].stem}.damaged"
    ]
    first, second = work.folder.runs.attempts("dense-r0")
    assert (second["epoch"], second["step"]) > (first["epoch"], first["step"])


def test_an_epoch_longer_than_a_worker_lives_is_said(tmp_path):
    events = []
    train_dense(fresh(tmp_path / "run"), 0, here(events=events, lifetime=1e-6))
    said = {event.status for event in events if event.name == "lifetime"}
    assert all(s.startswith("an epoch takes ") and "a longer wall-time" in s for s in said)
    assert said


def test_a_cell_that_was_done_before_its_worker_could_say_so_is_not_trained_again(whole):
    work, digests = whole
    before = [work.folder.runs.attempts(cell) for cell in CELLS]
    assert [train(work, cell, digests) for cell in CELLS] == ["done"] * len(CELLS)
    assert [work.folder.runs.attempts(cell) for cell in CELLS] == before


class Kills(RuleBasedStateMachine):
    """A random schedule of attempts, killed at random touches of the disk, against a model.

    The model: a cell is done from the moment its status is written, and for ever; whatever
    is done holds the results of the undisturbed run.
    """

    reference = None

    @initialize()
    def begin(self):
        self.home = Path(tempfile.mkdtemp())
        self.work = fresh(self.home / "run")
        self.digests, self.done = None, set()

    @rule(touches=st.integers(1, 60))
    def dense(self, touches):
        if self.digests is None and self.survives(touches, train_dense, self.work, 0, here()):
            self.digests = self.reference[1]

    @rule(cell=st.sampled_from(CELLS), touches=st.integers(1, 60))
    def cell(self, cell, touches):
        if self.digests is None or cell in self.done:
            return
        survived = self.survives(touches, train, self.work, cell, self.digests)
        now = self.written()
        assert not survived or cell in now
        assert now - self.done <= {cell}
        self.done = now

    @invariant()
    def what_is_done_stays_done_and_is_right(self):
        if not hasattr(self, "home"):
            return
        assert self.written() == self.done
        mine = everything(self.work.folder.path)
        theirs = everything(self.reference[0].folder.path)
        for cell in self.done:
            for name in ("test_loss", "train_loss_curve", "layer_density", "counted_density"):
                np.testing.assert_array_equal(
                    mine[name].sel(vars(cell)).values, theirs[name].sel(vars(cell)).values
                )

    def teardown(self):
        if not hasattr(self, "home"):
            return
        digests = self.digests or train_dense(self.work, 0, here())
        assert digests == self.reference[1]
        for cell in set(CELLS) - self.done:
            train(self.work, cell, digests)
        equal(self.work.folder.path, self.reference[0].folder.path)
        shutil.rmtree(self.home)

    def written(self):
        cells = Cube(self.work.folder.path / "results.zarr").cells()
        return {cell for cell, status in cells.items() if status is Status.DONE}

    def survives(self, touches, task, *arguments):
        """Call a task in a fork, which kills itself as it touches the disk for the nth time."""
        pid = os.fork()
        if pid == 0:
            left = iter(range(touches))

            def hook(event, values):
                if event not in ("open", "os.rename", "os.mkdir", "os.remove"):
                    return
                if "run/" in str(values[0]) and next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(hook)
            try:
                task(*arguments)
            except ExhaustedError:
                os._exit(2)
            except BaseException:
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
        return not os.WIFSIGNALED(status)


@pytest.mark.faults
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_any_schedule_of_kills_leaves_a_folder_that_can_be_finished(whole):
    Kills.reference = whole
    case = Kills.TestCase()
    case.settings = settings(max_examples=12, stateful_step_count=10, deadline=None)
    case.runTest()
