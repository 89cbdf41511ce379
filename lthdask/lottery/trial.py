"""A trial of code of one's own: a few steps of what a study will do, before it begins.

A network or an optimizer that draws random numbers which nobody seeds, or keeps what no checkpoint
has, ends elsewhere when its training is stopped and resumed. That is found here, on a CPU and a few
inputs, and not by results that nobody can repeat.
"""

from dataclasses import replace
from itertools import islice

import torch

from lthdask.data.batches import Split
from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.lottery import drawing, runs
from lthdask.lottery.experiment import Experiment
from lthdask.lottery.ticket import Ticket
from lthdask.networks.zoo import is_of_zoo, require_fit
from lthdask.own import explained, plain
from lthdask.pruning.rule import rates_by_layer, require_own_parameters, spared_weights
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
    with explained("a few steps of the study fail"):
        _try(_small(experiment))


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


def _try(experiment: Experiment) -> None:
    begun = experiment.build().state_dict()
    try:
        states = list(islice(runs.train_dense(experiment, 0, due=lambda: True), 3))
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
