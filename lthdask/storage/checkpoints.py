"""Checkpoints on disk, as safetensors: no file that is read here can run code.

A checkpoint of the dense run is a file whose digest the manifest holds. The state of an
unfinished run is a checkpoint with notes, in a file that holds its own digest.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import BufferedReader
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from lthdask.errors import InputError
from lthdask.limits import lacking
from lthdask.lottery.ticket import Ticket
from lthdask.rewinding import Iterations, Place
from lthdask.storage.files import write_whole
from lthdask.training.checkpoint import Checkpoint

log = logging.getLogger(__name__)
OPTIMIZER = "optimizer."
"""In the file of a ticket, where masks lie beside them: what names of buffers begin with."""


def path_of(folder: Path, replicate: int, place: Place) -> Path:
    """Return where a checkpoint of a replicate lies: of an epoch, or of a step inside one."""
    name = f"step-{place.count:06d}" if isinstance(place, Iterations) else f"epoch-{place:04d}"
    return folder / "checkpoints" / f"replicate-{replicate}" / f"{name}.safetensors"


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
    content = _content(checkpoint, complete)
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
        If the file is missing, is not what was written, or is not a valid checkpoint.
    """
    with _opened(path) as file:
        content = file.read()
    _require_digest(path, hashlib.sha256(content), digest)
    return _decoded(path, content)[0]


def require(path: Path, digest: str) -> None:
    """Refuse a checkpoint that is not as :func:`save` wrote it, using little memory.

    Raises
    ------
    InputError
        As for :func:`load`.
    """
    with _opened(path) as file:
        found = hashlib.file_digest(file, "sha256")
    _require_digest(path, found, digest)


def is_there(path: Path, complete: bool = False) -> bool:
    """Return whether there is a checkpoint, `complete` with buffers; only its head is read."""
    try:
        with path.open("rb"), safetensors.safe_open(path, "numpy") as file:
            names = file.keys()
            return not complete or any(name.startswith("buffers/") for name in names)
    except PermissionError:
        raise
    except (OSError, safetensors.SafetensorError):
        return False


def agrees(checkpoint: Checkpoint, digest: str) -> bool:
    """Return whether :func:`save` gave this digest to a checkpoint, or to its weights alone."""
    contents = (_content(checkpoint, complete) for complete in (True, False))
    return any(hashlib.sha256(content).hexdigest() == digest for content in contents)


def holds_more(path: Path, digest: str) -> bool:
    """Return whether a checkpoint has the weights that were saved under `digest`, and buffers.

    So it is where a state was made again, and the manifest does not say so yet.
    """
    try:
        return agrees(_decoded(path, path.read_bytes())[0], digest)
    except PermissionError:
        raise
    except (OSError, InputError):
        return False


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        if isinstance(error, PermissionError) or lacking(error):  # which is no damage
            raise
        raise InputError(f"cannot read the checkpoint {path}: {error.strerror}") from None


def _require_digest(path: Path, found: Any, digest: str) -> None:
    if found.hexdigest() != digest:
        raise InputError(
            f"the checkpoint {path} is damaged: its digest differs from the manifest's"
        )


def load_state(path: Path, run: str | None = None) -> tuple[Checkpoint, dict[str, Any]]:
    """Read the state of an unfinished run, and its notes.

    Raises
    ------
    InputError
        If the file is not what was written, is not a valid checkpoint, or is that of another run.
        Before format 5, it does not say of which it is.
    """
    whole = path.read_bytes()
    digest, content = whole[:32], whole[32:]
    if hashlib.sha256(content).digest() != digest:
        raise InputError(f"the state {path} is damaged: its digest does not match its content")
    found, notes = _decoded(path, content)
    if (whose := notes.pop("run", run)) != run and run:
        raise InputError(f"the state {path} is not that of {run}, but of {whose}")
    return found, notes


def save_ticket(path: Path, ticket: Ticket, run: str | None = None) -> None:
    """Write a ticket of a `run` without its cutoffs, in a file that holds its own digest."""
    buffers = {
        name: {f"{OPTIMIZER}{buffer}": tensor for buffer, tensor in of_weight.items()}
        for name, of_weight in ticket.origin.buffers.items()
    }
    for name, mask in ticket.mask.items():
        buffers.setdefault(name, {})["mask"] = mask
    content = _encoded(replace(ticket.origin, buffers=buffers), {"run": run} if run else {})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, hashlib.sha256(content).digest() + content)


def load_ticket(path: Path, run: str | None = None) -> Ticket:
    """Read a ticket of a run.

    Raises
    ------
    InputError
        If the file is missing, is not what was written, is not a valid ticket, or is that of
        another run.
    """
    try:
        found, _ = load_state(path, run)
    except FileNotFoundError:
        raise InputError(f"cannot read the ticket {path}: it is missing") from None
    mask = {name: of["mask"] for name, of in found.buffers.items() if "mask" in of}
    if not mask:
        raise InputError(f"{path} is not a valid ticket: it has no mask")
    buffers = dict[str, dict[str, Tensor]]()
    for name, of_weight in found.buffers.items():
        for buffer, tensor in of_weight.items():
            if buffer != "mask":
                buffers.setdefault(name, {})[buffer.removeprefix(OPTIMIZER)] = tensor
    return Ticket(replace(found, buffers=buffers), mask, {})


class State:
    """The newest state of an unfinished run: two files, written in turn.

    One of them is always whole: a damaged file costs one interval.

    Parameters
    ----------
    folder : Path
        Where they lie; need not exist yet.
    warn : callable
        Told of each file that is damaged, or of another run; it is set aside.
    run : str, optional
        What names the run, as :func:`lthdask.storage.identity.run_of` does.
    """

    def __init__(
        self, folder: Path, warn: Callable[[str], None] = log.warning, run: str | None = None
    ) -> None:
        self._run = run
        self._files = [folder / "state-0.safetensors", folder / "state-1.safetensors"]
        self._warn = warn

    def load(self) -> tuple[Checkpoint, dict[str, Any]] | None:
        """Return the newest state and its notes, if there is one."""
        found = [(state, file) for file in self._files if (state := self._read(file))]
        if not found:
            return None
        (checkpoint, notes), newest = max(found, key=lambda pair: _progress(pair[0][0]))
        self._files.sort(key=lambda file: file == newest)
        return checkpoint, notes

    def save(self, checkpoint: Checkpoint, notes: dict[str, Any]) -> None:
        """Write a state, with `notes` that JSON can hold, in place of the older one."""
        content = _encoded(checkpoint, notes | ({"run": self._run} if self._run else {}))
        self._files[0].parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._files[0], hashlib.sha256(content).digest() + content)
        self._files.reverse()

    def remove(self) -> None:
        """Remove what was saved."""
        for file in self._files:
            file.unlink(missing_ok=True)

    def _read(self, file: Path) -> tuple[Checkpoint, dict[str, Any]] | None:
        try:
            return load_state(file, self._run)
        except FileNotFoundError:
            return None
        except InputError as error:
            problem = error
        aside = file.with_suffix(".damaged")
        with suppress(FileNotFoundError):
            os.replace(file, aside)
        self._warn(f"{problem}; it was set aside as {aside.name}")
        return None


def _progress(checkpoint: Checkpoint) -> tuple[int, int]:
    return checkpoint.epoch, checkpoint.step


def _content(checkpoint: Checkpoint, complete: bool) -> bytes:
    return _encoded(checkpoint if complete else replace(checkpoint, buffers={}), {})


def _encoded(checkpoint: Checkpoint, notes: dict[str, Any]) -> bytes:
    tensors = {f"weights/{name}": tensor for name, tensor in checkpoint.weights.items()}
    for weight, buffers in checkpoint.buffers.items():
        tensors.update({f"buffers/{weight}/{name}": tensor for name, tensor in buffers.items()})
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    progress = {"epoch": checkpoint.epoch, "step": checkpoint.step, "loss": checkpoint.loss}
    if checkpoint.since:  # else the bytes, and so the digests, are those of earlier versions
        progress["since"] = checkpoint.since
    # All notes are one text: safetensors writes several texts in a random order.
    return safetensors.torch.save(tensors, {"progress": json.dumps(progress | {"notes": notes})})


def _decoded(path: Path, content: bytes) -> tuple[Checkpoint, dict[str, Any]]:
    try:
        return _parsed(content)
    except MemoryError:
        raise
    except Exception as error:  # hostile content can be wrong in any way
        raise InputError(f"{path} is not a valid checkpoint: {error}") from None


def _parsed(content: bytes) -> tuple[Checkpoint, dict[str, Any]]:
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
    notes = progress.pop("notes")
    return Checkpoint(weights=weights, buffers=buffers, **progress), notes
