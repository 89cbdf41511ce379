"""Training a ticket on, with any optimizer: what is pruned stays zero."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from lthdask.errors import InputError


def hold(
    optimizer: torch.optim.Optimizer, network: nn.Module, mask: Mapping[str, Tensor]
) -> ExitStack:
    """Keep the pruned weights of a network at zero while an optimizer trains it.

    They are set to zero at once, and again after each step, whatever the optimizer does to them:
    momentum from before the pruning, weight decay, and updates that mix the entries of a matrix
    would revive them. Their gradients are zero as well, so clipping a norm sees only weights that
    survive. The network keeps the names of its weights, and may move to another device.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Any; it has the weights of the network already.
    network : nn.Module
    mask : mapping of str to Tensor of bool
        Name of a weight → ``True`` where it survives, such as the ``mask`` of a loaded ticket.

    Returns
    -------
    contextlib.ExitStack
        Its ``close()`` lets go of them; so does the end of a ``with`` block.

    Raises
    ------
    InputError
        If the mask is not of this network, or the optimizer has none of its weights.

    Examples
    --------
    >>> import lthdask
    >>> ticket = lthdask.load_ticket("runs/digits/tickets/ticket-r0-t0.5-k0.safetensors")
    >>> network = ticket.network.train()
    >>> optimizer = torch.optim.Adam(network.parameters(), 0.001)  # after: import torch
    >>> with lthdask.hold(optimizer, network, ticket.mask):
    ...     network(torch.randn(8, *ticket.about["input"])).square().mean().backward()
    ...     optimizer.step()
    >>> network.get_parameter("1.weight")[~ticket.mask["1.weight"]].count_nonzero().item()
    0
    """
    weights = _weights(network, mask)
    trained = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    if not any(id(weight) in trained for weight in weights):
        raise InputError("the optimizer has none of the masked weights; make it of this network")
    kept = list(mask.values())

    def of(place: int) -> Tensor:
        """Return a mask in the type of its weight, and where that lies by now."""
        kept[place] = kept[place].to(weights[place])
        return kept[place]

    @torch.no_grad()
    def keep_zeros(*_: Any) -> None:
        torch._foreach_mul_(weights, [of(place) for place in range(len(weights))])

    held = ExitStack()
    held.callback(optimizer.register_step_post_hook(keep_zeros).remove)
    for place, weight in enumerate(weights):
        if weight.requires_grad:
            hook = weight.register_hook(lambda gradient, at=place: gradient * of(at))
            held.callback(hook.remove)
    keep_zeros()
    return held


def _weights(network: nn.Module, mask: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the weights that a mask is of, in its order."""
    if not mask:
        raise InputError("the mask is empty; give name of weight → tensor, True where it survives")
    known = dict(network.named_parameters(remove_duplicate=False))
    for name, kept in mask.items():
        if name not in known:
            some = next(iter(known), "none")
            raise InputError(
                f"the mask is of another network: it has no weight {name!r}, but such as {some!r}"
            )
        if kept.dtype != torch.bool or kept.shape != known[name].shape:
            raise InputError(
                f"the mask of {name!r} is {kept.dtype} {tuple(kept.shape)}; it must be torch.bool "
                f"{tuple(known[name].shape)}"
            )
    return [known[name] for name in mask]
