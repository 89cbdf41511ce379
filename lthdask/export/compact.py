"""Compaction: a sparse network as a smaller dense one that computes the same.

Batch norm is folded into the convolution before it. A channel goes if nothing that stays reads it,
or if it has one value at all pixels, whatever the image: then each reader adds its product to its
bias. Where it is read across a border of zeros, another value than zero is not the same at all
pixels, and stays. So nothing is approximated but the rounding of sums.

A channel stays in all tensors of its space (:mod:`lthdask.export.channels`), or goes from all. The
number that stays is rounded up to a multiple of `MULTIPLE` by channels of zeros, because odd
numbers of channels are slow.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from lthdask.errors import InputError
from lthdask.export.channels import SAME, Channels
from lthdask.export.outputs import agree

MULTIPLE = 16


def compacted(network: nn.Module, shape: Sequence[int], multiple: int = MULTIPLE) -> nn.Module:
    """Return a network without what its zeros make superfluous, with the same outputs.

    Parameters
    ----------
    network : nn.Module
        Of convolutions, linear layers, batch norm after convolutions, ReLU, pooling and sums.
    shape : sequence of int
        Shape of one input.
    multiple : int
        What numbers of channels are rounded up to.

    Returns
    -------
    nn.Module
        Dense, in evaluation mode, with the inputs and outputs of the network.

    Raises
    ------
    InputError
        If the network has something else in it.
    """
    channels = Channels(network, shape)
    small = _rebuilt(channels, _kept(channels), multiple)
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = deepcopy(network).eval()(images)
        found = small(images)
    if not agree(found, wanted):
        raise InputError("this network cannot be compacted: its outputs would be others")
    return small


def _kept(channels: Channels) -> list[Tensor]:
    """Return which channels of each space stay: those that are read, and are more than a bias.

    What only channels read that go themselves goes as well, so this is done until nothing
    changes.
    """
    kept = [torch.ones(size, dtype=torch.bool) for size in channels.sizes]
    while True:
        needed = [
            kept[i].clone() if i in channels.fixed else torch.zeros_like(kept[i])
            for i in range(len(kept))
        ]
        for node, layer in channels.layers.items():
            if not layer.depthwise:
                outputs = kept[channels.space[node]]
                is_read = (layer.weight[outputs] != 0).any(2).any(0)
                needed[channels.space[layer.source]] |= is_read & ~layer.absorbs(
                    channels.read(node)
                )
        if all(torch.equal(now, before) for now, before in zip(needed, kept, strict=True)):
            return kept
        kept = [now & before for now, before in zip(needed, kept, strict=True)]


def _rebuilt(channels: Channels, kept: Sequence[Tensor], multiple: int) -> nn.Module:
    """Return the network of the channels that are kept."""
    module, graph = channels.module, channels.module.graph
    for node in list(graph.nodes):
        if node in channels.layers:
            read, outputs = (kept[channels.space[n]] for n in (channels.layers[node].source, node))
            zeros, more = (_more(of, multiple) for of in (read, outputs))
            smaller = _smaller(channels, node, read, zeros, outputs, more)
            module.set_submodule(str(node.target), smaller)
        elif isinstance(channels.kind(node), (nn.BatchNorm2d, *SAME)):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.op == "placeholder" and channels.shown:
            with graph.inserting_after(node):
                shown = graph.call_method("expand", (node, -1, *channels.shown))
            node.replace_all_uses_with(shown, lambda user, shown=shown: user is not shown)
    module.delete_all_unused_submodules()
    module.recompile()
    return module.eval()


def _more(kept: Tensor, multiple: int) -> int:
    """Return how many channels of zeros are added to those that are kept of a space."""
    count = int(kept.sum())
    return min(len(kept), max(1, -(-count // multiple)) * multiple) - count


def _smaller(
    channels: Channels, node: fx.Node, read: Tensor, zeros: int, outputs: Tensor, more: int
) -> nn.Module:
    """Return a layer of the channels that are kept, and of some zeros."""
    layer, old = channels.layers[node], channels.kind(node)
    weight, bias = layer.weight[outputs], layer.bias[outputs]
    if layer.depthwise:
        zeros = 0
    else:
        bias = layer.with_constants(channels.read(node), ~read)[outputs]
        weight = weight[:, read]
    weight, bias = F.pad(weight, (0, 0, 0, zeros, 0, more)), F.pad(bias, (0, more))
    new: nn.Module
    if isinstance(old, nn.Linear):
        new = nn.Linear(weight[0].numel(), len(weight))
    else:
        groups = len(weight) if layer.depthwise else 1
        new = nn.Conv2d(
            *(groups * weight.shape[1], len(weight), old.kernel_size),
            *(old.stride, old.padding, old.dilation, groups),
        )
    state = new.state_dict()
    new.load_state_dict(
        {"weight": weight.reshape(state["weight"].shape), "bias": bias}  # in single precision
    )
    return new
