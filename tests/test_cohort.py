"""What cohorts promise: models trained side by side end where each would end alone."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from lthdask.lottery.ticket import masked
from lthdask.networks.build import NETWORKS, Network, on_meta
from lthdask.networks.mobilenet import Depthwise
from lthdask.networks.stack import Stack, stack, stacked
from lthdask.networks.wide_resnet import WideBlock
from lthdask.pruning.masks import draw_mask
from lthdask.pruning.rule import Pruning, prunable_weights
from lthdask.training import graphs
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.cohort import largest_cohort, models_within, train_cohort
from lthdask.training.engine import Engine
from lthdask.training.loop import Diverged, EpochMetrics, Measurement, train
from lthdask.training.recipe import Optimizer
from tests.conftest import ENGINE, equal, small_data, small_experiment, small_recipe

IMAGENET = Network("mobilenet_v2", "imagenet", 0.25)
SMALL = Network("mobilenet_v2", "small", 0.25)
PUBLISHED = Network("resnet20", "imagenet", 1.0, True, "variance_scaling", 0.003)
ADAM = Optimizer("adam", rate=0.01, weight_decay=1e-3)
SPARING = {
    "sgd": Optimizer("sgd", 0.05, 0.9, 0.1, nesterov=True, decay_norm_and_bias=False),
    "adamw": Optimizer("adamw", 0.01, weight_decay=0.1, decay_norm_and_bias=False),
}


class Cohort:
    """Three models from checkpoint 1, under three masks; trained alone, or side by side."""

    def __init__(self, network, size=8, dtype=torch.float32, engine=ENGINE, **recipe):
        torch.set_num_threads(engine.threads)
        recipe = small_recipe(2, batch_size=16, label_smoothing=0.1, **recipe)
        data = small_data(size, augmentation=("crop", "flip"))
        self.data = replace(data, mean=data.mean.to(dtype), std=data.std.to(dtype))
        self.made = small_experiment(network, recipe=recipe, data=self.data)
        self.dtype, self.engine, self.recipe = dtype, engine, recipe
        first, second = self.dense(0), self.dense(1)
        dense = [first, first, second]
        names = prunable_weights(self.network())
        self.masks = [{}]
        for checkpoint, threshold in zip(dense[1:], (0.5, 0.9), strict=True):
            final = {name: checkpoint.weights[name] for name in names}
            self.masks.append(draw_mask(final, threshold, Pruning("lamp"), frozenset())[0])
        self.starts = [masked(c, mask) for c, mask in zip(dense, self.masks, strict=True)]

    def network(self, replicate=0):
        return self.made.build(replicate).to(self.dtype)

    def dense(self, replicate):
        """Checkpoint 1: with momentum and batch-norm statistics of its own."""
        network, recipe = self.network(replicate), replace(self.recipe, measure_every=0)
        start = Checkpoint(0, {n: t.clone() for n, t in network.state_dict().items()})
        return next(train(network, self.data, recipe, start, **self.rest())).states()[0].copy()

    def alone(self, start, mask):
        run = train(self.network(), self.data, self.recipe, start, mask=mask, **self.rest())
        return ((at.states()[0].copy(), *at.outcomes) for at in run)

    def together(self, starts=None, masks=None, network=None, every=0):
        due = itertools.cycle([*[False] * (every - 1), every > 0])
        run = train_cohort(
            network or self.network(),
            self.data,
            self.recipe,
            starts or self.starts,
            masks or self.masks,
            due=lambda: next(due),
            **self.rest(),
        )
        return (([state.copy() for state in at.states()], at.outcomes) for at in run)

    def rest(self):
        return {"seed": 3, "replicate": 0, "engine": self.engine}


def apart(one, other):
    """The largest difference between two checkpoints that are alike in all else."""
    assert (one.epoch, one.step) == (other.epoch, other.step)
    assert one.weights.keys() == other.weights.keys()
    assert {n: [*b] for n, b in one.buffers.items()} == {n: [*b] for n, b in other.buffers.items()}
    pairs = [(t, other.weights[n]) for n, t in one.weights.items()]
    pairs += [(t, other.buffers[n][b]) for n, of in one.buffers.items() for b, t in of.items()]
    assert all(a.dtype == b.dtype and a.shape == b.shape for a, b in pairs)
    return max(abs(one.loss - other.loss), *(float((a - b).abs().max()) for a, b in pairs))


def numbers(metrics):
    return [v for m in metrics for v in vars(m).values()]


@pytest.mark.parametrize(
    ("network", "size", "optimizer"),
    [
        (IMAGENET, 32, None),
        (SMALL, 8, None),
        (SMALL, 8, ADAM),
        (Network("resnet20"), 8, None),
        (Network("resnet20"), 8, ADAM),
        (Network("lenet_300_100"), 8, None),
        (Network("lenet_300_100"), 8, ADAM),
        (PUBLISHED, 8, SPARING["sgd"]),
        (Network("lenet_300_100"), 8, SPARING["adamw"]),
    ],
)
def test_each_model_of_a_cohort_ends_where_it_ends_alone(network, size, optimizer):
    """Of MobileNetV2 under Adam within 1e-6: a bias between two batch norms has no gradient
    but rounding, which Adam multiplies by up to rate / 1e-8, here a million."""
    tolerance = 1e-6 if optimizer and network is SMALL else 1e-9
    changes = {"optimizer": optimizer} if optimizer else {}
    cohort = Cohort(network, size, torch.float64, measure_every=3, **changes)
    (inside, measured), (ends, metrics) = cohort.together()
    for model, (start, mask) in enumerate(zip(cohort.starts, cohort.masks, strict=True)):
        (within, at_step), (end, at_end) = cohort.alone(start, mask)
        assert apart(inside[model], within) < tolerance
        assert apart(ends[model], end) < tolerance
        ours, alone = [measured[model], metrics[model]], [at_step, at_end]
        assert [type(m) for m in ours] == [Measurement, EpochMetrics]
        assert numbers(ours) == pytest.approx(numbers(alone), abs=tolerance)
        for name, kept in mask.items():
            assert not ends[model].weights[name][~kept].any()


@pytest.mark.parametrize(
    ("network", "precision"),
    [("resnet20", "float32"), ("lenet_300_100", "float32"), ("lenet_300_100", "bfloat16")],
)
def test_in_lower_precision_a_few_steps_differ_by_rounding(network, precision):
    """Of the distance that a model moves: 1e-3 in float32, a tenth in bfloat16."""
    cohort = Cohort(network, engine=Engine(device="cpu", precision=precision))
    ends, _ = list(cohort.together())[-1]
    for start, mask, end in zip(cohort.starts, cohort.masks, ends, strict=True):
        *_, (alone, _) = cohort.alone(start, mask)
        moved = distance(alone, start)
        assert 0 < distance(end, alone) < {"float32": 1e-3, "bfloat16": 0.1}[precision] * moved


def distance(one, other):
    both = [(t, other.weights[n]) for n, t in one.weights.items() if t.is_floating_point()]
    return sum(float((a - b).square().sum()) for a, b in both) ** 0.5


@pytest.mark.parametrize("network", [SMALL, Network("resnet20"), Network("lenet_300_100")])
def test_a_model_that_diverges_changes_no_bit_of_the_others(network):
    cohort = Cohort(network)
    sound = list(cohort.together(every=1))
    broken, name = cohort.starts.copy(), next(iter(cohort.masks[1]))
    infected = torch.full_like(broken[1].weights[name], torch.nan)
    broken[1] = replace(broken[1], weights=broken[1].weights | {name: infected})
    yields = list(cohort.together(broken, every=1))
    assert len(yields) == len(sound) == 2
    for (states, outcomes), (others, expected) in zip(yields, sound, strict=True):
        assert isinstance(outcomes[1], Diverged)
        assert str(outcomes[1]) == "the loss is nan in epoch 2"
        for model in (0, 2):
            assert equal(states[model], others[model])
            assert outcomes[model] == expected[model]


def test_a_cohort_ends_where_every_model_has_diverged():
    cohort = Cohort("lenet_300_100")
    cohort.recipe = replace(cohort.recipe, epochs=9, optimizer=Optimizer("sgd", rate=1e30))
    ((_, outcomes),) = cohort.together()
    assert [type(outcome) for outcome in outcomes] == [Diverged] * 3


@pytest.mark.parametrize(
    ("network", "optimizer"),
    [("lenet_300_100", ADAM), (SMALL, None), ("lenet_300_100", SPARING["adamw"])],
)
def test_a_cohort_that_is_stopped_and_resumed_anywhere_ends_in_the_same_bits(network, optimizer):
    cohort = Cohort(network, **({"optimizer": optimizer} if optimizer else {}))
    undisturbed = list(cohort.together(every=1))
    assert [s[0].step for s, _ in undisturbed] == [1, 0]
    *_, (ends, metrics) = cohort.together(undisturbed[0][0])
    assert all(map(equal, ends, undisturbed[-1][0]))
    assert metrics == undisturbed[-1][1]


def test_momentum_that_was_not_pruned_is_noticed(monkeypatch):
    cohort = Cohort("lenet_300_100")
    monkeypatch.setattr("lthdask.training.model.lay_over", lambda *given: None)
    alive = [cohort.starts[0], cohort.starts[0], cohort.starts[2]]
    with pytest.raises(RuntimeError, match="are not zero"):
        list(cohort.together(alive))


def test_an_optimizer_that_starts_afresh_may_stand_beside_one_that_does_not():
    cohort = Cohort("lenet_300_100", dtype=torch.float64)
    cohort.starts[1] = replace(cohort.starts[1], buffers={})
    ((ends, _),) = cohort.together()
    for start, mask, end in zip(cohort.starts, cohort.masks, ends, strict=True):
        ((alone, _),) = cohort.alone(start, mask)
        assert apart(end, alone) < 1e-9


def test_starts_that_are_not_at_the_same_point_are_refused():
    cohort = Cohort("lenet_300_100", optimizer=ADAM)
    first, second, third = cohort.starts
    for starts, problem in (
        ([first, second], "got 2 and 3"),
        ([first, second, replace(third, step=2)], r"got \[\(1, 0\), \(1, 2\)\]"),
        ([first, second, replace(third, buffers={})], r"got \[0, 2\]"),
    ):
        with pytest.raises(ValueError, match=problem):
            next(cohort.together(starts))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "size"),
    [
        (Network("conv2"), 8),
        (Network("vgg16"), 16),
        (Network("resnet18", "small"), 8),
        (Network("resnet18"), 8),
        (Network("resnet32"), 8),
        (Network("wrn_22_2"), 8),
    ],
)
def test_each_model_of_a_cohort_of_a_large_network_ends_where_it_ends_alone(network, size):
    test_each_model_of_a_cohort_ends_where_it_ends_alone(network, size, None)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_of_ours_has_its_layers_exchanged(name):
    assert stack(on_meta(Network(name), (1, 16, 16), 4), 2).layered


class Shuffled(nn.Sequential):
    def forward(self, images):
        return super().forward(images).flip(1)


@pytest.mark.parametrize(
    "layer",
    [
        Shuffled(nn.Conv2d(3, 4, 3)),
        nn.GroupNorm(1, 3),
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.Flatten(2),
        nn.Dropout(0.5),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_network_with_a_part_that_is_not_known_is_mapped_over_the_models(layer):
    network = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(4))
    network.eval()(torch.zeros(1, 3, 8, 8))
    network, images = network.double(), torch.randn(5, 3, 8, 8, dtype=torch.float64)
    models = stack(network, 2)
    assert not models.layered
    torch.testing.assert_close(models(images), network(images).expand(2, -1, -1))


LAYERS = {
    "plain": [nn.Conv2d(3, 6, 3, stride=2), nn.Conv2d(6, 4, 3, padding="same", dilation=2)],
    "grouped": [nn.Conv2d(3, 6, 3, groups=3), nn.Conv2d(6, 4, 3, groups=2)],
    "pointwise": [nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1, stride=2), nn.Conv2d(4, 6, 1)],
    "normalised": [nn.BatchNorm2d(3), nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)],
    "pooled": [nn.Conv2d(3, 6, 3), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(2)],
    "one pixel": [nn.Conv2d(3, 6, 8), Depthwise(6, 6, 3, padding=1, groups=6, bias=False)],
    "four pixels": [nn.Conv2d(3, 6, 7), Depthwise(6, 6, 3, 2, padding=1, groups=6, bias=False)],
    "linear": [nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 4)],
    "conv": [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 4)],
    "wide": [WideBlock(3, 6, 2), WideBlock(6, 6, 1)],
    "basic": [nn.Conv2d(3, 3, 1), BasicBlock(3, 3), BasicBlock(3, 6, 2, nn.Conv2d(3, 6, 1, 2))],
}


@pytest.mark.parametrize("layered", [True, False], ids=["layered", "mapped"])
@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_a_stack_of_layers_computes_what_the_models_compute(layers, layered):
    """Logits, gradients and statistics, of shared images."""
    network = nn.Sequential(*layers, nn.Flatten()).double()
    assert stack(network, 3).layered
    torch.manual_seed(0)
    states = [
        {n: torch.randn_like(t) if t.is_floating_point() else t for n, t in state.items()}
        for state in [network.state_dict()] * 3
    ]
    for state in states:
        state.update({n: t.abs() for n, t in state.items() if n.endswith("running_var")})
    models = Stack(network, 3, layered)
    models.network.load_state_dict({n: stacked([s[n] for s in states]) for n in states[0]})
    images = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    ours = models(images.contiguous(memory_format=torch.channels_last))
    ours.sin().sum().backward()
    for model, state in enumerate(states):
        alone = build_again(network, state)
        logits = alone(images)
        logits.sin().sum().backward()
        torch.testing.assert_close(ours[model], logits)
        for name, weight in alone.named_parameters():
            gradient = dict(models.network.named_parameters())[name].grad[model]
            torch.testing.assert_close(gradient, weight.grad)
        for name, buffer in alone.named_buffers():
            torch.testing.assert_close(dict(models.network.named_buffers())[name][model], buffer)


def build_again(network, state):
    again = Stack(network, 1, False).network
    for name, tensor in state.items():
        owner, _, attribute = name.rpartition(".")
        layer = again.get_submodule(owner)
        value = tensor.clone()
        setattr(
            layer,
            attribute,
            nn.Parameter(value) if name in dict(network.named_parameters()) else value,
        )
    return again


def test_on_a_cpu_a_cohort_is_one_model():
    cohort = Cohort("lenet_300_100")
    assert largest_cohort(cohort.network(), cohort.data, cohort.recipe, ENGINE) == 1


@pytest.mark.parametrize(
    ("free", "one", "two", "models"),
    [(1000, 100, 150, 17), (1000, 100, 200, 9), (100, 100, 200, 1), (100, 300, 600, 1)],
)
def test_as_many_models_fit_as_nine_tenths_of_the_memory_hold(free, one, two, models):
    assert models_within(free, one, two) == models


def test_where_a_step_cannot_be_recorded_plain_steps_train_the_same_and_say_so():
    def trained(kind):
        torch.manual_seed(0)
        network = nn.Linear(3, 2)
        optimizer = torch.optim.SGD(network.parameters(), 0.1, 0.9)

        def step(images, labels):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()

        advance = kind(step, optimizer, [*network.parameters()])
        for rate in (0.1, 0.2):
            advance(torch.ones(4, 3), torch.tensor([0, 1, 1, 1]), rate)
        return [*network.parameters()]

    if torch.cuda.is_available():
        pytest.skip("here it can be recorded")
    with pytest.warns(UserWarning, match="goes on without CUDA graphs") as warned:
        ours = trained(graphs.graphed)
    assert len(warned) == 1
    assert all(map(torch.equal, ours, trained(graphs.plain)))


@pytest.mark.parametrize(
    ("weights", "buffers", "same"),
    [
        ([1.1, 2.2], [3, 4], True),
        ([1.1001, 2.2001], [3, 4], True),
        ([1.0, 2.0], [3, 4], False),  # not updated
        ([1.2, 2.4], [3, 4], False),  # at another rate
        ([1.1, 2.2], [3, 5], False),
        ([1.1, torch.nan], [3, 4], False),
    ],
)
def test_a_recorded_step_has_to_change_every_tensor_as_a_plain_one_does(weights, buffers, same):
    before = [torch.tensor([1.0, 2.0]), torch.tensor([2, 3])]
    plain = [torch.tensor([1.1, 2.2]), torch.tensor([3, 4])]
    recorded = [torch.tensor(weights), torch.tensor(buffers)]
    assert graphs.same_step(before, plain, plain, recorded) == same


def test_a_recorded_step_may_differ_as_much_as_plain_ones_do():
    before, plain, again = ([torch.tensor([w])] for w in (1.0, 1.1, 0.9))
    assert graphs.same_step(before, plain, again, [torch.tensor([0.8])])
    assert not graphs.same_step(before, plain, again, [torch.tensor([2.0])])
