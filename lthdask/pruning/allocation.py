"""Allocation: which weights are ranked together, and how many of them stay.

By default the whole network is one ranking, and its layers lose what they lose. An allocation
says what each layer keeps, and the score only which of its weights. Every allocation keeps
exactly as many weights as are asked for, and no layer ever has more at a higher threshold.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from lthdask.pruning.rule import Pruning, rates_by_layer
from lthdask.pruning.scores import Weights

Shape = Sequence[int]


def erdos_renyi_kernel(shape: Shape) -> int:
    """Return what the count of a layer is proportional to in ERK: the sum of its dimensions.

    Its density is proportional to (n_in + n_out + width + height) / (n_in · n_out · width ·
    height) (Evci et al., "Rigging the Lottery", ICML 2020, section 3, part 1). For linear layers
    that is the Erdős–Rényi graph of Mocanu et al. (Nature Communications 9, 2018, equation 1).
    """
    return sum(shape)


def balanced(shape: Shape) -> int:
    """Return what the count of a layer is proportional to: 1, as all keep equally many weights.

    Gadhikar, Mukherjee & Burkholz, "Why random pruning is all we need to start sparse" (ICML
    2023), layerwise sparsity ratios.
    """
    return 1


PROPORTIONAL: dict[str, Callable[[Shape], int]] = {"erk": erdos_renyi_kernel, "balanced": balanced}
"""Allocation → what the number of weights that a layer keeps is proportional to."""


def pools(weights: Weights, threshold: float, pruning: Pruning) -> list[tuple[list[str], int]]:
    """Return which weights are ranked together, and how many of each pool stay.

    Parameters
    ----------
    weights : mapping of str to Tensor, any shapes
        The weights that are not spared, in the network's order.
    threshold : float
        Share of them to prune, in (0, 1). With ``uniform``, ⌊share · count⌋ go in each layer;
        else, exactly ⌊threshold · N⌋ of all N.
    pruning : Pruning
    """
    names, sizes = list(weights), [weight.numel() for weight in weights.values()]
    if pruning.by == "cutoff":
        return [(names, 0)]
    if pruning.allocated == "uniform":
        rates = rates_by_layer(weights, pruning)
        shares = [share_at(threshold, rates[name], pruning.rate) for name in names]
        each = zip(names, sizes, shares, strict=True)
        return [([name], size - _floor(share, size)) for name, size, share in each]
    left = sum(sizes) - _floor(threshold, sum(sizes))
    if pruning.allocated is None:
        return [(names, left)]
    wanted = [PROPORTIONAL[pruning.allocated](weight.shape) for weight in weights.values()]
    counts = in_proportion(left, sizes, wanted)
    return [([name], count) for name, count in zip(names, counts, strict=True)]


def in_proportion(total: int, sizes: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Divide `total` weights among layers in proportion to `wanted`, at most their sizes.

    What a full layer cannot take goes to the others, as in the code of Evci et al. Rounded is by
    Sainte-Laguë's divisors, because then no layer gets fewer when there is more to divide, and
    masks nest; with the largest remainders it might.

    Examples
    --------
    >>> in_proportion(12, sizes=[2, 20, 20], wanted=[1, 1, 1])
    [2, 5, 5]
    """
    most, weight = np.array(sizes, np.int64), np.array(wanted, float)

    def at(factor: float) -> NDArray[np.int64]:
        return np.minimum(most, np.floor(factor * weight + 0.5).astype(np.int64))

    low, high = 0.0, float(max(sizes) + 1)
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if at(middle).sum() <= total else (low, middle)
    counts = at(low)
    tied = np.flatnonzero(at(high) > counts)
    counts[tied[len(tied) - (total - counts.sum()) :]] += 1
    return [int(count) for count in counts]


def share_at(threshold: float, rate: float, usual: float) -> float:
    """Return the share to prune of a layer with its own rate, where `threshold` is the usual one.

    Both are pruned for the same number of rounds: ``ln(1 − threshold) / ln(1 − usual)``.
    """
    if rate == usual:
        return threshold
    share: float = 1 - (1 - threshold) ** (math.log1p(-rate) / math.log1p(-usual))
    # 1 - 0.9**2 is 0.18999999999999995 in binary; the share of a layer stays below 1.
    return min(round(share, 12), 1 - 1e-12)


def _floor(share: float, count: int) -> int:
    """Return ⌊share · count⌋ for the decimal as written: 0.29 of 100 is 29, not 28."""
    return int(Fraction(str(share)) * count)
