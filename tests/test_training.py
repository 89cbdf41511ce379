"""What the one training loop promises, to dense runs and tickets alike."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from lthdask.errors import InputError
from lthdask.lottery import drawing, runs
from lthdask.lottery.density import densities
from lthdask.pruning.rule import prunable_weights
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.engine import Engine
from lthdask.training.evaluation import evaluate
from lthdask.training.loop import Diverged, train
from lthdask.training.recipe import Optimizer, Recipe, Schedule
from tests.conftest import ENGINE, equal, small_data, small_experiment, small_recipe

ADAM = Optimizer("adam", rate=0.01, weight_decay=1e-3)


def run(experiment, start, mask=None, every=0, replicate=0):
    due = itertools.cycle([*[False] * (every - 1), every > 0])
    found = train(
        experiment.build(replicate),
        experiment.data,
        experiment.recipe,
        start,
        seed=experiment.seed,
        replicate=replicate,
        mask=mask,
        engine=experiment.engine,
        due=lambda: next(due),
    )
    return ((at.states()[0].copy(), *at.outcomes) for at in found)


def initial(experiment, replicate=0):
    return next(runs.train_dense(experiment, replicate))[0]


@pytest.mark.parametrize("optimizer", [None, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("network", ["lenet_300_100", "mobilenet_v2"])
@pytest.mark.parametrize("augmentation", [(), ("crop", "flip")], ids=["plain", "augmented"])
def test_a_run_that_is_stopped_and_resumed_anywhere_ends_in_the_same_bits(
    network, optimizer, augmentation
):
    recipe = small_recipe(2, label_smoothing=0.1, **({"optimizer": optimizer} if optimizer else {}))
    data = small_data(augmentation=augmentation)
    experiment = small_experiment(network, recipe=recipe, data=data)
    undisturbed = list(run(experiment, initial(experiment), every=1))
    assert [(c.epoch, c.step) for c, _ in undisturbed] == [
        *((0, 1), (0, 2), (0, 3), (1, 0)),
        *((1, 1), (1, 2), (1, 3), (2, 0)),
    ]
    for stopped, _ in undisturbed[:-1]:
        *_, (last, metrics) = run(experiment, stopped)
        assert equal(last, undisturbed[-1][0])
        assert metrics == undisturbed[-1][1]


def test_a_ticket_that_prunes_nothing_is_the_dense_run(dense_run):
    experiment, checkpoints, metrics = dense_run
    for k in range(4):
        everything = {
            n: torch.ones_like(w, dtype=torch.bool)
            for n, w in prunable_weights(experiment.build()).items()
        }
        rest = list(run(experiment, checkpoints[k], everything))
        assert [m for _, m in rest] == list(metrics[k + 1 :])
        assert equal(rest[-1][0], checkpoints[-1])


@pytest.mark.parametrize("optimizer", [None, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("k", [0, 2])
def test_pruned_weights_and_their_buffers_are_zero_at_every_yield(optimizer, k):
    recipe = small_recipe(4, **({"optimizer": optimizer} if optimizer else {}))
    experiment = small_experiment("mobilenet_v2", recipe=recipe)
    checkpoints = [c for c, _ in runs.train_dense(experiment, 0)]
    ticket = drawing.ticket(experiment, checkpoints[-1], checkpoints[k], 0.8)
    for checkpoint, _ in run(experiment, ticket.start, ticket.mask, every=2):
        for name, kept in ticket.mask.items():
            tensors = [checkpoint.weights[name], *checkpoint.buffers[name].values()]
            for tensor in tensors:
                if tensor.shape == kept.shape:
                    assert not tensor[~kept].any()
    density = densities(experiment, checkpoint)[0]["density"]
    assert density == pytest.approx(0.2, abs=1e-5)


def test_density_is_what_is_counted_after_training_and_not_what_was_asked(dense_run):
    experiment, checkpoints, _ = dense_run
    ticket = drawing.ticket(experiment, checkpoints[-1], checkpoints[1], 0.8)
    *_, (last, _) = runs.train_ticket(experiment, 0, ticket)
    network, layers = densities(experiment, last)
    assert network["density"] == pytest.approx(0.2, abs=1e-5)
    stem = last.weights["features.0.0.weight"]
    assert layers["features.0.0.weight"]["density"] == int(stem.count_nonzero()) / stem.numel()
    # A network that was trained without its mask is dense again, and is said to be.
    *_, (revived, _) = run(experiment, ticket.start)
    assert densities(experiment, revived)[0]["density"] > 0.8


def test_what_is_left_is_counted_among_all_parameters_and_by_channel():
    experiment = small_experiment()  # LeNet-300-100: 64 pixels, 4 classes
    trained = initial(experiment)
    shapes = {"1": (300, 64), "3": (100, 300), "5": (4, 100)}
    hidden = trained.weights["3.weight"]
    hidden[:7] = 0.0  # 7 dead channels, and an eighth that has one weight
    hidden[7, 1:] = 0.0
    trained.weights["1.weight"][:, 5] = 0.0  # one weight of every channel
    network, layers = densities(experiment, trained)
    assert {name: layer["dead_channels"] for name, layer in layers.items()} == {
        "1.weight": 0,
        "3.weight": 7,
        "5.weight": 0,
    }
    parameters = sum(rows * columns + rows for rows, columns in shapes.values())
    pruned = 7 * 300 + 299 + 300
    assert network["parameters_left"] == (parameters - pruned) / parameters
    assert network["density"] == 1 - pruned / sum(r * c for r, c in shapes.values())


def test_training_lays_the_mask_over_where_it_starts_and_changes_nothing_there(dense_run):
    experiment, checkpoints, _ = dense_run
    ticket = drawing.ticket(experiment, checkpoints[-1], checkpoints[2], 0.8)
    before = ticket.origin.digest()
    trained = [list(run(experiment, s, ticket.mask)) for s in (ticket.origin, ticket.start)]
    assert equal(trained[0][-1][0], trained[1][-1][0])
    assert ticket.origin.digest() == before
    assert ticket.start.digest() != before


def test_momentum_that_was_not_pruned_is_noticed(dense_run, monkeypatch):
    experiment, checkpoints, _ = dense_run
    ticket = drawing.ticket(experiment, checkpoints[-1], checkpoints[2], 0.8)
    alive = Checkpoint(2, ticket.start.weights, checkpoints[2].buffers)
    monkeypatch.setattr("lthdask.training.model.lay_over", lambda *given: None)
    with pytest.raises(RuntimeError, match="are not zero"):
        list(run(experiment, alive, ticket.mask))


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (Schedule("constant"), [1, 1, 1, 1, 1, 1, 1, 1]),
        (Schedule("constant", warmup_epochs=2), [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        (Schedule("step", milestones=(1, 3), factor=0.1), [1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01]),
        (Schedule("linear"), [1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        (Schedule("linear", warmup_epochs=2), [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]),
        (Schedule("cosine", warmup_epochs=2), [0.25, 0.5, 0.75, 1, 1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_the_learning_rate_is_a_function_of_the_absolute_epoch(schedule, rates):
    recipe = Recipe(epochs=4, batch_size=8, optimizer=Optimizer("sgd", 1.0), schedule=schedule)
    steps = itertools.product(range(4), range(2))
    assert [recipe.rate(e, s, steps=2) for e, s in steps] == pytest.approx(rates, abs=1e-6)


def test_the_recipe_of_the_reference_grid_drops_after_epochs_91_and_136():
    schedule = Schedule("step", milestones=(91, 136), factor=0.1)
    recipe = Recipe(182, 128, Optimizer("sgd", 0.1, 0.9), schedule)
    rates = [recipe.rate(epoch, 0, 10) for epoch in (0, 90, 91, 135, 136, 181)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_replicates_differ_in_initialisation_and_order_of_the_data():
    experiment = small_experiment()
    first, second = (initial(experiment, replicate) for replicate in (0, 1))
    assert not equal(first, second)
    same_start = [list(run(experiment, first, replicate=r))[-1][0] for r in (0, 0, 1)]
    assert equal(same_start[0], same_start[1])
    assert not equal(same_start[0], same_start[2])


def test_masks_hold_on_the_float32_weights_under_bfloat16():
    engine = Engine(device="cpu", precision="bfloat16")
    experiment = small_experiment("mobilenet_v2", engine=engine, recipe=small_recipe(2))
    checkpoints = [c for c, _ in runs.train_dense(experiment, 0)]
    ticket = drawing.ticket(experiment, checkpoints[-1], checkpoints[1], 0.9)
    *_, (last, _) = runs.train_ticket(experiment, 0, ticket)
    for name, kept in ticket.mask.items():
        assert last.weights[name].dtype == torch.float32
        assert not last.weights[name][~kept].any()


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged():
    recipe = small_recipe(optimizer=Optimizer("sgd", rate=1e30))
    experiment = small_experiment(recipe=recipe)
    with pytest.raises(Diverged, match="in epoch 1"):
        list(run(experiment, initial(experiment)))


def test_evaluation_counts_every_image_once():
    data, network = small_data(), torch.nn.Flatten()  # logits are the 64 pixels themselves
    loss, accuracy = evaluate(network, data, data.test, ENGINE)
    logits = (data.test.images.float().flatten(1) - 100) / 50
    assert loss == pytest.approx(F.cross_entropy(logits, data.test.labels).item(), rel=1e-6)
    assert accuracy == (logits.argmax(1) == data.test.labels).float().mean().item()


def test_an_incomplete_last_batch_is_left_out_of_training():
    experiment = small_experiment(recipe=small_recipe(batch_size=10))
    seen = [len(labels) for _, labels in experiment.data.epoch(10, 0, 0, 1)]
    assert seen == [10, 10, 10]


@given(st.integers(0, 3), st.sampled_from([0.3, 0.9]))
def test_training_a_ticket_takes_the_epochs_that_are_left(k, threshold):
    experiment = small_experiment()
    checkpoints = [c for c, _ in runs.train_dense(experiment, 0)]
    ticket = drawing.ticket(experiment, checkpoints[-1], checkpoints[k], threshold)
    assert [m.epoch for _, m in run(experiment, ticket.start, ticket.mask)] == [*range(k + 1, 5)]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Optimizer("sgd", rate=0), "rate must be above 0; got 0"),
        (lambda: Optimizer("sgd", rate=float("nan")), "got nan"),
        (lambda: Optimizer("sgd", 0.1, momentum=1), "momentum"),
        (lambda: Optimizer("adam", 0.1, momentum=0.9), "belongs to sgd"),
        (lambda: Optimizer("sgd", 0.1, weight_decay=-1), "weight_decay"),
        (lambda: Schedule("step"), "milestones"),
        (lambda: Schedule("linear", milestones=(3,)), "milestones"),
        (lambda: Schedule("step", milestones=(3, 2)), "increase"),
        (lambda: Schedule("step", milestones=(3,), factor=2), "factor"),
        (lambda: small_recipe(0), "epochs"),
        (lambda: small_recipe(1, schedule=Schedule(warmup_epochs=1)), "warmup_epochs"),
        (lambda: small_recipe(label_smoothing=1), "label_smoothing"),
        (lambda: small_recipe(3, schedule=Schedule("step", milestones=(3,))), "3 epochs; got 3"),
        (lambda: small_recipe(3, schedule=Schedule("step", milestones=(0,))), "got 0"),
        (lambda: Engine(threads=0), "threads"),
    ],
)
def test_an_impossible_recipe_is_refused_with_what_was_given(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no CUDA device on .*set .device. to cpu"):
        Engine(device="cuda").chosen()
    as_torch = {"matmul": "default", "evaluation": "plain"}
    assert Engine().chosen() == Engine("cpu", "float32", cohort=1, **as_torch)


@pytest.mark.parametrize("optimizer", [None, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("pruned", [False, True], ids=["dense", "ticket"])
def test_the_loop_is_the_plain_one(optimizer, pruned):
    """Against a naive loop, written from the definitions: PyTorch's plain optimizers,
    weights masked after every step, losses and accuracies of each split computed whole."""
    changes = {"optimizer": optimizer} if optimizer else {}
    recipe = small_recipe(3, label_smoothing=0.2, **changes)
    experiment = small_experiment(recipe=recipe)
    start, data = initial(experiment), experiment.data
    ticket = drawing.ticket(experiment, start, start, 0.6)
    mask = ticket.mask if pruned else None
    *_, (last, metrics) = run(experiment, ticket.start if pruned else start, mask)

    network = experiment.build()
    network.load_state_dict(start.weights)
    kind, settings = torch.optim.SGD, recipe.optimizer
    arguments = {"weight_decay": settings.weight_decay, "momentum": settings.momentum}
    if optimizer:
        kind, arguments = torch.optim.Adam, {"weight_decay": settings.weight_decay}
    plain = kind(network.parameters(), lr=1.0, foreach=False, fused=False, **arguments)

    def prune():
        with torch.no_grad():
            for name, weight in network.named_parameters():
                if mask and name in mask:
                    weight *= mask[name]
                    for buffer in plain.state[weight].values():
                        if buffer.shape == weight.shape:
                            buffer *= mask[name]

    prune()
    for epoch in (1, 2, 3):
        losses = []
        for step, (images, labels) in enumerate(data.epoch(8, experiment.seed, 0, epoch)):
            done = epoch - 1 + step / 4  # epochs; one of warm-up, then a line to 0 at 3
            share = done + 1 / 4 if done < 1 else (3 - done) / 2
            plain.param_groups[0]["lr"] = settings.rate * share
            logits = network(images)
            smooth = F.one_hot(labels, 4) * 0.8 + 0.2 / 4
            loss = -(smooth * logits.log_softmax(1)).sum(1).mean()
            plain.zero_grad()
            loss.backward()
            if mask:  # weight decay of a pruned weight is nothing; nor may its gradient be
                for name, kept in mask.items():
                    dict(network.named_parameters())[name].grad *= kept
            plain.step()
            prune()
            losses.append(loss.item())
    for name, weight in network.named_parameters():
        torch.testing.assert_close(last.weights[name], weight.detach(), rtol=1e-4, atol=1e-5)
    assert metrics.train_loss == pytest.approx(sum(losses) / 4, rel=1e-4)
    for split, loss, accuracy in (
        (data.validation, metrics.validation_loss, metrics.validation_accuracy),
        (data.test, metrics.test_loss, metrics.test_accuracy),
    ):
        logits = network((split.images.float() - 100) / 50)
        assert loss == pytest.approx(F.cross_entropy(logits, split.labels).item(), rel=1e-4)
        assert accuracy == (logits.argmax(1) == split.labels).float().mean().item()


def test_bfloat16_is_another_computation():
    losses = []
    for precision in ("float32", "bfloat16"):
        experiment = small_experiment(engine=Engine(device="cpu", precision=precision))
        losses.append(next(run(experiment, initial(experiment)))[1].train_loss)
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_dense_runs_and_tickets_use_the_threads_of_the_engine():
    engine = Engine(device="cpu", precision="float32", threads=1, dense_threads=2)
    experiment = small_experiment(engine=engine)
    checkpoints = [c for c, _ in runs.train_dense(experiment, 0)]
    assert torch.get_num_threads() == 2
    ticket = drawing.ticket(experiment, checkpoints[-1], checkpoints[1], 0.5)
    next(runs.train_ticket(experiment, 0, ticket))
    assert torch.get_num_threads() == 1


def test_the_seed_of_a_study_changes_the_initial_weights():
    first, second = (initial(small_experiment(seed=seed)) for seed in (3, 4))
    assert not equal(first, second)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("odd", [torch.nan, torch.inf, -torch.inf, None])
def test_weights_are_finite_where_each_is_a_number(kind, odd):
    weights = torch.full((100,), torch.finfo(torch.float16).max, dtype=kind)
    if odd is not None:
        weights[70] = odd
    others = {"empty": torch.zeros(0), "count": torch.tensor(3), "weights": weights}
    assert Checkpoint(0, others).is_finite() is (odd is None)
