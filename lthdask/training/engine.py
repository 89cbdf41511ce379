"""The engine: how numbers are computed, as a value."""

import platform
from dataclasses import dataclass, replace
from typing import Literal

from lthdask.arguments import block
from lthdask.errors import InputError

Precision = Literal["float32", "bfloat16"]
MOST_THREADS = 1024
"""With a million, PyTorch crashes."""


@block
@dataclass(frozen=True)
class Engine:
    """How the numbers are computed; results are bit-equal only on the same engine.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        Kind of device; ``auto`` is a GPU where there is one.
    precision : {"auto", "float32", "bfloat16"}
        Precision of activations and convolutions; weights, gradients and updates are float32.
        ``auto`` is bfloat16 on a GPU that supports it; on a CPU, a measurement decides.
    threads : int
        CPU threads of a cell, 1 to 1,024.
    dense_threads : int
        CPU threads of a dense run, 1 to 1,024.
    cohort : int or "auto"
        The most cells to train side by side, at least 1. ``auto`` is 1 on a CPU, where more
        are slower, and as many as fit into memory on a GPU.
    graphs : bool
        On a GPU, record a training step and replay it, where that gives the same result.
    kernels : bool
        On a GPU, train cohorts with `lthdask.networks.kernels`, where they match PyTorch's.
    matmul : {"auto", "default", "onednn"}
        On a CPU, the library of matrix products: PyTorch's own choice, or oneDNN, where that has
        float32's error (`lthdask.training.products`). ``auto`` takes oneDNN where a measurement
        finds it faster.
    evaluation : {"auto", "plain", "folded"}
        Whether a single network is evaluated as it is, or with batch norm folded into convolutions
        (`lthdask.networks.folding`). ``auto`` folds on a CPU in float32, where every layer of
        the network is known.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int = 1
    dense_threads: int = 1
    cohort: int | Literal["auto"] = "auto"
    graphs: bool = True
    kernels: bool = True
    matmul: Literal["auto", "default", "onednn"] = "auto"
    evaluation: Literal["auto", "plain", "folded"] = "auto"

    def __post_init__(self) -> None:
        for name in ("threads", "dense_threads", "cohort"):
            value = getattr(self, name)
            if value != "auto" and value < 1:
                raise ValueError(f"{name} must be 1 or more; got {value}")
            if name != "cohort" and value > MOST_THREADS:
                raise ValueError(f"{name} must be {MOST_THREADS:,} or fewer; got {value}")

    def chosen(self) -> "Engine":
        """Return this engine with every ``auto`` decided that needs no measurement.

        A CPU then computes in float32, as PyTorch does by default; how many cells fit on a GPU is
        left open.

        Raises
        ------
        InputError
            If the device is not there.
        """
        import torch  # here, because reading how a study was computed does not need it

        there = torch.cuda.is_available()
        if self.device == "cuda" and not there:
            raise InputError(
                f"no CUDA device on {platform.node()}, where the cells would train; "
                f"set `device` to cpu, or use workers that have a GPU"
            )
        device: Literal["cpu", "cuda"] = "cuda" if there and self.device != "cpu" else "cpu"
        precision = self.precision
        if precision == "auto":
            fast = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
            precision = "bfloat16" if fast else "float32"
        cohort = 1 if device == "cpu" and self.cohort == "auto" else self.cohort
        matmul = "default" if self.matmul == "auto" else self.matmul
        evaluation = "plain" if self.evaluation == "auto" else self.evaluation
        found = replace(self, device=device, precision=precision, cohort=cohort)
        return replace(found, matmul=matmul, evaluation=evaluation)
