"""Masks that a study is given in files, in place of a rule that draws them.

Once its file is read, a study names a mask by that file and the beginning of the mask's digest, as
in ``mine@0123456789abcdef``. So it is written down and compared as any other value is. Two files
of the same mask have one digest. The study's folder has a copy, which workers read.
"""

import io
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lthdask.errors import (
    ForbiddenError,
    InputError,
    as_path,
    first_sentence,
    forbidden,
    listed,
    require_regular,
)

Mask = Mapping[str, Tensor]
NAME = re.compile(r"(.+)@([0-9a-f]{16})")
"""File without its suffix, and digest."""
SUFFIX = "_mask"
"""What torch.nn.utils.prune adds to the name of a weight whose mask it keeps."""

_read: dict[str, Mask] = {}


def named(mask: str) -> str:
    """Return the name of a mask: its own, or that of a file, which is read.

    Parameters
    ----------
    mask : str
        A name, or the path of a safetensors file or of a PyTorch state dict: tensors of 0 and 1,
        in any dtype, by the names of the weights, which may end in ``_mask``. Where some do, the
        other tensors are no masks. Nothing in a file is run.

    Raises
    ------
    InputError
        If the file cannot be read, or holds other values, or its mask prunes nothing or all.
    """
    if NAME.fullmatch(mask):
        return mask
    path = as_path(mask)
    found = _masks_in(path)
    digest = digest_of(found)
    _read[digest] = found
    name = f"{path.stem}@{digest}"
    if (share := share_of(name)) in (0, 1):
        raise InputError(f"the mask {path} prunes {'everything' if share else 'nothing'}")
    return name


def digest_of(mask: Mask) -> str:
    """Return the beginning of the SHA-256 of a mask: of names, shapes and bits."""
    found = sha256()
    for name, kept in sorted(mask.items()):
        found.update(f"{name} {tuple(kept.shape)}\0".encode())
        found.update(np.packbits(kept.numpy()).tobytes())
    return found.hexdigest()[:16]


def share_of(name: str) -> float | None:
    """Return the share that a mask prunes, to twelve digits; None if it was not read here."""
    if (mask := _read.get(_digest(name))) is None:
        return None
    count, kept = (sum(int(of(k)) for k in mask.values()) for of in (Tensor.numel, Tensor.sum))
    return round(1 - kept / count, 12)


def by_share(masks: Iterable[str]) -> dict[float, str] | None:
    """Return masks by the share that they prune, increasing; None if one was not read here.

    Raises
    ------
    InputError
        As for :func:`named`, or if two prune the same share.
    """
    names = [named(mask) for mask in masks]
    known = {share: name for name in names if (share := share_of(name)) is not None}
    if any(share_of(name) is None for name in names):
        return None
    if len(known) < len(names):
        raise InputError(
            f"two of the masks {listed(names)} prune the same share of the weights, by which they "
            f"are told apart; give each a study of its own"
        )
    return dict(sorted(known.items()))


def require_fit(name: str, weights: Mapping[str, Tensor], ends: bool = True) -> None:
    """Refuse a mask that is not of a network with these prunable weights.

    Without the `ends`, the shapes of the first and the last weight are not known. A mask that was
    not read here passes.

    Raises
    ------
    InputError
        If weights are missing or unknown in it, or have another shape.
    """
    mask, known = _read.get(_digest(name), weights), list(weights)
    if unknown := [weight for weight in mask if weight not in weights]:
        raise InputError(
            f"the mask {name} is of another network: {unknown[0]!r} is no weight that can be "
            f"pruned here, such as {known[0]!r}"
        )
    if missing := [weight for weight in known if weight not in mask]:
        raise InputError(
            f"the mask {name} lacks {missing[0]!r}; give ones for a layer that stays whole"
        )
    for weight in known if ends else known[1:-1]:
        if mask[weight].shape != weights[weight].shape:
            raise InputError(
                f"the mask {name} is of another network: {weight!r} has the shape "
                f"{tuple(mask[weight].shape)} there, and {tuple(weights[weight].shape)} here"
            )


def contents(names: Iterable[str]) -> dict[str, bytes]:
    """Return what was read of some masks as files to keep: name of the file → what it holds."""
    digests = [digest for name in names if (digest := _digest(name)) in _read]
    return {file_of(digest): saved(_read[digest]) for digest in digests}


def saved(mask: Mask) -> bytes:
    """Return a mask as what a safetensors file holds: booleans by the names of the weights."""
    import safetensors.torch

    return safetensors.torch.save(dict(mask))


def load(folder: Path, name: str) -> Mask:
    """Return a mask, from the folder that holds those of a study if it was not read here.

    Raises
    ------
    InputError
        If it is not there, or is another one.
    """
    digest = _digest(name)
    if digest not in _read:
        path = folder / file_of(digest)
        if not path.exists():
            raise InputError(f"the mask {name} is not in {folder}; give its file as pruning.masks")
        if not is_kept(folder, name):
            raise InputError(f"{path} is not the mask that the study was begun with")
        _read[digest] = _masks_in(path)
    return _read[digest]


def is_kept(folder: Path, name: str) -> bool:
    """Return whether the folder that holds the masks of a study has this one, whole."""
    digest = _digest(name)
    try:
        return digest_of(_masks_in(folder / file_of(digest))) == digest
    except ForbiddenError:
        raise
    except InputError:
        return False


def file_of(digest: str) -> str:
    """Return the name of the file that a study's folder keeps a mask in."""
    return f"{digest}.safetensors"


def _digest(name: str) -> str:
    found = NAME.fullmatch(name)
    return found[2] if found else ""


def _masks_in(path: Path) -> Mask:
    """Read the masks of a file, by the names of their weights."""
    try:
        require_regular(path)
        tensors = _tensors(path.read_bytes(), path.suffix == ".safetensors")
        masks = {n.removesuffix(SUFFIX): of for n, of in tensors.items() if n.endswith(SUFFIX)}
        if not sum(of.numel() for of in (masks or tensors).values()):
            raise ValueError("it holds none")
        return {name: _kept(path, name, of) for name, of in (masks or tensors).items()}
    except InputError:
        raise
    except PermissionError:
        raise forbidden(path.absolute()) from None
    except OSError as error:
        raise InputError(f"cannot read the mask {path}: {error.strerror}") from None
    except Exception as error:  # hostile content can be wrong in any way
        raise InputError(
            f"{path} is no mask: a safetensors file or a PyTorch state dict of tensors is wanted "
            f"({first_sentence(error)})"
        ) from None


def _tensors(content: bytes, safe: bool) -> dict[str, Tensor]:
    import safetensors.torch  # the engine does without

    if safe or content[8:9] == b"{":  # where the header begins
        return safetensors.torch.load(content)
    try:
        found: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # PyTorch then recommends to run what is in the file
        raise ValueError("it is neither, or damaged, or holds other things") from None
    if not isinstance(found, Mapping) or not found:
        raise ValueError(f"it holds a {type(found).__name__}")
    for name, of in found.items():
        if not isinstance(name, str) or not isinstance(of, Tensor):
            raise ValueError(f"{name!r} is a {type(of).__name__}")
        if of.layout != torch.strided or of.is_meta:
            raise ValueError(f"{name!r} is sparse, or has no values")
    return dict(found)


def _kept(path: Path, name: str, of: Tensor) -> Tensor:
    """Return a mask as booleans; NaN is neither 0 nor 1."""
    if of.dtype == torch.bool:  # of which each byte that is not 0 counts as true
        of = of.detach().contiguous().view(torch.uint8)
    odd = ~((of == 0) | (of == 1))
    if bool(odd.any()):
        raise InputError(
            f"the mask {path} holds {of[odd][0].item():g} for {name!r}; 1 keeps a weight, and 0 "
            f"prunes it"
        )
    return (of == 1).contiguous()
