"""Matrix products on a CPU: by the library that PyTorch takes, or by oneDNN.

On x86, PyTorch multiplies float32 matrices by MKL, which is half as fast as oneDNN on some AMD
processors. One setting sends them to oneDNN. It is named after bfloat16, because it lets
oneDNN round to that where the processor has units for it (AMX); elsewhere, all stays in
float32. So products are tested before any is used, in each process.

The setting belongs to the process. It is made for a step or an evaluation, and taken back.
"""

import functools
import platform
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lthdask.errors import InputError
from lthdask.training.engine import Engine

FLOAT32 = 5e-6
"""The largest error of a product in float32, as a share of its largest value. Sums of a
thousand terms have 1e-6; with operands in bfloat16 it is 2e-3, in TF32 3e-4."""
SHAPES = ((2048, 96, 24), (512, 24, 144), (128, 960, 320), (128, 1280, 10), (60, 784, 300))
"""Rows, terms of a sum, and columns of the products that are tested."""

_setting: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
_turn, _changed = threading.Lock(), threading.Condition()
_inside: Counter[bool] = Counter()
_before: list[str] = []


@contextmanager
def products(engine: Engine) -> Iterator[None]:
    """Multiply matrices as the engine says, for as long as this lasts.

    Threads share the setting of the process: one that needs another waits for those inside. It
    cannot be nested.

    Raises
    ------
    InputError
        If products by oneDNN do not have float32's error here.
    """
    by_onednn = engine.device != "cuda" and engine.matmul == "onednn"
    if by_onednn:
        require_float32()
    with _sent(by_onednn):
        yield


@contextmanager
def _sent(to_onednn: bool) -> Iterator[None]:
    with _turn, _changed:  # who waits lets nobody pass, so that its time comes
        _changed.wait_for(lambda: not _inside[not to_onednn])
        if to_onednn and not _inside[True]:
            _before.append(_setting.fp32_precision)
            _setting.fp32_precision = "bf16"
        _inside[to_onednn] += 1
    try:
        yield
    finally:
        with _changed:
            _inside[to_onednn] -= 1
            if to_onednn and not _inside[True]:
                _setting.fp32_precision = _before.pop()
            _changed.notify_all()


def require_float32() -> None:
    """Refuse products by oneDNN, unless they have float32's error in this process.

    Raises
    ------
    InputError
        If they do not.
    """
    if (error := largest_error()) > FLOAT32:
        raise InputError(
            f"on {platform.node()}, matrix products by oneDNN have an error of {error:.0e} of the "
            f"largest value, and float32 has at most {FLOAT32:.0e}; use workers like those that "
            f"the study was begun on, or engine.matmul=default in another folder with `out`"
        )


@functools.cache  # once per process: 0.1 s
def largest_error() -> float:
    """Return the largest error of a product by oneDNN, as a share of the largest value.

    Beside float64, over `SHAPES`, also transposed as gradients have them. It is infinite where
    the same product has other bits when it is repeated.
    """
    random = torch.Generator().manual_seed(0)
    with _sent(to_onednn=True):
        return max(_error(*shape, random) for shape in SHAPES)


def _error(rows: int, terms: int, columns: int, random: torch.Generator) -> float:
    one, other = (torch.randn(size, terms, generator=random) for size in (rows, columns))
    of_outputs = torch.randn(rows, columns, generator=random)
    pairs = [(one, other.T), (of_outputs, other), (of_outputs.T, one)]
    return max(_error_of(*pair) for pair in pairs)


def _error_of(one: Tensor, other: Tensor) -> float:
    wanted, found = one.double() @ other.double(), one @ other
    if not torch.equal(found, one @ other):
        return float("inf")
    return float((found - wanted).abs().max() / wanted.abs().max())
