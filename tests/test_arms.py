"""What the arms promise that go on from their own rounds, keep signs alone, or train all T epochs.

Each is compared with a serial implementation in float64, written from the definitions of
docs/method.md: matrices and loops, nothing of lthdask but the draws.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lthdask import grid, needs
from lthdask.errors import InputError
from lthdask.events import Stopped, TaskContext
from lthdask.grid import Cell
from lthdask.lottery import drawing, runs
from lthdask.lottery.ticket import Ticket
from lthdask.options import Options
from lthdask.pruning.rule import Pruning
from lthdask.storage import checkpoints
from lthdask.storage.creation import create_cube
from lthdask.storage.folder import Folder
from lthdask.storage.schema import Extent
from lthdask.streams import Purpose, permutation, stream
from lthdask.study import Study
from lthdask.worker.cells import train_cells
from lthdask.worker.tasks import train_dense
from lthdask.worker.work import Work
from tests.conftest import ENGINE, InDouble, everything, small_data, small_recipe
from tests.test_flow import RESULTS, TINY

T, SEED, REPLICATE, STEPS, MEAN = 4, 3, 1, 4, 100.375
NEW = ("constant_signs", "equal_epochs", "lr_rewind_iterated", "fine_tune_iterated")
STUDY = Study.read("digits").changed(
    {
        "network.name": "lenet_300_100",
        "engine.matmul": "default",
        "recipe.epochs": T,
        "grid.rewind_epochs": [0, 1, 2],
        "grid.arms": ["ticket", *NEW],
        "recipe.fine_tune_rate": 0.004,
        "pruning.score": "global",
        "pruning.schedule": "iterative",
        "pruning.rate": 0.5,
        "pruning.rounds": 3,
    }
)


def experiment():
    data = small_data()
    # Not 100: sums of constant weights times whole numbers are often zero, but for rounding.
    data = replace(data, mean=torch.full((1, 1, 1), MEAN).double(), std=data.std.double())
    recipe = small_recipe(T, fine_tune_rate=0.004)
    pruning = Pruning("global", schedule="iterative", rate=0.5, rounds=3)
    return InDouble(STUDY.network, data, recipe, pruning, SEED, ENGINE)


class Ours:
    """The cells of the study, each from those that it waits for."""

    def __init__(self):
        self.experiment, self.ends = experiment(), {}
        self.dense = {c.epoch: c for c, _ in runs.train_dense(self.experiment, REPLICATE)}

    def drawn(self, cell):
        waited = needs.waits_for(STUDY, cell)
        before = self.ended(waited) if waited else None
        dense = {epoch: self.dense[epoch] for epoch in needs.checkpoints_for(STUDY, cell, STEPS)}
        return drawing.draw(self.experiment, cell, dense, before)

    def ended(self, cell):
        if cell not in self.ends:
            drawn = self.drawn(cell)
            *_, (end, _) = runs.train_ticket(self.experiment, REPLICATE, drawn, arm=cell.arm)
            self.ends[cell] = Ticket(end, drawn.mask, {})
        return self.ends[cell]


@pytest.fixture(scope="module")
def ours():
    return Ours()


class Serial:
    """Weights and momentum as dictionaries of matrices; one epoch after another."""

    def __init__(self, data, initial):
        self.images = data.train.images.flatten(1).double().sub(MEAN).div(50)
        self.labels, self.initial = data.train.labels, initial
        self.dense = {0: (initial, {})}
        for epoch in range(1, T + 1):
            self.dense[epoch] = self.epoch(*self.dense[epoch - 1], epoch, {})

    def epoch(self, weights, momentum, epoch, mask, rate=None):
        order = permutation(stream(SEED, REPLICATE, Purpose.ORDER, epoch), 35)
        for step in range(STEPS):
            batch = torch.from_numpy(order[8 * step : 8 * step + 8])
            leaves = {n: w.clone().requires_grad_() for n, w in weights.items()}
            hidden = self.images[batch]
            for layer in ("1", "3", "5"):
                hidden = hidden @ leaves[f"{layer}.weight"].T + leaves[f"{layer}.bias"]
                hidden = hidden.relu() if layer != "5" else hidden
            scores = hidden.log_softmax(1)[torch.arange(8), self.labels[batch]]
            gradients = torch.autograd.grad(-scores.mean(), list(leaves.values()))
            done = epoch - 1 + step / STEPS
            fall = done + 1 / STEPS if done < 1 else 1 - (done - 1) / (T - 1)
            new_weights, new_momentum = {}, {}
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                kept = mask.get(name, torch.ones_like(weight))
                moved = gradient * kept + 1e-3 * weight
                if name in momentum:
                    moved = moved + 0.9 * momentum[name]
                new_momentum[name] = moved
                new_weights[name] = weight - (rate or 0.05 * fall) * moved
            weights, momentum = new_weights, new_momentum
        return weights, momentum

    def train(self, weights, momentum, mask, first, rate=None):
        under = {n: w * mask.get(n, 1) for n, w in weights.items()}
        momentum = {n: m * mask.get(n, 1) for n, m in momentum.items()}
        for epoch in range(first + 1, T + 1):
            under, momentum = self.epoch(under, momentum, epoch, mask, rate)
        return under, momentum

    def pruned(self, weights, mask, share):
        """Of all weights, the share with the lowest magnitudes is pruned; the pruned ones first."""
        names = [f"{layer}.weight" for layer in ("1", "3", "5")]
        flat = np.concatenate([weights[n].numpy().ravel() for n in names])
        alive = np.concatenate([mask.get(n, torch.ones_like(weights[n])).ravel() for n in names])
        order = np.argsort(np.where(alive > 0, np.abs(flat), -1.0), kind="stable")
        kept = np.ones(len(flat))
        kept[order[: int(share * len(flat))]] = 0
        pieces = np.split(kept, np.cumsum([weights[n].numel() for n in names])[:-1])
        return {
            n: torch.from_numpy(p).view_as(weights[n]) for n, p in zip(names, pieces, strict=True)
        }

    def chain(self, arm, k, rounds):
        """Masks and ends of an arm that prunes its own rounds."""
        state, mask = self.dense[T], {}
        rate = 0.004 if arm == "fine_tune_iterated" else None
        for share in (0.5, 0.75, 0.875)[:rounds]:
            mask = self.pruned(state[0], mask, share)
            start = self.dense[k] if arm == "ticket" else state
            state = self.train(*start, mask, k, rate)
        return mask, state

    def cell(self, arm, k, rounds):
        if arm in ("ticket", "lr_rewind_iterated", "fine_tune_iterated"):
            return self.chain(arm, k, rounds)
        mask, _ = self.chain("ticket", k, rounds)
        if arm == "equal_epochs":
            return mask, self.train(self.dense[k][0], {}, mask, 0)
        constants = {
            name: (2.0 * (w > 0).double() - 1) * float(np.std(w.numpy()))
            for name, w in self.initial.items()
            if name.endswith("weight")
        }
        return mask, self.train(self.initial | constants, {}, mask, 0)


@pytest.fixture(scope="module")
def serial(ours):
    first = ours.experiment.build(REPLICATE).state_dict()
    return Serial(ours.experiment.data, {n: w.clone() for n, w in first.items()})


@pytest.mark.parametrize("k", [0, 2])
@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("arm", NEW)
def test_every_new_arm_is_what_a_serial_implementation_makes_of_its_definition(
    ours, serial, arm, rounds, k
):
    threshold = STUDY.grid.thresholds[rounds - 1]
    end = ours.ended(Cell(arm, REPLICATE, threshold, k))
    mask, (weights, momentum) = serial.cell(arm, k, rounds)
    for name, kept in mask.items():
        assert torch.equal(end.mask[name], kept.bool()), name
    for name, weight in weights.items():
        torch.testing.assert_close(end.origin.weights[name], weight, rtol=0, atol=1e-12)
        ours_of = end.origin.buffers[name]["momentum_buffer"]
        torch.testing.assert_close(ours_of, momentum[name], rtol=0, atol=1e-12)


def test_the_mask_of_an_iterated_arm_is_of_its_own_chain_not_of_the_ticket_s(ours):
    at = {"replicate": REPLICATE, "threshold": 0.75, "rewind_epoch": 2}
    masks = {
        arm: ours.drawn(Cell(arm, **at)).mask
        for arm in ("ticket", "lr_rewind_iterated", "fine_tune_iterated", "equal_epochs")
    }
    first = {arm: ours.drawn(Cell(arm, REPLICATE, 0.5, 2)).mask for arm in masks}
    for arm, mask in masks.items():
        differs = any((kept != masks["ticket"][name]).any() for name, kept in mask.items())
        assert differs == arm.endswith("_iterated")
        assert all((kept <= first[arm][name]).all() for name, kept in mask.items())


def test_equal_epochs_from_the_beginning_is_the_ticket(ours):
    ends = [ours.ended(Cell(arm, REPLICATE, 0.5, 0)) for arm in ("ticket", "equal_epochs")]
    assert ends[0].origin.digest() == ends[1].origin.digest()


def test_constant_signs_change_no_bias_and_no_sign(ours):
    start = ours.drawn(Cell("constant_signs", REPLICATE, 0.5, 0)).origin
    for name, weight in ours.dense[0].weights.items():
        if name.endswith("bias"):
            assert torch.equal(start.weights[name], weight)
        else:
            assert torch.equal(start.weights[name].sign(), weight.sign())
            assert len(start.weights[name].abs().unique()) == 1


def test_a_round_that_its_own_arm_goes_on_from_keeps_its_momentum(ours, tmp_path):
    end = ours.ended(Cell("lr_rewind_iterated", REPLICATE, 0.5, 2))
    checkpoints.save_ticket(tmp_path / "final.safetensors", end)
    read = checkpoints.load_ticket(tmp_path / "final.safetensors")
    assert read.origin.digest() == end.origin.digest()
    assert all(torch.equal(read.mask[name], kept) for name, kept in end.mask.items())


def test_cells_of_these_arms_side_by_side_end_as_each_alone(ours):
    """They begin with the first epoch, whatever their k, as tickets of k = 0 do."""
    arms = {"ticket": 0, "random_mask": 0, "reinit": 0, "constant_signs": 0, "equal_epochs": 2}
    cells = [Cell(arm, REPLICATE, 0.5, k) for arm, k in arms.items()]
    assert grid.cohorts(cells, 9) == [cells]
    drawn = [ours.drawn(cell) for cell in cells]
    starts, masks = [d.origin for d in drawn], [d.mask for d in drawn]
    *_, found = runs.train_tickets(ours.experiment, REPLICATE, starts, masks)
    for cell, beside in zip(cells, found.states(), strict=True):
        for name, weight in ours.ended(cell).origin.weights.items():
            torch.testing.assert_close(beside.weights[name], weight, rtol=0, atol=1e-9)


def rounds_on_disk(folder):
    """An empty folder of the study, and the work in it."""
    study = TINY.changed(
        {
            "grid.rewind_epochs": [1],
            "grid.arms": ["ticket", *NEW],
            "recipe.fine_tune_rate": 0.005,
            "pruning.schedule": "iterative",
            "pruning.rate": 0.5,
            "pruning.rounds": 2,
        }
    )
    options = Options(checkpoint_interval=1000, max_attempts=99)
    work = Work(study, study.engine.chosen(), Folder(folder), None, options, "driver")
    layers = list(study.outline().state_dict())[::2]
    about = {"study": study.to_dict()}
    create_cube(folder / "results.zarr", Extent(study.grid.axes(), 3, layers), about)
    return work


def all_of(work, stops):
    """Train the whole study in this process; where a task has stopped, it is begun again."""

    def ended(task, *arguments):
        while True:
            try:
                return task(*arguments)
            except Stopped:
                continue

    digests = ended(lambda: train_dense(work, 0, TaskContext(print, stops())))
    for cell in sorted(work.study.grid.cells(), key=lambda cell: cell.threshold):
        needed = [
            checkpoints.load(checkpoints.path_of(work.folder.path, 0, epoch), digests[epoch])
            for epoch in needs.checkpoints_for(work.study, cell, work.experiment().steps)
        ]
        outcome = ended(
            lambda cell=cell, needed=needed: train_cells(
                work, [cell], TaskContext(print, stops()), *needed
            )
        )
        assert outcome == ["done"]
    return everything(work.folder.path)


def test_arms_that_are_stopped_every_few_steps_end_in_the_same_bits(tmp_path):
    def soon():
        looks = iter([False] * 5)
        return lambda: next(looks, True)

    whole = all_of(rounds_on_disk(tmp_path / "whole"), lambda: lambda: False)
    stopped = all_of(rounds_on_disk(tmp_path / "stopped"), soon)
    for name in RESULTS:
        np.testing.assert_array_equal(whole[name].values, stopped[name].values)
    folder, first = Folder(tmp_path / "stopped"), Cell("lr_rewind_iterated", 0, 0.5, 1)
    assert len(folder.runs.attempts(first)) > 2
    assert checkpoints.load_ticket(folder.runs.final(first)).origin.buffers  # its own round goes on
    ticket = checkpoints.load_ticket(folder.runs.final(replace(first, arm="ticket")))
    assert not ticket.origin.buffers


@pytest.mark.parametrize("arm", ["lr_rewind_iterated", "fine_tune_iterated"])
def test_one_shot_pruning_has_no_round_before(arm):
    with pytest.raises(InputError, match=f"has no rounds; choose {arm[:-9]}, or iterative pruning"):
        Study.read("digits").changed({"grid.arms": f"ticket,{arm}"})
