"""Optimizers: made from the settings of a recipe, in the state that a checkpoint holds."""

from math import isclose

import torch
from torch import Tensor, nn

from lthdask.errors import InputError
from lthdask.own import function, is_own, plain
from lthdask.training.recipe import ADAM_BETAS, Optimizer

Buffers = dict[str, dict[str, Tensor]]
"""Name of weight → name of buffer → tensor."""


def optimizer_of(
    settings: Optimizer, weights: dict[str, nn.Parameter], buffers: Buffers
) -> torch.optim.Optimizer:
    """Return the optimizer with `buffers` restored, as copies in the layout of the weights.

    Raises
    ------
    InputError
        If one's own function returns no optimizer of these weights.
    """
    parameters = list(weights.values())
    if is_own(settings.name):
        return _own(settings, weights, buffers)
    optimizer: torch.optim.Optimizer
    if settings.name == "adam":
        optimizer = torch.optim.Adam(
            parameters, settings.rate, ADAM_BETAS, weight_decay=settings.weight_decay, fused=True
        )
    else:
        optimizer = torch.optim.SGD(
            parameters,
            settings.rate,
            settings.momentum,
            weight_decay=settings.weight_decay,
            fused=True,
        )
    for name, of_weight in buffers.items():
        weight = weights[name]
        optimizer.state[weight] = {
            buffer: torch.empty_like(weight).copy_(tensor)
            if tensor.shape == weight.shape
            else tensor.to(weight.device, copy=True)
            for buffer, tensor in of_weight.items()
        }
    return optimizer


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
