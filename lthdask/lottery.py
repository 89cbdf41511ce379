"""The experiments: train the dense network; draw a ticket from it and train that.

Plain functions of values. Nothing here knows where a run takes place, or where its results
go.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor, nn

from lthdask.data import Data
from lthdask.masks import Pruning, density, prunable_weights, spared_weights
from lthdask.networks import Network, build, on_meta
from lthdask.rewinding import Checkpoint, Ticket, draw_ticket
from lthdask.streams import Purpose, stream
from lthdask.training import Engine, EpochMetrics, Recipe, train

_drawing = Lock()

Epochs = Iterator[tuple[Checkpoint, EpochMetrics | None]]


@dataclass(frozen=True)
class Experiment:
    """Everything that a training run depends on but its replicate, mask and start.

    Attributes
    ----------
    network : Network
    image_size : int
        In pixels.
    data : Data
        Held on the engine's device.
    recipe : Recipe
    pruning : Pruning
    seed : int
    engine : Engine
        With nothing left on ``auto``.
    fresh_buffers : bool
        Whether a ticket's optimizer starts afresh.
    """

    network: Network
    image_size: int
    data: Data
    recipe: Recipe
    pruning: Pruning
    seed: int
    engine: Engine
    fresh_buffers: bool = False

    def build(self, replicate: int = 0) -> nn.Module:
        """Return the network as `replicate` initialises it, on the device.

        It is drawn on the CPU, so that it is the same on every device.
        """
        # torch's layers draw from one generator for the whole process.
        with _drawing, torch.random.fork_rng(devices=[]):
            bits = stream(self.seed, replicate, Purpose.INITIALISATION)
            torch.manual_seed(int(bits.random_raw() >> 1))
            network = build(self.network, self.image_size, self.data.channels, self.data.classes)
        device = torch.device(self.engine.device)
        moved: nn.Module = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return moved

    def outline(self) -> nn.Module:
        """Return the network without storage: names and shapes only."""
        return on_meta(self.network, self.image_size, self.data.channels, self.data.classes)


def train_dense(
    experiment: Experiment,
    replicate: int,
    start: Checkpoint | None = None,
    due: Callable[[], bool] = lambda: False,
) -> Epochs:
    """Train the unpruned network of a replicate.

    Parameters
    ----------
    experiment : Experiment
    replicate : int
    start : Checkpoint, optional
        A state that was yielded before, to go on from.
    due : callable
        As in :func:`lthdask.training.train`.

    Yields
    ------
    checkpoint : Checkpoint
        Checkpoints 0, 1, ..., T, or those after `start`; 0 is before the first step.
    metrics : EpochMetrics or None
        Of the epoch; None for checkpoint 0 and inside an epoch.
    """
    network = experiment.build(replicate)
    if start is None:
        weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        start = Checkpoint(0, weights)
        yield start, None
    yield from _train(experiment, network, replicate, start, None, due)


def ticket(
    experiment: Experiment, trained: Checkpoint, early: Checkpoint, threshold: float
) -> Ticket:
    """Draw the ticket of checkpoint `early` at `threshold`, from the `trained` dense weights."""
    network = experiment.outline()
    spared = spared_weights(network, experiment.pruning.spare)
    prunable = list(prunable_weights(network))
    return draw_ticket(
        trained,
        early,
        threshold,
        experiment.pruning,
        prunable,
        spared,
        experiment.fresh_buffers,
    )


def train_ticket(
    experiment: Experiment,
    replicate: int,
    drawn: Ticket,
    start: Checkpoint | None = None,
    due: Callable[[], bool] = lambda: False,
) -> Epochs:
    """Train a ticket from its rewind epoch k to T, yielding after each of epochs k + 1..T.

    `start` and `due` are as in :func:`train_dense`.
    """
    network = experiment.build(replicate)
    yield from _train(experiment, network, replicate, start or drawn.start, drawn.mask, due)


def densities(
    experiment: Experiment, trained: Checkpoint
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Count what is left of a network: the weights that are not zero.

    Returns
    -------
    network : dict of str to float
        ``density``, of its prunable weights, and ``parameters_left``, of all its parameters.
    layers : dict of str to dict of str to float
        Name of the prunable weight → ``density`` and ``dead_channels``, its output channels
        without a single weight.
    """
    network = experiment.outline()
    weights = {name: trained.weights[name] for name in prunable_weights(network)}
    parameters = sum(parameter.numel() for parameter in network.parameters())
    pruned = sum(weight.numel() - int(weight.count_nonzero()) for weight in weights.values())
    return (
        {"density": density(weights), "parameters_left": (parameters - pruned) / parameters},
        {
            name: {
                "density": density({name: weight}),
                "dead_channels": int((weight.flatten(1) == 0).all(1).sum()),
            }
            for name, weight in weights.items()
        },
    )


def _train(
    experiment: Experiment,
    network: nn.Module,
    replicate: int,
    start: Checkpoint,
    mask: dict[str, Tensor] | None,
    due: Callable[[], bool],
) -> Epochs:
    engine = experiment.engine
    torch.set_num_threads(engine.threads if mask is not None else engine.dense_threads)
    return train(
        network,
        experiment.data,
        experiment.recipe,
        start,
        seed=experiment.seed,
        replicate=replicate,
        mask=mask,
        engine=engine,
        due=due,
    )
