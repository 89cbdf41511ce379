"""What kernels promise: to compute what PyTorch does, on a GPU or in Triton's interpreter."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lthdask.networks import stack as stacked
from lthdask.networks.build import Network, build
from lthdask.networks.stack import Stack, stack
from lthdask.training import cohort
from lthdask.training.checkpoint import Checkpoint
from tests.conftest import ENGINE, small_experiment

pytest.importorskip("triton", reason="this torch came without Triton")

from lthdask.networks import kernels
from lthdask.networks.kernels.tiles import as_rows, parts_of

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def drawn(*shape, scale=1.0, around=0.0):
    return (torch.randn(shape) * scale + around).to(DEVICE).requires_grad_()


def images_like(count, channels, height, width=None, **how):
    images = drawn(count, channels, height, width or height, **how).detach()
    return images.contiguous(memory_format=torch.channels_last).requires_grad_()


def require_same(ours, theirs, *given, tolerance=1e-4):
    """Of both, and of their gradients where each value counts in its own way."""
    counts = torch.randn_like(theirs)
    pairs = zip(
        (ours, *torch.autograd.grad(ours, given, counts)),
        (theirs, *torch.autograd.grad(theirs, given, counts)),
        strict=True,
    )
    for one, other in pairs:
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        assert (one - other).norm() <= tolerance * other.norm()


@given(
    st.integers(1, 5),
    st.integers(1, 130),
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from([1, 2]),
)
@settings(max_examples=12)
def test_a_depthwise_convolution_is_that_of_pytorch(count, channels, height, width, stride):
    images, weight = images_like(count, channels, height, width), drawn(channels, 3, 3)
    theirs = F.conv2d(images, weight[:, None], None, stride, 1, 1, channels)
    require_same(kernels.depthwise(images, weight, stride), theirs, images, weight)


@given(
    st.integers(8, 40),
    st.integers(1, 130),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([0.1, 0.003]),
)
@settings(max_examples=12)
def test_batch_norm_is_that_of_pytorch_through_relu6_if_asked(
    count, channels, size, relu6, momentum
):
    images = images_like(count, channels, size, scale=3.0, around=1.0)
    gain, offset = drawn(channels), drawn(channels, around=2.0)
    ours, theirs = (
        (torch.zeros(channels, device=DEVICE), torch.ones(channels, device=DEVICE))
        for _ in range(2)
    )
    plain = F.batch_norm(images, *theirs, gain, offset, True, momentum, 1e-5)
    plain = F.relu6(plain) if relu6 else plain
    found = kernels.batch_norm(images, gain, offset, *ours, momentum, 1e-5, relu6)
    # A third of two almost equal images is noise: their variance is rounding.
    require_same(found, plain, images, gain, offset, tolerance=1e-3)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_sums_over_more_rows_than_a_program_takes_are_whole():
    """20 × 4 × 4 rows: three programs share them."""
    images, gain, offset = images_like(20, 3, 4), drawn(3), drawn(3)
    assert parts_of(as_rows(images.detach()))[0] == 3
    running = [torch.zeros(3, device=DEVICE), torch.ones(3, device=DEVICE)]
    found = kernels.batch_norm(images, gain, offset, *running, 0.1, 1e-5, False)
    plain = F.batch_norm(images, None, None, gain, offset, True)
    require_same(found, plain, images, gain, offset)
    weight = drawn(3, 3, 3)
    plain = F.conv2d(images, weight[:, None], None, 1, 1, 1, 3)
    require_same(kernels.depthwise(images, weight, 1), plain, images, weight)


def test_the_variance_around_a_large_mean_is_not_lost_to_rounding():
    images, ones, zeros = images_like(50, 4, 2, around=1000.0), torch.ones(4), torch.zeros(4)
    running = [torch.zeros(4, device=DEVICE), torch.zeros(4, device=DEVICE)]
    kernels.batch_norm(images, ones.to(DEVICE), zeros.to(DEVICE), *running, 1.0, 1e-5, False)
    variance = images.double().var((0, 2, 3))
    torch.testing.assert_close(running[1].double(), variance, rtol=1e-3, atol=0)


def test_in_bfloat16_only_rounding_differs():
    images, weight = images_like(4, 20, 4), drawn(20, 3, 3)
    low = images.detach().bfloat16()
    exact = F.conv2d(low.float(), weight[:, None], None, 1, 1, 1, 20)
    found = kernels.depthwise(low, weight, 1)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=1e-2, atol=1e-2)


def test_what_is_no_number_stays_none_so_that_a_cell_diverges():
    images = images_like(4, 3, 2).detach()
    images[1, 2, 0, 0] = torch.nan
    running = [torch.zeros(3, device=DEVICE), torch.ones(3, device=DEVICE)]
    gain, offset = torch.ones(3, device=DEVICE), torch.zeros(3, device=DEVICE)
    found = kernels.batch_norm(images, gain, offset, *running, 0.1, 1e-5, True)
    assert found[:, 2].isnan().all()
    assert found[:, :2].isfinite().all()
    assert [bool(values[2].isnan()) for values in running] == [True, True]
    assert kernels.depthwise(images, torch.ones(3, 3, 3, device=DEVICE), 1)[1, 2].isnan().all()


@pytest.mark.slow
def test_a_stack_with_kernels_computes_what_one_without_computes():
    """Logits in training and after it, gradients, and statistics; of its first blocks."""
    whole = build(Network("mobilenet_v2", width=0.25), (3, 16, 16), 4)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    network = nn.Sequential(*whole.features[:4], *head).to(DEVICE)
    found = {}
    for fused in (False, True):
        torch.manual_seed(0)
        models = Stack(network, 2, True, fused)
        images = torch.randn(8, 3, 16, 16).to(DEVICE)
        models.network.train()
        trained = models(images)
        trained.sin().sum().backward()
        gradients = [weight.grad for weight in models.network.parameters()]
        models.network.eval()
        with torch.inference_mode():
            evaluated = models(images)
        found[fused] = models.network.state_dict(), trained, evaluated, gradients
    (ours, *logits, of_ours), (theirs, *plain, of_theirs) = found[True], found[False]
    assert [*ours] == [*theirs]
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(logits, plain, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(of_ours, of_theirs, rtol=1e-2, atol=1e-4)
    kinds = [type(layer) for layer in models.network.modules()]
    assert kinds.count(stacked._FusedDepthwise) == 3
    assert nn.ReLU6 not in kinds


def test_a_first_layer_that_normalises_normalises_for_every_model():
    norm = nn.BatchNorm2d(3, momentum=0.003)
    network = nn.Sequential(norm, nn.Conv2d(3, 2, 1)).to(DEVICE).train()
    ours, theirs = Stack(network, 2, True, True), Stack(network, 2, True, False)
    images = images_like(8, 3, 2).detach()
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.network.state_dict(), theirs.network.state_dict())


def test_kernels_are_only_for_a_gpu_in_float32():
    network = build(Network("mobilenet_v2", width=0.25), (1, 8, 8), 4)
    assert not stack(network, 2).fused
    assert stack(network.to(DEVICE), 2).fused == (DEVICE.type == "cuda")
    assert not stack(network.to(DEVICE).double(), 2).fused
    assert not stack(network.to(DEVICE), 2, kernels=False).fused


@pytest.mark.slow
def test_the_kernels_are_right_on_this_device():
    kernels.require_right(DEVICE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["depthwise", "batch_norm"])
def test_a_kernel_that_is_wrong_is_noticed(name, monkeypatch):
    right = getattr(kernels, name)
    monkeypatch.setattr(kernels, name, lambda *given: 1.03 * right(*given))
    with pytest.raises(RuntimeError, match="a kernel is off by .*% from what PyTorch computes"):
        kernels.require_right(DEVICE)


def test_cohorts_are_trained_without_kernels_where_they_do_not_work(monkeypatch):
    def no_compiler(device):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(kernels, "require_right", no_compiler)
    stacked._kernels_are_right.cache_clear()
    with pytest.warns(UserWarning, match="without our own kernels: Failed to find C compiler"):
        assert not stacked._kernels_are_right(DEVICE)
    stacked._kernels_are_right.cache_clear()


def test_the_study_says_whether_cohorts_are_trained_with_kernels(monkeypatch):
    asked = []
    made = cohort.stack
    monkeypatch.setattr(cohort, "stack", lambda *given: asked.append(given[2]) or made(*given))
    experiment = small_experiment("resnet20")
    start = Checkpoint(3, experiment.build().state_dict())
    for wanted in (True, False):
        engine = replace(ENGINE, kernels=wanted)
        starts = [start] * 2
        next(
            cohort.train_cohort(
                experiment.build(), experiment.data, experiment.recipe, starts, [{}] * 2,
                seed=0, replicate=0, engine=engine,
            )
        )  # fmt: skip
    assert asked == [True, False]
