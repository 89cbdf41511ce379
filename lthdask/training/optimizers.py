"""Optimizers: made from the settings of a recipe, in the state that a checkpoint holds."""

from math import isclose
from typing import Any

import torch
from torch import Tensor, nn

from lthdask.errors import InputError
from lthdask.own import function, is_own, plain
from lthdask.training.recipe import ADAM_BETAS, Optimizer

Buffers = dict[str, dict[str, Tensor]]
"""Name of weight → name of buffer → tensor."""


def optimizer_of(
    settings: Optimizer,
    weights: dict[str, nn.Parameter],
    buffers: Buffers,
    side_by_side: bool = False,
) -> torch.optim.Optimizer:
    """Return the optimizer with `buffers` restored, as copies in the layout of the weights.

    Parameters
    ----------
    settings : Optimizer
    weights : dict of str to Parameter
    buffers : dict of str to dict of str to Tensor
    side_by_side : bool
        Whether the first axis of each weight counts the models of a cohort.

    Raises
    ------
    InputError
        If one's own function returns no optimizer of these weights.
    """
    if is_own(settings.name):
        return _own(settings, weights, buffers)
    groups = _groups(settings, weights, 2 + side_by_side)
    rate, decay = settings.rate, settings.weight_decay
    optimizer: torch.optim.Optimizer
    if settings.name == "sgd":
        optimizer = torch.optim.SGD(
            groups,
            rate,
            settings.momentum,
            weight_decay=decay,
            nesterov=settings.nesterov,
            fused=True,
        )
    else:
        kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
        optimizer = kind(groups, rate, ADAM_BETAS, weight_decay=decay, fused=True)
    for name, of_weight in buffers.items():
        weight = weights[name]
        optimizer.state[weight] = {
            buffer: torch.empty_like(weight).copy_(tensor)
            if tensor.shape == weight.shape
            else tensor.to(weight.device, copy=True)
            for buffer, tensor in of_weight.items()
        }
    return optimizer


def _groups(
    settings: Optimizer, weights: dict[str, nn.Parameter], dimensions: int
) -> list[dict[str, Any]]:
    """Return the parameters; in two groups where those with fewer `dimensions` do not decay."""
    parameters = list(weights.values())
    if settings.decay_norm_and_bias or not settings.weight_decay:
        return [{"params": parameters}]
    decaying = [weight for weight in parameters if weight.ndim >= dimensions]
    others = [weight for weight in parameters if weight.ndim < dimensions]
    return [{"params": decaying}, {"params": others, "weight_decay": 0.0}]


def _own(
    settings: Optimizer, weights: dict[str, nn.Parameter], buffers: Buffers
) -> torch.optim.Optimizer:
    """Return an optimizer of one's own, which puts the buffers where it needs them."""
    optimizer = function(settings.name)(
        list(weights.values()), settings.rate, settings.momentum, settings.weight_decay
    )
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(
            f"{plain(settings.name)} must return a torch.optim.Optimizer; got {type(optimizer)}"
        )
    names = {weight: name for name, weight in weights.items()}
    order = [names.get(weight) for group in optimizer.param_groups for weight in group["params"]]
    if sorted(map(str, order)) != sorted(weights):
        raise InputError(
            f"the optimizer of {plain(settings.name)} must have all parameters that it was given"
        )
    rates = {float(group.get("lr", settings.rate)) for group in optimizer.param_groups}
    if odd := [rate for rate in rates if not isclose(rate, settings.rate, rel_tol=1e-6)]:
        raise InputError(
            f"the optimizer of {plain(settings.name)} must have the rate that it was given, "
            f"{settings.rate:g}, in every group: the schedule sets it at each step; got {odd[0]:g}"
        )
    if buffers:
        state = {
            place: {buffer: tensor.clone() for buffer, tensor in buffers[name].items()}
            for place, name in enumerate(order)
            if name in buffers
        }
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    return optimizer


def buffers_of(optimizer: torch.optim.Optimizer, weights: dict[str, nn.Parameter]) -> Buffers:
    """Return the optimizer's own buffers by the names of the weights.

    Raises
    ------
    InputError
        If it keeps something that would be lost where training is stopped: what is no tensor, or
        has not the dtype of its weight (a count named ``step`` may), to which PyTorch turns it.
    """
    found: Buffers = {}
    for name, weight in weights.items():
        if weight in optimizer.state:
            kept = {b: t for b, t in optimizer.state[weight].items() if t is not None}
            if other := [b for b, t in kept.items() if not isinstance(t, Tensor)]:
                raise InputError(
                    f"the optimizer keeps {other[0]!r}, which is no tensor and would be lost where "
                    f"training is stopped; make it a tensor"
                )
            if other := [b for b, t in kept.items() if b != "step" and t.dtype != weight.dtype]:
                raise InputError(
                    f"the optimizer keeps {other[0]!r} as {kept[other[0]].dtype}, which PyTorch "
                    f"turns into {weight.dtype} where training is resumed; make it {weight.dtype}"
                )
            found[name] = kept
    return found
