"""How long an epoch takes here, judged by a few of its steps and a part of its evaluation."""

import time
from dataclasses import replace

import torch
from torch import nn

from lthdask.data.batches import EVALUATION_BATCH, Data
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.engine import Engine
from lthdask.training.evaluation import evaluate
from lthdask.training.loop import train
from lthdask.training.recipe import Recipe

MEASURED_SECONDS = 3.0


def epoch_seconds(
    network: nn.Module, data: Data, recipe: Recipe, start: Checkpoint, seed: int, engine: Engine
) -> tuple[float, int]:
    """Return the seconds of an epoch, every evaluation included, and how many steps were measured.

    Parameters
    ----------
    network : Module
        The network, on the engine's device; its weights are replaced.
    data : Data
        The data, on the same device, with at least one batch of training images.
    recipe : Recipe
    start : Checkpoint
        Where to start; it is not changed.
    seed : int
        What the order of the data is drawn from.
    engine : Engine

    Raises
    ------
    Diverged
        If a loss is not finite.
    """
    torch.set_num_threads(engine.threads)
    batch, steps = recipe.batch_size, data.steps(recipe.batch_size)
    without = replace(recipe, measure_every=0)
    one = data.test.subset(torch.arange(1))

    def training(steps: int) -> float:
        train_images = data.train.subset(torch.arange(steps * batch))
        part = replace(data, train=train_images, validation=one, test=one)
        run = train(network, part, without, start, seed=seed, replicate=0, engine=engine)
        began = time.perf_counter()
        next(run)
        return time.perf_counter() - began

    training(1)  # warms up
    some = min(steps, max(1, int(MEASURED_SECONDS / training(1))))
    seconds = training(some) / some * steps
    shown = data.test.subset(torch.arange(min(len(data.test), EVALUATION_BATCH)))
    began = time.perf_counter()
    evaluate(network, data, shown, engine)
    per_image = (time.perf_counter() - began) / len(shown)
    looked_at = (1 + recipe.looks(steps)) * (len(data.validation) + len(data.test))
    return seconds + per_image * looked_at, some
