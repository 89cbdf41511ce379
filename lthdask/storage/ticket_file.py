"""The file of a ticket: plain safetensors, with a digest of all there is in it.

A masked weight is sparse (:mod:`lthdask.storage.sparse`); everything else lies under its own
name. Its metadata are one text of JSON, ``lthdask``.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from lthdask.errors import InputError, first_sentence, require_regular
from lthdask.lottery.ticket import Ticket
from lthdask.storage.files import write_whole
from lthdask.storage.sparse import BITS, GAPS, decoded, encoded
from lthdask.training.checkpoint import Checkpoint

FORMAT = 1
"""Format of a ticket's file; it rises with every change of what is in it."""
SUFFIX, REWOUND = ".safetensors", ".rewound.safetensors"
About = dict[str, Any]


def read(path: Path) -> tuple[Ticket, About]:
    """Read trained weights and their mask.

    Returns
    -------
    ticket : Ticket
        Trained weights, zero where they were pruned, as its origin.
    about : dict
        What the file says of it.

    Raises
    ------
    InputError
        If there is no such file, it is damaged, or it is not a valid ticket. Nothing in it is
        run, and nothing is allocated that it cannot hold.
    """
    if path.name.endswith(REWOUND):
        raise InputError(
            f"{path} has what a ticket was trained from; give the ticket, which lies beside it, "
            f"{path.name.removesuffix(REWOUND)}{SUFFIX}"
        )
    tensors, about = _tensors(path)
    try:
        weights, mask = _others(tensors, about), dict[str, Tensor]()
        for name, shape in about["shapes"].items():
            weights[name], mask[name] = decoded(name, tensors, _whole(shape))
        if about["mask"] != mask_digest(mask):
            raise ValueError("it has another mask than it says")
    except Exception as error:  # hostile content can be wrong in any way
        raise _not_valid(path, error) from None
    return Ticket(Checkpoint(0, weights), mask, {}), about


def read_rewound(path: Path, mask: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], About]:
    """Read the weights that a ticket was trained from, zero where its mask prunes them.

    Raises
    ------
    InputError
        As for :func:`read`, or if they are those of another mask.
    """
    tensors, about = _tensors(path)
    try:
        if about["mask"] != mask_digest(mask):
            raise ValueError("it belongs to another mask")
        weights = _others(tensors, about)
        for name, kept in mask.items():
            weights[name] = torch.zeros(kept.shape, dtype=tensors[name].dtype)
            weights[name][kept] = tensors[name]
    except Exception as error:
        raise _not_valid(path, error) from None
    return weights, about


def write(
    path: Path,
    weights: Mapping[str, Tensor],
    mask: Mapping[str, Tensor],
    about: About,
    places: bool = True,
) -> str:
    """Write weights under a mask, with the `places` that survive; return the file's digest."""
    tensors = dict[str, Tensor]()
    for name, tensor in weights.items():
        if name in mask:
            sparse = encoded(name, tensor, mask[name])
            tensors |= sparse if places else {name: sparse[name]}
        else:
            tensors[name] = tensor.cpu().contiguous()
    about = about | {
        "format": FORMAT,
        "shapes": {name: list(kept.shape) for name, kept in mask.items()},
        "mask": mask_digest(mask),
    }
    about.pop("digest", None)
    digest = _digest(tensors, about)
    text = json.dumps(about | {"digest": digest})
    write_whole(path, safetensors.torch.save(tensors, {"lthdask": text}))
    return digest


def write_dense(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights as they are, as plain safetensors that every tool reads."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in weights.items()}
    write_whole(path, safetensors.torch.save(tensors, {"format": "pt"}))


def _tensors(path: Path) -> tuple[dict[str, Tensor], About]:
    """Return what a file holds, once its digest is seen to be right."""
    try:
        require_regular(path)
        content = path.read_bytes()
    except PermissionError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read the ticket {path}: {reason}") from None
    try:
        tensors = safetensors.torch.load(content)
        head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        about = dict(json.loads(head["__metadata__"]["lthdask"]))
        rest = {name: value for name, value in about.items() if name != "digest"}
        right = about["digest"] == _digest(tensors, rest)
        newer = about["format"] > FORMAT
    except Exception as error:
        raise _not_valid(path, error) from None
    if newer:
        raise InputError(f"{path} was written by a newer version of lthdask; update lthdask")
    if not right:
        raise InputError(f"the ticket {path} is damaged: its digest does not match its content")
    return tensors, about


def _others(tensors: Mapping[str, Tensor], about: About) -> dict[str, Tensor]:
    """Return the tensors that are not masked."""
    masked = {name + suffix for name in about["shapes"] for suffix in ("", BITS, GAPS)}
    return {name: tensor for name, tensor in tensors.items() if name not in masked}


def _whole(shape: Any) -> list[int]:
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"{shape!r} is not a shape")
    return shape


def _digest(tensors: Mapping[str, Tensor], about: About) -> str:
    """Return the SHA-256 of all that is in a file."""
    sha = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def mask_digest(mask: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a mask: of names, shapes and bits."""
    sha = hashlib.sha256()
    for name, kept in sorted(mask.items()):
        sha.update(f"{name} {tuple(kept.shape)}".encode())
        sha.update(np.packbits(kept.cpu().flatten().numpy()).tobytes())
    return sha.hexdigest()


def _not_valid(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is not a valid ticket: {first_sentence(error)}")
