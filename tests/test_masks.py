"""What pruning promises, whatever the weights."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lthdask.errors import InputError
from lthdask.networks.build import Network, build
from lthdask.pruning.allocation import in_proportion
from lthdask.pruning.masks import draw_mask, random_mask, random_numbers
from lthdask.pruning.rule import Pruning, prunable_weights, rates_by_layer, spared_weights
from lthdask.pruning.scores import Evidence, layer_adaptive_magnitude, scored
from lthdask.study import Study

WEIGHTS = {"small": [0.1, -0.3, 0.2, 0.05], "large": [-2.0, 1.0, 4.0, -3.0]}


def mask_of(weights, threshold, score, **settings):
    tensors = {name: torch.tensor(values) for name, values in weights.items()}
    mask, cutoffs = draw_mask(tensors, threshold, Pruning(score, **settings))
    return {name: kept.int().tolist() for name, kept in mask.items()}, cutoffs


@pytest.mark.parametrize(
    ("score", "a", "b"),
    [
        ("global", [1, 0], [0, 1]),  # 3, 1; 0.5, 2
        ("magnitude_increase", [0, 1], [0, 1]),  # 0, 0.8; -0.5, 0.2
        ("movement", [1, 1], [0, 0]),  # 6, 1.2; 0.5, 0.2
        ("snip", [0, 0], [1, 1]),  # 0.3, 1; 2, 1.8
        ("synflow", [0, 0], [1, 1]),
        ("grasp", [0, 1], [1, 0]),  # -0.3, 1; 2, -1.8
        ("random", [0, 1], [1, 0]),  # 0.3, 0.9; 0.6, 0.1
    ],
)
def test_a_score_is_of_final_weights_initial_weights_and_gradients(score, a, b):
    final = {"a": torch.tensor([3.0, -1.0]), "b": torch.tensor([0.5, 2.0])}
    initial = {"a": torch.tensor([-3.0, 0.2]), "b": torch.tensor([1.0, 1.8])}
    gradients = {"a": torch.tensor([0.1, 5.0]), "b": torch.tensor([2.0, -1.0])}
    pruning = Pruning(score)
    living = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in final.items()}
    random = {"a": torch.tensor([0.3, 0.9]), "b": torch.tensor([0.6, 0.1])}
    scores = scored(score, living, final, initial, gradients, random)
    mask, _ = draw_mask(final, 0.5, pruning, scores=scores)
    assert {name: kept.int().tolist() for name, kept in mask.items()} == {"a": a, "b": b}


@pytest.mark.parametrize(
    ("score", "allocation", "a", "b"),
    [
        ("magnitude_increase", None, [0, 0, 0, 0], [1, 1, 1, 1]),
        ("magnitude_increase", "uniform", [0, 0, 1, 1], [1, 0, 0, 1]),  # Zhou et al. 2019
        ("movement", "uniform", [1, 0, 1, 0], [1, 0, 0, 1]),
        ("lamp", "balanced", [0, 1, 1, 0], [1, 0, 0, 1]),
    ],
)
def test_an_allocation_ranks_any_score_within_each_layer(score, allocation, a, b):
    initial = {"a": [0.9, 0.5, -0.2, 0.1], "b": [0.0, 1.0, 2.0, 0.0]}
    final = {"a": [-0.1, 0.4, 0.6, 0.3], "b": [9.0, 3.0, 4.5, -7.0]}
    weights, before = ({n: torch.tensor(v) for n, v in of.items()} for of in (final, initial))
    living = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    scores = scored(score, living, weights, before)
    mask, cutoffs = draw_mask(weights, 0.5, Pruning(score, allocation=allocation), scores=scores)
    assert {name: kept.int().tolist() for name, kept in mask.items()} == {"a": a, "b": b}
    if allocation:
        assert cutoffs == {name: scores[name][kept].min() for name, kept in mask.items()}


SHAPES = {"stem": (16, 3, 3, 3), "body": (32, 16, 3, 3), "head": (10, 32)}
"""432, 4608 and 320 weights; their dimensions sum up to 25, 54 and 42."""


@pytest.mark.parametrize(
    ("allocation", "threshold", "left"),
    [
        ("uniform", 0.9, [44, 461, 32]),  # a tenth of each, rounded up
        ("balanced", 0.9, [178, 179, 179]),  # a third of 536 each
        ("balanced", 0.7, [432, 856, 320]),  # 536 of 1608 each, of which two have less
        ("erk", 0.9, [111, 239, 186]),  # 25 : 54 : 42
        ("erk", 0.7, [408, 880, 320]),  # 25 : 54, and the head is full
    ],
)
def test_an_allocation_says_how_many_weights_each_layer_keeps(allocation, threshold, left):
    weights = {name: torch.rand(shape) for name, shape in SHAPES.items()}
    mask, _ = draw_mask(weights, threshold, Pruning("layerwise", allocation=allocation))
    assert [int(kept.sum()) for kept in mask.values()] == left


def densities_of_erk(shapes, density):
    """Densities as in the code of Evci et al.: layers that would pass 1 are dense."""
    full = set()
    while True:
        free = [shape for shape in shapes if shape not in full]
        left = density * sum(map(math.prod, shapes)) - sum(map(math.prod, full))
        factor = left / sum(sum(shape) for shape in free)
        more = {shape for shape in free if factor * sum(shape) / math.prod(shape) > 1}
        if not more:
            return {s: 1.0 if s in full else factor * sum(s) / math.prod(s) for s in shapes}
        full |= more


@given(
    st.lists(
        st.lists(st.integers(1, 9), min_size=2, max_size=4).map(tuple),
        min_size=1,
        max_size=5,
        unique=True,
    ),
    st.integers(1, 99),
)
def test_erk_is_that_of_its_authors_to_a_weight(shapes, percent):
    weights = {str(shape): torch.rand(shape) for shape in shapes}
    mask, _ = draw_mask(weights, percent / 100, Pruning("layerwise", allocation="erk"))
    total = sum(map(math.prod, shapes))
    assert sum(int(kept.sum()) for kept in mask.values()) == total - percent * total // 100
    wanted = densities_of_erk(shapes, sum(int(k.sum()) for k in mask.values()) / total)
    for shape in shapes:
        left = int(mask[str(shape)].sum())
        assert left == pytest.approx(wanted[shape] * math.prod(shape), abs=len(shapes) / 2 + 0.5)


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=6),
    st.lists(st.integers(1, 30), min_size=6, max_size=6),
)
def test_what_is_divided_is_never_taken_back(sizes, wanted):
    before = [0] * len(sizes)
    for total in range(1, sum(sizes) + 1):
        counts = in_proportion(total, sizes, wanted[: len(sizes)])
        assert sum(counts) == total
        assert all(b <= c <= size for b, c, size in zip(before, counts, sizes, strict=True))
        before = counts


def test_a_layer_that_is_left_nothing_has_a_cutoff_that_nothing_reaches():
    weights = {"small": torch.rand(1, 1), "large": torch.rand(40, 40)}
    mask, cutoffs = draw_mask(weights, 0.999, Pruning("layerwise", allocation="erk"))
    assert {name: int(kept.sum()) for name, kept in mask.items()} == {"small": 0, "large": 2}
    assert cutoffs["small"] == math.inf


def test_random_scores_are_of_a_stream_of_their_own_for_each_replicate_and_layer():
    weights = {"a": torch.zeros(50, 40), "b": torch.zeros(2000)}
    one, again, other, replicate = (
        random_numbers(weights, *key) for key in [(7, 0), (7, 0), (8, 0), (7, 1)]
    )
    flat = [of[name].flatten() for of in (one, other, replicate) for name in weights]
    assert all(torch.equal(one[name], again[name]) for name in weights)
    assert len({tuple(numbers.tolist()) for numbers in flat}) == len(flat)
    assert all(0.45 < numbers.mean() < 0.55 for numbers in flat)
    assert one["a"].shape == (50, 40)
    assert all(0 <= numbers.min() and numbers.max() < 1 for numbers in flat)
    scores = {name: numbers.flatten() for name, numbers in one.items()}
    mask, _ = draw_mask(weights, 0.5, Pruning("random"), scores=scores)
    # another half than that of the control: a quarter is in both
    shuffled = random_mask(mask, frozenset(), 7, 0)
    both = [(mask[name] & shuffled[name]).float().mean() for name in weights]
    assert all(0.2 < share < 0.3 for share in both)


def test_a_score_that_is_not_a_number_is_refused():
    for score in ("global", "layerwise", "lamp"):
        with pytest.raises(InputError, match=f"{score} score of some weights of 'b' is not a num"):
            mask_of({"a": [1.0], "b": [1.0, math.nan]}, 0.5, score)
    infinite = {"w": torch.tensor([1.0, math.inf])}
    with pytest.raises(InputError, match="the movement score of some weights of 'w'"):
        scored("movement", {"w": torch.tensor([True, True])}, infinite, infinite)


def test_a_score_without_what_it_looks_at_is_refused():
    weights = {"w": torch.tensor([1.0, 2.0])}
    with pytest.raises(TypeError, match="the score 'snip' needs initial and gradients"):
        draw_mask(weights, 0.5, Pruning("snip"))


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (0.34, [1, 0, 1, 0, 1, 1]),  # two of six, which are pruned already
        (0.5, [0, 0, 1, 0, 1, 1]),
        (0.67, [0, 0, 1, 0, 0, 1]),
    ],
)
def test_what_was_pruned_before_stays_pruned_and_counts(threshold, expected):
    weights = {"w": torch.tensor([0.0, 9.0, 3.0, 0.0, 1.0, 2.0])}
    before = {"w": torch.tensor([1, 0, 1, 0, 1, 1]).bool()}
    for score in ("global", "layerwise", "lamp"):
        mask, _ = draw_mask(weights, threshold, Pruning(score), before=before)
        assert mask["w"].int().tolist() == expected
    assert before["w"].int().tolist() == [1, 0, 1, 0, 1, 1]


def test_a_round_that_would_revive_weights_is_refused():
    before = {"w": torch.tensor([1, 0, 1, 0, 1, 1]).bool()}
    problem = "leaves 5 weights of 'w', but the mask of the round before leaves only 4"
    with pytest.raises(InputError, match=problem):
        draw_mask({"w": torch.rand(6)}, 0.2, Pruning(), before=before)


@pytest.mark.parametrize(
    ("rounds", "usual", "slow"),
    [(1, 8, 9), (2, 64, 81), (3, 512, 729), (6, 262_144, 531_441)],
)
def test_a_layer_with_a_rate_of_its_own_keeps_the_power_of_it(rounds, usual, slow):
    schedule = {"schedule": "iterative", "rounds": rounds}
    pruning = Pruning("layerwise", layer_rates={"classifier": 0.1}, **schedule)
    weights = {"body": torch.rand(10**rounds), "head": torch.rand(10**rounds)}
    mask, _ = draw_mask(weights, pruning.thresholds()[-1], pruning)
    assert {name: int(kept.sum()) for name, kept in mask.items()} == {"body": usual, "head": slow}


def test_layers_with_a_rate_of_their_own_are_named_as_those_that_are_spared():
    weights = prunable_weights(build(Network("mobilenet_v2"), (3, 32, 32), 10))
    rates = {"stem": 0.3, "features.18.*": 0.4, "classifier": 0.1}
    given = rates_by_layer(weights, Pruning("layerwise", layer_rates=rates))
    assert {name: rate for name, rate in given.items() if rate != 0.2} == {
        "features.0.0.weight": 0.3,
        "features.18.0.weight": 0.4,
        "classifier.1.weight": 0.1,
    }
    for entry, problem in [("classifier.*", "a second rate"), ("clasifier", "'clasifier'")]:
        wrong = Pruning("layerwise", layer_rates=rates | {entry: 0.5})
        with pytest.raises(InputError, match=problem):
            rates_by_layer(weights, wrong)


def test_a_layer_of_a_high_rate_keeps_a_weight():
    pruning = Pruning("layerwise", rate=0.1, layer_rates={"b": 0.999})
    mask, _ = draw_mask({"a": torch.rand(10), "b": torch.rand(10)}, 0.9, pruning)
    assert [int(kept.sum()) for kept in mask.values()] == [1, 1]


def test_a_random_mask_keeps_the_counts_and_what_is_spared():
    mask = {
        "stem": torch.ones(3).bool(),
        "body": torch.tensor([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]).bool(),
        "head": torch.tensor([0, 0, 0, 1]).bool(),
    }
    drawn = random_mask(mask, frozenset({"stem"}), seed=0, replicate=0)
    assert {name: kept.int().tolist() for name, kept in drawn.items()} == {
        "stem": [1, 1, 1],
        "body": [[0, 0, 1, 0, 0], [0, 0, 1, 0, 1]],  # its order begins 9, 2, 7
        "head": [1, 0, 0, 0],
    }


def lamp(weights):
    none = torch.empty(0)
    return layer_adaptive_magnitude(Evidence(torch.as_tensor(weights), none, none, none))


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
    scores = lamp([[3.0, -1.0], [2.0, -2.0]])
    # squares 9, 1, 4, 4: 9/9, 1/18, 4/17, 4/17
    assert scores.flatten().tolist() == pytest.approx([1, 1 / 18, 4 / 17, 4 / 17])
    assert lamp([0.0, 0.0, 0.0]).tolist() == [0, 0, 0]


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
rules = st.sampled_from(
    [Pruning(score) for score in ("global", "layerwise", "lamp")]
    + [Pruning("layerwise", allocation=allocation) for allocation in ("erk", "balanced")]
)


@given(tensors, shares, scores)
def test_exactly_as_many_weights_go_as_asked(weights, share, score):
    mask, _ = draw_mask(weights, share, Pruning(score))
    sizes = [w.numel() for w in weights.values()]
    percent = round(share * 100)
    layerwise = sum(percent * size // 100 for size in sizes)
    expected = layerwise if score == "layerwise" else percent * sum(sizes) // 100
    assert sum(int((~kept).sum()) for kept in mask.values()) == expected


@given(tensors, shares, shares, rules)
def test_masks_are_nested(weights, a, b, pruning):
    looser, tighter = (draw_mask(weights, q, pruning)[0] for q in sorted((a, b)))
    assert all((tighter[name] <= looser[name]).all() for name in weights)


@given(tensors, shares, scores)
def test_no_pruned_weight_outranks_one_that_survives(weights, share, score):
    mask, cutoffs = draw_mask(weights, share, Pruning(score))
    for name, weight in weights.items():
        ranked = lamp(weight) if score == "lamp" else weight.abs()
        assert (ranked[mask[name]] >= cutoffs[name]).all()
        assert (ranked[~mask[name]] <= cutoffs[name]).all()


@given(tensors, st.lists(shares, min_size=2, max_size=4), rules, st.randoms())
def test_masks_of_later_rounds_are_nested(weights, thresholds, pruning, random):
    before = None
    for threshold in sorted(thresholds):
        for weight in weights.values():  # as training changes them, the dead included
            weight.copy_(torch.tensor(random.sample(weight.tolist(), len(weight))))
        mask, _ = draw_mask(weights, threshold, pruning, before=before)
        alone, _ = draw_mask(weights, threshold, pruning)
        assert sum(int(m.sum()) for m in mask.values()) == sum(int(m.sum()) for m in alone.values())
        assert before is None or all((mask[name] <= before[name]).all() for name in mask)
        before = mask


seeds = st.integers(0, 2**32)


@given(tensors, shares, shares, scores, seeds, st.integers(0, 5))
def test_random_masks_keep_the_counts_of_each_layer_and_nest(weights, a, b, score, seed, replicate):
    made = []
    for threshold in sorted((a, b)):
        mask, _ = draw_mask(weights, threshold, Pruning(score))
        drawn = random_mask(mask, frozenset(), seed, replicate)
        assert all(int(drawn[name].sum()) == int(mask[name].sum()) for name in mask)
        made.append(drawn)
    assert all((made[1][name] <= made[0][name]).all() for name in weights)


@given(seeds)
def test_random_masks_differ_by_seed_replicate_and_layer_and_by_nothing_else(seed):
    half = torch.arange(100) < 50
    mask = {"a": half, "b": half, "c": half.view(10, 10)}
    one, again, other, replicate = (
        random_mask(mask, frozenset(), *key)
        for key in [(seed, 0), (seed, 0), (seed + 1, 0), (seed, 1)]
    )
    assert all(torch.equal(one[name], again[name]) for name in mask)
    assert not any(
        torch.equal(one[name], drawn[name]) for drawn in (other, replicate) for name in mask
    )
    assert not torch.equal(one["a"], one["b"])
    moved = random_mask(mask | {"a": ~half}, frozenset(), seed, 0)
    assert torch.equal(moved["a"], one["a"])  # the counts alone are taken from the mask


def test_more_weights_than_quantile_functions_take_are_counted_exactly():
    mask, _ = draw_mask({"w": torch.arange(2**24 + 10).float()}, 0.5, Pruning("global"))
    assert int(mask["w"].sum()) == 2**23 + 5


@pytest.mark.parametrize("share", [1e-5, 0.2, 0.5, 0.98, 1 - 1e-5])
@pytest.mark.parametrize("pattern", ["drawn", "ascending", "equal", "a sample is misled"])
def test_of_many_weights_the_lowest_go_wherever_they_lie(pattern, share):
    count = 100_000
    weights = {
        "drawn": torch.rand(count, generator=torch.Generator().manual_seed(1)),
        "ascending": torch.arange(1.0, count + 1),
        "equal": torch.ones(count),
        "a sample is misled": torch.where(torch.arange(count) % 6 == 0, 1e-3, 1.0),
    }[pattern]
    mask, cutoffs = draw_mask({"w": weights}, share, Pruning("global"))
    ordered = weights.sort().values
    pruned = round(share * count)
    assert int((~mask["w"]).sum()) == pruned
    assert cutoffs["w"] == ordered[pruned]
    assert torch.equal(weights[mask["w"]].sort().values, ordered[pruned:])


def test_lamp_keeps_every_layer_alive_where_global_magnitude_empties_one():
    weights = {"wide": torch.rand(1000) / 100, "narrow": torch.rand(1000)}
    emptied, _ = draw_mask(weights, 0.6, Pruning("global"))
    alive, _ = draw_mask(weights, 0.99, Pruning("lamp"))
    assert not emptied["wide"].any()
    assert alive["wide"].any()
    assert alive["narrow"].any()


def test_batch_norm_and_biases_are_never_prunable():
    network = build(Network("mobilenet_v2"), (3, 32, 32), 10)
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
    with_classes = prunable_weights(build(Network("mobilenet_v2"), (3, 32, 32), 1000))
    assert sum(w.numel() for w in with_classes.values()) == 2_202_560 + 990 * 1280


def test_spared_layers_stay_whole_and_do_not_count():
    weights = prunable_weights(build(Network("mobilenet_v2"), (3, 32, 32), 10))
    spared = spared_weights(weights, ["stem", "depthwise", "classifier"])
    assert sum(weights[name].numel() for name in spared) == 864 + 64_224 + 12_800
    mask, cutoffs = draw_mask(weights, 0.5, Pruning("global"), spared)
    assert all(mask[name].all() and math.isnan(cutoffs[name]) for name in spared)
    assert sum(int((~kept).sum()) for kept in mask.values()) == 2_124_672 // 2
    assert spared_weights(weights, ["features.18.*"]) == {"features.18.0.weight"}


@pytest.mark.parametrize(
    ("spare", "problem"), [(["depthwize"], "depthwize"), (["*"], "nothing can be pruned")]
)
def test_sparing_nothing_known_or_everything_is_refused(spare, problem):
    with pytest.raises(InputError, match=problem):
        spared_weights(prunable_weights(build(Network("lenet_300_100"), (1, 8, 8), 10)), spare)


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


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"rate": 1.0}, "rate must be above 0 and below 1; got 1.0"),
        ({"rounds": 3}, "rounds belong to the iterative schedule; got 3"),
        ({"schedule": "iterative"}, "rounds must be 1 to 1000; got 0"),
        ({"schedule": "iterative", "rounds": 10**9}, "got 1000000000"),
        ({"schedule": "iterative", "rounds": 200}, "after nothing is left to prune"),
        ({"schedule": "iterative", "rounds": 2, "by": "cutoff"}, "got by: cutoff"),
        ({"score": "synflow", "by": "cutoff"}, "got by: cutoff"),
        ({"score": "lamp", "layer_rates": {"stem": 0.1}}, "the allocation uniform; got 'lamp'"),
        ({"score": "layerwise", "layer_rates": {"stem": 0.1}, "by": "cutoff"}, "got by: cutoff"),
        ({"score": "layerwise", "layer_rates": {"stem": 0.0}}, "layer_rates.stem must be above 0"),
        ({"score": "erk"}, "erk is an allocation; give it as allocation, with a score such as ran"),
        ({"allocation": "erk"}, "with the allocation erk, use the score layerwise"),
        ({"score": "lamp", "allocation": "erk", "layer_rates": {"stem": 0.1}}, "uniform; got 'lam"),
        ({"score": "lamp", "allocation": "uniform", "by": "cutoff"}, "need by: share; got by: cut"),
        ({"score": "random", "schedule": "iterative", "rounds": 2}, "random scores weights before"),
        ({"score": "grasp", "schedule": "iterative", "rounds": 2}, "grasp scores weights before"),
    ],
)
def test_pruning_that_contradicts_itself_is_refused(settings, problem):
    with pytest.raises(ValueError, match=problem):
        Pruning(**settings)


def test_rounds_prune_a_share_of_what_is_left():
    rounds = Pruning(schedule="iterative", rate=0.2, rounds=4)
    assert rounds.thresholds() == (0.2, 0.36, 0.488, 0.5904)
    assert Pruning().thresholds() == ()


def test_pruning_goes_through_a_study_file_unchanged():
    values = Study.read("digits").to_dict()
    settings = {"score": "layerwise", "schedule": "iterative", "rounds": 3, "rate": 0.25}
    values["pruning"] = settings | {"layer_rates": {"classifier": 0.125}}
    del values["grid"]["thresholds"]
    study = Study.from_dict(values)
    assert study.pruning == Pruning(**values["pruning"])
    assert Study.parse(study.to_yaml()) == study
    assert hash(study) == hash(Study.parse(study.to_yaml()))
    values["pruning"]["layer_rates"] = {"classifier": 0.0}
    with pytest.raises(InputError, match="layer_rates.classifier must be above 0"):
        Study.from_dict(values)
