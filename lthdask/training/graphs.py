"""CUDA graphs: a training step that is recorded once and then replayed.

A step of a small network is some 400 kernels, and a GPU is done with each before Python has
launched the next. A recorded step is one launch. A recording reads and writes the same
memory each time, so a batch is copied to where it reads, and the learning rate is a tensor.

A recording is only used where one step of it did, on this device, what the plain step does.
Otherwise training continues with plain steps, and says so.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lthdask.networks import randomness

Step = Callable[[Tensor, Tensor], None]
Advance = Callable[[Tensor, Tensor, float], None]

WARM_UP = 3
"""Plain steps before a recording: libraries choose and allocate at first use."""

ROUNDING = 0.05
"""Share of a tensor's change in a step that may differ, by the order of sums in bfloat16.

Four times the difference of two plain steps is allowed on top: a bias between two batch norms
has no gradient but rounding errors, of which Adam makes a whole step in any direction.
"""


def plain(step: Step, optimizer: torch.optim.Optimizer, state: Sequence[Tensor]) -> Advance:
    """Return `step` as a function of (images, labels, learning rate)."""

    def advance(images: Tensor, labels: Tensor, rate: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate
        step(images, labels)

    return advance


def graphed(step: Step, optimizer: torch.optim.Optimizer, state: Sequence[Tensor]) -> Advance:
    """Return what `plain` returns, recorded at its first call.

    Parameters
    ----------
    step : callable
        One training step on (images, labels), whose shapes stay the same.
    optimizer : Optimizer
        What the step updates with.
    state : sequence of Tensor
        Everything else that a step changes, in place.
    """
    chosen: Advance | None = None

    def advance(images: Tensor, labels: Tensor, rate: float) -> None:
        nonlocal chosen
        if chosen is None:
            before, drawn = _snapshot(state, optimizer), randomness.states(images.device)
            try:
                chosen = _recorded(step, optimizer, state, before, (images, labels, rate))
            except (RuntimeError, AssertionError) as problem:  # torch without CUDA asserts
                warnings.warn(f"training goes on without CUDA graphs: {problem}", stacklevel=2)
                chosen = plain(step, optimizer, state)
            _restore(state, optimizer, before)
            randomness.restore(images.device, drawn)
        chosen(images, labels, rate)

    return advance


def _recorded(
    step: Step,
    optimizer: torch.optim.Optimizer,
    state: Sequence[Tensor],
    before: list[Tensor],
    example: tuple[Tensor, Tensor, float],
) -> Advance:
    """Record the step; afterwards, the state is no longer what it was `before`."""
    advance, (images, labels, rate) = plain(step, optimizer, state), example
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(side):
            drawn = randomness.states(images.device)
            for _ in range(WARM_UP):
                advance(*example)
            if not all(map(torch.equal, drawn, randomness.states(images.device))):
                raise RuntimeError("the network draws random numbers, which a recording repeats")
            _restore(state, optimizer, before)
            start = _snapshot(state, optimizer)  # with the buffers that the optimizer has made
            wanted = []
            for _ in range(2):
                advance(*example)
                wanted.append(_snapshot(state, optimizer))
                _restore(state, optimizer, start)
    finally:  # also if it raised: training goes on from the restored state
        torch.cuda.current_stream().wait_stream(side)

    its_images, its_labels = torch.zeros_like(images), torch.zeros_like(labels)
    its_rate = torch.zeros((), device=images.device)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad()
    for group in optimizer.param_groups:
        group.update(lr=its_rate, capturable=True)
    try:
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            step(its_images, its_labels)
    finally:
        for group in optimizer.param_groups:
            group.update(lr=rate, capturable=False)

    def replay(images: Tensor, labels: Tensor, rate: float) -> None:
        its_images.copy_(images)
        its_labels.copy_(labels)
        its_rate.fill_(rate)
        graph.replay()

    replay(*example)
    if not same_step(start, wanted[0], wanted[1], _snapshot(state, optimizer)):
        raise RuntimeError("a recorded step did not do what a plain step does")
    return replay


def same_step(
    before: list[Tensor], plain: list[Tensor], again: list[Tensor], recorded: list[Tensor]
) -> bool:
    """Whether a recorded step twice changed every tensor as a plain one did, within rounding."""

    def excess(start: Tensor, one: Tensor, again: Tensor, other: Tensor) -> Tensor:
        start, one, again, other = (t.double() for t in (start, one, again, other))
        allowed = ROUNDING * (one - start).norm() + 4 * (again - one).norm() + 1e-6 * one.norm()
        found: Tensor = (other - one).norm() - allowed
        return found

    every = zip(before, plain, again, recorded, strict=True)
    return bool((torch.stack([excess(*tensors) for tensors in every]) <= 0).all())


def _tensors(state: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> list[Tensor]:
    buffers: Any = [buffer for of in optimizer.state.values() for buffer in of.values()]
    return [*state, *(buffer for buffer in buffers if buffer is not None)]


def _snapshot(state: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in _tensors(state, optimizer)]


@torch.no_grad()
def _restore(
    state: Sequence[Tensor], optimizer: torch.optim.Optimizer, saved: list[Tensor]
) -> None:
    """Write the saved values back; an optimizer's buffer made since then starts at zero."""
    tensors = _tensors(state, optimizer)
    for tensor, value in zip(tensors, saved, strict=False):
        tensor.copy_(value)
    for tensor in tensors[len(saved) :]:
        tensor.zero_()
