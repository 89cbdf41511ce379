"""What the networks promise: the published shapes, and no dependence on anything but a seed."""

import copy
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from lthdask.errors import InputError
from lthdask.networks.build import NETWORKS, Network, build, on_meta
from lthdask.networks.mobilenet import ConvNormReLU6, written_out
from lthdask.networks.wide_resnet import WideBlock
from lthdask.pruning.rule import prunable_weights
from lthdask.pruning.sensitivity import hessian_gradients
from lthdask.study import Study
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.loop import train
from lthdask.training.recipe import Schedule
from tests.conftest import equal, small_data, small_experiment, small_recipe

SMALL = [Network("conv2"), Network("vgg16"), Network("resnet18", "small"), Network("wrn_22_2")]
"""One of each kind for small images that was not there at first."""


def side(network):
    """The side of an image that is small, and large enough."""
    return 16 if network.name.startswith("vgg") else 8


def drawn(network, seed=0, shape=(3, 32, 32), classes=10):
    torch.manual_seed(seed)
    return build(network, shape, classes)


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("mobilenet_v2", (32, 3, 10), 2_236_682),
        ("mobilenet_v2", (32, 1, 10), 2_236_682),
        ("mobilenet_v2", (224, 3, 1000), 3_504_872),
        ("resnet20", (32, 3, 10), 272_474),
        ("lenet_300_100", (28, 1, 10), 266_610),
        ("conv2", (32, 3, 10), 4_301_642),
        ("conv4", (32, 3, 10), 2_425_930),
        ("conv6", (32, 3, 10), 2_262_602),
        ("vgg16", (32, 3, 10), 14_724_042),
        ("vgg19", (32, 3, 10), 20_035_018),
        ("resnet18", (224, 3, 1000), 11_689_512),
        ("resnet32", (32, 3, 10), 464_154 + 2_752),  # as published, and two projections
        ("resnet44", (32, 3, 10), 658_586 + 2_752),
        ("resnet56", (32, 3, 10), 853_018 + 2_752),
        ("resnet110", (32, 3, 10), 1_727_962 + 2_752),
        ("wrn_16_4", (32, 3, 10), 2_748_890),
        ("wrn_16_8", (32, 3, 10), 10_961_370),
        ("wrn_22_2", (32, 3, 10), 1_079_642),
        ("wrn_22_8", (32, 3, 10), 17_158_106),
        ("wrn_28_10", (32, 3, 10), 36_479_194),
        ("wrn_40_2", (32, 3, 10), 2_243_546),
        ("wrn_40_4", (32, 3, 10), 8_949_210),
    ],
)
def test_networks_have_the_published_number_of_parameters(name, arguments, count):
    size, channels, classes = arguments
    outline = on_meta(Network(name), (channels, size, size), classes)
    assert sum(weight.numel() for weight in outline.parameters()) == count


def test_the_small_resnet18_has_the_published_number_of_parameters():
    outline = on_meta(Network("resnet18", "small"), (3, 32, 32), 10)
    assert sum(weight.numel() for weight in outline.parameters()) == 11_173_962


@pytest.mark.parametrize(
    ("name", "convolutions", "all_weights"),
    [
        ("lenet_300_100", 0, 266_200),
        ("conv2", 38_592, 4_300_992),
        ("conv4", 259_776, 2_425_024),
        ("conv6", 1_144_512, 2_261_184),
        ("vgg19", 20_018_880, 20_024_000),
        ("resnet20", 270_256, 270_896),
    ],
)
def test_the_first_papers_weights_are_what_can_be_pruned(name, convolutions, all_weights):
    """Of figure 2 there: 266K; 4.3M, 2.4M and 20.0M, of which 38K, 260K, 1.1M and 20.0M in
    convolutions. For Conv-6, it says 1.7M in all; its layers have 2.26M."""
    shape = (1, 28, 28) if name == "lenet_300_100" else (3, 32, 32)
    outline = on_meta(Network(name), shape, 10)
    kernels = [m.weight for m in outline.modules() if isinstance(m, nn.Conv2d)]
    assert sum(weight.numel() for weight in kernels) == convolutions
    assert sum(weight.numel() for weight in prunable_weights(outline).values()) == all_weights


@pytest.mark.parametrize("network", SMALL, ids=lambda network: network.name)
def test_weights_depend_on_nothing_but_the_seed(network):
    first, again, other = (drawn(network, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    kernels = [name for name in first if first[name].ndim in (2, 4)]
    assert not any(torch.equal(first[name], other[name]) for name in kernels)


@pytest.mark.parametrize("name", ["conv2", "vgg16"])
def test_the_first_papers_are_glorot_normal_with_zero_biases(name):
    for layer in drawn(Network(name)).modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            taps = layer.weight[0, 0].numel()
            ins_and_outs = taps * (layer.weight.shape[0] + layer.weight.shape[1])
            assert layer.weight.std().item() == pytest.approx((2 / ins_and_outs) ** 0.5, rel=0.05)
            assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize("network", [Network("wrn_16_8"), Network("resnet18", "small")])
def test_wide_and_small_resnets_have_the_variance_2_over_fan_out(network):
    layers = [m for m in drawn(network).modules() if isinstance(m, nn.Conv2d)]
    assert {layer.bias for layer in layers} == {None}
    for layer in layers:
        fan_out = layer.weight[:, 0].numel()
        assert layer.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.06)


def test_a_wide_block_normalises_first_and_projects_what_was_normalised():
    block, images = WideBlock(4, 6, 2), torch.randn(5, 4, 8, 8)
    kernels = block.conv1.weight, block.conv2.weight, block.shortcut.weight

    def normed(features):
        return F.batch_norm(features, None, None, training=True).relu()

    inner = F.conv2d(normed(images), kernels[0], stride=2, padding=1)
    outer = F.conv2d(normed(images), kernels[2], stride=2)
    wanted = F.conv2d(normed(inner), kernels[1], padding=1) + outer
    torch.testing.assert_close(block(images), wanted)
    plain = WideBlock(4, 4, 1)
    inner = normed(F.conv2d(normed(images), plain.conv1.weight, padding=1))
    wanted = F.conv2d(inner, plain.conv2.weight, padding=1) + images
    torch.testing.assert_close(plain(images), wanted)


@pytest.mark.parametrize(
    ("form", "size", "pixels"),
    [("imagenet", 32, 1), ("imagenet", 224, 7), ("small", 32, 4), ("small", 8, 1)],
)
def test_the_small_form_of_resnet18_keeps_an_eighth_of_the_resolution(form, size, pixels):
    with torch.device("meta"):
        network, seen = build(Network("resnet18", form), (3, size, size), 10).eval(), []
        network.layer4.register_forward_hook(lambda layer, images, features: seen.append(features))
        network(torch.zeros(1, 3, size, size))
    assert seen[0].shape == (1, 512, pixels, pixels)


@pytest.mark.parametrize("network", SMALL, ids=lambda network: network.name)
def test_a_step_down_the_gradient_lowers_the_loss_and_moves_every_weight(network):
    torch.manual_seed(0)
    images, labels = torch.randn(8, 3, side(network), side(network)), torch.arange(8) % 4
    built = drawn(network, shape=images.shape[1:], classes=4)
    before = F.cross_entropy(built(images), labels)
    before.backward()
    with torch.no_grad():
        for weight in built.parameters():
            assert weight.grad.any()
            weight -= 1e-4 * weight.grad
    assert F.cross_entropy(built(images), labels) < before


@pytest.mark.slow
@pytest.mark.parametrize("network", SMALL, ids=lambda network: network.name)
def test_one_of_each_kind_that_is_stopped_and_resumed_ends_in_the_same_bits(network):
    recipe = small_recipe(1, batch_size=16, schedule=Schedule("constant"))
    made = small_experiment(network, recipe=recipe, data=small_data(side(network)))
    of = {"seed": 3, "replicate": 0, "engine": made.engine}

    def trained(start, due):
        run = train(made.build(), made.data, recipe, start, due=due, **of)
        return [(at.states()[0].copy(), at.outcomes) for at in run]

    start = Checkpoint(0, {n: t.clone() for n, t in made.build().state_dict().items()})
    inside, whole = trained(start, lambda: True)
    assert (inside[0].step, whole[0].step) == (1, 0)
    (again,) = trained(inside[0], lambda: False)
    assert equal(again[0], whole[0])
    assert again[1] == whole[1]


def test_a_first_projection_is_one_more_shortcut_with_its_batch_norm():
    usual, built = (
        build(Network("resnet20", first_projection=asked), (3, 32, 32), 10)
        for asked in (False, True)
    )
    more = dict(built.named_parameters()).keys() - dict(usual.named_parameters()).keys()
    assert sorted(more) == [f"blocks.0.shortcut.{n}" for n in ("0.weight", "1.bias", "1.weight")]
    assert sum(p.numel() for p in built.parameters()) == 272_474 + 16 * 16 + 2 * 16
    first, features = built.blocks[0], torch.rand(5, 16, 4, 4)
    inner = first.bn2(first.conv2(F.relu(first.bn1(first.conv1(features)))))
    outer = F.batch_norm(F.conv2d(features, first.shortcut[0].weight), None, None, training=True)
    torch.testing.assert_close(first(features), F.relu(inner + outer))


def test_variance_scaling_is_tensorflows():
    """Against SciPy's truncated normal, scaled to the variance 1 / fan-in."""
    torch.manual_seed(0)
    network = Network("resnet20", first_projection=True, initialisation="variance_scaling")
    built = build(network, (3, 32, 32), 10)
    convolutions = [layer.weight for layer in built.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 22
    truncated = stats.truncnorm(-2, 2)
    drawn = [weight * (weight[0].numel() ** 0.5 * truncated.std()) for weight in convolutions]
    unit = torch.cat([of.flatten() for of in drawn]).detach().numpy()
    assert 1.99 < np.abs(unit).max() <= 2 + 1e-6
    assert unit.std() == pytest.approx(truncated.std(), rel=0.005)
    assert stats.kstest(unit, truncated.cdf).pvalue > 0.01
    assert built.classifier.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not built.classifier.bias.any()


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2"])
def test_running_statistics_take_the_share_of_a_batch_that_is_asked_for(name):
    network = build(Network(name, batch_norm_momentum=0.003), (3, 8, 8), 4)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.003}
    norm, images = norms[0], torch.rand(6, norms[0].num_features, 4, 4)
    norm(images)
    pixels = images.double().numpy().transpose(1, 0, 2, 3).reshape(norm.num_features, -1)
    np.testing.assert_allclose(norm.running_mean, 0.003 * pixels.mean(1), rtol=1e-5)
    np.testing.assert_allclose(norm.running_var, 0.997 + 0.003 * pixels.var(1, ddof=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("form", "size", "pixels"),
    [("imagenet", 32, 1), ("imagenet", 224, 7), ("small", 32, 4), ("small", 8, 1)],
)
def test_the_small_form_of_mobilenetv2_keeps_four_times_the_resolution(form, size, pixels):
    network = build(Network("mobilenet_v2", form), (3, size, size), 10).eval()
    features = network.features(torch.zeros(1, 3, size, size))
    assert features.shape == (1, 1280, pixels, pixels)


@pytest.mark.parametrize("width", [0.5, 1.4])
def test_the_width_multiplies_the_channels(width):
    network = build(Network("mobilenet_v2", width=width), (3, 32, 32), 10)
    assert network.features[2].out_channels == {0.5: 16, 1.4: 32}[width]


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "lenet_300_100"])
def test_every_network_for_images_takes_one_or_three_channels(name):
    network = on_meta(Network(name), (1, 16, 16), 7)
    for channels in (1, 3):
        assert network(torch.empty(2, channels, 16, 16, device="meta")).shape == (2, 7)


@pytest.mark.parametrize("network", [*SMALL, Network("resnet20")], ids=lambda n: n.name)
def test_a_grey_image_is_shown_to_every_channel(network):
    grey = torch.rand(2, 1, side(network), side(network))
    built = drawn(network, shape=grey.shape[1:]).eval()
    assert torch.equal(built(grey), built(grey.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize(
    ("name", "shape", "told"),
    [
        ("vgg19", (3, 8, 8), "3 channels, of at least 16×16 pixels; got inputs of shape 3×8×8: c"),
        ("vgg16", (3, 16, 15), "of at least 16×16 pixels; got inputs of shape 3×16×15"),
        ("conv6", (1, 4, 4), "of at least 8×8 pixels; got inputs of shape 1×4×4"),
        ("conv2", (3, 32), "conv2 takes images of 1 or 3 channels, of at least 2×2 pixels; got"),
        ("resnet18", (4, 32, 32), "takes images of 1 or 3 channels; got inputs of shape 4×32×32"),
        ("resnet56", (2, 32, 32), "takes images of 1 or 3 channels; got inputs of shape 2×32×32"),
        ("wrn_16_8", (64,), "wrn_16_8 takes images of 1 or 3 channels; got inputs of shape 64"),
        ("mobilenet_v2", (3, 9), "takes images of 1 or 3 channels; got inputs of shape 3×9"),
    ],
)
def test_inputs_that_a_network_cannot_take_are_refused_in_a_sentence(name, shape, told):
    with pytest.raises(InputError, match=re.escape(told)) as refused:
        build(Network(name), shape, 10)
    assert str(refused.value).startswith(f"{name} takes images of 1 or 3 channels")


def test_a_study_with_images_that_are_too_small_is_refused_when_it_is_made():
    with pytest.raises(InputError, match=r"^digits: vgg19 takes images .* 16×16 pixels; got"):
        Study.read("digits").changed(
            {"network.name": "vgg19", "network.form": "imagenet", "data.image_size": 8}
        )


@pytest.mark.parametrize(("form", "size"), [("imagenet", 32), ("imagenet", 64), ("small", 8)])
def test_the_fast_convolutions_are_the_plain_ones(form, size):
    """Outputs, gradients and batch-norm statistics agree with torchvision's, in float64."""
    torch.manual_seed(0)
    fast = build(Network("mobilenet_v2", form, 0.25), (3, size, size), 10).double()
    torch.manual_seed(0)
    plain = build(Network("mobilenet_v2", form, 0.25), (3, size, size), 10).double()
    for layer in plain.modules():
        if isinstance(layer, nn.Conv2d):
            layer.__class__ = nn.Conv2d
    images = torch.randn(6, 3, size, size, dtype=torch.float64)
    for network in (fast, plain):
        network(images).square().sum().backward()
    scale = max(p.grad.abs().max().item() for p in plain.parameters())
    for (name, a), b in zip(fast.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-9 * scale, msg=name)
    for a, b in zip(fast.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (4, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_depthwise_convolution_written_out_is_the_convolution(size, stride):
    torch.manual_seed(0)
    images = torch.randn(5, 6, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    found = written_out(images, weight[:, 0], stride)
    plain = F.conv2d(images, weight, None, stride, 1, 1, 6)
    torch.testing.assert_close(found, plain)
    gradients = [torch.autograd.grad(of.sin().sum(), (images, weight)) for of in (found, plain)]
    torch.testing.assert_close(*gradients)


def apart(network):
    """Return the network with batch norm and ReLU6 as layers of their own."""
    found = copy.deepcopy(network)
    for layer in found.modules():
        if type(layer) is ConvNormReLU6:
            layer.__class__ = nn.Sequential
    return found


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64])
def test_batch_norm_with_relu6_has_the_bits_of_both_alone(kind):
    network = drawn(Network("mobilenet_v2", width=0.25))
    network.to(torch.promote_types(kind, torch.float32)).to(memory_format=torch.channels_last)
    ends = []
    for one in (network, apart(network)):
        optimizer = torch.optim.SGD(one.parameters(), 0.1)
        random = torch.Generator().manual_seed(0)
        for _ in range(3):
            images = torch.randn(16, 3, 32, 32, generator=random).to(next(one.parameters()).dtype)
            with torch.autocast("cpu", torch.bfloat16, enabled=kind is torch.bfloat16):
                logits = one(images.contiguous(memory_format=torch.channels_last))
            optimizer.zero_grad()
            F.cross_entropy(logits, torch.arange(16) % 10).backward()
            optimizer.step()
        ends.append(one.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_batch_norm_with_relu6_can_be_differentiated_twice():
    network, data = drawn(Network("mobilenet_v2", width=0.25), shape=(1, 8, 8)), small_data()
    found, wanted = (hessian_gradients(n, data, 8, 3, 0) for n in (network, apart(network)))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_there_is_no_dropout():
    assert [
        m.p
        for m in build(Network("mobilenet_v2"), (3, 32, 32), 10).modules()
        if isinstance(m, nn.Dropout)
    ] == [0.0]


def test_the_lenet_is_glorot_normal_with_zero_biases():
    network = build(Network("lenet_300_100"), (1, 28, 28), 10)
    assert network[1].weight.std().item() == pytest.approx((2 / (784 + 300)) ** 0.5, rel=0.02)
    assert not network[1].bias.any()


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Network("resnet1"), "unknown network 'resnet1'; did you mean 'resnet110'"),
        (
            lambda: Network("ResNet-18"),
            "'ResNet-18'; did you mean 'resnet18'. known: conv2",
        ),
        (lambda: Network("lenet"), "'lenet'; did you mean 'lenet_300_100'. known"),
        (lambda: Network("resnet20", width=2.0), "width belongs to mobilenet_v2; resnet20 does"),
        (lambda: Network("vgg19", "small"), "form belongs to resnet18, mobilenet_v2; vgg19 does"),
        (lambda: Network("resnet18", first_projection=True), "belongs to resnet20, resnet32, resn"),
        (lambda: Network("conv2", batch_norm_momentum=0.5), "with batch norm; conv2 is none"),
        (lambda: Network("resnet20", batch_norm_momentum=0.0), "above 0 and at most 1; got 0.0"),
        (lambda: Network("mobilenet_v2", width=0), "width must be above 0"),
    ],
)
def test_an_unknown_or_impossible_network_is_refused(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()
    assert issubclass(InputError, ValueError)
