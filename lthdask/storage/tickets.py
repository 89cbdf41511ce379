"""Kept tickets: the trained weights and the mask of a cell, in a file to take home.

tickets/<cell>.safetensors            trained weights, and the mask
tickets/<cell>.rewound.safetensors    the weights that they were trained from, under that mask
cells/<cell>/kept.json                what tells that these are the ones that were kept

A file is plain safetensors. A masked weight is sparse (:mod:`lthdask.storage.sparse`); everything
else lies under its own name. Its metadata are one text of JSON, ``lthdask``, with a digest of all
there is in the file.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from lthdask.arms import ARMS
from lthdask.errors import InputError, first_sentence, require_regular
from lthdask.grid import Cell
from lthdask.lottery.ticket import Ticket
from lthdask.storage import checkpoints
from lthdask.storage.files import read_json, write_whole
from lthdask.storage.folder import Folder
from lthdask.storage.identity import run_of
from lthdask.storage.sparse import BITS, GAPS, decoded, encoded
from lthdask.training.checkpoint import Checkpoint

FORMAT = 1
"""Format of a ticket's file; it rises with every change of what is in it."""
SUFFIX, REWOUND = ".safetensors", ".rewound.safetensors"
About = dict[str, Any]


class Tickets:
    """The tickets that are kept of a study.

    Parameters
    ----------
    folder : Folder
        Of the study.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder, self.path = folder, folder.path / "tickets"

    def trained(self, cell: Cell) -> Path:
        """Return where trained weights and mask of a cell lie."""
        return self.path / f"{cell}{SUFFIX}"

    def rewound(self, cell: Cell) -> Path:
        """Return where the weights lie that a cell was trained from."""
        return self.path / f"{cell}{REWOUND}"

    def recorded(self, cell: Cell) -> dict[str, str]:
        """Return the digests of the files that were kept: name of the file → digest."""
        found, names = read_json(self._record(cell)), {f.name for f in self._files(cell)}
        return {n: digest for n, digest in found.items() if n in names and isinstance(digest, str)}

    def record_of_others(self, cell: Cell) -> Path | None:
        """Return the record of what was kept of a cell, where it is that of another."""
        names = {file.name for file in self._files(cell)}
        return self._record(cell) if read_json(self._record(cell)).keys() - names else None

    def are_there(self, cell: Cell, rewound: bool = False) -> bool:
        """Return whether what is kept of a cell is there; no file is read."""
        files = [self.trained(cell), *([self.rewound(cell)] if rewound else [])]
        return all(file.exists() for file in files)

    def keep(self, cell: Cell, ticket: Ticket, start: Checkpoint | None, about: About) -> None:
        """Write trained weights and mask, and the weights at the start of training, if given.

        Parameters
        ----------
        cell : Cell
        ticket : Ticket
            Trained weights as its origin, and the mask.
        start : Checkpoint or None
        about : dict
            What JSON can hold: what the ticket is, and where it comes from.
        """
        self.path.mkdir(exist_ok=True)
        file = self.trained(cell)
        kept = {file: write(file, ticket.origin.weights, ticket.mask, about)}
        if start:
            file = self.rewound(cell)
            kept[file] = write(file, start.weights, ticket.mask, about, places=False)
        self._record(cell).parent.mkdir(parents=True, exist_ok=True)
        record = {file.name: digest for file, digest in kept.items()}
        write_whole(self._record(cell), json.dumps(self.recorded(cell) | record).encode())

    def load(self, cell: Cell) -> Ticket:
        """Read the trained weights and the mask that were kept of a cell, as :meth:`read` does."""
        return self.read(cell)[0]

    def read(self, cell: Cell) -> tuple[Ticket, About]:
        """Read the trained weights and the mask that were kept of a cell, and what is said of them.

        Raises
        ------
        InputError
            If the file is missing, damaged, or not the one that was kept.
        """
        ticket, about = read(self.trained(cell))
        self._require_own(cell, self.trained(cell), about)
        return ticket, about

    def read_rewound(self, cell: Cell, mask: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Read the weights that a kept ticket was trained from; None if they were not kept.

        Raises
        ------
        InputError
            If the file is damaged, or not the one that was kept.
        """
        if not self.rewound(cell).exists():
            return None
        weights, about = read_rewound(self.rewound(cell), mask)
        self._require_own(cell, self.rewound(cell), about)
        return weights

    def _require_own(self, cell: Cell, file: Path, about: About) -> None:
        if about["digest"] != self.recorded(cell).get(file.name):
            raise InputError(f"{file} is not the ticket that this study kept of {cell}")

    def drop(self, cell: Cell) -> None:
        """Remove all that is kept of a cell."""
        self.remove(cell, *self._files(cell))

    def remove(self, cell: Cell, *files: Path) -> None:
        """Remove files that are kept of a cell."""
        for file in files:
            file.unlink(missing_ok=True)
        names = {file.name for file in files}
        left = {name: digest for name, digest in self.recorded(cell).items() if name not in names}
        if left:
            write_whole(self._record(cell), json.dumps(left).encode())
        else:
            self._record(cell).unlink(missing_ok=True)

    def names(self) -> set[str]:
        """Return the names of cells of which something is kept, or is said to be."""
        files = [file.name for file in self.path.glob("[!.]*")]
        records = self.folder.runs.files("kept.json")
        found = {name.removesuffix(SUFFIX).removesuffix(".rewound") for name in files}
        return found | {record.parent.name for record in records}

    def _files(self, cell: Cell) -> tuple[Path, Path]:
        return self.trained(cell), self.rewound(cell)

    def _record(self, cell: Cell) -> Path:
        return self.folder.runs.of(cell) / "kept.json"


def final_weights(folder: Folder, cell: Cell, identity: str) -> Ticket | None:
    """Return the final weights and the mask of a cell: those kept, or held for others; or None.

    `identity` names the study, as :class:`lthdask.storage.manifest.Manifest` does.
    """
    tickets = Tickets(folder)
    # A round that goes on from it needs the optimizer's state, too, which no kept ticket has.
    is_kept = ARMS[cell.arm].start != "before" and tickets.are_there(cell)
    for load in (
        lambda: tickets.load(cell) if is_kept else None,
        lambda: checkpoints.load_ticket(folder.runs.final(cell), run_of(identity, cell)),
    ):
        with suppress(InputError):
            if found := load():
                return found
    return None


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
