"""What compaction promises: the same outputs from less, and a refusal where it knows no better."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from lthdask.errors import InputError
from lthdask.export.compact import compacted
from lthdask.networks.build import Network, build

NETWORKS = {
    "lenet_300_100": (Network("lenet_300_100"), (1, 28, 28)),
    "mobilenet_v2": (Network("mobilenet_v2", width=0.35), (1, 32, 32)),
    "resnet20": (Network("resnet20"), (1, 16, 16)),
    "conv2": (Network("conv2"), (3, 8, 8)),
}


def pruned(network, density, empty, random):
    """A network as after training, of which some weights, rows and columns are zero."""
    for layer in network.eval().modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.running_mean, layer.bias.data):
                values.normal_(generator=random)
            for values in (layer.running_var, layer.weight.data):
                values.uniform_(0.5, 2, generator=random)
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            weight = layer.weight.data
            kept = torch.rand(weight.shape, generator=random) < density
            kept[torch.rand(len(weight), generator=random) < empty] = False
            if weight.shape[1] > 3:
                kept[:, torch.rand(weight.shape[1], generator=random) < empty] = False
            weight.mul_(kept)
    return network


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", NETWORKS)
@given(
    st.sampled_from([0.02, 0.2, 0.7]),
    st.sampled_from([0.0, 0.3, 0.8]),
    st.sampled_from([1, 16]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=2, deadline=None)
def test_a_compacted_network_has_the_same_outputs(name, density, empty, multiple, seed):
    torch.manual_seed(seed)  # of the weights
    random = torch.Generator().manual_seed(seed)
    kind, shape = NETWORKS[name]
    network = pruned(build(kind, shape, 10), density, empty, random)
    images = torch.randn(3, *shape, generator=random)
    small = compacted(network, shape, multiple)
    with torch.no_grad():
        found, wanted = small(images), network(images)
    assert torch.allclose(found, wanted, atol=2e-6 * wanted.abs().max())
    assert parameters(small) <= parameters(network)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in small.modules())


def test_a_channel_that_nothing_reads_goes_and_so_does_what_only_it_reads():
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)
    )
    network[5].weight.data[:, :3] = 0  # reads the last channel of the second convolution
    network[2].weight.data[3, 1:] = 0  # which reads the first of the first
    small = compacted(network, (1, 5, 5), multiple=1)
    assert [p.shape[0] for p in small.parameters() if p.ndim > 1] == [1, 1, 2]
    images = torch.randn(2, 1, 5, 5)
    assert torch.allclose(small(images), network(images), atol=1e-6)


@pytest.mark.parametrize(("padding", "left"), [(0, 1), (1, 2)])
def test_a_constant_joins_the_bias_unless_it_is_read_across_a_border(padding, left):
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 3, 3, padding=padding))
    network[0].weight.data[1] = 0
    network[0].bias.data[1] = 0.5
    small = compacted(network, (1, 5, 5), multiple=1)
    assert next(small.parameters()).shape[0] == left
    images = torch.randn(2, 1, 5, 5)
    assert torch.allclose(small(images), network(images), atol=1e-6)


def test_numbers_of_channels_are_rounded_up_but_never_beyond_what_there_was():
    network = nn.Sequential(
        nn.Linear(5, 40), nn.ReLU(), nn.Linear(40, 20), nn.ReLU(), nn.Linear(20, 3)
    )
    network[0].weight.data[17:] = 0
    network[2].weight.data[:] *= torch.rand(20, 1) < 2
    small = compacted(network, (5,))
    assert [p.shape[0] for p in small.parameters() if p.ndim > 1] == [32, 20, 3]


class Odd(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.layer, self.what = nn.Conv2d(4, 4, 1), what

    def forward(self, images):
        return self.what(self, images)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda self, x: self.layer(self.layer(x)), "layer is used twice"),
        (lambda self, x: self.layer(x).softmax(1), r"softmax \(softmax\) is not known there"),
        (lambda self, x: self.layer(x) * 2, r"mul \(mul\) is not known"),
        (lambda self, x: self.layer(x).mean(1), r"mean \(mean\) is not known"),
        (lambda self, x: 1 + self.layer(x), r"add \(add\) is not known"),
        (lambda self, x: torch.add(x, self.layer(x), alpha=2), "is not known"),
        (lambda self, x: self.layer(x)[:, :1].add(x), "is not known"),
        (lambda self, x: self.layer(x).mean((2, 3)).expand(-1, 4), r"expand\) is not known"),
        (lambda self, x: torch.cat([x, self.layer(x)], 1), r"cat \(cat\) is not known"),
        (lambda self, x: self.layer(torch.relu(input=x)), r"relu\) is not known"),
        (lambda self, x: self.layer(x) if x.sum() > 0 else x, "cannot be compacted"),
        (lambda self, x: self.layer(x.reshape(2, 4, 8, 8)), "cannot be compacted: ShapeProp"),
    ],
)
def test_what_it_does_not_know_is_refused(what, said):
    with pytest.raises(InputError, match=said):
        compacted(Odd(what), (4, 8, 8))


class Shifting(nn.Conv2d):
    def forward(self, images):
        return super().forward(images) + 1


class Curved(nn.BatchNorm2d):
    def forward(self, images):
        return super().forward(images).relu()


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ((Shifting(4, 4, 1),), "Shifting"),
        ((nn.Conv2d(4, 4, 1), Curved(4)), "Curved"),  # as timm's, with its activation
        ((nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)), "BatchNorm2d"),  # as in a WRN
    ],
)
def test_a_layer_that_may_compute_something_else_is_refused(layers, said):
    with pytest.raises(InputError, match=rf"\({said}\) is not known there"):
        compacted(nn.Sequential(*layers), (4, 8, 8))


def test_outputs_that_would_be_others_are_refused():
    def in_place(self, images):
        features = self.layer(images)
        features.relu_()  # a graph has the tensor of before
        return self.layer2(features)

    network = Odd(in_place)
    network.layer2 = nn.Conv2d(4, 4, 1)
    network.layer.weight.data[0] = 0
    network.layer.bias.data[0] = -5
    with pytest.raises(InputError, match="its outputs would be others"):
        compacted(network, (4, 8, 8))
