"""What growing promises: only what is new is trained, and what was not kept is made again.

Whatever a folder has, a run gives the results of what was asked for.
"""

import shutil

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from lthdask.checks.folder import check
from lthdask.commands.main import main
from lthdask.driver.chains import Chains
from lthdask.driver.opening import open_study
from lthdask.driver.plan import plan
from lthdask.driver.remaining import remaining
from lthdask.errors import InputError
from lthdask.events import Stopped
from lthdask.flow import run
from lthdask.grid import Cell
from lthdask.options import Options
from lthdask.storage import checkpoints
from lthdask.storage.folder import Folder
from lthdask.storage.results import follow, open_asked, open_results
from lthdask.storage.schema import Status
from lthdask.study import Study
from lthdask.worker.tasks import train_dense_again
from lthdask.worker.work import Work
from tests.conftest import everything, ran
from tests.studies import made_study
from tests.test_flow import RESULTS, TINY, attempts
from tests.test_tasks import here

EARLY = TINY.changed(
    {
        "recipe.epochs": "5",
        "grid.thresholds": "0.5",
        "grid.rewind_epochs": "0,1",
        "keep_until": "1",
    }
)
LATE = EARLY.changed({"grid.rewind_epochs": "0,1,3"})


@pytest.fixture(scope="module")
def early(local_client, tmp_path_factory):
    """A finished study that kept complete states up to epoch 1, and its results."""
    folder = tmp_path_factory.mktemp("early") / "run"
    return folder, run(EARLY, local_client, folder)


@pytest.fixture(scope="module")
def late(local_client, early, tmp_path_factory):
    """The same, grown to epoch 3."""
    folder = tmp_path_factory.mktemp("late") / "run"
    shutil.copytree(early[0], folder)
    run(LATE, local_client, folder)
    return folder


@pytest.fixture
def copy(early, tmp_path):
    shutil.copytree(early[0], tmp_path / "run")
    return tmp_path / "run"


def digests(folder):
    return Folder(folder).manifest().checkpoints[0]


def dense(folder):
    """The files of the dense run, by name."""
    return {file.name: file.read_bytes() for file in folder.glob("checkpoints/replicate-0/*")}


def test_a_state_that_was_not_kept_is_made_again_from_the_nearest_before_bit_for_bit(
    local_client, early, late, tmp_path
):
    alone = ran(LATE, local_client, tmp_path)
    results = everything(late)
    for name in RESULTS:
        np.testing.assert_array_equal(results[name].values, alone[name].values, err_msg=name)
    assert dense(late) == dense(tmp_path)
    assert digests(late) == digests(tmp_path)
    first, again = Folder(late).runs.attempts("dense-r0")
    assert (first["epoch"], again["epoch"]) == (0, 1)
    assert sorted(set(attempts(late)) - set(attempts(early[0]))) == [
        "ticket-r0-t0.5-k3/attempt-1.json"
    ]
    assert not list(late.glob("cells/*/state-*"))


BEGUN = EARLY.changed({"grid.rewind_epochs": [0], "keep_until": 0})
GROWN = BEGUN.changed({"grid.rewind_epochs": [0, 1]})


class Killed(BaseException):
    """The driver is no more."""


def killed(*_):
    raise Killed


def after_an_epoch_of_the_dense_run(event):
    if event.kind == "epoch" and event.name == "dense-r0":
        killed()


def test_a_dense_run_that_was_begun_before_the_grid_grew_gives_what_one_begun_after_does(
    local_client, tmp_path
):
    options = Options(checkpoint_interval=0)
    with pytest.raises(Killed):
        run(BEGUN, local_client, tmp_path / "run", None, options, after_an_epoch_of_the_dense_run)
    assert list(tmp_path.glob("run/cells/dense-r0/state-*"))
    grown, alone = (ran(GROWN, local_client, tmp_path / name) for name in ("run", "alone"))
    for name in RESULTS:
        np.testing.assert_array_equal(grown[name].values, alone[name].values, err_msg=name)


def test_a_state_that_a_killed_driver_left_is_not_taken_for_what_is_made_again(
    local_client, tmp_path, monkeypatch
):
    with monkeypatch.context() as driver:
        driver.setattr(checkpoints.State, "remove", killed)  # after the manifest is written
        with pytest.raises(Killed):
            run(BEGUN, local_client, tmp_path / "run")
    assert list(tmp_path.glob("run/cells/dense-r0/state-*"))
    grown, alone = (ran(GROWN, local_client, tmp_path / name) for name in ("run", "alone"))
    for name in RESULTS:
        np.testing.assert_array_equal(grown[name].values, alone[name].values, err_msg=name)


def test_the_plan_tells_what_is_trained_again(early):
    found = plan(LATE, early[0], here=False)
    assert (found.left.again, found.epochs) == ({0: range(1, 3)}, 2 + 2)
    assert [found.on(workers).wall_epochs for workers in (1, 2)] == [4, 4]
    command = ["plan", "--study", str(early[0] / "study.yaml"), "--rewind-epochs", "0,1,3"]
    said = CliRunner().invoke(main, [*command, "--out", str(early[0]), "--deploy", "local"])
    assert "and 2 epochs again, for states that are not there" in said.stdout


def test_no_state_is_made_again_where_optimizers_start_afresh_or_remember_nothing(early, tmp_path):
    shutil.copytree(early[0], tmp_path / "run")
    for change in ({"fresh_buffers": "true"}, {"recipe.optimizer.momentum": "0"}):
        (tmp_path / "run" / "study.yaml").write_text(EARLY.changed(change).to_yaml())
        left = remaining(open_study(LATE.changed(change), tmp_path / "run"))
        assert ([cell.rewind_epoch for cell in left.cells], left.again) == ([3], {})


@pytest.mark.parametrize("interval", [0, 1000])
def test_what_is_made_again_can_be_stopped_at_every_step(copy, late, interval):
    options = Options(checkpoint_interval=interval, max_attempts=99)
    work = Work(LATE, LATE.engine.chosen(), Folder(copy), None, options, "driver")
    known, stops = digests(copy), 0
    while True:
        looks = iter([False] * 3)
        try:
            found = train_dense_again(
                work, 0, range(1, 3), known, here(lambda looks=looks: next(looks, True))
            )
            break
        except Stopped:
            stops += 1
    assert stops > 2
    assert found == digests(late)
    assert dense(copy) == dense(late)
    assert check(copy) == [], "files that are ahead of the manifest are no damage"


def test_what_was_made_again_and_not_written_down_is_made_again(local_client, copy, late):
    """As where the driver is killed before it writes the manifest."""
    manifest = Folder(copy).manifest()
    shutil.rmtree(copy / "checkpoints")
    shutil.copytree(late / "checkpoints", copy / "checkpoints")
    results = run(LATE, local_client, copy)
    assert (results.status == Status.DONE).all()
    assert digests(copy) == digests(late) != manifest.checkpoints[0]
    assert dense(copy) == dense(late)


@pytest.fixture
def of_another_machine(copy):
    """A study whose dense run has other weights from epoch 2 on than this machine gives."""
    folder, known = Folder(copy), dict(digests(copy))
    for epoch in (2, 3):
        path = checkpoints.path_of(copy, 0, epoch)
        state = checkpoints.load(path, known[epoch])
        state.weights["5.bias"][:] += 1e-6
        known[epoch] = checkpoints.save(path, state, complete=False)
    folder.write_manifest(folder.manifest().with_dense_run(0, known))
    return copy


def test_a_dense_run_that_is_not_the_same_here_is_refused_and_nothing_is_replaced(
    local_client, of_another_machine
):
    folder = of_another_machine
    before, known = dense(folder), digests(folder)
    grown = LATE.changed({"grid.thresholds": "0.5,0.8"})
    once = Options(max_attempts=1, checkpoint_interval=0)
    results = run(grown, local_client, folder, options=once)
    at_3 = results.status.sel(rewind_epoch=3)
    assert (at_3 == Status.FAILED).all()
    assert (results.status.sel(rewind_epoch=[0, 1]) == Status.DONE).all(), "nobody waits for it"
    (reason,) = Folder(folder).runs.reasons([Cell("ticket", 0, 0.5, 3)])
    assert "is not the same when it is trained again here: after epoch 2" in reason
    assert reason.endswith("or choose another folder with `out`")
    assert (dense(folder), digests(folder)) == (before, known)
    assert not list(folder.glob("cells/dense-r0/state-*"))


def test_a_part_of_what_a_folder_has_is_returned_as_it_was_and_the_folder_does_not_shrink(
    local_client, early, late
):
    files = {file: file.read_bytes() for file in late.rglob("*.*") if file.is_file()}
    events = []
    part = run(EARLY, local_client, late, watch=events.append)
    xr.testing.assert_identical(part, early[1])
    assert [(event.kind, event.cells, event.epochs) for event in events] == [("plan", 0, 0)]
    assert {file: file.read_bytes() for file in files} == files
    assert plan(EARLY, late, here=False).done == 2
    assert Study.read(late / "study.yaml") == LATE


def test_what_is_new_is_added_to_what_a_folder_has(local_client, copy):
    other = EARLY.changed({"grid.thresholds": "0.8", "grid.rewind_epochs": "1"})
    part = run(other, local_client, copy)
    assert dict(part.sizes) == {"arm": 1, "replicate": 1, "threshold": 1, "rewind_epoch": 1}
    assert (part.status == Status.DONE).all()
    whole = open_results(copy)
    assert whole.status.sel(threshold=0.8).values.ravel().tolist() == [Status.PENDING, Status.DONE]
    assert (whole.status.sel(threshold=0.5) == Status.DONE).all()
    together = Study.read(copy / "study.yaml")
    assert together == EARLY.changed({"grid.thresholds": "0.5,0.8"})
    assert [c.rewind_epoch for c in remaining(open_study(together, copy)).cells] == [0]


def test_the_command_shows_the_part_and_says_that_the_folder_has_more(late, early, running):
    command = ["run", "--study", str(early[0] / "study.yaml"), "--out", str(late)]
    said = CliRunner().invoke(main, [*command, "--scheduler", running], catch_exceptions=False)
    assert said.exit_code == 0, said.output
    assert "every cell is done" in said.output
    assert "has more than this (rewind_epoch 3): lthdask results" in said.output.replace("\n", " ")
    assert "k=3" not in said.output


def test_arms_without_a_k_or_a_threshold_are_in_every_part_as_if_alone(tmp_path):
    def accuracy(cell):
        return 0.9 + cell.threshold / 100 + cell.rewind_epoch / 1000

    arms = ("ticket", "reinit", "dense_child", "ticket_child")
    folder = made_study(tmp_path / "run", arms, replicates=2, accuracy=accuracy)
    whole, study = open_results(folder), Study.read(folder / "study.yaml")
    part = study.changed({"grid.thresholds": "0.9", "grid.rewind_epochs": "2"})
    found = open_asked(folder, part.changed({"grid.replicates": "1"})).isel(
        replicate=0, threshold=0, rewind_epoch=0
    )
    stored = {"ticket": (0.9, 2), "reinit": (0.9, 0), "dense_child": (0.5, 2)}
    for arm, (threshold, k) in stored.items():
        there = whole.sel(arm=arm, replicate=0, threshold=threshold, rewind_epoch=k)
        assert found.sel(arm=arm).test_accuracy == there.test_accuracy
        assert found.sel(arm=arm).status == Status.DONE
    other = float(study.grid.thresholds[0]) / 2
    with pytest.raises(InputError, match=f"threshold {other:g} is not in the results"):
        open_asked(folder, study.changed({"grid.thresholds": [other, *study.grid.thresholds[1:]]}))
    wide = open_asked(folder, study.changed({"grid.replicates": "1"}))
    xr.testing.assert_equal(wide, whole.sel(replicate=[0]))
    (tmp_path / "begun").mkdir()
    shutil.copy(folder / "study.yaml", tmp_path / "begun")
    cells = open_study(part, tmp_path / "begun").cells
    assert sorted({(c.arm, c.threshold, c.rewind_epoch) for c in cells}) == [
        ("dense_child", 0.5, 2),
        ("reinit", 0.9, 0),
        ("ticket", 0.9, 2),
        ("ticket_child", 0.9, 2),
    ]


NARROW = EARLY.changed({"grid.arms": "ticket,lr_rewind", "grid.rewind_epochs_of.lr_rewind": "1"})


def test_an_arm_gets_more_rewind_epochs_and_is_shown_with_those_that_were_asked_for(
    local_client, early, copy
):
    """While it grows, somebody looks on."""
    alone = run(NARROW, local_client, copy)
    assert alone.status.sel(arm="lr_rewind").values.ravel().tolist() == [5, 1]
    assert check(copy) == []
    looks = follow(copy)
    assert next(looks).status.sel(arm="lr_rewind").values.ravel().tolist() == [5, 1]
    wide = NARROW.changed({"grid.rewind_epochs_of": {}})
    assert [str(c) for c in remaining(open_study(wide, copy)).cells] == ["lr_rewind-r0-t0.5-k0"]
    before = {*copy.glob("cells/*/attempt-*")}
    grown = run(wide, local_client, copy)
    assert (grown.status == Status.DONE).all()
    xr.testing.assert_identical(next(looks), grown)
    assert check(copy) == []
    (new,) = {*copy.glob("cells/*/attempt-*")} - before
    assert (new.parent.name, new.name) == ("lr_rewind-r0-t0.5-k0", "attempt-1.json")
    again = run(NARROW, local_client, copy)
    xr.testing.assert_identical(again, alone)
    assert open_study(NARROW, copy).more == {"rewind_epoch of lr_rewind": [0]}


def test_an_arm_gets_more_thresholds_and_is_shown_with_those_that_were_asked_for(tmp_path):
    some = {"grid.thresholds_of.reinit": "0.9"}
    folder = made_study(tmp_path / "run", ("ticket", "reinit"), **some)
    narrow = Study.read(folder / "study.yaml")
    alone = open_results(folder).status.sel(arm="reinit", replicate=0).values.tolist()
    left_out = Status.NOT_APPLICABLE
    assert alone == [[left_out, left_out], [Status.DONE, left_out]]
    whole = made_study(tmp_path / "whole", ("ticket", "reinit"))
    part, found = open_asked(whole, narrow), open_results(folder)
    xr.testing.assert_equal(part, found)
    (tmp_path / "begun").mkdir()
    shutil.copy(whole / "study.yaml", tmp_path / "begun")
    opened = open_study(narrow, tmp_path / "begun")
    assert opened.more == {"threshold of reinit": [0.5]}
    assert opened.every.keys() - opened.cells.keys() == {Cell("reinit", 0, 0.5, 0)}
    shutil.copy(folder / "study.yaml", tmp_path / "begun")
    wide = narrow.changed({"grid.thresholds_of": {}})
    assert Cell("reinit", 0, 0.5, 0) in open_study(wide, tmp_path / "begun").cells


def test_rounds_that_were_not_asked_for_keep_the_weights_that_they_wait_for(tmp_path):
    keys = {"pruning.schedule": "iterative", "pruning.rounds": "3", "grid.rewind_epochs": "0"}
    three = TINY.changed(keys)
    two = three.changed({"pruning.rounds": "2"})
    (tmp_path / "study.yaml").write_text(three.to_yaml())
    opened = open_study(two, tmp_path)
    assert opened.study == three
    left = remaining(opened)
    first, second = (Cell("ticket", 0, t, 0) for t in two.grid.thresholds)
    assert left.cells == [first, second]
    chains = Chains(opened.study, left)
    assert chains.awaited == {first, second}, "the third round waits for the second"
    assert chains.release(second) == first
    assert chains.awaited == {second}


def test_another_experiment_is_no_part(tmp_path):
    keys = {"pruning.schedule": "iterative", "pruning.rounds": "2", "grid.rewind_epochs": "0"}
    (tmp_path / "study.yaml").write_text(TINY.changed(keys).to_yaml())
    with pytest.raises(InputError, match=r"another study.* pruning.rate: 0.2 .* 0.5 given"):
        open_study(TINY.changed(keys | {"pruning.rate": "0.5"}), tmp_path)
