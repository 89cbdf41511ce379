"""What pruning before training promises: gradients, flow, and no collapsed layer."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lthdask.data.batches import Data, Images
from lthdask.networks.build import Network, build
from lthdask.pruning.masks import draw_mask
from lthdask.pruning.rule import Pruning, prunable_weights
from lthdask.pruning.scores import scored
from lthdask.pruning.sensitivity import (
    hessian_gradients,
    loss_gradients,
    synaptic_flow,
    synflow_mask,
)
from tests.conftest import small_data

SYNFLOW = Pruning("synflow")


@pytest.fixture(autouse=True)
def one_thread():
    """Compute as a cell does: more threads wait for each other at each of 4,000 filters."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def linear(*weights, between=nn.Identity):
    """Return linear layers with these weights and no biases."""
    layers = [nn.Flatten()]
    for rows in weights:
        values = torch.as_tensor(rows, dtype=torch.float32)
        layer = nn.Linear(values.shape[1], values.shape[0], bias=False)
        layer.weight.data = values
        layers += [layer, between()]
    return nn.Sequential(*layers)


def test_the_gradient_is_of_the_mean_loss_of_a_batch():
    images = Images(torch.tensor([1, 2]).byte().expand(3, 1, 1, 2), torch.tensor([1, 1, 1]))
    data = Data(images, images, images, 2, torch.tensor(0.0), torch.tensor(1.0))
    network = linear([[1.0, 0.0]], [[math.log(3)], [0.0]])
    gradients = loss_gradients(network, data, batch_size=3, seed=0, replicate=0)
    # (1, 2) becomes 1, becomes (ln 3, 0), becomes the chances 3/4, 1/4; the class is the second
    assert gradients["3.weight"].tolist() == [[pytest.approx(0.75)], [pytest.approx(-0.75)]]
    assert gradients["1.weight"].flatten().tolist() == pytest.approx(
        [0.75 * math.log(3), 1.5 * math.log(3)]
    )


def test_the_batch_is_the_first_of_the_first_epoch_of_the_replicate_as_trained_on():
    data, network = small_data(augmentation=("flip",)), build(Network("resnet20"), (1, 8, 8), 4)
    gradients, other = (
        loss_gradients(network.eval(), data, 8, seed=3, replicate=replicate) for replicate in (1, 0)
    )
    images, labels = next(data.epoch(8, 3, 1, 1))
    nn.functional.cross_entropy(network.train()(images), labels).backward()
    assert list(gradients) == list(prunable_weights(network))
    parameters = dict(network.named_parameters())
    assert all(torch.equal(g, parameters[name].grad) for name, g in gradients.items())
    assert not torch.equal(other["stem.0.weight"], gradients["stem.0.weight"])


def test_the_hessian_times_the_gradient_is_that_of_a_softmax():
    images = Images(torch.ones(3, 1, 1, 1).byte(), torch.tensor([1, 1, 1]))
    data = Data(images, images, images, 2, torch.tensor(0.0), torch.tensor(1.0))
    product = hessian_gradients(linear([[4.0], [4.0]]), data, 3, seed=0, replicate=0)
    # both chances are 1/2: g = (1/2, -1/2)/200 and H = ((1, -1), (-1, 1))/4/200²
    assert (product["1.weight"].flatten() * 4 * 200**3).tolist() == pytest.approx([1, -1])


class Precise(nn.Module):
    """Inputs in float64."""

    def forward(self, inputs):
        return inputs.double()


def test_grasp_is_what_the_norm_of_the_gradient_loses_with_a_weight():
    random = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 255, (6, 1, 1, 3), generator=random).byte()
    images = Images(pixels, torch.arange(6) % 3)
    data = Data(images, images, images, 3, torch.tensor(99.0), torch.tensor(99.0))
    first, second = (torch.randn(shape, generator=random) for shape in ((4, 3), (3, 4)))
    network = nn.Sequential(Precise(), *linear(first), nn.Sigmoid(), *linear(second)).double()
    product = hessian_gradients(network, data, 6, seed=0, replicate=0)
    (inputs, labels), flat = next(data.epoch(6, 0, 0, 1)), torch.cat([first, second.T]).flatten()

    def loss(values):
        of_first, of_second = values.view(8, 3).split(4)
        outputs = (inputs.double().flatten(1) @ of_first.T).sigmoid() @ of_second
        return nn.functional.cross_entropy(outputs / 200, labels)

    def gradient(values):
        return torch.autograd.functional.jacobian(loss, values)

    flat, hessian = flat.double(), torch.autograd.functional.hessian(loss, flat.double())
    one, other = product.values()
    found = torch.cat([one, other.T]).flatten()
    torch.testing.assert_close(found, hessian @ gradient(flat), rtol=1e-9, atol=1e-18)
    for i in range(len(flat)):  # equation 8, a weight being made a little smaller, not removed
        less = flat.clone()
        less[i] *= 1 - 1e-5
        added = gradient(less).square().sum() - gradient(flat).square().sum()
        assert -2e-5 * float(flat[i] * found[i]) == pytest.approx(float(added), rel=1e-3, abs=1e-15)


def test_a_network_is_as_it_was():
    network = build(Network("mobilenet_v2", width=0.25), (1, 8, 8), 4)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.eval()
    loss_gradients(network, small_data(), 8, seed=0, replicate=0)
    hessian_gradients(network, small_data(), 8, seed=0, replicate=0)
    flow = synaptic_flow(network, (1, 8, 8))
    synflow_mask(network, 0.9, SYNFLOW, frozenset(), (1, 8, 8), rounds=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module.training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert {tensor.dtype for tensor in flow.values()} == {torch.float64}


def test_synaptic_flow_is_of_magnitudes_an_image_of_ones_and_what_the_mask_leaves():
    network = linear([[1.0, -2.0], [-3.0, 0.5]], [[-1.0, 2.0]])
    flow = synaptic_flow(network, (1, 1, 2))
    assert flow["1.weight"].tolist() == [[1, 1], [2, 2]]
    assert flow["3.weight"].tolist() == [[3, 3.5]]
    mask = {"1.weight": torch.tensor([[False, True], [True, True]])}
    mask["3.weight"] = torch.tensor([[True, False]])
    flow = synaptic_flow(network, (1, 1, 2), mask)
    assert flow["1.weight"].tolist() == [[1, 1], [0, 0]]
    assert flow["3.weight"].tolist() == [[2, 3.5]]


def test_flow_reaches_every_layer_of_a_deep_network_and_stays_finite():
    flow = synaptic_flow(build(Network("mobilenet_v2", "small"), (3, 8, 8), 10), (3, 8, 8))
    for name, gradient in flow.items():
        assert gradient.any(), name  # ReLU6 would have stopped it
        assert gradient.isfinite().all(), name


@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=6),
    st.integers(0, 2**32),
    st.sampled_from([nn.Identity, nn.ReLU, nn.ReLU6]),
)
def test_the_scores_of_each_layer_sum_to_the_same_flow(widths, seed, between):
    random = torch.Generator().manual_seed(seed)
    shapes = zip(widths[1:], widths[:-1], strict=True)
    network = linear(
        *(10 * torch.randn(shape, generator=random) for shape in shapes), between=between
    )
    flow = synaptic_flow(network, (1, 1, widths[0]))
    weights = prunable_weights(network)
    sums = [float((weights[name].abs() * flow[name]).sum()) for name in weights]
    assert sums == pytest.approx([sums[0]] * len(sums), rel=1e-9)


def test_synflow_never_empties_a_layer_that_one_round_would():
    random = torch.Generator().manual_seed(0)
    wide, narrow = torch.rand((10, 10), generator=random), torch.rand((1, 10), generator=random)
    network = linear(wide + 1, narrow + 1)
    (once, _), (in_rounds, cutoffs) = (
        synflow_mask(network, 0.95, SYNFLOW, frozenset(), (1, 1, 10), rounds) for rounds in (1, 100)
    )
    assert [int(kept.sum()) for kept in once.values()] == [0, 6]
    assert sum(int(kept.sum()) for kept in in_rounds.values()) == 6
    assert all(kept.any() for kept in in_rounds.values())
    assert synaptic_flow(network, (1, 1, 10), in_rounds)["1.weight"].any()
    assert all(cutoff > 0 for cutoff in cutoffs.values())


def test_one_round_of_synflow_is_one_mask_drawn_by_the_flow():
    network = build(Network("lenet_300_100"), (1, 8, 8), 4)
    weights, spared = prunable_weights(network), frozenset({"1.weight"})
    living = {
        n: torch.ones_like(w, dtype=torch.bool) for n, w in weights.items() if n != "1.weight"
    }
    flow = synaptic_flow(network, (1, 8, 8))
    scores = scored("synflow", living, weights, weights, flow)
    drawn = draw_mask(weights, 0.7, SYNFLOW, spared, scores=scores)
    mask, cutoffs = synflow_mask(network, 0.7, SYNFLOW, spared, (1, 8, 8), rounds=1)
    assert all(torch.equal(mask[name], drawn[0][name]) for name in weights)
    assert cutoffs["3.weight"] == drawn[1]["3.weight"]
    assert mask["1.weight"].all()


def test_rounds_of_synflow_are_those_of_the_paper():
    random = torch.Generator().manual_seed(5)  # for which dead weights would come back to life
    network = linear(torch.randn((6, 4), generator=random), torch.randn((3, 6), generator=random))
    weights, rounds, density = prunable_weights(network), 10, 0.25
    count = sum(w.numel() for w in weights.values())
    kept = {name: torch.ones_like(w) for name, w in weights.items()}
    for n in range(1, rounds + 1):  # algorithm 1
        flow = synaptic_flow(network, (1, 1, 4), kept)
        scores = {name: (w * kept[name] * flow[name]).abs() for name, w in weights.items()}
        flat = torch.cat([score.flatten() for score in scores.values()])
        lowest = flat.kthvalue(int((1 - density ** (n / rounds)) * count)).values
        kept = {name: (score > lowest).float() for name, score in scores.items()}
    mask, _ = synflow_mask(network, 1 - density, SYNFLOW, frozenset(), (1, 1, 4), rounds)
    assert all(torch.equal(mask[name], kept[name].bool()) for name in weights)
