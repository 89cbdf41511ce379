"""Masks: which weights of a network survive pruning.

A mask maps the name of each prunable weight to a boolean tensor of that weight's shape,
``True`` where the weight survives. Weights are ranked by a score. Exactly as many as asked are
pruned, lowest scores first, equal scores by position. A higher threshold therefore always keeps
a subset of what a lower one keeps. So does a later round of iterative pruning, whose ranking
leaves out what is pruned already.
"""

import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lthdask.errors import InputError
from lthdask.pruning.allocation import pools
from lthdask.pruning.rule import Pruning
from lthdask.pruning.scores import Mask as Mask
from lthdask.pruning.scores import Weights, scored
from lthdask.streams import Purpose, permutation, stream


def draw_mask(
    weights: Weights,
    threshold: float,
    pruning: Pruning,
    spared: frozenset[str] = frozenset(),
    *,
    before: Mask | None = None,
    scores: Weights | None = None,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Prune the weights with the lowest scores.

    Parameters
    ----------
    weights : mapping of str to Tensor, any shapes
        Prunable weights of the trained network, in its order.
    threshold : float
        Share of the weights that are not spared, in (0, 1): exactly ⌊threshold · N⌋ are
        pruned, with N counted over the network or, where layers are pruned uniformly, in each
        layer. With ``pruning.by == "cutoff"``, the lowest score that survives.
    pruning : Pruning
        Score, and what a threshold means.
    spared : frozenset of str
        Names of weights that are kept whole.
    before : mapping of str to Tensor, optional
        The mask of the round before. What it prunes stays pruned, counts among those that
        are asked for, and is not scored.
    scores : mapping of str to Tensor, optional
        Scores of the weights that are not spared and that `before` does not prune, from
        :func:`lthdask.pruning.scores.scored`. They are the same for every threshold. If they are
        not given, they are computed, provided that the score needs no more than the weights.

    Returns
    -------
    mask : dict of str to Tensor
        ``True`` where the weight survives.
    cutoffs : dict of str to float
        The lowest score that survives, per weight in units of the score; NaN where spared, ∞
        where an allocation leaves a layer nothing.

    Raises
    ------
    InputError
        If `before` prunes more than asked, or a score is not a number.

    Examples
    --------
    >>> weights = {"conv": torch.tensor([-3.0, 0.5, 1.0]), "fc": torch.tensor([0.1])}
    >>> mask, _ = draw_mask(weights, 0.5, Pruning("global"))
    >>> {name: kept.tolist() for name, kept in mask.items()}
    {'conv': [True, False, True], 'fc': [False]}
    """
    mask = {
        name: torch.ones(w.shape, dtype=torch.bool, device=w.device) for name, w in weights.items()
    }
    cutoffs = dict.fromkeys(weights, float("nan"))
    ranked = [name for name in weights if name not in spared]
    if before is not None:
        mask |= {name: before[name] for name in ranked}
    if scores is None:
        scores = scored(pruning.score, {name: mask[name] for name in ranked}, weights)
    for pool, left in pools({name: weights[name] for name in ranked}, threshold, pruning):
        pooled = torch.cat([scores[name] for name in pool])
        if pruning.by == "cutoff":
            survives, cutoff = pooled >= threshold, threshold
        elif left > len(pooled):
            raise InputError(
                f"threshold {threshold:g} leaves {left} weights of {pool[0]!r}"
                f"{' and others' if len(pool) > 1 else ''}, but the mask of the round "
                f"before leaves only {len(pooled)}; thresholds of later rounds must increase"
            )
        else:
            survives, cutoff = _without_lowest(pooled, len(pooled) - left)
        pieces = survives.split([len(scores[name]) for name in pool])
        for name, piece in zip(pool, pieces, strict=True):
            # Without a mask before, every weight is scored, and the piece is the mask.
            whole = len(piece) == mask[name].numel()
            alive = mask[name]
            mask[name] = piece.view_as(alive) if whole else alive.masked_scatter(alive, piece)
            cutoffs[name] = cutoff
    return mask, cutoffs


def _without_lowest(scores: Tensor, count: int) -> tuple[Tensor, float]:
    """Return which scores are left without the `count` lowest, and the lowest of those left.

    It is an order statistic, because interpolated quantiles do not give exact counts.
    """
    if count == len(scores):
        return torch.zeros_like(scores, dtype=torch.bool), float("inf")
    # In NumPy: torch's kthvalue and comparisons took seven times as long.
    values = scores.cpu().numpy()
    cutoff = _in_order(values, count)
    survives = values >= cutoff
    pruned = len(values) - np.count_nonzero(survives)
    survives[np.flatnonzero(values == cutoff)[: count - pruned]] = False
    return torch.from_numpy(survives).to(scores.device), cutoff


def _in_order(values: NDArray[Any], index: int) -> float:
    """Return what would be at `index` if the values were sorted.

    It is looked for between two values of a sample (Floyd & Rivest 1975, "Expected time bounds
    for selection", Communications of the ACM 18), which takes 4 ms of MobileNetV2 in place of
    25; in a sample of 20,000 it is at most 70 places, one standard deviation, from its share.
    """
    sample = np.sort(values[:: len(values) // 20_000 + 1])
    place = index * len(sample) // len(values)
    low, high = sample[max(0, place - 250)], sample[min(len(sample) - 1, place + 250)]
    lower = values < low
    between = values[~lower & (values <= high)]
    left = index - int(np.count_nonzero(lower))
    if not 0 <= left < len(between):  # the sample is not like the rest
        left, between = index, values
    return float(np.partition(between, left)[left])


def random_mask(mask: Mask, spared: frozenset[str], seed: int, replicate: int) -> dict[str, Tensor]:
    """Return a mask that keeps as many weights of each layer as `mask`, at random places.

    The layers keep their densities, as when Frankle et al. shuffle masks within each layer
    ("Pruning neural networks at initialization: why are we missing the mark?", ICLR 2021,
    section 5). One random order per layer and replicate decides, so masks of a replicate nest
    like the tickets' masks do.

    Parameters
    ----------
    mask : mapping of str to Tensor
        The mask whose densities to keep, in the network's order.
    spared : frozenset of str
        Names of weights that are kept whole.
    seed, replicate : int
        What the places are drawn from.
    """
    shuffled = {}
    for index, (name, kept) in enumerate(mask.items()):
        order = _order(seed, replicate, index, kept.numel()).to(kept.device)
        count = kept.numel() if name in spared else int(kept.sum())
        drawn = torch.zeros(kept.numel(), dtype=torch.bool, device=kept.device)
        drawn[order[:count]] = True
        shuffled[name] = drawn.view(kept.shape)
    return shuffled


@functools.lru_cache(maxsize=64)
def _order(seed: int, replicate: int, layer: int, count: int) -> Tensor:
    """Return the random order of a layer's weights; kept, as the sort is most of a random mask."""
    bits = stream(seed, replicate, Purpose.RANDOM_MASK, layer)
    return torch.from_numpy(permutation(bits, count))


def random_numbers(weights: Weights, seed: int, replicate: int) -> dict[str, Tensor]:
    """Return a random number in [0, 1) for each weight, for the score ``random``; float64.

    They are drawn for a replicate, from another stream than :func:`random_mask`, whose mask would
    else be the very one that it is compared with.
    """
    found = {}
    for index, (name, weight) in enumerate(weights.items()):
        bits = stream(seed, replicate, Purpose.RANDOM_SCORE, index).random_raw(weight.numel())
        found[name] = torch.from_numpy((bits >> 11) * 2.0**-53).view(weight.shape)
    return found
