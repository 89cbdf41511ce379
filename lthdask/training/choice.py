"""The choice of an engine: by what is there, and by a short measurement.

bfloat16 on a CPU took 2.7 times as long with MobileNetV2's strides, and half as long with
ResNet-20. No rule predicts that, so a few steps of the study's own training are timed.
"""

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import nn

from lthdask.training.engine import Engine, Precision

CLEARLY = 1.3
"""How many times as fast bfloat16 must be. This is well above what a busy machine adds to a
median, so that the same study on the same machine takes the same engine each time."""
ROUNDS = 5
SECONDS = 2.0
"""Seconds after which no further round begins."""


@dataclass(frozen=True)
class Choice:
    """The engine that was chosen, and why.

    Attributes
    ----------
    engine : Engine
        With nothing left on ``auto``.
    reason : str
        Why it has its precision, in a few words.
    """

    engine: Engine
    reason: str


def choose(
    asked: Engine, network: nn.Module, steps: Callable[[Engine], Iterator[object]]
) -> Choice:
    """Return `asked` with its precision decided, measuring where that can pay off.

    Parameters
    ----------
    asked : Engine
    network : Module
        What is trained; it may be on the device ``meta``.
    steps : callable
        Returns an iterator that trains one step on the given engine whenever it is asked.

    Raises
    ------
    InputError
        If the device is not there.
    """
    engine = asked.chosen()
    if asked.precision != "auto":
        return Choice(engine, "as asked for")
    if engine.device == "cuda":
        has = "computes in" if engine.precision == "bfloat16" else "has no"
        return Choice(engine, f"the GPU {has} bfloat16")
    if not cpu_has_bfloat16():
        return Choice(engine, "the CPU has no bfloat16")
    if not any(isinstance(module, nn.Conv2d) for module in network.modules()):
        return Choice(engine, "the network has no convolution")
    both: tuple[Precision, Precision] = ("float32", "bfloat16")
    precision, reason = decided(measured({p: steps(replace(engine, precision=p)) for p in both}))
    return Choice(replace(engine, precision=precision), reason)


def cpu_has_bfloat16() -> bool:
    """Return whether the CPU multiplies bfloat16 itself: AVX-512 BF16, AMX, or Arm's BF16."""
    if platform.machine() in ("x86_64", "AMD64"):
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(
        torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def measured(steps: Mapping[Precision, Iterator[object]]) -> dict[Precision, float]:
    """Return the median seconds of a step, from rounds in which each takes one.

    The first round warms up. It counts only where it alone takes longer than a whole
    measurement may; warming up takes little time beside that.
    """
    times: dict[Precision, list[float]] = {precision: [] for precision in steps}
    began = time.perf_counter()
    for _ in range(1 + ROUNDS):
        for precision, some in steps.items():
            before = time.perf_counter()
            next(some)
            times[precision].append(time.perf_counter() - before)
        if time.perf_counter() - began > SECONDS:
            break
    return {p: median(taken[1:] or taken) for p, taken in times.items()}


def decided(seconds: Mapping[Precision, float]) -> tuple[Precision, str]:
    """Return the precision to take, given the seconds of a step in each, and why.

    Examples
    --------
    >>> decided({"float32": 0.10, "bfloat16": 0.05})
    ('bfloat16', 'it was 2.0 times as fast as float32')
    >>> decided({"float32": 0.10, "bfloat16": 0.24})
    ('float32', 'bfloat16 took 2.4 times as long')
    >>> decided({"float32": 0.10, "bfloat16": 0.08})
    ('float32', 'bfloat16 was only 1.2 times as fast')
    """
    gain = seconds["float32"] / seconds["bfloat16"]
    if gain >= CLEARLY:
        return "bfloat16", f"it was {gain:.1f} times as fast as float32"
    if gain >= 1:
        return "float32", f"bfloat16 was only {gain:.1f} times as fast"
    return "float32", f"bfloat16 took {1 / gain:.1f} times as long"
