"""Compaction: a sparse network as a smaller dense one that computes the same.

Batch norm is folded into the convolution before it. A channel goes if nothing that stays reads it,
or if it has one value at all pixels, whatever the image: then each reader adds its product to its
bias. Where it is read across a border of zeros, another value than zero is not the same at all
pixels, and stays. So nothing is approximated but the rounding of sums.

Channels that are added, or pass through a depthwise convolution, are one **space**: a channel stays
in all tensors of its space, or goes from all. The number that stays is rounded up to a multiple of
`MULTIPLE` by channels of zeros, because odd numbers of channels are slow.
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

from lthdask.errors import InputError
from lthdask.networks.mobilenet import Depthwise, Pointwise

MULTIPLE = 16
CLOSE = 1e-4
"""How far outputs may be from the network's, as a share of the largest."""
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
    flow = _Flow(network, shape)
    for node in flow.module.graph.nodes:
        flow.add(node)
    small = flow.rebuilt(flow.kept(), multiple)
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = deepcopy(network).eval()(images)
        found = small(images)
    if not (found - wanted).abs().max() <= CLOSE * wanted.abs().max():
        raise InputError("this network cannot be compacted: its outputs would be others")
    return small


@dataclass
class _Layer:
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


class _Flow:
    """What is known of the channels of each tensor in a network."""

    def __init__(self, network: nn.Module, shape: Sequence[int]) -> None:
        images = torch.zeros(1, *shape)
        for hook in network._forward_pre_hooks.values():  # of which tracing takes no notice
            images = hook(network, (images,))[0]
        self.shown = images.shape[1:] if images.shape[1:] != tuple(shape) else None
        tracer = _Tracer()
        try:
            graph = tracer.trace(deepcopy(network).eval())
        except Exception as error:
            raise InputError(f"this network cannot be compacted: {error}") from None
        self.module = fx.GraphModule(tracer.root, graph)
        with torch.no_grad():
            ShapeProp(self.module).propagate(images)
        self.layers = dict[fx.Node, _Layer]()
        self.values = dict[fx.Node, Tensor]()
        self.space = dict[fx.Node, int]()
        self.sizes = list[int]()
        self.fixed = set[int]()

    def add(self, node: fx.Node) -> None:
        """Look at the next tensor."""
        kind = self._kind(node)
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
            self._follow(node, source, self.layers[source].constants(self._read(source)))
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

    def kept(self) -> list[Tensor]:
        """Return which channels of each space stay: those that are read, and are more than a bias.

        What only channels read that go themselves goes as well, so this is done until nothing
        changes.
        """
        kept = [torch.ones(size, dtype=torch.bool) for size in self.sizes]
        while True:
            needed = [
                kept[i].clone() if i in self.fixed else torch.zeros_like(kept[i])
                for i in range(len(kept))
            ]
            for node, layer in self.layers.items():
                if not layer.depthwise:
                    outputs = kept[self.space[node]]
                    is_read = (layer.weight[outputs] != 0).any(2).any(0)
                    needed[self.space[layer.source]] |= is_read & ~layer.absorbs(self._read(node))
            if all(torch.equal(now, before) for now, before in zip(needed, kept, strict=True)):
                return kept
            kept = [now & before for now, before in zip(needed, kept, strict=True)]

    def rebuilt(self, kept: Sequence[Tensor], multiple: int) -> nn.Module:
        """Return the network of the channels that are kept."""
        module, graph = self.module, self.module.graph
        for node in list(graph.nodes):
            if node in self.layers:
                inputs, outputs = (self.space[n] for n in (self.layers[node].source, node))
                module.set_submodule(
                    str(node.target),
                    self._smaller(
                        node,
                        *(kept[inputs], self._more(inputs, kept, multiple)),
                        *(kept[outputs], self._more(outputs, kept, multiple)),
                    ),
                )
            elif isinstance(self._kind(node), nn.BatchNorm2d | nn.Dropout | nn.Identity):
                node.replace_all_uses_with(node.args[0])
                graph.erase_node(node)
            elif node.op == "placeholder" and self.shown:
                with graph.inserting_after(node):
                    shown = graph.call_method("expand", (node, -1, *self.shown))
                node.replace_all_uses_with(shown, lambda user, shown=shown: user is not shown)
        module.delete_all_unused_submodules()
        module.recompile()
        return module.eval()

    def _more(self, space: int, kept: Sequence[Tensor], multiple: int) -> int:
        """Return how many channels of zeros are added to those of a space."""
        count, size = int(kept[space].sum()), self.sizes[space]
        return min(size, max(1, -(-count // multiple)) * multiple) - count

    def _smaller(
        self, node: fx.Node, read: Tensor, zeros: int, outputs: Tensor, more: int
    ) -> nn.Module:
        """Return a layer of the channels that are kept, and of some zeros."""
        layer, old = self.layers[node], self._kind(node)
        weight, bias = layer.weight[outputs], layer.bias[outputs]
        if layer.depthwise:
            zeros = 0
        else:
            bias = layer.with_constants(self._read(node), ~read)[outputs]
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
        self.layers[node] = layer = _Layer(weight, bias, source, bordered, depthwise)
        if not depthwise:
            self._begin(node, len(weight))
        self._follow(node, source if depthwise else node, layer.constants(self._read(node)))

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

    def _read(self, node: fx.Node) -> Tensor:
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

    def _kind(self, node: fx.Node) -> Any:
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
