"""The named values of the cube: what each is, and how it is shown.

To add a metric, add a line to its table, and raise `lthdask.storage.manifest.FORMAT`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lthdask.lottery.learning_speed import MEASURES


@dataclass(frozen=True)
class Meaning:
    """What a named value is, and how it is shown.

    Parameters
    ----------
    label : str
        What people call it: the label of an axis in a plot.
    units : str
        Empty where the label says it all. What has one of `PERCENT` lies on disk as a share.
    description : str
    variable : str
        What it is called where it is read, if it cannot keep its name.
    """

    label: str
    units: str
    description: str
    variable: str = ""


Meanings = Mapping[str, Meaning]
"""What an axis of names holds: name → what it is."""
PERCENT = ("%", "points")
"""Units in which people read shares: values are a hundred times what lies on disk."""

METRICS = {
    "test_accuracy": Meaning(
        "test accuracy", "%", "test images classified correctly after the last epoch"
    ),
    "validation_accuracy": Meaning(
        "validation accuracy", "%", "validation images classified correctly, likewise"
    ),
    "test_loss": Meaning(
        "test loss", "nat", "mean cross-entropy on the test images after the last epoch"
    ),
    "validation_loss": Meaning(
        "validation loss", "nat", "mean cross-entropy on the validation images, likewise"
    ),
    "density": Meaning(
        "density, counted",
        "",
        "share of all prunable weights that are not zero, counted after training",
        variable="counted_density",  # `density` is a coordinate
    ),
    "parameters_left": Meaning(
        "parameters left", "", "share of all parameters that are not pruned, counted likewise"
    ),
    "epochs_trained": Meaning("epochs trained", "", "epochs this cell was trained for"),
    "early_stop_iteration": Meaning(
        "early-stop iteration", "", "steps until the lowest validation loss that was measured"
    ),
    "early_stop_test_accuracy": Meaning(
        "test accuracy at early stop", "%", "test images classified correctly there"
    ),
    "iterations_to_dense": Meaning(
        "iterations to the dense accuracy",
        "",
        "steps until the validation accuracy first reached that of the dense run's end; ∞ if "
        "it never did",
    ),
    "barrier": Meaning(
        "barrier", "points", "rise of the test error between a child and its sibling"
    ),
}
MAY_LACK = {"test_loss", "iterations_to_dense", "barrier"}
"""Metrics that may be missing in a cell that is done: a test loss can overflow."""
CURVES = {
    "train_loss": Meaning(
        "training loss", "nat", "mean training loss of the run's steps in the epoch"
    ),
    "validation_loss": Meaning(
        "validation loss", "nat", "mean cross-entropy on the validation images after the epoch"
    ),
    "validation_accuracy": Meaning(
        "validation accuracy", "%", "validation images classified correctly"
    ),
    "test_accuracy": Meaning("test accuracy", "%", "test images classified correctly"),
}
LEARNING = {
    name: replace(CURVES[name], description=CURVES[name].description.partition(" after")[0])
    for name in MEASURES
}
LAYERS = {
    "density": Meaning(
        "density of the layer",
        "",
        "share of the layer's weights that are not zero, counted after training",
    ),
    "dead_channels": Meaning(
        "dead channels", "", "output channels of which every weight is zero, counted likewise"
    ),
    "cutoff": Meaning(
        "cutoff", "", "lowest score that survives pruning; NaN where the layer is spared"
    ),
}
RECORD = {
    "seconds": Meaning(
        "time", "s", "time the cell took, or its share of a cohort's, reading and writing too"
    ),
    "attempts": Meaning("attempts", "", "how often the cell was begun"),
    "started": Meaning("started", "", "when its last attempt began (UTC)"),
    "ended": Meaning("ended", "", "when its last attempt ended (UTC)"),
}
