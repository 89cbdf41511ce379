"""Checkpoints: the complete state of a training run, as a value that nothing changes.

Checkpoint k is everything that training needs to continue after k epochs as if nothing had
happened, batch-norm statistics and momentum included, as Renda, Frankle & Carbin 2020 restore
it. Training lays a mask over its own copy.
"""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from lthdask.rewinding import Iterations, Place


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The complete state of a training run.

    Attributes
    ----------
    epoch : int
        Number of finished epochs; 0 is before the first step.
    weights : dict of str to Tensor
        The state of the network, batch-norm statistics included.
    buffers : dict of str to dict of str to Tensor
        The optimizer's buffers: name of weight → name of buffer → tensor. Empty where the
        optimizer starts afresh.
    step : int
        Number of finished steps in the epoch after `epoch`; 0 at an epoch's end. The order of
        the data need not be saved: it is a function of (seed, replicate, epoch).
    loss : float
        Sum of the training losses of those steps, in nats, from step `since` on.
    since : int
        Number of the epoch's steps that were done where the run began: those of the dense run,
        where a ticket starts inside an epoch.
    """

    epoch: int
    weights: dict[str, Tensor]
    buffers: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    step: int = 0
    loss: float = 0.0
    since: int = 0

    def place(self, steps: int) -> Place:
        """Return which state of a dense run it is, where an epoch has so many steps."""
        return Iterations(self.epoch * steps + self.step) if self.step else self.epoch

    def is_finite(self) -> bool:
        """Return whether all weights and statistics of the network are numbers."""
        # A sum is one only if all of its terms are. The norms of `_foreach_norm` took 12 times as
        # long on a CPU, 7 ms of MobileNetV2.
        tensors = [t for t in self.weights.values() if t.is_floating_point()]
        sums = [t.sum(dtype=torch.promote_types(t.dtype, torch.float32)) for t in tensors]
        return bool(torch.stack(sums).isfinite().all())

    def beginning(self) -> "Checkpoint":
        """Return the same state as the begin of another run, whose losses are its own."""
        return replace(self, loss=0.0, since=self.step)

    def __getstate__(self) -> dict[str, Any]:
        """Return what travels to a worker: arrays, which are sent from where they lie.

        A tensor would be written into a file in memory and read from it again: that way, one
        checkpoint of MobileNetV2 took five times as long to send.
        """
        arrays = {name: tensor.cpu().numpy() for name, tensor in self.weights.items()}
        buffers = {
            name: {buffer: tensor.cpu().numpy() for buffer, tensor in of_weight.items()}
            for name, of_weight in self.buffers.items()
        }
        return vars(self) | {"weights": arrays, "buffers": buffers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        buffers = {
            name: {buffer: _tensor(array) for buffer, array in of_weight.items()}
            for name, of_weight in state["buffers"].items()
        }
        weights = {name: _tensor(array) for name, array in state["weights"].items()}
        vars(self).update(state | {"weights": weights, "buffers": buffers})

    def copy(self) -> "Checkpoint":
        """Return a copy that nothing changes, for example of a network still in training."""
        buffers = {
            name: {buffer: tensor.clone() for buffer, tensor in of_weight.items()}
            for name, of_weight in self.buffers.items()
        }
        weights = {name: tensor.clone() for name, tensor in self.weights.items()}
        return replace(self, weights=weights, buffers=buffers)

    def digest(self) -> str:
        """Return the SHA-256 of everything in the checkpoint, in hexadecimal."""
        since = f" {self.since}" if self.since else ""
        sha = hashlib.sha256(f"{self.epoch} {self.step} {self.loss!r}{since}".encode())
        buffers = {f"{w}/{b}": t for w, bs in self.buffers.items() for b, t in bs.items()}
        for name, tensor in sorted({**self.weights, **buffers}.items()):
            sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return sha.hexdigest()


def _tensor(array: NDArray[Any]) -> Tensor:
    # torch refuses read-only arrays, and one from a message can be read-only.
    return torch.from_numpy(array if array.flags.writeable else array.copy())
