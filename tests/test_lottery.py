"""What each arm promises, checked against a naive loop that is written from the definitions."""

from dataclasses import replace
from itertools import zip_longest

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lthdask.arms import ARMS, Arm
from lthdask.data.batches import Data, Images
from lthdask.grid import Cell
from lthdask.lottery import drawing, runs
from lthdask.lottery.density import densities
from lthdask.pruning.rule import Pruning
from lthdask.pruning.scores import SCORES
from lthdask.streams import Purpose, permutation, stream
from lthdask.training.evaluation import evaluate, recompute_batch_norm
from lthdask.training.loop import EpochMetrics
from lthdask.training.recipe import Optimizer, Schedule
from tests.conftest import equal, small_data, small_experiment, small_recipe

T, K, SEED, REPLICATE = 4, 2, 3, 1
RECIPE = small_recipe(T, fine_tune_rate=0.004)


@pytest.fixture(scope="module")
def experiment():
    """ResNet-20: at 8×8 pixels, a MobileNetV2 makes chaos of the last bit of a sum."""
    return small_experiment("resnet20", recipe=RECIPE, pruning=Pruning("global"))


@pytest.fixture(scope="module")
def dense(experiment):
    return {c.epoch: c for c, _ in runs.train_dense(experiment, REPLICATE)}


def trained(experiment, cell, dense, before=None):
    drawn = drawing.draw(experiment, cell, dense, before)
    run = runs.train_ticket(experiment, cell.replicate, drawn, arm=cell.arm)
    states, metrics = zip(*run, strict=True)
    return drawn, states, metrics


def draw(experiment, dense, arm, threshold=0.8, k=K):
    return drawing.draw(experiment, Cell(arm, REPLICATE, threshold, k), dense)


class Naive:
    """The study's cells in plain PyTorch: one epoch after another, nothing shared or clever."""

    def __init__(self, experiment):
        self.network = experiment.build(REPLICATE)
        self.data, self.prunable = experiment.data, []
        for name, layer in self.network.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                self.prunable.append(f"{name}.weight")
        self.momentum = {}
        self.states = {0: self.state()}

    def state(self):
        weights = {n: t.clone() for n, t in self.network.state_dict().items()}
        return weights, {n: t.clone() for n, t in self.momentum.items()}

    def restore(self, weights, momentum):
        self.network.load_state_dict(weights)
        self.momentum = {n: t.clone() for n, t in momentum.items()}

    def rate(self, epoch, step):
        """Linear to 0 after one epoch of warm-up from 0."""
        done = epoch + step / 4
        return 0.05 * (done + 0.25) if done < 1 else 0.05 * (1 - (done - 1) / (T - 1))

    def train(self, epochs, mask=None, rate=None):
        parameters = dict(self.network.named_parameters())
        for epoch in epochs:  # numbered from 1
            order = permutation(stream(SEED, REPLICATE, Purpose.ORDER, epoch), 35)
            self.network.train()
            for step in range(4):
                batch = torch.from_numpy(order[8 * step : 8 * step + 8])
                images = (self.data.train.images[batch].float() - 100) / 50
                loss = F.cross_entropy(self.network(images), self.data.train.labels[batch])
                self.network.zero_grad()
                loss.backward()
                for name, weight in parameters.items():
                    gradient = weight.grad + 1e-3 * weight.detach()
                    before = self.momentum.get(name)
                    after = gradient if before is None else 0.9 * before + gradient
                    self.momentum[name] = after
                    weight.data -= (rate or self.rate(epoch - 1, step)) * after
                self.prune(mask)
            self.states[epoch] = self.state()
        self.network.eval()
        images = (self.data.test.images.float() - 100) / 50
        with torch.no_grad():
            return float(F.cross_entropy(self.network(images), self.data.test.labels))

    def prune(self, mask):
        for name, kept in (mask or {}).items():
            self.network.get_parameter(name).data *= kept
            if name in self.momentum:
                self.momentum[name] = self.momentum[name] * kept

    def smallest_pruned(self, threshold):
        """The share with the smallest magnitudes of the weights as they are now, pruned."""
        weights = {n: self.network.get_parameter(n).detach().clone() for n in self.prunable}
        flat = np.concatenate([w.abs().numpy().ravel() for w in weights.values()])
        gone = np.argsort(flat, kind="stable")[: int(threshold * len(flat))]
        kept = np.ones(len(flat), bool)
        kept[gone] = False
        pieces = np.split(kept, np.cumsum([w.numel() for w in weights.values()])[:-1])
        shapes = [w.shape for w in weights.values()]
        masks = [torch.from_numpy(p).reshape(s) for p, s in zip(pieces, shapes, strict=True)]
        return dict(zip(weights, masks, strict=True))


@pytest.mark.parametrize(
    "arm", [arm for arm, row in ARMS.items() if not (row.reordered or row.of_source)]
)
def test_every_arm_gives_the_numbers_of_a_naive_loop(experiment, dense, arm):
    naive = Naive(experiment)
    naive.train(range(1, T + 1))
    for epoch in (K, T):
        for name, weight in naive.states[epoch][0].items():
            torch.testing.assert_close(dense[epoch].weights[name], weight, rtol=1e-3, atol=1e-4)
    # The last bits of a sum decide between two weights of nearly equal size.
    naive.restore(dense[T].weights, naive.momentum)
    mask = naive.smallest_pruned(0.8)
    final, (early, momentum) = naive.state(), naive.states[K]
    epochs, rate = range(K + 1, T + 1), None
    if arm == "random_mask":  # where, is for another test; how many, and of what, for this one
        theirs = draw(experiment, dense, arm).mask
        assert [int(theirs[n].sum()) for n in mask] == [int(kept.sum()) for kept in mask.values()]
        mask = theirs
    if arm in ("ticket", "random_mask"):
        naive.restore(early, momentum)
    elif arm == "reinit":
        again = experiment.build(REPLICATE, again=True).state_dict()
        naive.restore(again, {})
        epochs = range(1, T + 1)
    elif arm == "equal_epochs":
        naive.restore(early, {})
        epochs = range(1, T + 1)
    elif arm == "constant_signs":
        initial = {n: t.clone() for n, t in naive.states[0][0].items()}
        for name in naive.prunable:
            initial[name] = initial[name].sign() * initial[name].std(unbiased=False)
        naive.restore(initial, {})
        epochs = range(1, T + 1)
    else:  # one that iterates starts its first round from the dense run, too
        naive.restore(*final)
        rate = 0.004 if arm.startswith("fine_tune") else None
    naive.prune(mask)
    loss = naive.train(epochs, mask, rate)
    drawn, states, metrics = trained(experiment, Cell(arm, REPLICATE, 0.8, K), dense)
    assert all(torch.equal(drawn.mask[name], mask[name]) for name in mask)
    assert [m.epoch for m in metrics] == list(epochs)
    assert metrics[-1].test_loss == pytest.approx(loss, rel=2e-2)
    for name, weight in naive.network.named_parameters():
        torch.testing.assert_close(states[-1].weights[name], weight.detach(), rtol=2e-2, atol=2e-3)


def test_a_random_mask_is_laid_over_the_weights_as_they_were(experiment, dense):
    """Over those that the ticket's mask has left, most of its own would be zero already."""
    drawn = draw(experiment, dense, "random_mask")
    ticket = draw(experiment, dense, "ticket")
    for name, kept in drawn.mask.items():
        assert int(kept.sum()) == int(ticket.mask[name].sum())
        torch.testing.assert_close(drawn.start.weights[name], dense[K].weights[name] * kept)
    density = densities(experiment, drawn.start)[0]["density"]
    assert density == pytest.approx(0.2, abs=1e-3)


def test_reinit_is_new_weights_under_the_ticket_s_mask_for_all_epochs(experiment, dense):
    drawn, _, metrics = trained(experiment, Cell("reinit", REPLICATE, 0.8, 0), dense)
    assert [m.epoch for m in metrics] == [1, 2, 3, 4]
    assert drawn.start.buffers == {}
    ticket = draw(experiment, dense, "ticket", k=0)
    assert all(torch.equal(drawn.mask[name], kept) for name, kept in ticket.mask.items())
    again = experiment.build(REPLICATE, again=True).state_dict()
    for name, kept in drawn.mask.items():
        assert torch.equal(drawn.start.weights[name], again[name] * kept)
        assert not torch.equal(again[name], dense[0].weights[name])


@pytest.mark.parametrize("arm", ["lr_rewind", "fine_tune"])
def test_controls_that_keep_the_final_weights_keep_the_state_they_ended_in(experiment, dense, arm):
    drawn = draw(experiment, dense, arm)
    assert drawn.start.epoch == K
    for name, kept in drawn.mask.items():
        assert torch.equal(drawn.start.weights[name], dense[T].weights[name] * kept)
        momentum = dense[T].buffers[name]["momentum_buffer"]
        assert torch.equal(drawn.start.buffers[name]["momentum_buffer"], momentum * kept)


@pytest.mark.parametrize(
    ("recipe", "rate"),
    [
        (small_recipe(schedule=Schedule()), 0.05),
        (small_recipe(6, schedule=Schedule("step", milestones=(2, 4), factor=0.1)), 0.0005),
        (small_recipe(fine_tune_rate=0.003), 0.003),
    ],
    ids=["constant", "step", "given"],
)
def test_fine_tuning_is_at_the_last_level_or_at_the_rate_that_is_given(recipe, rate):
    rates = {recipe.fine_tuning().rate(e, s, 4) for e in range(recipe.epochs) for s in range(4)}
    assert len(rates) == 1
    assert rates.pop() == pytest.approx(rate)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_a_schedule_that_falls_to_0_must_name_the_rate_for_fine_tuning(name):
    with pytest.raises(ValueError, match=f"{name} falls to 0; give recipe.fine_tune_rate"):
        small_recipe(schedule=Schedule(name)).fine_tuning()


def test_a_late_rewind_trains_at_the_low_rates_of_the_end(experiment):
    """Trap 17: which is why fine_tune and lr_rewind stand beside it."""
    assert RECIPE.rate(3, 3, 4) < RECIPE.rate(1, 0, 4) / 10


def test_children_differ_in_nothing_but_the_order_of_the_data(experiment, dense):
    ticket, states, _ = trained(experiment, Cell("ticket", REPLICATE, 0.8, K), dense)
    final = runs.Ticket(states[-1], ticket.mask, {})
    child, others, _ = trained(experiment, Cell("ticket_child", REPLICATE, 0.8, K), dense, final)
    assert child.start.digest() == ticket.start.digest()
    assert others[-1].digest() != states[-1].digest()
    orders = [
        [labels.tolist() for _, labels in small_data().epoch(8, SEED, 0, 1, child=c)]
        for c in (0, 1)
    ]
    assert orders[0] != orders[1]


def test_a_run_is_connected_to_itself_and_the_ends_of_a_line_are_the_networks(experiment, dense):
    same = runs.errors_on_line(experiment, dense[T], dense[T])
    assert len(same) == 30
    assert len(set(same)) == 1
    line = runs.errors_on_line(experiment, dense[T], dense[0])
    for at, state in ((0, dense[T]), (-1, dense[0])):
        network = experiment.build()
        network.load_state_dict(state.weights)
        recompute_batch_norm(network, experiment.data, experiment.engine)
        accuracy = evaluate(network, experiment.data, experiment.data.test, experiment.engine)[1]
        assert line[at] == pytest.approx(1 - accuracy)


def test_batch_norm_statistics_are_those_of_the_weights_that_are_judged(experiment, dense):
    network = experiment.build()
    network.load_state_dict(draw(experiment, dense, "ticket").start.weights)
    recompute_batch_norm(network, experiment.data, experiment.engine)
    seen = []
    norm = network.stem[1]
    norm.register_forward_hook(lambda module, given, result: seen.append(given[0].detach()))
    with torch.no_grad():
        for images, _ in experiment.data.evaluation(experiment.data.train):
            network(images)
    mean = torch.cat(seen).mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
    assert norm.momentum == 0.1


def test_measuring_inside_epochs_changes_nothing(experiment):
    changed = small_experiment("resnet20", recipe=small_recipe(T, measure_every=3))
    plain = small_experiment("resnet20", recipe=small_recipe(T))
    seen = list(runs.train_dense(changed, 0))
    whole = list(runs.train_dense(plain, 0))
    assert seen[-1][0].digest() == whole[-1][0].digest()
    iterations = [m.iteration for _, m in seen if m and not isinstance(m, EpochMetrics)]
    assert iterations == [3, 6, 9, 15]  # 12 is the end of an epoch
    assert [m for _, m in seen if isinstance(m, EpochMetrics)] == [m for _, m in whole if m]


def test_the_mask_may_come_from_an_earlier_epoch(dense):
    early = small_experiment("resnet20", recipe=RECIPE, pruning=Pruning("global"), mask_epoch=1)
    drawn = draw(early, dense, "ticket")
    late = small_experiment("resnet20", recipe=RECIPE, pruning=Pruning("global"))
    as_if_final = drawing.draw(late, Cell("ticket", REPLICATE, 0.8, K), {**dense, T: dense[1]})
    assert all(torch.equal(drawn.mask[n], kept) for n, kept in as_if_final.mask.items())


def test_rounds_prune_by_the_weights_of_the_round_before_and_rewind_all_the_way(dense):
    pruning = Pruning("global", schedule="iterative", rate=0.5, rounds=2)
    experiment = small_experiment("resnet20", recipe=RECIPE, pruning=pruning)
    first, states, _ = trained(experiment, Cell("ticket", REPLICATE, 0.5, K), dense)
    before = runs.Ticket(states[-1], first.mask, {})
    second = drawing.draw(experiment, Cell("ticket", REPLICATE, 0.75, K), dense, before)
    for name, kept in second.mask.items():
        assert (kept <= first.mask[name]).all()
        assert torch.equal(second.start.weights[name], dense[K].weights[name] * kept)
    alive = torch.cat([states[-1].weights[n][k].abs() for n, k in second.mask.items()])
    gone = torch.cat(
        [states[-1].weights[n][first.mask[n] & ~k].abs() for n, k in second.mask.items()]
    )
    assert gone.max() <= alive.min()


@pytest.mark.parametrize("first", [slice(None), slice(None, None, -1)])
def test_the_order_in_which_a_file_has_the_mask_of_the_round_before_means_nothing(dense, first):
    """Files of safetensors have none; the output layer has a rate of its own, by its place."""
    rounds = Pruning(
        "layerwise", schedule="iterative", rate=0.5, rounds=2, layer_rates={"classifier": 0.25}
    )
    experiment = small_experiment("resnet20", recipe=RECIPE, pruning=rounds)
    mask = drawing.draw(experiment, Cell("ticket", REPLICATE, 0.5, K), dense).mask
    before = runs.Ticket(dense[T], {name: mask[name] for name in [*mask][first]}, {})
    for arm in ("ticket", "random_mask", "reinit"):
        drawn = drawing.draw(experiment, Cell(arm, REPLICATE, 0.75, K), dense, before)
        kept = {name: int(kept.sum()) for name, kept in drawn.mask.items()}
        sizes = {name: kept.numel() for name, kept in mask.items()}
        *others, last = mask
        assert [*kept] == [*mask]
        assert kept[last] == sizes[last] - int(sizes[last] * (1 - 0.75**2))
        assert all(kept[name] == sizes[name] - int(sizes[name] * 0.75) for name in others)


@pytest.mark.parametrize(
    ("score", "allocation"),
    [
        *((score, None) for score in SCORES if score not in ("global", "layerwise")),
        *((score, "erk") for score in ("random", "magnitude_increase", "synflow")),
        ("random", "balanced"),
    ],
)
def test_every_score_prunes_the_share_that_is_asked_for(dense, score, allocation):
    pruning = Pruning(score, allocation=allocation)
    experiment = small_experiment("resnet20", recipe=RECIPE, pruning=pruning)
    drawn = draw(experiment, dense, "ticket", threshold=0.7)
    left = sum(int(kept.sum()) for kept in drawn.mask.values())
    assert left == sum(kept.numel() for kept in drawn.mask.values()) - int(
        0.7 * sum(kept.numel() for kept in drawn.mask.values())
    )
    before = dense[0].digest()
    draw(experiment, dense, "ticket", threshold=0.7)
    assert dense[0].digest() == before


def test_optimizers_with_more_buffers_start_every_arm(dense):
    adam = small_experiment(recipe=small_recipe(T, optimizer=Optimizer("adam", 0.01)))
    states = {c.epoch: c for c, _ in runs.train_dense(adam, 0)}
    recipe = small_recipe(T, optimizer=Optimizer("adam", 0.01), fine_tune_rate=0.01)
    adam = small_experiment(recipe=recipe)
    for arm in ("ticket", "random_mask", "reinit", "lr_rewind", "fine_tune"):
        _, states_of_arm, _ = trained(adam, Cell(arm, 0, 0.8, 1), states)
        density = densities(adam, states_of_arm[-1])[0]["density"]
        assert density == pytest.approx(0.2, abs=1e-3)


def test_a_mask_is_drawn_once_for_all_rewind_epochs_and_arms_of_a_threshold(experiment, dense):
    masks = [draw(experiment, dense, arm, k=k).mask for arm in ("ticket", "reinit") for k in (0, K)]
    assert all(mask is masks[0] for mask in masks)
    assert draw(experiment, dense, "ticket", threshold=0.7).mask is not masks[0]


def test_weights_are_scored_once_for_all_thresholds(experiment, dense, monkeypatch):
    scored, times = drawing.scored, []

    def counted(*given):
        times.append(given[0])
        return scored(*given)

    monkeypatch.setattr(drawing, "scored", counted)
    snip = replace(experiment, pruning=Pruning("snip", rate=0.3))  # of no other test
    low, high = (draw(snip, dense, "ticket", threshold=share).mask for share in (0.6, 0.9))
    assert times == ["snip"]
    assert all((low[name] >= high[name]).all() for name in low)


@pytest.mark.parametrize(
    "changes",
    [{"pruning": Pruning("layerwise")}, {"pruning": Pruning("snip")}, {"mask_epoch": 1}],
    ids=str,
)
def test_a_mask_of_other_settings_is_another(experiment, dense, changes):
    drawn = draw(experiment, dense, "ticket").mask
    other = draw(replace(experiment, **changes), dense, "ticket").mask
    assert any((drawn[name] != other[name]).any() for name in drawn)


def test_runs_that_are_trained_by_turns_end_as_they_would_alone(experiment, dense):
    drawn = [draw(experiment, dense, "ticket", k=k) for k in (0, 1)]
    alone = [[s for s, _ in runs.train_ticket(experiment, REPLICATE, d)][-1] for d in drawn]
    by_turns = zip_longest(*(runs.train_ticket(experiment, REPLICATE, d) for d in drawn))
    ends = dict.fromkeys((0, 1))
    for turn in by_turns:
        ends |= {i: found[0] for i, found in enumerate(turn) if found}
    assert [equal(ends[i], alone[i]) for i in (0, 1)] == [True, True]


def test_a_new_arm_is_a_row_of_the_table(experiment, dense, monkeypatch):
    row = Arm("final weights under a random mask", start="final", mask="random", lacks="mask")
    monkeypatch.setitem(ARMS, "shuffled_fine_tune", row)
    drawn, control = (draw(experiment, dense, arm) for arm in ("shuffled_fine_tune", "random_mask"))
    last = dense[experiment.recipe.epochs]
    assert (drawn.origin.epoch, drawn.origin.buffers) == (K, last.buffers)
    for name, kept in drawn.mask.items():
        assert torch.equal(kept, control.mask[name])
        assert torch.equal(drawn.origin.weights[name], last.weights[name])


def test_inputs_may_be_any_numbers_not_only_images_of_bytes():
    """A table of 12 columns, trained under a mask as images are, alone and in a cohort."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 4
    table = torch.randn(40, 12, generator=random) + 3 * F.one_hot(labels, 12)
    rows = Images(table, labels)
    mean, std = table.mean(0), table.std(0)
    made = small_experiment(data=Data(rows, rows, rows, 4, mean, std))
    assert made.prunable()["1.weight"].shape == (300, 12)
    *_, (dense, metrics) = runs.train_dense(made, 0)
    assert metrics.test_accuracy > 0.9
    drawn = drawing.ticket(made, dense, next(runs.train_dense(made, 0))[0], 0.5)
    *_, (alone, _) = runs.train_ticket(made, 0, drawn)
    assert densities(made, alone)[0]["density"] == pytest.approx(0.5, abs=1e-4)
    *_, found = runs.train_tickets(made, 0, [drawn.origin] * 2, [drawn.mask] * 2)
    for end in found.states():
        assert torch.allclose(end.weights["1.weight"], alone.weights["1.weight"], atol=1e-5)
