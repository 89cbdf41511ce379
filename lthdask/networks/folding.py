"""A network as it is evaluated: batch norm folded into convolutions, with the ReLU after them.

In evaluation, batch norm multiplies each channel by a number and adds one, and so may the
convolution before it. Alone, it reads and writes all activations once more, and ReLU again.
What passes over the activations are left, each for a reason:

- every convolution: it reads its input once and writes its output once, times its number, plus
  its bias, through ReLU or ReLU6, by oneDNN's post-operations;
- ReLU after a sum, and the sum: two convolutions are needed before it;
- batch norm and ReLU that come before a convolution, as in wide ResNets: zeros around the
  image must stay zeros, and ReLU lies between;
- pooling and the classifier.

The values are those of the network up to float32's rounding (1e-6 of the largest logit), so a
loss may change in its last digits, and a class only where two logits tie to that.
"""

import math
from copy import deepcopy
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from lthdask.networks.mobilenet import Pointwise
from lthdask.networks.stack import layers_are_known

TOPS: dict[Any, float] = {
    **dict.fromkeys((nn.ReLU, F.relu, torch.relu, "relu", "relu_"), math.inf),
    **dict.fromkeys((nn.ReLU6, F.relu6), 6.0),
}
"""What may follow batch norm, and above which value it cuts off."""
_known: "WeakKeyDictionary[nn.Module, Folded]" = WeakKeyDictionary()


def can_be_folded(network: nn.Module) -> bool:
    """Return whether every layer is known, and some batch norm comes right after a convolution.

    A network may show its images otherwise first; other hooks are not traced.
    """
    first, *others = network.modules()
    hooked = any(layer._forward_hooks for layer in (first, *others)) or any(
        layer._forward_pre_hooks for layer in others
    )
    if hooked or not (torch.backends.mkldnn.is_available() and layers_are_known(network)):
        return False
    return bool(Folded(deepcopy(network).eval()).layers)


def folded(network: nn.Module) -> nn.Module:
    """Return the network with batch norm folded, with its weights and statistics as they are now.

    Parameters
    ----------
    network : Module
        One that can be folded; in evaluation mode, in float32, on a CPU. It is not changed.

    Returns
    -------
    Module
        The same one for the same network; its forward pass needs no gradient.
    """
    if network not in _known:  # to trace it takes as long as a step
        _known[network] = Folded(network)
    found = _known[network]
    for layer in found.layers:
        layer.refresh()
    return found.module


class Folded:
    """A network that was traced, and its convolutions with what follows them.

    Attributes
    ----------
    module : GraphModule
    layers : list of _Layer
    """

    def __init__(self, network: nn.Module) -> None:
        graph = _Tracer().trace(network)
        self.module, self.layers = fx.GraphModule(network, graph), list[_Layer]()
        self.module._forward_pre_hooks.update(network._forward_pre_hooks)  # which are not traced
        for node in list(graph.nodes):
            self._fold(node)
        self.module.delete_all_unused_submodules()
        self.module.recompile()

    def _fold(self, norm: fx.Node) -> None:
        """Exchange a convolution, its batch norm and their ReLU for one layer."""
        before: Any = norm.args[0] if norm.args else None
        of, layer = self._kind(before), self._kind(norm)
        if not (isinstance(of, nn.Conv2d) and isinstance(layer, nn.BatchNorm2d)):
            return
        if len(before.users) > 1 or isinstance(of.padding, str):
            return
        last, top = norm, None
        after = next(iter(norm.users))
        if len(norm.users) == 1 and (top := TOPS.get(_type(self._kind(after)))) is not None:
            last = after
        self.layers.append(_Layer(of, layer, top))
        name = f"folded_{len(self.layers)}"
        self.module.add_submodule(name, self.layers[-1])
        with self.module.graph.inserting_after(last):
            last.replace_all_uses_with(self.module.graph.call_module(name, before.args))
        for node in dict.fromkeys((last, norm, before)):
            self.module.graph.erase_node(node)

    def _kind(self, node: Any) -> Any:
        """Return the layer of a node, its function, or the name of its method."""
        if isinstance(node, fx.Node) and node.op == "call_module":
            return self.module.get_submodule(str(node.target))
        return node.target if isinstance(node, fx.Node) else None


class _Layer(nn.Module):
    """A convolution with batch norm in its weights, and with the ReLU after it.

    The operations are those that `torch.compile` uses on a CPU.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d, top: float | None) -> None:
        super().__init__()
        self.convolution, self.norm = convolution, norm
        self.after: tuple[str, list[float], str] = ("none", [], "")
        if top is not None:
            self.after = ("relu", [], "") if top == math.inf else ("hardtanh", [0.0, top], "")

    def refresh(self) -> None:
        """Fold the weights and statistics as they are now."""
        of, norm = self.convolution, self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        with torch.no_grad():
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            self.weight = of.weight * scale[:, None, None, None]
            mean = norm.running_mean if of.bias is None else norm.running_mean - of.bias
            self.bias = norm.bias - mean * scale

    def forward(self, images: Tensor) -> Tensor:
        """Return the features."""
        of, by = self.convolution, torch.ops.mkldnn
        found: Tensor
        if isinstance(of, Pointwise):
            pixels, weight = images.permute(0, 2, 3, 1), self.weight.flatten(1)
            found = by._linear_pointwise(pixels, weight, self.bias, *self.after).permute(0, 3, 1, 2)
        else:
            shape = (of.padding, of.stride, of.dilation, of.groups)
            found = by._convolution_pointwise(images, self.weight, self.bias, *shape, *self.after)
        return found


class _Tracer(fx.Tracer):
    """All convolutions are leaves, and what is derived from them."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Conv2d) or super().is_leaf_module(module, name)


def _type(kind: Any) -> Any:
    return type(kind) if isinstance(kind, nn.Module) else kind
