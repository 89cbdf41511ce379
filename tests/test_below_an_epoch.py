"""What rewinding below an epoch promises: the state, the rates and the batches of that very step.

An epoch of the small study here has 6 steps, of the experiment in float64 4.
"""

import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch import nn

from lthdask import needs
from lthdask.checks.folder import check
from lthdask.commands.main import main
from lthdask.driver.opening import open_study
from lthdask.driver.plan import plan
from lthdask.errors import InputError
from lthdask.events import Stopped
from lthdask.flow import run
from lthdask.grid import Cell, Grid
from lthdask.lottery import drawing, runs
from lthdask.options import Options
from lthdask.pruning.rule import Pruning
from lthdask.report.account import figures
from lthdask.report.cells import cell_table
from lthdask.report.figures.map import map_columns
from lthdask.report.methods.facts import Facts
from lthdask.report.methods.text import in_words
from lthdask.report.page.forecast import epochs_of
from lthdask.report.summary import outcome, sparsest_matching
from lthdask.report.tables import accuracy_map
from lthdask.rewinding import Iterations, place_of, step_of
from lthdask.storage import checkpoints
from lthdask.storage.arrays import Arrays
from lthdask.storage.creation import create_cube
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.growth import grow
from lthdask.storage.schema import Extent, Status
from lthdask.streams import Purpose, permutation, stream
from lthdask.worker.cells import train_cells
from lthdask.worker.tasks import train_dense, train_dense_again
from lthdask.worker.work import Work
from tests.conftest import InDouble, everything, ran, small_data, small_experiment
from tests.test_flow import RESULTS, TINY
from tests.test_tasks import here

LEARNT = (*RESULTS, "early_stop_iteration", "validation_loss_by_iteration")
STUDY = TINY.changed(
    {
        "grid.thresholds": "0.5",
        "grid.rewind_epochs": "0,0.5,1.3",
        "grid.arms": "ticket,lr_rewind,ticket_child,dense_child",
        "recipe.measure_every": 3,
        "mask_epoch": 2.5,
        "keep_until": 0,
    }
)
STEPS = 6
EARLY = STUDY.changed({"grid.arms": "ticket", "grid.rewind_epochs": "0,1"})
LATE = EARLY.changed({"grid.rewind_epochs": "0,0.5,1,1.3"})


class Naive:
    """LeNet-300-100 in plain PyTorch, in float64: a step after another, nothing shared."""

    steps, epochs = 4, 3

    def __init__(self, weights, data):
        layers = [nn.Flatten(), nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU()]
        self.network = nn.Sequential(*layers, nn.Linear(100, 4)).double()
        self.network.load_state_dict(weights)
        self.data, self.momentum = data, {}

    def state(self):
        weights = {n: t.clone() for n, t in self.network.state_dict().items()}
        return weights, {n: t.clone() for n, t in self.momentum.items()}

    def train(self, first, mask=(), rate_from=None):
        """Train from a step on, counted from the start of the schedule; return the losses."""
        losses = []
        for at in range(first, self.epochs * self.steps):
            epoch, step = divmod(at, self.steps)
            order = permutation(stream(3, 0, Purpose.ORDER, epoch + 1), 35)
            batch = torch.from_numpy(order[8 * step : 8 * step + 8])
            images = (self.data.train.images[batch].double() - 100) / 50
            loss = F.cross_entropy(self.network(images), self.data.train.labels[batch])
            losses.append(loss.item())
            self.network.zero_grad()
            loss.backward()
            done = at / self.steps
            rate = 0.05 * (done + 0.25) if done < 1 else 0.05 * (1 - (done - 1) / 2)
            for name, weight in self.network.named_parameters():
                gradient = weight.grad + 1e-3 * weight.detach()
                before = self.momentum.get(name, torch.zeros_like(gradient))
                self.momentum[name] = 0.9 * before + gradient
                weight.data -= rate * self.momentum[name]
            self.prune(mask)
            yield at + 1, losses

    def prune(self, mask):
        for name, kept in dict(mask).items():
            self.network.get_parameter(name).data *= kept
            if name in self.momentum:
                self.momentum[name] = self.momentum[name] * kept

    def smallest_pruned(self, threshold):
        weights = {n: w.detach() for n, w in self.network.named_parameters() if w.ndim == 2}
        cutoff = torch.cat([w.abs().flatten() for w in weights.values()]).sort().values
        cutoff = cutoff[int(threshold * len(cutoff))]
        return {name: weight.abs() >= cutoff for name, weight in weights.items()}


@pytest.fixture(scope="module")
def in_double():
    data = small_data()
    data = replace(data, mean=data.mean.double(), std=data.std.double())
    made = small_experiment(data=data, pruning=Pruning("global"))
    of = {name: getattr(made, name) for name in made.__dataclass_fields__}
    return InDouble(**of | {"recipe": replace(made.recipe, epochs=3)})


@pytest.fixture(scope="module")
def dense_in_double(in_double):
    """The states of a dense run after every step, by place."""
    every = runs.train_dense(in_double, 0, stops=range(12))
    return {state.place(4): state for state, _ in every}


def naive_ticket(dense, data, first, *, momentum=True, order=0, rates=0):
    """A ticket from the definitions, or with an error planted in it."""
    naive = Naive(dense[0].weights, data)
    states = {0: naive.state()} | {at: naive.state() for at, _ in naive.train(0)}
    mask = naive.smallest_pruned(0.8)
    weights, buffers = states[first]
    naive.network.load_state_dict(weights)
    naive.momentum = buffers if momentum else {}
    naive.prune(mask)
    losses = [of for _, of in naive.train(first + order, mask)][-1]
    return mask, naive.state(), losses


def furthest(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("k", [0.25, 1.5, 1.9, Iterations(7)], ids=str)
def test_a_ticket_inside_an_epoch_is_that_of_a_naive_loop_in_float64(in_double, dense_in_double, k):
    first = step_of(k, 4)
    mask, (weights, momentum), losses = naive_ticket(dense_in_double, in_double.data, first)
    drawn = drawing.draw(in_double, Cell("ticket", 0, 0.8, k), dense_in_double)
    assert all(torch.equal(drawn.mask[name], kept) for name, kept in mask.items())
    states, metrics = zip(*runs.train_ticket(in_double, 0, drawn), strict=True)
    assert furthest(states[-1].weights, weights) < 1e-12
    assert furthest({n: b["momentum_buffer"] for n, b in states[-1].buffers.items()}, momentum) < (
        1e-12
    )
    # Its own steps alone, of the epoch that it begins inside of.
    assert metrics[0].epoch == first // 4 + 1
    assert metrics[0].train_loss == pytest.approx(np.mean(losses[: 4 - first % 4]), rel=1e-12)
    assert metrics[-1].train_loss == pytest.approx(np.mean(losses[-4:]), rel=1e-12)


@pytest.mark.parametrize("error", [{"momentum": False}, {"order": -1}, {"order": 1}], ids=str)
def test_a_step_or_a_momentum_that_is_not_that_of_k_would_be_seen(
    in_double, dense_in_double, error
):
    drawn = drawing.draw(in_double, Cell("ticket", 0, 0.8, 1.5), dense_in_double)
    *_, (end, _) = runs.train_ticket(in_double, 0, drawn)
    _, (weights, _), _ = naive_ticket(dense_in_double, in_double.data, 6, **error)
    assert furthest(end.weights, weights) > 1e-4


def test_controls_from_the_end_begin_at_the_step_and_the_rate_of_k(in_double, dense_in_double):
    dense, first = dense_in_double, 6
    naive = Naive(dense[3].weights, in_double.data)
    naive.momentum = {n: of["momentum_buffer"].clone() for n, of in dense[3].buffers.items()}
    mask = naive.smallest_pruned(0.8)
    naive.prune(mask)
    for _ in naive.train(first, mask):
        pass
    drawn = drawing.draw(in_double, Cell("lr_rewind", 0, 0.8, 1.5), dense)
    *_, (end, _) = runs.train_ticket(in_double, 0, drawn, arm="lr_rewind")
    assert furthest(end.weights, naive.state()[0]) < 1e-12


def test_cells_that_begin_inside_an_epoch_side_by_side_end_where_they_end_alone(
    in_double, dense_in_double
):
    cells = [Cell("ticket", 0, threshold, 1.5) for threshold in (0.5, 0.8)]
    drawn = [drawing.draw(in_double, cell, dense_in_double) for cell in cells]
    assert len({cell.cohort for cell in cells}) == 1
    origins, masks = [d.origin for d in drawn], [d.mask for d in drawn]
    *_, together = runs.train_tickets(in_double, 0, origins, masks)
    first = next(runs.train_tickets(in_double, 0, origins, masks))
    for i, one in enumerate(drawn):
        states, metrics = zip(*runs.train_ticket(in_double, 0, one), strict=True)
        assert furthest(states[-1].weights, together.states()[i].weights) < 1e-9
        assert first.outcomes[i].train_loss == pytest.approx(metrics[0].train_loss, rel=1e-9)


@pytest.fixture(scope="module")
def below(local_client, tmp_path_factory):
    """A study with all arms that have a k, at steps 0, 3 and 8 of epochs of 6 steps."""
    folder = tmp_path_factory.mktemp("below") / "run"
    return folder, ran(STUDY, local_client, folder)


def agree(results, known):
    """Whether results are the same, bit for bit, barriers of children aside."""
    for name in LEARNT:
        np.testing.assert_array_equal(results[name].values, known[name].values, err_msg=name)


def test_all_arms_are_trained_from_a_step_inside_an_epoch_and_the_cube_says_from_which(below):
    folder, results = below
    assert (results.status == Status.DONE).all()
    assert check(folder) == []
    assert results.rewind_epoch.values.tolist() == [0, 0.5, 1.3]
    assert results.rewind_step.values.tolist() == [0, 3, 8]
    epochs = results.epochs_trained.sel(arm="ticket").squeeze().values
    assert epochs.tolist() == pytest.approx([3, 2.5, 3 - 8 / 6])
    measured = results.validation_loss_by_iteration.sel(arm="ticket").squeeze(drop=True)
    for k, first in ((0.5, 3), (1.3, 8)):
        of = measured.sel(rewind_epoch=k).values
        assert np.isfinite(of).tolist() == (results.iteration.values > first).tolist()
    curves = results.train_loss_curve.sel(arm="ticket", rewind_epoch=1.3).squeeze().values
    assert np.isfinite(curves).tolist() == [False, True, True]
    stop = results.early_stop_iteration.sel(arm="ticket").squeeze().values
    assert all(0 < at <= 3 * STEPS - first for at, first in zip(stop, (0, 3, 8), strict=True))


def test_a_run_says_which_step_is_taken_for_a_k_between_two(local_client, tmp_path, caplog):
    small = STUDY.changed({"grid.arms": "ticket", "grid.rewind_epochs": "0,0.3"})
    with caplog.at_level(logging.WARNING, "lthdask"):
        run(small, local_client, tmp_path)
    said = "k=0.3 is 1.8 steps of 6 to the epoch: taken as step 2"
    assert [record.getMessage() for record in caplog.records] == [said]


def test_the_same_steps_in_iterations_give_the_same_bits_under_their_own_names(
    local_client, below, tmp_path
):
    as_steps = EARLY.changed({"grid.rewind_epochs": [0, "3it", "8it"], "mask_epoch": "15it"})
    results = ran(as_steps, local_client, tmp_path)
    agree(results, below[1].sel(arm=["ticket"]))
    assert results.rewind_epoch.values.tolist() == [0, 3, 8]
    assert results.rewind_epoch.attrs["units"] == "iteration"
    assert [*Cube(tmp_path / "results.zarr").cells()][1] == Cell("ticket", 0, 0.5, Iterations(3))
    assert (tmp_path / "cells" / "ticket-r0-t0.5-k3it").is_dir()
    assert (below[0] / "cells" / "ticket-r0-t0.5-k0.5").is_dir()
    assert check(tmp_path) == []
    table = accuracy_map(results)
    assert [str(column.header) for column in table.columns[2:]] == ["k=0", "k=3it", "k=8it"]
    assert [c["rewind_epoch"] for c in outcome(results)["cells"][:3]] == [0, "3it", "8it"]
    listed = cell_table(as_steps.grid.cells(), results, [])
    assert listed[["rewind_epoch", "status"]].values.tolist() == [
        [0, "done"],
        [Iterations(3), "done"],
        [Iterations(8), "done"],
    ]
    columns = map_columns(results, "ticket")
    assert (columns["k"][1], columns["cell"][1]) == ("3it", "ticket-r0-t0.5-k3it")
    assert epochs_of(results).ravel().tolist() == pytest.approx([3, 2.5, 3 - 8 / 6])
    words = in_words(Facts.of(Arrays(tmp_path)))
    assert "complete state after k iterations" in words
    assert "dense network after 15 iterations" in words
    late = results.isel(rewind_epoch=[1, 2]).assign_attrs(majority=0.0)
    late["validation_accuracy"] = late.validation_accuracy.where(False, 100)  # so that one matches
    assert sparsest_matching(late)["rewind_epoch"] == "3it"
    assert "ticket, threshold 0.5, k=3it" in figures(late)["learning-curves"].title.text
    # Nothing is left to do, and a growth by epochs has no order among iterations.
    assert not plan(as_steps, tmp_path).cells
    with pytest.raises(InputError, match="in epochs or in iterations, not both"):
        open_study(STUDY.changed({"mask_epoch": "15it"}), tmp_path)
    Cube(tmp_path / "results.zarr").mark(Cell("ticket", 0, 0.5, Iterations(3)), Status.FAILED)
    for command in ("results", "report"):
        done = CliRunner().invoke(main, [command, str(tmp_path)])
        assert done.exit_code == (command == "results"), done.output


def stepwise(task):
    """Run a task that is stopped after every step until it is done, and return what it returns."""
    stops = 0
    while True:
        looks = iter([False] * 3)
        try:
            return task(here(lambda looks=looks: next(looks, True))), stops
        except Stopped:
            stops += 1


def worked(folder, study):
    options = Options(checkpoint_interval=0, max_attempts=999)
    return Work(study, study.engine.chosen(), Folder(folder), None, options, "driver")


def test_stopped_at_every_step_a_dense_run_and_its_cells_end_in_the_same_bits(below, tmp_path):
    shutil.copytree(below[0], tmp_path / "run")
    folder, manifest = tmp_path / "run", Folder(below[0]).manifest()
    shutil.rmtree(folder / "checkpoints")
    shutil.rmtree(folder / "cells")
    work = worked(folder, STUDY)
    digests, stops = stepwise(lambda here: train_dense(work, 0, here))
    assert stops > 3
    assert digests == manifest.checkpoints[0]
    inside = [Iterations(3), Iterations(8), Iterations(15)]
    files = [checkpoints.path_of(folder, 0, at) for at in inside]
    assert all(checkpoints.is_there(file, complete=True) for file in files)
    cube = Cube(folder / "results.zarr")
    for arm, k in (("ticket", 0.5), ("ticket", 1.3), ("lr_rewind", 0.5), ("dense_child", 1.3)):
        cell = Cell(arm, 0, 0.5, k)
        cube.erase(cell)
        needed = needs.checkpoints_for(STUDY, cell, STEPS)
        dense = [checkpoints.load(checkpoints.path_of(folder, 0, at), digests[at]) for at in needed]
        outcome, stops = stepwise(lambda here, c=cell, d=dense: train_cells(work, [c], here, *d))
        assert (outcome, stops > 1) == (["done"], True)
    results = everything(folder)
    agree(results, below[1])
    np.testing.assert_array_equal(results.barrier.values, below[1].barrier.values)


@pytest.fixture(scope="module")
def early(local_client, tmp_path_factory):
    """A finished study of whole epochs."""
    folder = tmp_path_factory.mktemp("early") / "run"
    run(EARLY, local_client, folder)
    return folder


def test_a_study_of_whole_epochs_grows_by_steps_inside_them(local_client, early, below, tmp_path):
    shutil.copytree(early, tmp_path / "run")
    found = plan(LATE, tmp_path / "run")
    assert found.left.again == {0: range(2)}
    assert found.epochs == pytest.approx(2 + 2.5 + 3 - 8 / 6, abs=1e-6)
    grown = ran(LATE, local_client, tmp_path / "run")
    assert (grown.status == Status.DONE).all()
    agree(grown.sel(rewind_epoch=[0, 0.5, 1.3]), below[1].sel(arm=["ticket"]))
    manifests = [Folder(folder).manifest() for folder in (tmp_path / "run", below[0])]
    assert manifests[0].checkpoints == manifests[1].checkpoints
    assert check(tmp_path / "run") == []


def test_a_state_inside_an_epoch_whose_end_is_not_the_same_here_is_refused(early, tmp_path):
    shutil.copytree(early, tmp_path / "run")
    known = dict(Folder(early).manifest().checkpoints[0])
    path = checkpoints.path_of(tmp_path / "run", 0, 1)
    state = checkpoints.load(path, known[1])
    state.weights["5.bias"][:] += 1e-6
    known[1] = checkpoints.save(path, state)
    work = worked(tmp_path / "run", LATE)
    with pytest.raises(InputError, match="after epoch 1 its weights are not those in"):
        train_dense_again(work, 0, range(1), known, here())


def test_a_state_that_passed_before_it_was_asked_for_is_gone_back_to(tmp_path):
    """As where a study grows while its dense run is under way."""
    work = worked(tmp_path, EARLY)
    tmp_path.joinpath("checkpoints").mkdir()
    extent = Extent(LATE.grid.axes(), 3, ["1.weight"], steps=STEPS, iterations=[2])
    create_cube(tmp_path / "results.zarr", extent, {})
    looks = iter([False] * 9)
    with pytest.raises(Stopped):
        train_dense(work, 0, here(lambda: next(looks, True)))
    events = []
    digests = train_dense(worked(tmp_path, LATE), 0, here(events=events))
    assert {Iterations(3), Iterations(8)} < digests.keys()
    assert "the state after step 3 was not asked for when it passed" in events[0].status


def test_a_cube_that_has_k_0_alone_grows_to_iterations(tmp_path):
    only, more = (
        Extent(STUDY.changed({"grid.rewind_epochs": ks}).grid.axes(), 3, ["1.weight"], steps=STEPS)
        for ks in ("0", "0,5it")
    )
    create_cube(tmp_path / "results.zarr", only, {})
    grow(tmp_path / "results.zarr", more, {})
    assert Cube(tmp_path / "results.zarr").axis("rewind_epoch") == [0, Iterations(5)]
    assert not grow(tmp_path / "results.zarr", more, {})  # nothing is left to do


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"grid.rewind_epochs": "0,0.5,0.51"}, "0.5 and 0.51 are both step 3, because an epoch"),
        ({"grid.rewind_epochs": "0,0.01"}, "0.01 is less than half a step, because an epoch has"),
        ({"grid.rewind_epochs": "0,18it"}, "18it leaves nothing to train: an epoch has 6 steps"),
        ({"grid.rewind_epochs": "2.9999999"}, "2.9999999 leaves nothing to train"),
        ({"grid.rewind_epochs": "2.99"}, "2.99 leaves nothing to train: an epoch has 6 steps"),
        ({"mask_epoch": "19it"}, "mask_epoch must lie between 1it and 18it; got 19it"),
    ],
)
def test_what_needs_the_steps_of_an_epoch_is_refused_before_anything_is_written(
    local_client, tmp_path, change, said
):
    study = EARLY.changed(change)
    with pytest.raises(InputError, match=said):
        plan(study, tmp_path / "run")
    with pytest.raises(InputError, match=said):
        run(study, local_client, tmp_path / "run")
    assert not [*tmp_path.glob("run/*.yaml"), *tmp_path.glob("run/*.zarr")]


def test_ks_are_kept_as_they_were_given_and_name_cells_as_before():
    names = [str(Cell("ticket", 0, 0.9, k)) for k in (0, 2, 0.5, 1 / 3, Iterations(500))]
    ends = ["0", "2", "0.5", "0.333333333333", "500it"]
    assert names == [f"ticket-r0-t0.9-k{end}" for end in ends]
    given = STUDY.changed({"grid.rewind_epochs": [0, np.float32(0.1), 2.0]}).grid
    assert given.rewind_epochs == (0, 0.1, 2)
    assert Grid([0.5], [0, "500it"]).rewind_epochs == (0, "500it")
    grown = STUDY.changed({"grid.rewind_epochs": 0}).grown(rewind_epochs=["5it", "11it", "0it"])
    assert grown.grid.rewind_epochs == (0, "5it", "11it")
    assert STUDY.grown(rewind_epochs=1).grid.rewind_epochs == (0, 0.5, 1, 1.3)
    assert STUDY.parse(grown.to_yaml()) == grown
    with pytest.raises(InputError, match="not both, but for 0: how many steps an epoch has"):
        STUDY.grown(rewind_epochs="500it")
    assert [place_of(k, 6) for k in (2, 0.5, Iterations(12))] == [2, Iterations(3), 2]
