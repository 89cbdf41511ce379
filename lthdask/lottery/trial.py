"""A trial of code of one's own: a few steps of what a study will do, before it begins.

A network or an optimizer that draws random numbers which nobody seeds, or keeps what no checkpoint
has, ends elsewhere when its training is stopped and resumed. That is found here, on a CPU and a few
inputs, and not by results that nobody can repeat.
"""

import itertools
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lthdask.data.batches import Split
from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.lottery import drawing, runs
from lthdask.lottery.experiment import Experiment
from lthdask.lottery.ticket import Ticket
from lthdask.networks.zoo import is_of_zoo, require_fit
from lthdask.own import explained, plain
from lthdask.pruning.rule import LAYERS, rates_by_layer, require_own_parameters, spared_weights
from lthdask.training.engine import Engine
from lthdask.training.loop import Diverged

FEW = 8
"""Inputs of a step, at most."""


def require_repeatable(experiment: Experiment) -> None:
    """Refuse code with which training cannot begin, or would not end in the same bits when resumed.

    Raises
    ------
    InputError
        If anything of it raises, or two steps with a stop in between end in other bits.
    """
    require_prunable(experiment)
    with explained("the schedule fails"):
        for epoch in range(experiment.recipe.epochs):
            experiment.recipe.rate(epoch, 0, 1)
    small = _small(experiment)
    with explained("a few steps of the study fail"):
        _require_outputs(small)
        _try(small)


def _require_outputs(experiment: Experiment) -> None:
    """Refuse a network that does not return a number for each class."""
    inputs, _ = next(iter(experiment.data.evaluation(experiment.data.train)))
    with torch.no_grad():
        found = experiment.build().eval()(inputs)
    wanted = len(inputs), experiment.data.classes
    shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
    if shape != wanted:
        raise InputError(
            f"the network must return a number for each class, a tensor of shape {wanted} of these "
            f"{len(inputs)} inputs; got {shape}"
        )


def require_prunable(experiment: Experiment) -> None:
    """Refuse a network whose layers cannot be pruned, or that does not fit the study's images.

    Raises
    ------
    InputError
        If it cannot be built, or something about its layers is wrong.
    """
    network, data = experiment.network, experiment.data
    with explained("the network cannot be built"):
        weights = experiment.prunable()
    if not weights:
        raise InputError("the network has no convolution or linear layer, so nothing can be pruned")
    require_own_parameters(experiment.outline())
    require_zeros(experiment.outline())
    spared_weights(weights, experiment.pruning.spare)
    rates_by_layer(weights, experiment.pruning)
    if is_of_zoo(network.name):
        batch = experiment.recipe.batch_size
        tried = require_fit(network.name, data.shape, data.classes, batch)
        if idle := [name for name in weights if tried.get_parameter(name).grad is None]:
            raise InputError(
                f"{network.name} does not use its weights {idle[0]}, so they cannot be pruned; "
                f"choose another network"
            )


def require_zeros(network: nn.Module) -> None:
    """Refuse layers in which a weight of zero is not the absence of a connection.

    Such a layer computes its weights anew from all of them, as by standardising them. Whether an
    input counts whose weights are zero is tried once for each kind of layer with its own code.

    Raises
    ------
    InputError
        If there is one.
    """
    tried = {layer.forward for layer in LAYERS}
    for name, layer in network.named_modules():
        if isinstance(layer, LAYERS) and type(layer).forward not in tried:
            tried.add(type(layer).forward)
            if not _zeros_are_absent(layer):
                raise InputError(
                    f"{name}.weight cannot be pruned: {type(layer).__name__} computes its weights "
                    f"anew from all of them, so one that is zero still counts; choose another "
                    f"network"
                )


@torch.no_grad()
def _zeros_are_absent(like: nn.Module) -> bool:
    draws = torch.Generator().manual_seed(0)
    layer: Any = deepcopy(like).to_empty(device="cpu").float().eval()
    for tensor in itertools.chain(layer.parameters(), layer.buffers()):
        tensor.copy_(torch.rand(tensor.shape, generator=draws) + 0.5)
    layer.weight[:, 0] = 0
    size = [2 * pixels + 1 for pixels in layer.weight.shape[2:]]
    channels = layer.weight.shape[1] * getattr(layer, "groups", 1)
    inputs = torch.rand(2, channels, *size, generator=draws)
    with suppress(Exception):  # it may take other inputs; then nothing is known
        before = layer(inputs)
        inputs[:, 0] += 1
        return torch.equal(before, layer(inputs))
    return True


def _try(experiment: Experiment) -> None:
    begun = experiment.build().state_dict()
    try:
        states = list(itertools.islice(runs.train_dense(experiment, 0, due=lambda: True), 3))
        (first, _), (stopped, _), (end, found) = states
        whole = {
            name: torch.ones_like(begun[name], dtype=torch.bool) for name in experiment.prunable()
        }
        again = runs.train_ticket(experiment, 0, Ticket(first, whole, {}), stopped)
        resumed, found_again = next(again)
    except Diverged:
        return  # at the study's own rate, on inputs that are few
    if any(not torch.equal(begun[name], tensor) for name, tensor in first.weights.items()):
        raise InputError(
            "the network does not begin with the same weights each time; draw them by torch's own "
            "random numbers, which are seeded"
        )
    if end.digest() != resumed.digest() or found != found_again:
        raise InputError(
            "training that is stopped and resumed would end in other bits: a network must draw "
            "its random numbers in training alone, by torch and no generator of its own, as "
            "dropout does, and keep all that changes in parameters and buffers; an optimizer must "
            "draw none, and keep it in its state"
        )
    dense = {0: first, experiment.mask_place: end}
    threshold = next(iter(experiment.given), 0.5)
    drawing.draw(experiment, Cell("ticket", 0, threshold, 0), dense)
    for arm in map(plain, experiment.own_arms):
        _try_arm(experiment, Cell(arm, 0, threshold, 0), dense)


def _try_arm(experiment: Experiment, cell: Cell, dense: drawing.Dense) -> None:
    drawn, other = (drawing.draw(experiment, cell, dense) for _ in range(2))
    same = all(torch.equal(kept, other.mask[name]) for name, kept in drawn.mask.items())
    if not same or drawn.start.digest() != other.start.digest():
        raise InputError(
            f"the arm {cell.arm} does not give the same weights and mask each time; draw random "
            f"numbers by the generator that it is given, and remember nothing"
        )


def _small(experiment: Experiment) -> Experiment:
    """Return the experiment on a CPU, with two steps of a few inputs in an epoch."""
    data, batch = experiment.data, min(FEW, experiment.recipe.batch_size)

    def few(split: Split, count: int) -> Split:
        return split.subset(torch.arange(min(count, len(split)))).to(torch.device("cpu"))

    return replace(
        experiment,
        data=replace(
            data,
            train=few(data.train, 2 * batch),
            validation=few(data.validation, batch),
            test=few(data.test, batch),
            mean=data.mean.cpu(),
            std=data.std.cpu(),
        ),
        recipe=replace(experiment.recipe, batch_size=batch, measure_every=0),
        engine=Engine("cpu", "float32", cohort=1),
    )
