"""The experiment: what a training run depends on, besides its replicate, mask and start."""

import functools
import itertools
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lthdask.data.batches import Data
from lthdask.lottery.ticket import Transferred
from lthdask.networks.build import Network, build, is_known, on_meta
from lthdask.networks.randomness import GLOBAL
from lthdask.networks.stack import layers_are_known
from lthdask.own import is_own
from lthdask.pruning.rule import Pruning, prunable_weights
from lthdask.pruning.scores import Mask
from lthdask.rewinding import Place, Rewind, place_of
from lthdask.streams import Purpose, stream
from lthdask.training.engine import Engine
from lthdask.training.recipe import Recipe

_idle: dict[Hashable, list[nn.Module]] = {}


@dataclass(frozen=True)
class Experiment:
    """Everything that a training run depends on, besides its replicate, mask and start.

    Attributes
    ----------
    network : Network
    data : Data
        Held on the engine's device.
    recipe : Recipe
    pruning : Pruning
    seed : int
    engine : Engine
        With nothing left on ``auto``.
    fresh_buffers : bool
        Whether a ticket's optimizer starts afresh.
    mask_epoch : int, float or Iterations, optional
        When the weights of the dense run give the mask; T by default.
    given : mapping of float to Mask
        Threshold → the mask that is given for it; empty where masks are drawn.
    own_arms : tuple of str
        Arms of one's own, with their digests.
    transferred : Transferred, optional
        The tickets of another study, where none are drawn.
    """

    network: Network
    data: Data
    recipe: Recipe
    pruning: Pruning
    seed: int
    engine: Engine
    fresh_buffers: bool = False
    mask_epoch: Rewind | None = None
    given: Mapping[float, Mask] = field(default_factory=dict, hash=False)
    own_arms: tuple[str, ...] = ()
    transferred: Transferred | None = None

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return self.data.steps(self.recipe.batch_size)

    @property
    def mask_place(self) -> Place:
        """The state of the dense run whose weights give the mask."""
        at = self.recipe.epochs if self.mask_epoch is None else self.mask_epoch
        return place_of(at, self.steps)

    def build(self, replicate: int = 0, again: bool = False) -> nn.Module:
        """Return the network as `replicate` initialises it, on the device.

        It is drawn on the CPU, so that it is the same on every device. `again` is another
        initialisation of the same replicate.
        """
        # torch's layers draw from one generator for the whole process.
        with GLOBAL, torch.random.fork_rng(devices=[]):
            bits = stream(self.seed, replicate, Purpose.INITIALISATION, int(again))
            torch.manual_seed(int(bits.random_raw() >> 1))
            network = build(self.network, self.data.shape, self.data.classes)
        return _laid_out(network.to(torch.device(self.engine.device)))

    @contextmanager
    def borrowed(self) -> Iterator[nn.Module]:
        """Lend the network on the device, with arbitrary weights, for others to be loaded.

        It is built once per process, or once for each that is lent at the same time: building
        MobileNetV2 takes as long as two steps.
        """
        device = self.engine.device
        idle = _idle.setdefault((*self._kind, device), [])
        try:
            network = idle.pop()
        except IndexError:
            if not is_known(self.network):  # it may hold more than weights
                network = self.build(again=True)
            else:
                network = _laid_out(deepcopy(self.outline()).to_empty(device=device))
        yield network  # a network that failed is not lent again
        network.zero_grad()
        idle.append(network)

    def outline(self) -> nn.Module:
        """Return the network without storage: names and shapes only."""
        return on_meta(*self._kind)

    def prunable(self) -> dict[str, Tensor]:
        """Return the prunable weights without storage, by name in the network's order."""
        return _prunable(*self._kind)

    def parameters(self) -> int:
        """Return how many parameters the network has."""
        return _parameters(*self._kind)

    @property
    def keeps_cells_apart(self) -> bool:
        """Whether cells can be trained side by side: every layer and the optimizer are known."""
        own = is_own(self.network.name) or is_own(self.recipe.optimizer.name)
        return not own and layers_are_known(self.outline())

    @property
    def _kind(self) -> tuple[Network, tuple[int, ...], int]:
        return self.network, self.data.shape, self.data.classes


# Once per process: to go through the modules of MobileNetV2 takes a cell a millisecond.
@functools.cache
def _prunable(*kind: Any) -> dict[str, Tensor]:
    return prunable_weights(on_meta(*kind))


@functools.cache
def _parameters(*kind: Any) -> int:
    return sum(parameter.numel() for parameter in on_meta(*kind).parameters())


def _laid_out(network: nn.Module) -> nn.Module:
    # Not by `Module.to`, which refuses the weights of Conv3d.
    for tensor in itertools.chain(network.parameters(), network.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return network
