"""The choice of an engine: by what is there, and by a short measurement.

bfloat16 on a CPU took 2.7 times as long with MobileNetV2's strides, and half as long with
ResNet-20; products by oneDNN gain 1.04 on one AMD processor, and 1.3 on another. No rule predicts
that, so a few steps of the study's own training are timed.
"""

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from lthdask.errors import InputError
from lthdask.networks.folding import can_be_folded
from lthdask.training.engine import Engine
from lthdask.training.products import FLOAT32, largest_error, require_float32

CLEARLY = 1.3
"""How many times as fast bfloat16 must be. This is well above what a busy machine adds to the
shortest of some steps, so that the same study on the same machine takes the same engine."""
NOTABLY = 1.2
"""The same for products by oneDNN, which cost no digits; where they gain, it is 1.25 or more."""
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
    asked: Engine,
    network: nn.Module,
    steps: Callable[[Engine], Iterator[object]],
    why: str = "as asked for",
) -> Choice:
    """Return `asked` with all of it decided but the cohort, measuring where that can pay off.

    Parameters
    ----------
    asked : Engine
    network : Module
        What is trained; it may be on the device ``meta``.
    steps : callable
        Returns an iterator that trains one step on the given engine whenever it is asked.
    why : str
        Why the precision is what it is, where it is asked for.

    Raises
    ------
    InputError
        If the device is not there, or does not compute as asked.
    """
    engine = asked.chosen()
    if engine.device == "cuda":
        has = "computes in" if engine.precision == "bfloat16" else "has no"
        choice = Choice(engine, why if asked.precision != "auto" else f"the GPU {has} bfloat16")
    else:
        choice = _chosen_on_cpu(asked, engine, network, steps, why)
    return replace(choice, engine=_evaluating(asked, choice.engine, network))


def _chosen_on_cpu(
    asked: Engine,
    engine: Engine,
    network: nn.Module,
    steps: Callable[[Engine], Iterator[object]],
    why: str,
) -> Choice:
    if engine.matmul == "onednn":
        require_float32()
    if asked.precision == "auto":
        why = ""
        if not cpu_has_bfloat16():
            why = "the CPU has no bfloat16"
        elif not any(isinstance(module, nn.Conv2d) for module in network.modules()):
            why = "the network has no convolution"
    ways = {"float32": engine}
    if asked.matmul == "auto" and engine.precision == "float32" and largest_error() <= FLOAT32:
        ways["onednn"] = replace(engine, matmul="onednn")
    if not why:
        ways["bfloat16"] = replace(engine, precision="bfloat16")
    if len(ways) == 1:
        return Choice(engine, why)
    seconds = measured({name: steps(way) for name, way in ways.items()})
    name, reason = decided(seconds, why)
    return Choice(ways[name], reason)


def _evaluating(asked: Engine, engine: Engine, network: nn.Module) -> Engine:
    """Return the engine with its way to evaluate decided."""
    if asked.evaluation == "plain":
        return engine
    can = engine.device == "cpu" and engine.precision == "float32" and can_be_folded(network)
    if asked.evaluation == "folded" and not can:
        raise InputError(
            "engine.evaluation is folded, which takes a CPU, float32, and a network of known "
            "layers with batch norm after convolutions; choose plain or auto"
        )
    return replace(engine, evaluation="folded") if can else engine


def cpu_has_bfloat16() -> bool:
    """Return whether the CPU multiplies bfloat16 itself: AVX-512 BF16, AMX, or Arm's BF16."""
    if platform.machine() in ("x86_64", "AMD64"):
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(
        torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def measured(steps: Mapping[str, Iterator[object]]) -> dict[str, float]:
    """Return the seconds of the shortest step, from rounds in which each takes one.

    The first round warms up. It counts only where it alone takes longer than a whole
    measurement may; warming up takes little time beside that.
    """
    times: dict[str, list[float]] = {way: [] for way in steps}
    began = time.perf_counter()
    for _ in range(1 + ROUNDS):
        for way, some in steps.items():
            before = time.perf_counter()
            next(some)
            times[way].append(time.perf_counter() - before)
        if time.perf_counter() - began > SECONDS:
            break
    return {way: min(taken[1:] or taken) for way, taken in times.items()}


def decided(seconds: Mapping[str, float], why: str = "") -> tuple[str, str]:
    """Return the way to take, given the seconds of a step in each, and why.

    Parameters
    ----------
    seconds : mapping of str to float
        Of ``float32``, and of ``onednn`` and ``bfloat16`` where they may be taken.
    why : str
        Why it is float32, where bfloat16 may not.

    Examples
    --------
    >>> decided({"float32": 0.10, "bfloat16": 0.05})
    ('bfloat16', 'it was 2.0 times as fast as float32')
    >>> decided({"float32": 0.10, "bfloat16": 0.24})
    ('float32', 'bfloat16 took 2.4 times as long')
    >>> decided({"float32": 0.10, "bfloat16": 0.08})
    ('float32', 'bfloat16 was only 1.2 times as fast')
    >>> decided({"float32": 0.10, "onednn": 0.08}, "as asked for")
    ('onednn', 'as asked for; matrix products by oneDNN made a step 1.2 times as fast')
    """
    way, gained = "float32", seconds["float32"] / seconds.get("onednn", float("inf"))
    if gained >= NOTABLY:
        way = "onednn"
    if "bfloat16" in seconds:
        gain = seconds[way] / seconds["bfloat16"]
        if gain >= CLEARLY:
            return "bfloat16", f"it was {gain:.1f} times as fast as float32"
        why = f"bfloat16 took {1 / gain:.1f} times as long"
        if gain >= 1:
            why = f"bfloat16 was only {gain:.1f} times as fast"
    if way == "onednn":
        why += f"; matrix products by oneDNN made a step {gained:.1f} times as fast"
    return way, why
