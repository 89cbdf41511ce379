"""What the report on layers promises: the layers that limit a network come first."""

import numpy as np
import pytest

from lthdask.report.layers import Layer, emptied_layers, layer_means, limiting_layers
from lthdask.report.summary import limits
from lthdask.storage.schema import Status
from tests.test_verdict import LAYERS, results


def collapsed(status=None):
    """LeNet-300-100 at two thresholds; the higher one leaves 30 of its 300 channels."""
    found = results({"ticket": np.full((2, 2, 3), 0.9)}, status=status)
    found["layer_density"].loc[{"threshold": 0.6}] = [0.05, 0.04, 0.5]
    found["layer_dead_channels"].loc[{"threshold": 0.6}] = [270, 50, 9]
    return found


def test_layers_are_ordered_by_living_channels_and_then_by_density():
    assert limiting_layers(collapsed(), 0.6) == [
        Layer("1.weight", living=pytest.approx(0.1), density=pytest.approx(0.05)),
        Layer("3.weight", living=pytest.approx(0.5), density=pytest.approx(0.04)),
        Layer("5.weight", living=1.0, density=pytest.approx(0.5)),
    ]
    found = collapsed()
    found["layer_density"].loc[{"threshold": 0.5}] = [0.3, 0.1, 0.2]
    assert [layer.name for layer in limiting_layers(found, 0.5)] == [
        "3.weight",
        "5.weight",
        "1.weight",
    ]


def test_the_classes_are_no_channels_that_limit_unless_none_is_left():
    found = collapsed()
    found["layer_density"].loc[{"threshold": 0.6, "layer": "5.weight"}] = 0
    assert limiting_layers(found, 0.6)[0] == Layer("5.weight", 0.0, 0.0)


def test_what_is_left_is_averaged_over_the_tickets_that_are_done():
    found = collapsed({("ticket", 0, 1, 0): Status.FAILED})
    found["layer_density"][0, 0, 1, 0] = 0.9
    found["layer_density"][0, 1, 1, 0] = [0.1, 0.09, 0.55]
    means = layer_means(found).sel(threshold=0.6)
    assert means.layer.values.tolist() == LAYERS
    assert means.layer_density.values == pytest.approx([0.06, 0.05, 0.51])
    assert means.layer_dead_channels.values.tolist() == [270, 50, 9]


def test_emptied_layers_are_those_of_trained_cells():
    found = collapsed({("ticket", 0, 0, 0): Status.DIVERGED, ("ticket", 1, 1, 1): Status.PENDING})
    found["layer_density"][0, 0, 0, 0] = [0, 0.1, 0]
    found["layer_density"][0, 1, 1, 1] = 0
    assert emptied_layers(found) == {0.5: ["1.weight", "5.weight"]}


def test_the_limiting_layers_of_the_highest_threshold_that_is_trained_are_said():
    assert limits(collapsed()) == (
        "threshold 0.6 is limited by 1.weight (10 % of its channels, 5 % of its weights), "
        "3.weight (50 % of its channels, 4 % of its weights), "
        "5.weight (100 % of its channels, 50 % of its weights)"
    )
    pending = {("ticket", r, 1, k): Status.PENDING for r in range(3) for k in range(2)}
    assert limits(collapsed(pending)).startswith("threshold 0.5 is limited by 1.weight (100 %")
    every = {("ticket", *at): Status.SKIPPED for at in np.ndindex(3, 2, 2)}
    assert limits(collapsed(every)) is None
