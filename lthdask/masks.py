"""Masks: which weights of a network survive pruning.

A mask maps the name of each prunable weight to a boolean tensor of that weight's shape,
``True`` where the weight survives. Weights are ranked by a score; those with the lowest
scores go, exactly as many as asked, equal scores by position. A higher threshold therefore
always keeps a subset of what a lower one keeps; so does a later round of iterative pruning,
whose ranking leaves out what is pruned already.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lthdask.errors import InputError
from lthdask.scores import SCORES, Weights, scored
from lthdask.scores import Mask as Mask
from lthdask.streams import Purpose, permutation, stream

MOST_ROUNDS = 1000


@dataclass(frozen=True)
class Pruning:
    """How a mask is taken from the weights of a network.

    Parameters
    ----------
    score : str
        What weights are ranked by. Of the final weights: ``global``, ``|w|`` over the whole
        network; ``layerwise``, ``|w|`` within each layer; ``lamp``, the layer-adaptive
        score of Lee et al. (ICLR 2021). Of the final and the initial weights (Zhou et al.,
        NeurIPS 2019): ``magnitude_increase``, ``movement``. Of the initial weights and
        their gradients: ``snip`` (Lee et al., ICLR 2019), ``synflow`` (Tanaka et al.,
        NeurIPS 2020). All but ``layerwise`` rank over the whole network.
    by : {"share", "cutoff"}
        Whether a threshold is the share of weights to prune, in (0, 1), or the cutoff
        itself: the lowest score that survives, more than 0.
    schedule : {"one_shot", "iterative"}
        All weights are pruned at once, or in rounds, each from the trained weights of the
        round before (Frankle & Carbin, ICLR 2019, section 1).
    spare : tuple of str
        What is never pruned: ``stem``, ``depthwise``, ``classifier``, or names of
        weights, ``*`` allowed.
    rate : float
        Share of the remaining weights that a round prunes, in (0, 1).
    rounds : int
        Rounds of ``iterative``, at least 1; 0 with ``one_shot``.
    layer_rates : mapping of str to float
        Of ``layerwise``: the rates of layers that differ from `rate`, each in (0, 1), by
        name as in `spare`. Frankle & Carbin 2019 prune the output layer at half the rate of
        the others. In one shot, a layer loses what it would in the rounds that lead there.
    """

    score: Literal[
        "global", "layerwise", "lamp", "magnitude_increase", "movement", "snip", "synflow"
    ] = "global"
    by: Literal["share", "cutoff"] = "share"
    schedule: Literal["one_shot", "iterative"] = "one_shot"
    spare: tuple[str, ...] = ()
    rate: float = 0.2
    rounds: int = 0
    layer_rates: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"rate must be above 0 and below 1; got {self.rate}")
        for name, rate in self.layer_rates.items():
            if not 0 < rate < 1:
                raise ValueError(f"layer_rates.{name} must be above 0 and below 1; got {rate}")
        if self.layer_rates and self.score != "layerwise":
            raise ValueError(f"layer_rates belong to the score layerwise; got {self.score!r}")
        in_rounds = self.schedule == "iterative" or self.score == "synflow"
        if self.by == "cutoff" and (in_rounds or self.layer_rates):
            raise ValueError("rounds, layer_rates and synflow prune shares; got by cutoff")
        if self.schedule == "one_shot" and self.rounds:
            raise ValueError(f"rounds belong to the iterative schedule; got {self.rounds}")
        if self.schedule == "iterative" and self.needs_gradients:
            raise ValueError(
                f"{self.score} scores the initial weights, so rounds of training teach it nothing"
            )
        if self.schedule == "iterative":
            if not 1 <= self.rounds <= MOST_ROUNDS:
                raise ValueError(f"rounds must be 1 to {MOST_ROUNDS}; got {self.rounds}")
            if len({*self.thresholds(), 1.0}) <= self.rounds:
                raise ValueError(
                    f"{self.rounds} rounds at rate {self.rate} go on when nothing is left "
                    f"to prune; use fewer"
                )

    def thresholds(self) -> tuple[float, ...]:
        """Return the share that is pruned after each round of iterative pruning."""
        return tuple(round(1 - (1 - self.rate) ** n, 12) for n in range(1, self.rounds + 1))

    @property
    def needs_initial(self) -> bool:
        """Whether the score looks at the initial weights."""
        return "initial" in SCORES[self.score].needs

    @property
    def needs_gradients(self) -> bool:
        """Whether the score looks at gradients at the initial weights."""
        return "gradients" in SCORES[self.score].needs

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


def spared_weights(weights: Weights, spare: Sequence[str]) -> frozenset[str]:
    """Return the names of those of the prunable `weights` that `spare` keeps whole.

    Raises
    ------
    InputError
        If an entry of `spare` matches nothing, or nothing is left to prune.
    """
    spared = {name for entry in spare for name in _named(weights, entry, "spare")}
    if len(spared) == len(weights):
        raise InputError(f"spare keeps every layer, so nothing can be pruned: {', '.join(spare)}")
    return frozenset(spared)


def rates_by_layer(weights: Weights, pruning: Pruning) -> dict[str, float]:
    """Return the share of its remaining weights that each layer loses in a round.

    Raises
    ------
    InputError
        If an entry of `pruning.layer_rates` matches nothing, or two match one layer.
    """
    rates: dict[str, float] = {}
    for entry, rate in pruning.layer_rates.items():
        for name in _named(weights, entry, "layer_rates"):
            if name in rates:
                raise InputError(f"layer_rates give {name!r} a second rate, as {entry!r}")
            rates[name] = rate
    return dict.fromkeys(weights, pruning.rate) | rates


def _named(weights: Weights, entry: str, key: str) -> list[str]:
    """Return the names of the weights that an entry of `spare` or `layer_rates` stands for."""
    names = list(weights)
    # One input channel per filter; in the stem, that is an image of one channel.
    depthwise = [n for n in names[1:] if weights[n].ndim == 4 and weights[n].shape[1] == 1]
    kinds = {"stem": names[:1], "depthwise": depthwise, "classifier": names[-1:]}
    found = kinds.get(entry) or [name for name in names if fnmatchcase(name, entry)]
    if not found:
        raise InputError(
            f"{key} names {entry!r}, which this network does not have; "
            f"use stem, depthwise, classifier, or a weight such as {names[0]!r}"
        )
    return found


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
        pruned, with N counted over the network or, with the score ``layerwise``, in each
        layer. With ``pruning.by == "cutoff"``, the lowest score that survives.
    pruning : Pruning
        Score, and what a threshold means.
    spared : frozenset of str
        Names of weights that are kept whole.
    before : mapping of str to Tensor, optional
        The mask of the round before. What it prunes stays pruned, counts among those that
        are asked for, and is not scored.
    scores : mapping of str to Tensor, optional
        Of the weights that are not spared and that `before` does not prune, as of
        :func:`lthdask.scores.scored`, the same for every threshold; where the score needs
        no more than the weights, they are computed if they are not given.

    Returns
    -------
    mask : dict of str to Tensor
        ``True`` where the weight survives.
    cutoffs : dict of str to float
        The lowest score that survives, per weight in units of the score; NaN where spared.

    Raises
    ------
    InputError
        If `before` prunes more than is asked for, or a score is not a number.

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
    rates = rates_by_layer(weights, pruning)
    if scores is None:
        scores = scored(pruning.score, {name: mask[name] for name in ranked}, weights)
    pools = [[name] for name in ranked] if pruning.score == "layerwise" else [ranked]
    for pool in pools:
        pooled = torch.cat([scores[name] for name in pool])
        if pruning.by == "cutoff":
            survives, cutoff = pooled >= threshold, threshold
        else:
            share = _share(threshold, rates[pool[0]], pruning.rate)
            count = sum(weights[name].numel() for name in pool)
            left = count - _floor(share, count)
            if left > len(pooled):
                raise InputError(
                    f"threshold {threshold:g} leaves {left} weights of {pool[0]!r}"
                    f"{' and others' if len(pool) > 1 else ''}, but the mask of the round "
                    f"before leaves only {len(pooled)}; thresholds of later rounds must increase"
                )
            survives, cutoff = _without_lowest(pooled, len(pooled) - left)
        pieces = survives.split([len(scores[name]) for name in pool])
        for name, piece in zip(pool, pieces, strict=True):
            # Without a mask before, every weight is scored, and the piece is the mask.
            whole = len(piece) == mask[name].numel()
            alive = mask[name]
            mask[name] = piece.view_as(alive) if whole else alive.masked_scatter(alive, piece)
            cutoffs[name] = cutoff
    return mask, cutoffs


def _share(threshold: float, rate: float, usual: float) -> float:
    """Return the share of a layer that is pruned when `threshold` of the usual ones is.

    Both are pruned for the same number of rounds: ``ln(1 − threshold) / ln(1 − usual)``.
    """
    if rate == usual:
        return threshold
    share: float = 1 - (1 - threshold) ** (math.log1p(-rate) / math.log1p(-usual))
    # 1 - 0.9**2 is 0.18999999999999995 in binary; the share of a layer stays below 1.
    return min(round(share, 12), 1 - 1e-12)


def _floor(share: float, count: int) -> int:
    """Return ⌊share · count⌋ of the decimal that was written: 0.29 of 100 is 29, not 28."""
    return int(Fraction(str(share)) * count)


def _without_lowest(scores: Tensor, count: int) -> tuple[Tensor, float]:
    """Return which scores are left without the `count` lowest, and the lowest of those left.

    An order statistic, because interpolated quantiles do not give exact counts.
    """
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

    The layers keep their densities, as where Frankle et al., "Pruning neural networks at
    initialization: why are we missing the mark?" (ICLR 2021, section 5), shuffle masks
    within each layer. One random order per layer and replicate decides, so masks of a
    replicate nest like those they are made after.

    Parameters
    ----------
    mask : mapping of str to Tensor
        Whose densities to keep, in the network's order.
    spared : frozenset of str
        Names of weights that are kept whole.
    seed, replicate : int
        What the places are drawn from.
    """
    shuffled = {}
    for index, (name, kept) in enumerate(mask.items()):
        bits = stream(seed, replicate, Purpose.RANDOM_MASK, index)
        order = torch.from_numpy(permutation(bits, kept.numel())).to(kept.device)
        count = kept.numel() if name in spared else int(kept.sum())
        drawn = torch.zeros(kept.numel(), dtype=torch.bool, device=kept.device)
        drawn[order[:count]] = True
        shuffled[name] = drawn.view(kept.shape)
    return shuffled
