"""The small study of real digits that the self-check trains, and how it is looked at."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from lthdask.data.readers import load
from lthdask.grid import Cell
from lthdask.lottery import drawing, runs
from lthdask.lottery.drawing import Dense
from lthdask.lottery.experiment import Experiment
from lthdask.lottery.ticket import Ticket
from lthdask.rewinding import Place
from lthdask.study import Study
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.loop import EpochMetrics

SMALL = {
    "network.width": "0.25",
    "data.image_size": "16",
    "recipe.epochs": "3",
    "grid.rewind_epochs": "0,1,2",
}
"""Changes that shrink the study of digits to seconds."""
THRESHOLD, K, REPLICATE = 0.8, 1, 0

Epochs = list[tuple[Checkpoint, EpochMetrics]]
"""The state and what was measured after each epoch that was trained."""


@dataclass(frozen=True)
class Trained:
    """A dense run whose checkpoints the checks use.

    Attributes
    ----------
    experiment : Experiment
    dense : mapping of int to Checkpoint
        The checkpoint of every epoch, 0 included.
    digests : mapping of int to str
        The digest of each when it was new.
    first_steps : mapping of int to Checkpoint
        Number of finished epochs → the state one step later.
    """

    experiment: Experiment
    dense: Dense
    digests: Mapping[int, str]
    first_steps: Mapping[int, Checkpoint]

    @cached_property
    def ticket(self) -> tuple[Ticket, Epochs]:
        """The ticket of checkpoint `K`, and its epochs."""
        drawn = draw(self, "ticket")
        return drawn, train(self, drawn)


def small_experiment(device: str = "auto") -> Experiment:
    """Return the experiment that is checked, on ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    InputError
        If the device is not there.
    """
    study = Study.read("digits").changed(SMALL | {"engine.device": device})
    engine = study.engine.chosen()
    return Experiment(
        network=study.network,
        data=load(study.data, None).to(torch.device(engine.device)),
        recipe=study.recipe,
        pruning=study.pruning,
        seed=study.seed,
        engine=engine,
    )


def train_dense(experiment: Experiment) -> Trained:
    """Train the dense run; its checkpoints are held as they are read from disk, by the CPU."""
    dense: dict[int, Checkpoint] = {}
    digests: dict[int, str] = {}
    first_steps: dict[int, Checkpoint] = {}
    for checkpoint, _ in runs.train_dense(experiment, REPLICATE, due=lambda: True):
        if checkpoint.step == 0:
            dense[checkpoint.epoch] = checkpoint
            digests[checkpoint.epoch] = checkpoint.digest()
        elif checkpoint.step == 1:
            first_steps[checkpoint.epoch] = on_cpu(checkpoint)
    # Not copied before the end: a copy would hide that a checkpoint still changes.
    held: dict[Place, Checkpoint] = {
        epoch: on_cpu(checkpoint) for epoch, checkpoint in dense.items()
    }
    return Trained(experiment, held, digests, first_steps)


def in_float32(experiment: Experiment) -> Experiment:
    """Return the experiment in float32."""
    return replace(experiment, engine=replace(experiment.engine, precision="float32"))


def draw(trained: Trained, arm: str, k: int = K, threshold: float = THRESHOLD) -> Ticket:
    """Draw what an arm trains."""
    cell = Cell(arm, REPLICATE, threshold, k)
    return drawing.draw(trained.experiment, cell, trained.dense)


def train(trained: Trained, drawn: Ticket, arm: str = "ticket") -> Epochs:
    """Train what was drawn, alone."""
    epochs = runs.train_ticket(trained.experiment, REPLICATE, drawn, arm=arm)
    return [(on_cpu(at), found) for at, found in epochs if isinstance(found, EpochMetrics)]


def on_cpu(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint on the CPU, as one is read from disk."""
    return replace(
        checkpoint,
        weights={name: tensor.cpu() for name, tensor in checkpoint.weights.items()},
        buffers={
            name: {buffer: tensor.cpu() for buffer, tensor in of_weight.items()}
            for name, of_weight in checkpoint.buffers.items()
        },
    )


def unpruned(trained: Trained, k: int) -> Ticket:
    """Return checkpoint `k` under a mask that prunes nothing."""
    weights = prunable(trained, trained.dense[k])
    mask = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    return Ticket(trained.dense[k], mask, {})


def prunable(trained: Trained, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the prunable weights of a checkpoint."""
    return {name: checkpoint.weights[name] for name in trained.experiment.prunable()}
