"""Random numbers that a network draws while it trains, as dropout does.

Each step of training draws from a stream of its own, so a run that goes on from the middle draws
what the undisturbed one drew. torch has one generator for the whole process, and one for each GPU.
They are lent to one step at a time, and given back as they were.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor

from lthdask.streams import Purpose, stream

GLOBAL = Lock()
"""Held by whoever draws from torch's global generators."""


def seeds_of(seed: int, replicate: int, epoch: int, steps: int, child: int = 0) -> list[int]:
    """Return what each step of an epoch, counted from 1, is seeded with."""
    bits = stream(seed, replicate, Purpose.NETWORK, epoch, child)
    return [int(found) for found in bits.random_raw(steps)]


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Have torch draw what follows from a seed, on the CPU and on the device."""
    with GLOBAL:
        before = states(device)
        try:
            # Not by torch.manual_seed: where it waits for CUDA, it takes 0.3 ms in place of 1 µs.
            for generator in _generators(device):
                generator.manual_seed(seed)
            yield
        finally:
            restore(device, before)


def states(device: torch.device) -> list[Tensor]:
    """Return the states of the generators that a network on the device draws from."""
    return [generator.get_state() for generator in _generators(device)]


def restore(device: torch.device, before: list[Tensor]) -> None:
    """Set the generators back to what :func:`states` returned."""
    for generator, state in zip(_generators(device), before, strict=True):
        generator.set_state(state)


def _generators(device: torch.device) -> list[torch.Generator]:
    if device.type != "cuda":
        return [torch.default_generator]
    index = torch.cuda.current_device() if device.index is None else device.index
    return [torch.default_generator, torch.cuda.default_generators[index]]
