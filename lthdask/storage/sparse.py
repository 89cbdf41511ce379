"""Sparse tensors as plain ones: the values that survive a mask, and where they were.

The surviving values lie in the order of the flattened tensor. Where they were is written as the
smaller of two: **bits**, one for each place, eight to a byte, the lowest first; and **gaps**, a
byte for each survivor, with the number of pruned places between the last one and it. The byte 255
skips 255 places, those after the last survivor too, as far as 255 go into them. So either says how
many places there are, up to its unit, and nothing is allocated that a file cannot hold.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SKIP = 255
BITS, GAPS = ".bits", ".gaps"


def encoded(name: str, values: Tensor, kept: Tensor) -> dict[str, Tensor]:
    """Return a masked tensor as plain ones.

    Parameters
    ----------
    name : str
    values : Tensor
        Of any shape and type.
    kept : Tensor of bool
        Of the same shape, ``True`` where a value survives.

    Returns
    -------
    dict of str to Tensor
        ``name``, the surviving values, (n,), and ``name.bits`` or ``name.gaps``, uint8.

    Examples
    --------
    >>> encoded("w", torch.tensor([[0.0, 2.0], [0.0, 3.0]]), torch.tensor([[False, True]] * 2))
    {'w': tensor([2., 3.]), 'w.bits': tensor([10], dtype=torch.uint8)}
    """
    flat = kept.cpu().flatten().numpy()
    bits, gaps = np.packbits(flat, bitorder="little"), _gaps(flat)
    suffix, places = (BITS, bits) if len(bits) <= len(gaps) else (GAPS, gaps)
    survivors = values.cpu().flatten()[torch.from_numpy(flat)]
    return {name: survivors, f"{name}{suffix}": torch.from_numpy(places)}


def decoded(
    name: str, tensors: Mapping[str, Tensor], shape: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return a tensor, zero wherever it was pruned, and its mask.

    Parameters
    ----------
    name : str
    tensors : mapping of str to Tensor
        What :func:`encoded` returned, among others.
    shape : sequence of int
        Shape of the tensor.

    Raises
    ------
    ValueError
        If they are not what :func:`encoded` returns for a tensor of this shape. Nothing of that
        shape is allocated then.
    """
    values, size = tensors[name], math.prod(shape)
    if values.ndim != 1:
        raise ValueError(f"the values of {name} do not lie in a row")
    places = _places(name, tensors, size)
    if len(places) != len(values):
        raise ValueError(f"{name} has {len(values):,} values for {len(places):,} places")
    found, mask = torch.zeros(size, dtype=values.dtype), torch.zeros(size, dtype=torch.bool)
    found[places], mask[places] = values, True
    return found.reshape(*shape), mask.reshape(*shape)


def _gaps(kept: NDArray[np.bool_]) -> NDArray[np.uint8]:
    places = np.flatnonzero(kept)
    skips, gaps = np.divmod(np.diff(places, prepend=-1) - 1, SKIP)
    at = np.cumsum(skips + 1) - 1
    after = len(kept) - (places[-1] + 1 if len(places) else 0)
    found = np.full(len(gaps) + int(skips.sum()) + after // SKIP, SKIP, "u1")
    found[at] = gaps
    return found


def _places(name: str, tensors: Mapping[str, Tensor], size: int) -> Tensor:
    """Return where values survive, once it is seen that there are so many places in all."""
    packed = [tensors[name + suffix] for suffix in (BITS, GAPS) if name + suffix in tensors]
    if len(packed) != 1 or packed[0].dtype != torch.uint8 or packed[0].ndim != 1:
        raise ValueError(f"{name} needs {BITS} or {GAPS}, as bytes")
    if name + BITS in tensors:
        bits = np.unpackbits(packed[0].numpy(), bitorder="little")
        if len(packed[0]) != -(-size // 8) or bits[size:].any():
            raise ValueError(f"the bits of {name} are not those of {size:,} places")
        return torch.from_numpy(np.flatnonzero(bits))
    gaps = packed[0]
    after = (gaps + (gaps < SKIP)).cumsum(0)
    if not 0 <= size - (int(after[-1]) if len(gaps) else 0) < SKIP:
        raise ValueError(f"the gaps of {name} are not those of {size:,} places")
    return (after - 1)[gaps < SKIP]
