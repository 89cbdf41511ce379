"""Checkpoints on disk, as safetensors: no file that is read here can run code."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import safetensors.torch
from torch import Tensor

from lthdask.errors import InputError
from lthdask.rewinding import Checkpoint
from lthdask.storage.files import write_whole


def path_of(folder: Path, replicate: int, epoch: int) -> Path:
    """Return where checkpoint `epoch` of a replicate lies."""
    return folder / "checkpoints" / f"replicate-{replicate}" / f"epoch-{epoch:04d}.safetensors"


def save(path: Path, checkpoint: Checkpoint, complete: bool = True) -> str:
    """Write a checkpoint.

    Parameters
    ----------
    path : Path
        The file; its folder is made where it is missing.
    checkpoint : Checkpoint
    complete : bool
        Whether to keep the optimizer's buffers beside the weights.

    Returns
    -------
    str
        SHA-256 of the file, in hexadecimal.
    """
    if not complete:
        checkpoint = replace(checkpoint, buffers={})
    tensors = {f"weights/{name}": tensor for name, tensor in checkpoint.weights.items()}
    for weight, buffers in checkpoint.buffers.items():
        tensors.update({f"buffers/{weight}/{name}": tensor for name, tensor in buffers.items()})
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    progress = {"epoch": checkpoint.epoch, "step": checkpoint.step, "loss": checkpoint.loss}
    content = safetensors.torch.save(tensors, {"progress": json.dumps(progress)})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
    return hashlib.sha256(content).hexdigest()


def load(path: Path, digest: str) -> Checkpoint:
    """Read a checkpoint, and check that it is the one that was written.

    Parameters
    ----------
    path : Path
    digest : str
        SHA-256 of the file, as :func:`save` returned it.

    Raises
    ------
    InputError
        If the file is missing, or is not what was written.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the checkpoint {path}: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"the checkpoint {path} is damaged: its digest is not the manifest's")
    weights: dict[str, Tensor] = {}
    buffers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in safetensors.torch.load(content).items():
        kind, _, rest = name.partition("/")
        if kind == "weights":
            weights[rest] = tensor
        else:
            weight, _, buffer = rest.rpartition("/")
            buffers.setdefault(weight, {})[buffer] = tensor
    length = int.from_bytes(content[:8], "little")
    progress = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["progress"])
    return Checkpoint(weights=weights, buffers=buffers, **progress)
