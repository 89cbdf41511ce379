"""Scores: what the weights of a network are ranked by when it is pruned.

A score is a function of what is known about one layer. `SCORES` lists them, with what each
needs besides the final weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lthdask.errors import InputError
from lthdask.own import function, is_own, parameters, plain

Weights = Mapping[str, Tensor]
Mask = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known about the living weights of one layer, each a tensor of one shape.

    Attributes
    ----------
    final : Tensor
        The weights after training.
    initial : Tensor
        The weights before training; empty if not given.
    gradient : Tensor
        Gradient of the loss (``snip``) or of the synaptic flow (``synflow``) by the initial
        weights, or the Hessian of the loss times its gradient (``grasp``); empty if not given.
    random : Tensor
        Random numbers in [0, 1); empty if not given.
    """

    final: Tensor
    initial: Tensor
    gradient: Tensor
    random: Tensor


def magnitude(layer: Evidence) -> Tensor:
    """Return ``|w|``."""
    return layer.final.abs()


def layer_adaptive_magnitude(layer: Evidence) -> Tensor:
    """Return the LAMP score of each weight of one layer, as float64.

    It is the weight's square over the sum of squares of all weights of the layer that are at
    least as large, so the largest of every layer scores 1 (Lee et al., "Layer-adaptive sparsity
    for the magnitude-based pruning", ICLR 2021, equation 1).
    """
    # In NumPy: torch's sort took three times as long, 0.4 s of MobileNetV2.
    magnitudes = layer.final.abs().flatten().cpu().numpy()
    order = np.argsort(magnitudes)
    squares = np.square(magnitudes[order], dtype=np.float64)
    at_least = np.cumsum(squares[::-1])[::-1]
    equals = np.flatnonzero(np.diff(squares, prepend=-1))  # where each run of them begins
    at_least = np.repeat(at_least[equals], np.diff(equals, append=len(squares)))
    scores = np.empty_like(squares)
    scores[order] = np.divide(squares, at_least, where=squares > 0, out=squares)
    return torch.from_numpy(scores).view(layer.final.shape).to(layer.final.device)


def magnitude_increase(layer: Evidence) -> Tensor:
    """Return ``|final| − |initial|``.

    A criterion of Zhou et al. (NeurIPS 2019, section 2), who rank it within each layer, as the
    allocation ``uniform`` does.
    """
    return layer.final.abs() - layer.initial.abs()


def movement(layer: Evidence) -> Tensor:
    """Return ``|final − initial|``, how far a weight has moved in either direction.

    A criterion of Zhou et al., as :func:`magnitude_increase` is. It is not the movement pruning
    of Sanh et al. (NeurIPS 2020), which adds up ``−w · ∂loss/∂w`` during training and so keeps
    the weights that move away from zero.
    """
    return (layer.final - layer.initial).abs()


def saliency(layer: Evidence) -> Tensor:
    """Return ``|initial · gradient|``: how much of the loss or the flow hangs on each weight.

    SNIP (Lee et al., ICLR 2019, section 4.1, without its normalisation, which changes no
    rank) and SynFlow (Tanaka et al., NeurIPS 2020, equation 2) differ in the gradient.
    """
    return (layer.initial * layer.gradient).abs()


def gradient_flow(layer: Evidence) -> Tensor:
    """Return ``initial · Hg``, the GraSP score with the opposite sign.

    To the first order, removing a weight changes the squared norm of the gradient by twice
    S(−θ) = −θ · Hg (Wang, Zhang & Grosse, "Picking winning tickets before training by preserving
    gradient flow", ICLR 2020, equation 8). They remove the weights with the highest S
    (algorithm 1), which reduce the gradient flow least, or raise it. Here the lowest scores go.
    """
    return layer.initial * layer.gradient


def chance(layer: Evidence) -> Tensor:
    """Return random numbers: all weights are equally likely to stay."""
    return layer.random


class Score(NamedTuple):
    """How weights are scored, and what that needs besides the final weights."""

    of: Callable[[Evidence], Tensor]
    needs: tuple[str, ...] = ()


SCORES: dict[str, Score] = {
    "global": Score(magnitude),
    "layerwise": Score(magnitude),
    "lamp": Score(layer_adaptive_magnitude),
    "magnitude_increase": Score(magnitude_increase, ("initial",)),
    "movement": Score(movement, ("initial",)),
    "snip": Score(saliency, ("initial", "gradients")),
    "synflow": Score(saliency, ("initial", "gradients")),
    "grasp": Score(gradient_flow, ("initial", "gradients")),
    "random": Score(chance, ("random",)),
}


@cache
def score_of(name: str) -> Score:
    """Return a score by its name; one's own is asked for what its parameters are named after.

    Raises
    ------
    InputError
        If its code cannot be run, or it has other parameters than `Evidence`.
    """
    if not is_own(name):
        return SCORES[name]
    of, asked = function(name), parameters("score", name, ("final", "initial", "gradient"))

    def score(layer: Evidence) -> Tensor:
        found = of(**{part: getattr(layer, part).clone() for part in asked})
        try:
            scores = torch.as_tensor(found)
        except (TypeError, ValueError, RuntimeError):
            raise InputError(
                f"the score {plain(name)} must return a tensor; got {type(found).__name__}"
            ) from None
        if scores.shape != layer.final.shape:
            raise InputError(
                f"the score {plain(name)} must return one number for each of the "
                f"{len(layer.final):,} weights; got shape {tuple(scores.shape)}"
            )
        return scores.detach().to(torch.promote_types(scores.dtype, torch.float32))

    needs = {"final": (), "initial": ("initial",), "gradient": ("initial", "gradients")}
    return Score(score, tuple(dict.fromkeys(need for part in asked for need in needs[part])))


def scored(
    score: str,
    living: Mask,
    weights: Weights,
    initial: Weights | None = None,
    gradients: Weights | None = None,
    random: Weights | None = None,
) -> dict[str, Tensor]:
    """Return the scores of the living weights of some layers, flat.

    Parameters
    ----------
    score : str
        One of `SCORES`, or one's own.
    living : mapping of str to Tensor
        Name of each weight to score → ``True`` where it is not pruned yet.
    weights : mapping of str to Tensor
        The weights after training, at least those of `living`.
    initial, gradients : mapping of str to Tensor, optional
        The same weights before training, and the gradients there, if the score needs them.
    random : mapping of str to Tensor, optional
        Random numbers for them, likewise.

    Raises
    ------
    InputError
        If a score is not a number.
    """
    given = {"initial": initial, "gradients": gradients, "random": random}
    of, needs = score_of(score)
    if missing := [name for name in needs if given[name] is None]:
        raise TypeError(f"the score {score!r} needs {' and '.join(missing)}")
    scores, none = {}, torch.empty(0)
    for name, alive in living.items():
        parts = [weights, initial, gradients, random]
        evidence = Evidence(*(part[name][alive] if part else none for part in parts))
        _require_numbers(name, score, evidence.final, evidence.initial, evidence.gradient)
        scores[name] = of(evidence)
        _require_numbers(name, score, scores[name])
    return scores


def _require_numbers(name: str, score: str, *tensors: Tensor) -> None:
    if any(tensor.isnan().any() for tensor in tensors):
        raise InputError(
            f"the {plain(score)} score of some weights of {name!r} is not a number, so they have "
            f"no rank; check whether the training that they come from diverged"
        )
