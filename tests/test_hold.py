"""What `hold` promises: pruned weights stay zero, whatever optimizer trains the others."""

import copy

import pytest
import torch
from torch import nn

import lthdask
from lthdask.errors import InputError

OPTIMIZERS = {
    "SGD": lambda weights: torch.optim.SGD(weights, 0.1),
    "momentum": lambda weights: torch.optim.SGD(weights, 0.1, 0.9, weight_decay=0.1),
    "Nesterov": lambda weights: torch.optim.SGD(weights, 0.1, 0.9, nesterov=True),
    "fused SGD": lambda weights: torch.optim.SGD(weights, 0.1, 0.9, fused=True),
    "Adam": lambda weights: torch.optim.Adam(weights, 0.01),
    "fused Adam": lambda weights: torch.optim.Adam(weights, 0.01, fused=True),
    "AdamW": lambda weights: torch.optim.AdamW(weights, 0.01, weight_decay=0.1),
    "Muon": lambda weights: torch.optim.Muon([w for w in weights if w.ndim == 2], 0.01),
}


def made():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    mask = {f"{layer}.weight": torch.rand_like(network[layer].weight) < 0.3 for layer in (0, 2)}
    return network, mask


def trained(network, optimizer, steps, clip=None):
    for _ in range(steps):
        optimizer.zero_grad()
        (network(torch.randn(4, 6)) - 1).square().mean().backward()
        if clip:
            nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()


def revived(network, mask):
    return sum(
        int(network.get_parameter(name)[~kept].count_nonzero()) for name, kept in mask.items()
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pruned_weights_stay_zero_even_with_momentum_from_before_the_pruning(name):
    network, mask = made()
    optimizer = OPTIMIZERS[name]([*network.parameters()])
    trained(network, optimizer, 3)
    lthdask.hold(optimizer, network, mask)
    assert revived(network, mask) == 0
    before = copy.deepcopy(network.state_dict())
    trained(network, optimizer, 3)
    assert revived(network, mask) == 0
    for name, kept in mask.items():
        assert (network.get_parameter(name)[kept] != before[name][kept]).any()
    assert network.state_dict().keys() == before.keys()


def test_a_norm_is_clipped_to_that_of_the_weights_that_survive():
    network, mask = made()
    alone = copy.deepcopy(network)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    lthdask.hold(optimizer, network, mask)
    images = torch.randn(4, 6)
    for layer in (0, 2):
        alone[layer].weight.data *= mask[f"{layer}.weight"]
    for each in (network, alone):
        each(images).square().mean().backward()
    for layer in (0, 2):
        kept = mask[f"{layer}.weight"]
        assert torch.equal(network[layer].weight.grad, alone[layer].weight.grad * kept)
        assert alone[layer].weight.grad[~kept].count_nonzero()


def test_what_is_let_go_is_trained_as_before():
    network, mask = made()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    with lthdask.hold(optimizer, network, mask):
        trained(network, optimizer, 1)
        assert revived(network, mask) == 0
    trained(network, optimizer, 1)
    assert revived(network, mask) > 10


def test_a_network_that_changes_its_type_is_still_held():
    network, mask = made()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    lthdask.hold(optimizer, network, mask)
    network.to(torch.bfloat16)
    network(torch.randn(4, 6).bfloat16()).square().mean().backward()
    optimizer.step()
    assert revived(network, mask) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda mask: mask.clear(), "the mask is empty"),
        (lambda mask: mask.update(other=mask["0.weight"]), "no weight 'other', but such as"),
        (
            lambda mask: mask.update({"0.weight": mask["2.weight"]}),
            r"it must be torch.bool \(8, 6\)",
        ),
        (lambda mask: mask.update({"0.weight": mask["0.weight"].float()}), "is torch.float32"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_and_nothing_is_changed(change, said):
    network, mask = made()
    before = copy.deepcopy(network.state_dict())
    change(mask)
    with pytest.raises(InputError, match=said):
        lthdask.hold(torch.optim.SGD(network.parameters(), 0.1), network, mask)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_an_optimizer_of_another_network_is_refused():
    network, mask = made()
    other, _ = made()
    with pytest.raises(InputError, match="has none of the masked weights"):
        lthdask.hold(torch.optim.SGD(other.parameters(), 0.1), network, mask)
