"""Masks: which weights of a network survive pruning.

A mask maps the name of each prunable weight to a boolean tensor of that weight's shape,
``True`` where the weight survives. Weights are ranked by a score; those with the lowest
scores go, exactly as many as asked, equal scores by position. A higher threshold therefore
always keeps a subset of what a lower one keeps.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor, nn

from lthdask.errors import InputError

Weights = Mapping[str, Tensor]
Mask = Mapping[str, Tensor]


@dataclass(frozen=True)
class Pruning:
    """How a mask is taken from the final dense weights.

    Parameters
    ----------
    score : {"global", "layerwise", "lamp"}
        ``|w|`` ranked over the whole network, ``|w|`` ranked within each layer, or the
        layer-adaptive score of Lee et al. (ICLR 2021), ranked over the whole network.
    by : {"share", "cutoff"}
        Whether a threshold is the share of weights to prune, in (0, 1), or the cutoff
        itself: the lowest score that survives, more than 0.
    schedule : {"one_shot"}
        All weights are pruned at once.
    spare : tuple of str
        What is never pruned: ``stem``, ``depthwise``, ``classifier``, or names of
        weights, ``*`` allowed.
    """

    score: Literal["global", "layerwise", "lamp"] = "global"
    by: Literal["share", "cutoff"] = "share"
    schedule: Literal["one_shot"] = "one_shot"
    spare: tuple[str, ...] = ()

    @property
    def meaning(self) -> tuple[str, str]:
        """Units and description of a threshold."""
        if self.by == "cutoff":
            return f"{self.score} score", "lowest score that survives pruning"
        return "1", "share of the prunable weights that is pruned"

    def check(self, thresholds: Sequence[float]) -> None:
        """Refuse thresholds that are outside the range of `by`."""
        low, high = min(thresholds), max(thresholds)
        if self.by == "share" and not (low > 0 and high < 1):
            wrong = low if not low > 0 else high
            raise InputError(f"a threshold is the share to prune, between 0 and 1; got {wrong:g}")
        if self.by == "cutoff" and not (low > 0 and high < float("inf")):
            wrong = low if not low > 0 else high
            raise InputError(f"a cutoff is a score, a number above 0; got {wrong:g}")


def prunable_weights(network: nn.Module) -> dict[str, Tensor]:
    """Return the convolution and linear weights by name, in the network's order.

    Biases and batch norm are never prunable. The choice is by the layer's type: a name
    that contains "weight" would take batch norm in.
    """
    return {
        f"{name}.weight" if name else "weight": layer.weight.detach()
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }


def spared_weights(network: nn.Module, spare: Sequence[str]) -> frozenset[str]:
    """Return the names of the prunable weights that `spare` keeps whole.

    Raises
    ------
    InputError
        If an entry of `spare` matches nothing, or nothing is left to prune.
    """
    names = list(prunable_weights(network))
    layers = dict(network.named_modules())
    depthwise = [
        name
        for name in names
        if isinstance(layer := layers[name.removesuffix(".weight")], nn.Conv2d)
        and layer.groups == layer.in_channels > 1
    ]
    kinds = {"stem": names[:1], "depthwise": depthwise, "classifier": names[-1:]}
    spared: set[str] = set()
    for entry in spare:
        found = kinds.get(entry) or [name for name in names if fnmatchcase(name, entry)]
        if not found:
            raise InputError(
                f"spare names {entry!r}, which this network does not have; "
                f"use stem, depthwise, classifier, or a weight such as {names[0]!r}"
            )
        spared.update(found)
    if len(spared) == len(names):
        raise InputError(f"spare keeps every layer, so nothing can be pruned: {', '.join(spare)}")
    return frozenset(spared)


def magnitude(weight: Tensor) -> Tensor:
    """Return ``|w|``."""
    return weight.abs()


def layer_adaptive_magnitude(weight: Tensor) -> Tensor:
    """Return the LAMP score of each weight of one layer, as float64.

    A weight's square over the sum of squares of all weights of the layer that are at least
    as large, so the largest of every layer scores 1 (Lee et al., "Layer-adaptive sparsity
    for the magnitude-based pruning", ICLR 2021, equation 4).
    """
    squares, order = weight.flatten().double().square().sort()
    at_least = squares.flip(0).cumsum(0).flip(0)
    first_of_equals = torch.searchsorted(squares, squares)
    scores = torch.where(squares > 0, squares / at_least[first_of_equals], 0.0)
    return torch.empty_like(scores).scatter_(0, order, scores).view(weight.shape)


SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "global": magnitude,
    "layerwise": magnitude,
    "lamp": layer_adaptive_magnitude,
}


def draw_mask(
    weights: Weights, threshold: float, pruning: Pruning, spared: frozenset[str] = frozenset()
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Prune the weights with the lowest scores.

    Parameters
    ----------
    weights : mapping of str to Tensor, any shapes
        Prunable weights of the trained dense network.
    threshold : float
        Share of the weights that are not spared, in (0, 1): exactly ⌊threshold · N⌋ are
        pruned, with N counted over the network (``global``, ``lamp``) or in each layer
        (``layerwise``). With ``pruning.by == "cutoff"``, the lowest score that survives.
    pruning : Pruning
        Score, and what a threshold means.
    spared : frozenset of str
        Names of weights that are kept whole.

    Returns
    -------
    mask : dict of str to Tensor
        ``True`` where the weight survives.
    cutoffs : dict of str to float
        The lowest score that survives, per weight in units of the score; NaN where spared.

    Examples
    --------
    >>> weights = {"conv": torch.tensor([-3.0, 0.5, 1.0]), "fc": torch.tensor([0.1])}
    >>> mask, _ = draw_mask(weights, 0.5, Pruning("global"))
    >>> {name: kept.tolist() for name, kept in mask.items()}
    {'conv': [True, False, True], 'fc': [False]}
    """
    mask = {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}
    cutoffs = dict.fromkeys(weights, float("nan"))
    ranked = [name for name in weights if name not in spared]
    scores = {name: SCORES[pruning.score](weights[name]) for name in ranked}
    pools = [[name] for name in ranked] if pruning.score == "layerwise" else [ranked]
    for pool in pools:
        pooled = torch.cat([scores[name].flatten() for name in pool])
        if pruning.by == "cutoff":
            survives, cutoff = pooled >= threshold, threshold
        else:
            survives, cutoff = _without_lowest(pooled, _floor(threshold, pooled.numel()))
        pieces = survives.split([weights[name].numel() for name in pool])
        for name, piece in zip(pool, pieces, strict=True):
            mask[name] = piece.view(weights[name].shape)
            cutoffs[name] = cutoff
    return mask, cutoffs


def _floor(share: float, count: int) -> int:
    """Return ⌊share · count⌋ of the decimal that was written: 0.29 of 100 is 29, not 28."""
    return int(Fraction(str(share)) * count)


def _without_lowest(scores: Tensor, count: int) -> tuple[Tensor, float]:
    """Return which scores are left without the `count` lowest, and the lowest of those left.

    An order statistic, because interpolated quantiles do not give exact counts.
    """
    cutoff = scores.kthvalue(count + 1).values
    survives = scores >= cutoff
    ties = (scores == cutoff).nonzero().flatten()
    survives[ties[: count - int((~survives).sum())]] = False
    return survives, float(cutoff)


def density(weights: Weights) -> float:
    """Return the share of weights that are not zero, counted."""
    nonzero = sum(int(weight.count_nonzero()) for weight in weights.values())
    return nonzero / sum(weight.numel() for weight in weights.values())
