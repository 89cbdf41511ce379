"""Kept tickets: the trained weights and the mask of a cell, in a file to take home.

tickets/<cell>.safetensors            trained weights, and the mask
tickets/<cell>.rewound.safetensors    the weights that they were trained from, under that mask
cells/<cell>/kept.json                what tells that these are the ones that were kept

:mod:`lthdask.storage.ticket_file` says what such a file is.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from lthdask.arms import ARMS
from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.lottery.ticket import Ticket
from lthdask.storage import checkpoints
from lthdask.storage.files import read_json, write_whole
from lthdask.storage.folder import Folder
from lthdask.storage.identity import run_of
from lthdask.storage.ticket_file import REWOUND, SUFFIX, About, read, read_rewound, write
from lthdask.training.checkpoint import Checkpoint


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
