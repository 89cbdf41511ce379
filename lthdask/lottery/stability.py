"""Stability: whether two children of a checkpoint end in the same valley of the loss.

Frankle, Dziugaite, Roy & Carbin, "Linear Mode Connectivity and the Lottery Ticket
Hypothesis" (ICML 2020), section 2: two copies of a network are trained from the same state
with different orders of the data. They are stable if the error along the straight line
between their final weights hardly rises.
"""

from collections.abc import Sequence

import torch
from torch import nn

from lthdask.arms import POINTS_ON_LINE
from lthdask.data.batches import Data
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.engine import Engine
from lthdask.training.evaluation import evaluate, recompute_batch_norm


def errors_between(
    network: nn.Module, data: Data, engine: Engine, one: Checkpoint, other: Checkpoint
) -> list[float]:
    """Return the test errors, in [0, 1], at `POINTS_ON_LINE` points between two networks.

    Batch-norm statistics are computed anew at each point: those of the ends, or a mean of
    them, belong to other weights.

    Parameters
    ----------
    network : Module
        On the engine's device; its weights are replaced.
    data : Data
    engine : Engine
    one, other : Checkpoint
        Final weights of two children.
    """
    device, errors = data.mean.device, []
    ends = [{name: t.to(device) for name, t in end.weights.items()} for end in (one, other)]
    for share in torch.linspace(0, 1, POINTS_ON_LINE, dtype=torch.float64).tolist():
        between = {
            name: torch.lerp(tensor, ends[1][name], share) if tensor.is_floating_point() else tensor
            for name, tensor in ends[0].items()
        }
        network.load_state_dict(between)
        recompute_batch_norm(network, data, engine)
        errors.append(1 - evaluate(network, data, data.test, engine)[1])
    return errors


def barrier(errors: Sequence[float]) -> float:
    """Return how far the error rises above the mean of its two ends, at least 0.

    The paper calls a network stable below 0.02.

    Examples
    --------
    >>> barrier([0.125, 0.5, 0.375])
    0.25
    """
    return max(0.0, max(errors) - (errors[0] + errors[-1]) / 2)
