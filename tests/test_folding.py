"""What folding promises: the network's outputs up to rounding, for what is known alone."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from lthdask.errors import InputError
from lthdask.lottery import runs
from lthdask.networks.build import Network, build, on_meta
from lthdask.networks.folding import Folded, can_be_folded, folded
from lthdask.training.engine import Engine
from lthdask.training.evaluation import evaluate, laid_out
from tests.conftest import ENGINE, small_data, small_experiment

FOLDED = replace(ENGINE, matmul="default", evaluation="folded")


def drawn(network, shape):
    """Return a network whose batch norms have been moved from where they begin."""
    torch.manual_seed(0)
    found = build(network, shape, 4)
    for layer in found.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.3)
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
    return found.eval()


@pytest.mark.parametrize(
    ("network", "size", "layers", "left"),
    [
        (Network("mobilenet_v2", width=0.25), 32, 52, 0),
        (Network("resnet20"), 8, 21, 0),
        (Network("vgg16"), 16, 13, 0),
        (Network("resnet18", "small"), 8, 20, 0),
        (Network("wrn_16_4"), 8, 7, 6),  # half of them come before a convolution
    ],
)
def test_a_folded_network_has_its_outputs_up_to_rounding(network, size, layers, left):
    plain = drawn(network, (1, size, size))
    images = laid_out(torch.randn(6, 1, size, size))
    with torch.inference_mode():
        wanted = copy.deepcopy(plain).double()(images.double())
        found = folded(plain)(images)
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 2e-6
    counted = Folded(plain)
    norms = [node for node in counted.module.graph.nodes if node.op == "call_module"]
    kinds = [counted.module.get_submodule(str(node.target)) for node in norms]
    assert len(counted.layers) == layers
    assert sum(isinstance(kind, nn.BatchNorm2d) for kind in kinds) == left


def test_a_folded_network_has_the_weights_as_they_are_now():
    plain, images = drawn(Network("resnet20"), (1, 8, 8)), laid_out(torch.randn(6, 1, 8, 8))
    with torch.inference_mode():
        before = folded(plain)(images)
        state = copy.deepcopy(plain.state_dict())
        for weight in plain.parameters():
            weight.mul_(0.5)
        after, wanted = folded(plain)(images), plain(images)
        plain.load_state_dict(state)
        again = folded(plain)(images)
    assert torch.allclose(after, wanted, atol=1e-5)
    assert not torch.allclose(after, before, atol=1e-2)
    assert torch.equal(again, before)


def test_evaluation_takes_the_way_of_the_engine(dense_run):
    experiment, checkpoints, _ = dense_run
    network = experiment.build()
    network.load_state_dict(checkpoints[-1].weights)
    plain = evaluate(network, experiment.data, experiment.data.test, ENGINE)
    other = evaluate(network, experiment.data, experiment.data.test, FOLDED)
    assert other == pytest.approx(plain, rel=1e-5)
    assert other != plain  # by rounding
    assert evaluate(network, experiment.data, experiment.data.test, ENGINE) == plain


class Doubled(nn.Sequential):
    """What nobody knows."""

    def forward(self, images):
        return 2 * super().forward(images)


def norms(*more, kind=nn.Sequential):
    return kind(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), *more, nn.Flatten(), nn.Linear(144, 4))


@pytest.mark.parametrize(
    ("network", "can"),
    [
        (norms(), True),
        (norms(nn.ReLU()), True),
        (norms(kind=Doubled), False),
        (norms(nn.Dropout(0.5)), False),
        (on_meta(Network("lenet_300_100"), (1, 8, 8), 4), False),
        (on_meta(Network("conv2"), (1, 8, 8), 4), False),
        (on_meta(Network("mobilenet_v2"), (1, 8, 8), 4), True),
    ],
)
def test_networks_of_known_layers_with_batch_norm_after_convolutions_can_be_folded(network, can):
    training = network.training
    assert can_be_folded(network) == can
    assert network.training == training


def test_a_network_with_hooks_of_its_own_is_not_folded():
    network = norms()
    network[0].register_forward_hook(lambda *of: None)
    assert not can_be_folded(network)


@pytest.mark.parametrize(
    ("network", "engine", "way"),
    [
        ("mobilenet_v2", Engine("cpu", "float32"), "folded"),
        ("mobilenet_v2", Engine("cpu", "bfloat16"), "plain"),
        ("mobilenet_v2", Engine("cpu", "float32", evaluation="plain"), "plain"),
        ("lenet_300_100", Engine("cpu", "float32"), "plain"),
    ],
)
def test_a_cpu_folds_in_float32_where_it_can(network, engine, way):
    asked = replace(engine, matmul="default")
    assert runs.choose_engine(asked, small_experiment(network)).engine.evaluation == way


@pytest.mark.parametrize(
    ("network", "precision"), [("lenet_300_100", "float32"), ("resnet20", "bfloat16")]
)
def test_folding_that_cannot_be_is_refused(network, precision):
    asked = replace(FOLDED, precision=precision)
    with pytest.raises(InputError, match="engine.evaluation is folded, which takes a CPU"):
        runs.choose_engine(asked, small_experiment(network))


def test_an_idle_network_is_not_kept_because_it_was_folded():
    import gc
    import weakref

    network = drawn(Network("resnet20"), (1, 8, 8))
    folded(network)
    gone = weakref.ref(network)
    del network
    gc.collect()
    assert gone() is None


def test_a_folded_training_is_repeatable_and_resumes_in_the_same_bits():
    experiment = small_experiment("resnet20", engine=FOLDED, data=small_data())
    ends = [[metrics for _, metrics in runs.train_dense(experiment, 0)] for _ in range(2)]
    assert ends[0] == ends[1]
