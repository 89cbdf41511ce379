"""What a recipe promises: rates as its papers have them, and PyTorch's own optimizers."""

import itertools
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lthdask.training import graphs
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.loop import train
from lthdask.training.optimizers import optimizer_of
from lthdask.training.recipe import Optimizer, Recipe, Schedule
from tests.conftest import ENGINE, equal, small_data, small_recipe

SGD = Optimizer("sgd", 0.05, 0.9, 0.1)
NESTEROV = replace(SGD, nesterov=True)
ADAMW = Optimizer("adamw", 0.01, weight_decay=0.1)
SPARING = {
    of.name: replace(of, decay_norm_and_bias=False)
    for of in (NESTEROV, Optimizer("adam", 0.01, weight_decay=0.1), ADAMW)
}


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (Schedule("one_cycle", 1, factor=0.2), [0.2, 0.6, 1, 0.6, 0.2, 0.15, 0.1, 0.05]),
        (Schedule("one_cycle", 2), [0.1, 0.325, 0.55, 0.775, 1, 0.775, 0.55, 0.325]),
        (
            Schedule("cosine_restarts", milestones=(1,)),
            [1, 0.5, 1, 0.933013, 0.75, 0.5, 0.25, 0.066987],
        ),
        (
            Schedule("cosine_restarts", 1, milestones=(2,)),
            [0.5, 1, 1, 0.5, 1, 0.853553, 0.5, 0.146447],
        ),
    ],
)
def test_one_cycle_and_restarts_are_functions_of_the_absolute_epoch(schedule, rates):
    recipe = Recipe(epochs=4, batch_size=8, optimizer=Optimizer("sgd", 1.0), schedule=schedule)
    steps = itertools.product(range(4), range(2))
    assert [recipe.rate(e, s, steps=2) for e, s in steps] == pytest.approx(rates, abs=1e-6)


def test_restarts_that_double_are_those_of_pytorch():
    weight = nn.Parameter(torch.zeros(1))
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(
        torch.optim.SGD([weight], 0.3), T_0=1, T_mult=2
    )
    schedule = Schedule("cosine_restarts", milestones=(1, 3))
    recipe = Recipe(7, 8, Optimizer("sgd", 0.3), schedule)
    for epoch, step in itertools.product(range(7), range(5)):
        theirs.step(epoch + step / 5)
        assert recipe.rate(epoch, step, 5) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Optimizer("adamw", 0.1, momentum=0.9), "belongs to sgd; adamw keeps its own"),
        (lambda: Optimizer("sgd", 0.1, nesterov=True), "needs a momentum"),
        (lambda: Optimizer("adam", 0.1, nesterov=True), "nesterov belongs to sgd"),
        (lambda: Schedule("one_cycle"), "warmup_epochs, which must be 1 or more; got 0"),
        (lambda: Schedule("one_cycle", 1, milestones=(2,)), "milestones belong to .*step"),
        (lambda: Schedule("cosine_restarts"), "which need them"),
        (lambda: Schedule("cosine_restarts", 2, (2, 3)), "after the 2 epochs .*; got 2"),
        (lambda: small_recipe(4, schedule=Schedule("one_cycle", 3)), "half of the 4 .*; got 3"),
        (lambda: small_recipe(4, schedule=Schedule("one_cycle", 1)).fine_tuning(), "falls to 0"),
        (
            lambda: small_recipe(4, schedule=Schedule("cosine_restarts", 0, (2,))).fine_tuning(),
            "falls to 0",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()


def network():
    """One of every kind of parameter, in float64; no bias that batch norm takes away again."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(144, 4),
    ).double()


MATRICES = ("0.weight", "4.weight")
MASK = {"0.weight": torch.arange(36).view(4, 1, 3, 3) % 3 > 0}


def data(augmentation=()):
    of = small_data(augmentation=augmentation)
    return replace(of, mean=of.mean.double(), std=of.std.double(), normalisation="image")


def trained(recipe, start, mask, every=0):
    due = itertools.cycle([*[False] * (every - 1), every > 0])
    return [
        at.states()[0].copy()
        for at in train(
            network(), data(("crop", "flip")), recipe, start,
            seed=3, replicate=0, mask=mask, engine=ENGINE, due=lambda: next(due),
        )
    ]  # fmt: skip


def start():
    return Checkpoint(0, {name: t.clone() for name, t in network().state_dict().items()})


def pytorchs(of, weights):
    """PyTorch's own, a parameter at a time; which of them decay is written out."""
    decaying = [weights[name] for name in MATRICES]
    others = [weight for name, weight in weights.items() if name not in MATRICES]
    rest = of.weight_decay if of.decay_norm_and_bias else 0.0
    groups = [
        {"params": decaying, "weight_decay": of.weight_decay},
        {"params": others, "weight_decay": rest},
    ]
    plain = {"foreach": False, "fused": False}
    if of.name == "sgd":
        return torch.optim.SGD(groups, of.rate, of.momentum, nesterov=of.nesterov, **plain)
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[of.name](groups, of.rate, (0.9, 0.999), **plain)


@pytest.mark.parametrize("mask", [{}, MASK], ids=["dense", "ticket"])
@pytest.mark.parametrize(
    "of", [NESTEROV, ADAMW, *SPARING.values()], ids=lambda of: f"{of.name}-{of.decay_norm_and_bias}"
)
def test_a_loop_of_each_optimizer_is_that_of_pytorch_in_float64(of, mask):
    recipe = small_recipe(2, optimizer=of, schedule=Schedule("cosine_restarts", milestones=(1,)))
    end = trained(recipe, start(), mask)[-1]

    alone = network()
    weights = dict(alone.named_parameters())
    optimizer = pytorchs(of, weights)

    def prune():
        with torch.no_grad():
            for name, kept in mask.items():
                weights[name].mul_(kept)

    prune()
    for epoch, rates in enumerate([[1, 0.5 + 0.125**0.5, 0.5, 0.5 - 0.125**0.5]] * 2, 1):
        batches = data(("crop", "flip")).epoch(8, 3, 0, epoch)
        for share, (images, labels) in zip(rates, batches, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = of.rate * share
            optimizer.zero_grad()
            F.cross_entropy(alone(images), labels).backward()
            for name, kept in mask.items():
                weights[name].grad.mul_(kept)
            optimizer.step()
            prune()
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(end.weights[name], tensor, rtol=1e-12, atol=1e-14)
    for name, kept in mask.items():
        for tensor in (end.weights[name], *end.buffers[name].values()):
            assert tensor.ndim == 0 or not tensor[~kept].any()


def test_decoupled_decay_and_nesterov_by_hand():
    """Three steps of one weight with the gradients 1, −2, 3, from the papers' formulas."""
    gradients, rate, decay = (1.0, -2.0, 3.0), 0.1, 0.2
    w, velocity = 1.0, 0.0
    for gradient in gradients:
        gradient += decay * w
        velocity = 0.9 * velocity + gradient
        w -= rate * (gradient + 0.9 * velocity)
    assert w == pytest.approx(stepped(Optimizer("sgd", rate, 0.9, decay, nesterov=True), gradients))
    w, m, v = 1.0, 0.0, 0.0
    for step, gradient in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        update = m / (1 - 0.9**step) / ((v / (1 - 0.999**step)) ** 0.5 + 1e-8)
        w -= rate * (update + decay * w)
    assert w == pytest.approx(stepped(Optimizer("adamw", rate, 0.0, decay), gradients))


def stepped(of, gradients):
    weight = nn.Parameter(torch.ones(1, 1, dtype=torch.float64))
    optimizer = optimizer_of(of, {"w": weight}, {})
    for gradient in gradients:
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
    return weight.item()


@pytest.mark.parametrize(
    ("of", "schedule"),
    [
        (SPARING["sgd"], Schedule("cosine_restarts", milestones=(1,))),
        (SPARING["adamw"], Schedule("one_cycle", 1)),
    ],
    ids=["sgd", "adamw"],
)
def test_a_run_that_is_stopped_and_resumed_anywhere_ends_in_the_same_bits(of, schedule):
    recipe = small_recipe(2, optimizer=of, schedule=schedule)
    undisturbed = trained(recipe, start(), MASK, every=1)
    assert len(undisturbed) == 8
    for stopped in undisturbed[:-1]:
        assert equal(trained(recipe, stopped, MASK)[-1], undisturbed[-1])


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU records by itself")
def test_a_recorded_step_reads_its_rate_from_a_tensor_in_every_group(monkeypatch):
    """A rate that is no tensor is recorded as the number that it was, for ever.

    In place of PyTorch's graph, there is one that does the recorded step again.
    """
    recorded, recording = [], False

    @contextmanager
    def record(graph, **how):
        nonlocal recording
        recording = True
        yield
        recording = False

    class Graph:
        def replay(self):
            images, labels, rates = recorded[0]
            before = [group["lr"] for group in optimizer.param_groups]
            give(rates)
            step(images, labels)
            give(before)

    def give(rates):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    monkeypatch.setattr(torch.cuda, "Stream", mock.Mock)
    monkeypatch.setattr(torch.cuda, "current_stream", mock.Mock)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", record)

    def step(images, labels):
        if recording:
            recorded.append((images, labels, [group["lr"] for group in optimizer.param_groups]))
            return
        optimizer.zero_grad()
        F.cross_entropy(layer(images), labels).backward()
        optimizer.step()

    ends = []
    for kind in (graphs.graphed, graphs.plain):
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        optimizer = optimizer_of(SPARING["sgd"], dict(layer.named_parameters()), {})
        advance = kind(step, optimizer, [*layer.parameters()])
        for rate in (0.1, 0.2, 0.05):
            advance(torch.ones(4, 3), torch.tensor([0, 1, 1, 1]), rate)
        ends.append([*layer.parameters()])
    assert len(recorded) == 1
    assert len(optimizer.param_groups) == 2
    torch.testing.assert_close(*ends)
