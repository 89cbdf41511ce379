"""What pruning promises, whatever the weights."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lthdask.errors import InputError
from lthdask.masks import (
    Pruning,
    density,
    draw_mask,
    layer_adaptive_magnitude,
    prunable_weights,
    spared_weights,
)
from lthdask.networks import Network, build

WEIGHTS = {"small": [0.1, -0.3, 0.2, 0.05], "large": [-2.0, 1.0, 4.0, -3.0]}


def mask_of(weights, threshold, score, **settings):
    tensors = {name: torch.tensor(values) for name, values in weights.items()}
    mask, cutoffs = draw_mask(tensors, threshold, Pruning(score, **settings))
    return {name: kept.int().tolist() for name, kept in mask.items()}, cutoffs


@pytest.mark.parametrize(
    ("score", "threshold", "small", "large"),
    [
        ("global", 0.5, [0, 0, 0, 0], [1, 1, 1, 1]),  # one ranking empties the small layer
        ("global", 0.75, [0, 0, 0, 0], [0, 0, 1, 1]),
        ("layerwise", 0.5, [0, 1, 1, 0], [0, 0, 1, 1]),
        ("layerwise", 0.75, [0, 1, 0, 0], [0, 0, 1, 0]),
        # LAMP: small 0.07, 1, 0.31, 0.02; large 0.14, 0.03, 1, 0.36
        ("lamp", 0.5, [0, 1, 1, 0], [0, 0, 1, 1]),
        ("lamp", 0.75, [0, 1, 0, 0], [0, 0, 1, 0]),
        ("lamp", 0.25, [1, 1, 1, 0], [1, 0, 1, 1]),
    ],
)
def test_the_lowest_scores_are_pruned(score, threshold, small, large):
    mask, _ = mask_of(WEIGHTS, threshold, score)
    assert mask == {"small": small, "large": large}


def test_a_lamp_score_is_the_square_over_the_squares_that_are_at_least_as_large():
    scores = layer_adaptive_magnitude(torch.tensor([[3.0, -1.0], [2.0, -2.0]]))
    # squares 9, 1, 4, 4: 9/9, 1/18, 4/17, 4/17
    assert scores.flatten().tolist() == pytest.approx([1, 1 / 18, 4 / 17, 4 / 17])
    assert layer_adaptive_magnitude(torch.zeros(3)).tolist() == [0, 0, 0]


def test_equal_scores_are_pruned_by_position():
    mask, _ = mask_of({"a": [1.0, -1.0], "b": [1.0, 1.0]}, 0.75, "global")
    assert mask == {"a": [0, 0], "b": [0, 1]}


def test_a_cutoff_is_the_lowest_score_that_survives():
    _, cutoffs = mask_of(WEIGHTS, 0.5, "global")
    assert cutoffs == {"small": 1.0, "large": 1.0}
    _, cutoffs = mask_of(WEIGHTS, 0.5, "layerwise")
    assert cutoffs == {"small": pytest.approx(0.2), "large": 3.0}
    mask, cutoffs = mask_of(WEIGHTS, 1.0, "global", by="cutoff")
    assert mask == {"small": [0, 0, 0, 0], "large": [1, 1, 1, 1]}
    assert cutoffs == {"small": 1.0, "large": 1.0}


@pytest.mark.parametrize(("threshold", "count", "left"), [(0.29, 100, 71), (0.9, 11, 2)])
def test_the_share_is_the_decimal_that_was_written(threshold, count, left):
    mask, _ = draw_mask({"w": torch.rand(count)}, threshold, Pruning("global"))
    assert int(mask["w"].sum()) == left  # 0.29 * 100 is 28.999999999999996 in binary


tensors = st.lists(
    st.lists(st.floats(-4, 4, width=16), min_size=1, max_size=9), min_size=1, max_size=4
).map(lambda layers: {f"layer{i}": torch.tensor(values) for i, values in enumerate(layers)})
shares = st.integers(1, 99).map(lambda percent: percent / 100)
scores = st.sampled_from(["global", "layerwise", "lamp"])


@given(tensors, shares, scores)
def test_exactly_as_many_weights_go_as_asked(weights, share, score):
    mask, _ = draw_mask(weights, share, Pruning(score))
    sizes = [w.numel() for w in weights.values()]
    percent = round(share * 100)
    layerwise = sum(percent * size // 100 for size in sizes)
    expected = layerwise if score == "layerwise" else percent * sum(sizes) // 100
    assert sum(int((~kept).sum()) for kept in mask.values()) == expected


@given(tensors, shares, shares, scores)
def test_masks_are_nested(weights, a, b, score):
    looser, tighter = (draw_mask(weights, q, Pruning(score))[0] for q in sorted((a, b)))
    assert all((tighter[name] <= looser[name]).all() for name in weights)


@given(tensors, shares, scores)
def test_no_pruned_weight_outranks_one_that_survives(weights, share, score):
    mask, cutoffs = draw_mask(weights, share, Pruning(score))
    for name, weight in weights.items():
        ranked = layer_adaptive_magnitude(weight) if score == "lamp" else weight.abs()
        assert (ranked[mask[name]] >= cutoffs[name]).all()
        assert (ranked[~mask[name]] <= cutoffs[name]).all()


def test_more_weights_than_quantile_functions_take_are_counted_exactly():
    mask, _ = draw_mask({"w": torch.arange(2**24 + 10).float()}, 0.5, Pruning("global"))
    assert int(mask["w"].sum()) == 2**23 + 5


def test_lamp_keeps_every_layer_alive_where_global_magnitude_empties_one():
    weights = {"wide": torch.rand(1000) / 100, "narrow": torch.rand(1000)}
    emptied, _ = draw_mask(weights, 0.6, Pruning("global"))
    alive, _ = draw_mask(weights, 0.99, Pruning("lamp"))
    assert not emptied["wide"].any()
    assert alive["wide"].any()
    assert alive["narrow"].any()


def test_batch_norm_and_biases_are_never_prunable():
    network = build(Network("mobilenet_v2"), 32, 3, 10)
    weights = prunable_weights(network)
    by_kind = {"stem": 0, "depthwise": 0, "pointwise": 0, "classifier": 0}
    for name, weight in weights.items():
        stem, depthwise = name == "features.0.0.weight", weight.shape[1] == 1
        kind = "stem" if stem else "depthwise" if depthwise else "pointwise"
        by_kind["classifier" if weight.ndim == 2 else kind] += weight.numel()
    assert by_kind == {
        "stem": 864,
        "depthwise": 64_224,
        "pointwise": 2_124_672,
        "classifier": 12_800,
    }
    modules = dict(network.named_modules())
    layers = [modules[name.removesuffix(".weight")] for name in weights]
    assert all(isinstance(layer, nn.Conv2d | nn.Linear) for layer in layers)
    with_classes = prunable_weights(build(Network("mobilenet_v2"), 32, 3, 1000))
    assert sum(w.numel() for w in with_classes.values()) == 2_202_560 + 990 * 1280


def test_spared_layers_stay_whole_and_do_not_count():
    network = build(Network("mobilenet_v2"), 32, 3, 10)
    weights = prunable_weights(network)
    spared = spared_weights(network, ["stem", "depthwise", "classifier"])
    assert sum(weights[name].numel() for name in spared) == 864 + 64_224 + 12_800
    mask, cutoffs = draw_mask(weights, 0.5, Pruning("global"), spared)
    assert all(mask[name].all() and math.isnan(cutoffs[name]) for name in spared)
    assert sum(int((~kept).sum()) for kept in mask.values()) == 2_124_672 // 2
    assert spared_weights(network, ["features.18.*"]) == {"features.18.0.weight"}


@pytest.mark.parametrize(
    ("spare", "problem"), [(["depthwize"], "depthwize"), (["*"], "nothing can be pruned")]
)
def test_sparing_nothing_known_or_everything_is_refused(spare, problem):
    with pytest.raises(InputError, match=problem):
        spared_weights(build(Network("lenet_300_100"), 8, 1, 10), spare)


def test_density_is_counted():
    assert density({"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([[3.0, 0.0]])}) == 0.5


@pytest.mark.parametrize(
    ("by", "thresholds", "given"),
    [
        ("share", [0.5, 1.0], "1"),
        ("share", [0.0, 0.5], "0"),
        ("cutoff", [-1.0, 2.0], "-1"),
        ("cutoff", [0.0], "0"),
        ("share", [float("nan")], "nan"),
    ],
)
def test_thresholds_out_of_range_are_refused(by, thresholds, given):
    with pytest.raises(InputError, match=f"got {given}$"):
        Pruning("global", by).check(thresholds)
