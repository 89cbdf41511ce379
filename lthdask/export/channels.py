"""What is known of the channels of each tensor in a network.

Each channel has a value, where it is the same at all pixels, whatever the image. Channels that are
added, or pass through a depthwise convolution, are one **space**: a channel stays in all tensors of
its space, or goes from all.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from lthdask.errors import InputError, first_sentence
from lthdask.networks.mobilenet import Depthwise, Pointwise

CONVOLUTIONS = (nn.Conv2d, Pointwise, Depthwise)
"""Of these kinds only: what is derived from them, as by timm, may compute something else."""
SAME = (nn.Dropout, nn.Identity)
"""What changes nothing in evaluation."""
RELUS: Mapping[Any, Callable[[Tensor], Tensor]] = {
    **dict.fromkeys((nn.ReLU, F.relu, torch.relu, "relu", "relu_"), F.relu),
    **dict.fromkeys((nn.ReLU6, F.relu6), F.relu6),
}
POOLS = (
    *(nn.MaxPool2d, nn.AdaptiveAvgPool2d, F.max_pool2d, F.adaptive_avg_pool2d),
    *("mean", torch.mean),
)
FLAT = (nn.Flatten, torch.flatten, "flatten")
"""With the pools, what leaves a channel of one value as it is, and reads no other channel."""
SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")


@dataclass
class Layer:
    """A convolution or a linear layer, with the batch norm after it, in double precision.

    Attributes
    ----------
    weight : Tensor, (outputs, channels that are read, values of each)
    bias : Tensor, (outputs,)
    source : Node
        What it reads.
    bordered : bool
        Whether it reads zeros around the image.
    depthwise : bool
    """

    weight: Tensor
    bias: Tensor
    source: fx.Node
    bordered: bool
    depthwise: bool

    def constants(self, read: Tensor) -> Tensor:
        """Return the values of its channels; NaN where they depend on the image."""
        folds = self.absorbs(read)
        if self.depthwise:
            known = folds | (self.weight == 0).all(2).all(1)
            value = self.bias + self.weight.sum((1, 2)) * read.nan_to_num()
            return value.where(known, torch.nan)
        known = (self.weight[:, ~folds] == 0).all(2).all(1)
        return self.with_constants(read, folds).where(known, torch.nan)

    def absorbs(self, read: Tensor) -> Tensor:
        """Return which of the channels that it reads are no more than a part of its bias."""
        return read == 0 if self.bordered else ~read.isnan()

    def with_constants(self, read: Tensor, gone: Tensor) -> Tensor:
        """Return its bias, once it no longer reads some channels."""
        return self.bias + self.weight[:, gone].sum(2) @ read[gone].nan_to_num()


class Channels:
    """What is known of the channels of each tensor in a network.

    Parameters
    ----------
    network : nn.Module
        Of convolutions, linear layers, batch norm after convolutions, ReLU, pooling and sums.
    shape : sequence of int
        Shape of one input.

    Attributes
    ----------
    module : GraphModule
        A copy of the network, as a graph.
    shown : Size or None
        Shape that an input is brought to first; None if it is shown as it is.
    layers : dict of Node to Layer
    values : dict of Node to Tensor
        Of each tensor, (channels,): the value of a channel that has one; else NaN.
    space : dict of Node to int
        The space of its channels.
    sizes : list of int
        Number of channels of each space.
    fixed : set of int
        Spaces of inputs and outputs, of which every channel stays.

    Raises
    ------
    InputError
        If the network has something else in it.
    """

    def __init__(self, network: nn.Module, shape: Sequence[int]) -> None:
        images = torch.zeros(1, *shape)
        for hook in network._forward_pre_hooks.values():  # of which tracing takes no notice
            images = hook(network, (images,))[0]
        self.shown = images.shape[1:] if images.shape[1:] != tuple(shape) else None
        tracer = _Tracer()
        try:
            graph = tracer.trace(deepcopy(network).eval())
            self.module = fx.GraphModule(tracer.root, graph)
            with torch.no_grad():
                ShapeProp(self.module).propagate(images)
        except Exception as error:
            reason = first_sentence(error)
            raise InputError(f"this network cannot be compacted: {reason}") from None
        self.layers = dict[fx.Node, Layer]()
        self.values = dict[fx.Node, Tensor]()
        self.space = dict[fx.Node, int]()
        self.sizes = list[int]()
        self.fixed = set[int]()
        for node in self.module.graph.nodes:
            self._add(node)

    def _add(self, node: fx.Node) -> None:
        """Look at the next tensor."""
        kind = self.kind(node)
        source: Any = node.args[0] if node.args else None
        if node.op == "placeholder" or (kind == "expand" and source.op == "placeholder"):
            self._begin(node, node.meta["tensor_meta"].shape[1])
            self.fixed.add(self.space[node])
            self.values[node] = torch.full((self.sizes[-1],), torch.nan, dtype=torch.double)
        elif not isinstance(source, fx.Node) or source not in self.space:
            raise _unknown(node, kind)
        elif node.op == "output":
            self.fixed.add(self.space[source])
        elif _type(kind) in (*CONVOLUTIONS, nn.Linear):
            self._add_layer(node, kind, source)
        elif _type(kind) is nn.BatchNorm2d and self._fold(kind, source):
            self._follow(node, source, self.layers[source].constants(self.read(source)))
        elif kind in SUMS and self._are_alike(node):
            other: Any = node.args[1]
            self._join(source, other)
            self._follow(node, source, self.values[source] + self.values[other])
        elif (relu := RELUS.get(_type(kind))) is not None:
            self._follow(node, source, relu(self.values[source]))
        elif _type(kind) in (*SAME, *POOLS, *FLAT) and self._is_plain(node, kind):
            self._follow(node, source, self.values[source])
        else:
            raise _unknown(node, kind)

    def _add_layer(self, node: fx.Node, kind: nn.Conv2d | nn.Linear, source: fx.Node) -> None:
        groups = getattr(kind, "groups", 1)
        depthwise = groups > 1 and groups == len(kind.weight) == self.sizes[self.space[source]]
        is_wide = isinstance(kind, nn.Linear) and len(source.meta["tensor_meta"].shape) > 2
        is_reflected = getattr(kind, "padding_mode", "zeros") != "zeros"
        is_again = any(other.target == node.target for other in self.layers)
        if is_wide or is_reflected or is_again or (groups > 1 and not depthwise):
            raise InputError(
                f"this network cannot be compacted: {node.target} is used twice, has groups of "
                f"channels or another border than zeros, or is linear and reads more than features"
            )
        channels = 1 if depthwise else self.sizes[self.space[source]]
        weight = kind.weight.detach().double().reshape(len(kind.weight), channels, -1)
        bias = (
            torch.zeros(len(weight)).double() if kind.bias is None else kind.bias.detach().double()
        )
        bordered = isinstance(kind, nn.Conv2d) and kind.padding not in ((0, 0), "valid")
        self.layers[node] = layer = Layer(weight, bias, source, bordered, depthwise)
        if not depthwise:
            self._begin(node, len(weight))
        self._follow(node, source if depthwise else node, layer.constants(self.read(node)))

    def _fold(self, norm: nn.BatchNorm2d, source: fx.Node) -> bool:
        """Make batch norm a part of the convolution before it, if nothing else reads that."""
        if source not in self.layers or len(source.users) > 1:
            return False
        layer = self.layers[source]
        mean, variance = norm.running_mean, norm.running_var
        if mean is None or variance is None:
            return False
        scale = (variance.double() + norm.eps).rsqrt()
        shift = -mean.double() * scale
        if norm.affine:
            scale, shift = scale * norm.weight.double(), shift * norm.weight + norm.bias
        layer.weight = layer.weight * scale[:, None, None].detach()
        layer.bias = (layer.bias * scale + shift).detach()
        return True

    def read(self, node: fx.Node) -> Tensor:
        """Return the values of the channels that a layer reads."""
        return self.values[self.layers[node].source]

    def _begin(self, node: fx.Node, size: int) -> None:
        self.space[node] = len(self.sizes)
        self.sizes.append(size)

    def _follow(self, node: fx.Node, source: fx.Node, values: Tensor) -> None:
        self.space[node], self.values[node] = self.space[source], values

    def _join(self, one: fx.Node, other: fx.Node) -> None:
        into, gone = self.space[one], self.space[other]
        self.space |= {node: into for node, space in self.space.items() if space == gone}
        if gone in self.fixed:
            self.fixed.add(into)

    def kind(self, node: fx.Node) -> Any:
        """Return the layer of a node, its function, or the name of its method."""
        return (
            self.module.get_submodule(str(node.target)) if node.op == "call_module" else node.target
        )

    def _are_alike(self, node: fx.Node) -> bool:
        """Return whether a sum is of two tensors of the same channels, as they are."""
        if node.kwargs or not all(isinstance(of, fx.Node) and of in self.space for of in node.args):
            return False
        channels = {of.meta["tensor_meta"].shape[1] for of in node.all_input_nodes}
        return len(channels | {self.sizes[self.space[of]] for of in node.all_input_nodes}) == 1

    def _is_plain(self, node: fx.Node, kind: Any) -> bool:
        """Return whether pixels are pooled within channels, or channels are laid flat in order."""
        shape: tuple[int, ...] = node.meta["tensor_meta"].shape
        if kind in ("mean", torch.mean):
            dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
            return dims in ((2, 3), [2, 3], (-2, -1), [-2, -1])
        if _type(kind) in FLAT:
            return len(shape) == 2 and shape[0] == 1
        return True


class _Tracer(fx.Tracer):
    """All layers of PyTorch are leaves, and what is derived from them."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        leaves = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
        return isinstance(module, leaves) or super().is_leaf_module(module, name)


def _type(kind: Any) -> Any:
    return type(kind) if isinstance(kind, nn.Module) else kind


def _unknown(node: fx.Node, kind: Any) -> InputError:
    what = getattr(_type(kind), "__name__", kind)
    return InputError(
        f"this network cannot be compacted: its {node.name} ({what}) is not known there, or not "
        f"what becomes of channels in it"
    )
