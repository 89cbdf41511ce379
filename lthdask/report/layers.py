"""Layer collapse: which layers pruning leaves too small for the rest to work with."""

from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from lthdask.storage.results import study_of
from lthdask.storage.schema import Status
from lthdask.storage.shapes import weight_shapes


@dataclass(frozen=True)
class Layer:
    """What is left of a layer, on average over the tickets of a threshold.

    Attributes
    ----------
    name : str
        Name of the weight.
    living : float
        Share of its output channels that have a weight.
    density : float
        Share of its weights that are not zero.
    """

    name: str
    living: float
    density: float


def emptied_layers(results: xr.Dataset) -> dict[float, list[str]]:
    """Return, per threshold, the layers that pruning left without a single weight."""
    trained = results.status.isin([int(Status.DONE), int(Status.DIVERGED)])
    empty = (results.layer_density == 0) & trained
    empty = empty.any([d for d in empty.dims if d not in ("threshold", "layer")])
    return {
        float(threshold): [str(layer) for layer in row.layer.values[row.values]]
        for threshold, row in zip(empty.threshold.values, empty, strict=True)
        if row.any()
    }


def layer_means(results: xr.Dataset) -> xr.Dataset:
    """Return what is left of each layer, on average over the tickets that are done.

    The average is over rewind epochs, too: every k has the same mask.

    Returns
    -------
    Dataset
        Over (threshold, layer): ``layer_density``, the share of the layer's weights that are
        not zero, and ``layer_dead_channels``, its output channels without a weight; NaN where no
        ticket is done.
    """
    tickets = results.sel(arm="ticket", drop=True)
    done = tickets.status == int(Status.DONE)
    return xr.Dataset(
        {
            name: tickets[name].where(done).mean(("replicate", "rewind_epoch"))
            for name in ("layer_density", "layer_dead_channels")
        }
    ).transpose("threshold", "layer")


def limiting_layers(results: xr.Dataset, threshold: float) -> list[Layer]:
    """Return all layers of a threshold, those that limit the network most first.

    They are ordered by the share of their output channels that live, because what a layer
    does not pass on is lost to all layers behind it, and then by density. The output channels
    of the last layer are the classes, which end there: they live unless it is empty.

    Raises
    ------
    KeyError
        If there is no such threshold.
    """
    means = layer_means(results).sel(threshold=threshold)
    names, densities = means.layer.values.tolist(), means.layer_density.values.tolist()
    if not (channels := _output_channels(results)):
        return []
    living = [
        1 - dead / channels[name]
        for name, dead in zip(names, means.layer_dead_channels.values.tolist(), strict=True)
    ]
    living[-1] = float(densities[-1] > 0)
    layers = [Layer(*of) for of in zip(names, living, densities, strict=True) if of[2] >= 0]
    return sorted(layers, key=lambda layer: (layer.living, layer.density))


def _output_channels(results: xr.Dataset) -> dict[str, int]:
    """Return how many output channels each layer has: as a checkpoint says, or the network.

    Nothing where there is no checkpoint, and the network is one's own or a library's: no reader
    runs its code.
    """
    if source := results.encoding.get("source"):
        shapes = weight_shapes(Path(source).parent)
        if set(results.layer.values.tolist()) <= set(shapes):
            return {name: shape[0] for name, shape in shapes.items() if shape}
    from lthdask.networks.build import is_known
    from lthdask.pruning.rule import prunable_weights  # here: torch takes seconds
    from lthdask.study import Study

    study = Study.from_dict(study_of(results))
    if not is_known(study.network):
        return {}
    # Only the last layer's channels, and the first's inputs, depend on the data.
    outline = study.outline()
    return {name: len(weight) for name, weight in prunable_weights(outline).items()}
