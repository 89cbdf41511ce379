"""What the networks promise: the published shapes, and no dependence on anything but a seed."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from lthdask.errors import InputError
from lthdask.networks.build import Network, build, on_meta
from lthdask.networks.mobilenet import written_out


def parameters(network, size=32, channels=3, classes=10):
    built = on_meta(Network(network), (channels, size, size), classes)
    return sum(p.numel() for p in built.parameters())


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("mobilenet_v2", (32, 3, 10), 2_236_682),
        ("mobilenet_v2", (32, 1, 10), 2_236_682),
        ("mobilenet_v2", (224, 3, 1000), 3_504_872),
        ("resnet20", (32, 3, 10), 272_474),
        ("lenet_300_100", (28, 1, 10), 266_610),
    ],
)
def test_networks_have_the_published_number_of_parameters(name, arguments, count):
    assert parameters(name, *arguments) == count


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


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet20", "lenet_300_100"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_network_takes_one_or_three_channels(name, channels):
    network = build(Network(name), (channels, 16, 16), 7)
    assert network(torch.randn(2, channels, 16, 16)).shape == (2, 7)


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
        (lambda: Network("vgg19"), "unknown network 'vgg19'; known: lenet_300_100, mobilenet_v2"),
        (lambda: Network("resnet20", width=2.0), "width belongs to mobilenet_v2; resnet20 does"),
        (lambda: Network("mobilenet_v2", first_projection=True), "belongs to resnet20"),
        (lambda: Network("lenet_300_100", batch_norm_momentum=0.5), "mobilenet_v2 and resnet20; l"),
        (lambda: Network("resnet20", batch_norm_momentum=0.0), "above 0 and at most 1; got 0.0"),
        (lambda: Network("mobilenet_v2", width=0), "width must be above 0"),
    ],
)
def test_an_unknown_or_impossible_network_is_refused(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()
    assert issubclass(InputError, ValueError)
