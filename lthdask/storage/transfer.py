"""Transfer: the tickets of one study for another.

Once a run, or the file of a ticket, is read, a study names what it takes of it by digests. So that
is written down and compared as any other value is, and workers read the copies.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from lthdask.arguments import checked
from lthdask.errors import InputError, as_path, listed, permitted
from lthdask.grid import KS, Cell
from lthdask.lottery.ticket import Ticket
from lthdask.rewinding import number, place_of, rewind
from lthdask.storage import checkpoints
from lthdask.storage.folder import Folder
from lthdask.storage.loading import require_valid
from lthdask.storage.manifest import Manifest
from lthdask.storage.source import digest_of, given
from lthdask.storage.ticket_file import REWOUND, SUFFIX, About, read, read_rewound
from lthdask.storage.tickets import Tickets
from lthdask.study import Study
from lthdask.training.checkpoint import Checkpoint

Readers = dict[str, Callable[[], Ticket]]


@checked
def transfer(study: Study, ticket: str | Path, rewind_epoch: float | str | None = None) -> Study:
    """Return a study that trains the tickets of another one, in place of its own.

    Data, recipe, seed and margin stay; network and grid are those of the tickets, in all arms that
    there are then: ``ticket``, from the weights that it was rewound to; ``trained_ticket``, from
    the trained ones; ``reinit`` and ``random_mask``; and ``dense_pretrained``, from the
    final dense weights. All are trained for all epochs, and compared with the dense run of this
    study. Replicate r has the tickets of replicate r. Where the classes are others, the head is
    new, and not pruned.

    Parameters
    ----------
    study : Study
        What to train on, and how.
    ticket : path
        The folder of a run that kept its tickets; or the file of one, beside which lies what it was
        trained from. All replicates have that one, so nothing is said of others.
    rewind_epoch : float or str, optional
        Which k the tickets have, where the run kept several.

    Returns
    -------
    Study
        It can be changed, and grows, as any other: thresholds, arms and replicates are those that
        were kept, or some of them. The study's folder gets a copy of what it needs.

    Raises
    ------
    InputError
        If nothing was kept, or it is damaged. Nothing in a file is run.

    Notes
    -----
    The dense weights of a run that is a transfer itself are none that its tickets come from. So it
    gives ``ticket``, ``trained_ticket`` and ``reinit``, as the file of a ticket does.

    Examples
    --------
    >>> file = "runs/digits/tickets/ticket-r0-t0.5-k0.safetensors"
    >>> study = transfer(Study.read("digits"), file)
    >>> study.network.name, study.grid.thresholds, study.grid.arms
    ('lenet_300_100', (0.5,), ('ticket', 'trained_ticket', 'reinit'))
    """
    path = as_path(ticket)
    with permitted(path):
        found = _of_run(path, rewind_epoch) if path.is_dir() else _of_file(path)
    about, values = found.about, study.to_dict()
    of = about["study"]
    values |= {
        "name": f"{study.name}-from-{of['name']}",
        "network": about["network"],
        "pruning": {"by": of["pruning"]["by"]},
        "mask_epoch": None,
        "source": {
            "study": of["name"],
            "data": of["data"]["name"],
            "input": about["input"],
            "classes": about["classes"],
            "rewind_epoch": about["cell"]["rewind_epoch"],
            "files": found.files,
        },
        "grid": {
            "thresholds": found.thresholds,
            "rewind_epochs": [0],
            "arms": found.arms,
            "replicates": found.replicates or study.grid.replicates,
        },
    }
    return Study.from_dict(values, f"{study.name} with the tickets of {path}")


@dataclass(frozen=True)
class _Found:
    """What was found of a source; `replicates` is 0 where all have one ticket."""

    about: About
    files: Mapping[str, str]
    thresholds: list[float]
    arms: list[str]
    replicates: int = 0


WITHOUT_DENSE = ["ticket", "trained_ticket", "reinit"]
ARMS = [*WITHOUT_DENSE, "random_mask", "dense_pretrained"]


def _of_run(path: Path, asked: float | str | None) -> _Found:
    folder = Folder(path)
    text, manifest = folder.study(), folder.manifest()
    if text is None or manifest is None:
        raise InputError(
            f"there is no run in {path}; give the folder of one as `ticket`, or the file of a "
            f"ticket"
        )
    source = Study.parse(text, str(path / "study.yaml"))
    cells = _kept(path, source, asked)
    tickets = Tickets(folder)
    readers: Readers = {
        f"ticket-r{cell.replicate}-t{cell.threshold:.12g}": partial(_of_cell, tickets, cell)
        for cell in cells
    }
    if source.source:
        _require_starts(path, tickets, cells)
        readers |= {
            f"rewound-r{cell.replicate}-t{cell.threshold:.12g}": partial(_start_of, tickets, cell)
            for cell in cells
        }
    else:
        readers |= _of_dense_runs(path, manifest, cells, source.recipe.epochs)
    thresholds = sorted({cell.threshold for cell in cells})
    replicates = 1 + max(cell.replicate for cell in cells)
    arms = WITHOUT_DENSE if source.source else ARMS
    file = tickets.trained(cells[0])
    try:
        about = read(file)[1]
        files = _named(file, about, readers)
    except InputError as error:
        raise InputError(
            f"{error}; `lthdask check {path} --repair`, and then the run's own command, mend that"
        ) from None
    return _Found(about, files, thresholds, arms, replicates)


def _require_starts(path: Path, tickets: Tickets, cells: Sequence[Cell]) -> None:
    if gone := [cell for cell in cells if not tickets.are_there(cell, rewound=True)]:
        raise InputError(
            f"what {gone[0]} was trained from was not kept, and no dense run in {path} has it, as "
            f"the tickets come from another study; its own command keeps it, with `keep` and "
            f"`keep_rewound`"
        )


def _of_dense_runs(path: Path, manifest: Manifest, cells: Sequence[Cell], epochs: int) -> Readers:
    places = {"early": place_of(cells[0].rewind_epoch, manifest.steps), "final": epochs}
    readers: Readers = {}
    for replicate in sorted({cell.replicate for cell in cells}):
        digests = manifest.checkpoints.get(replicate, {})
        for kind, place in places.items():
            file = checkpoints.path_of(path, replicate, place)
            readers[f"{kind}-r{replicate}"] = partial(_of_dense, file, digests.get(place, ""))
    return readers


def _kept(path: Path, source: Study, asked: float | str | None) -> list[Cell]:
    """Return the tickets of one k whose thresholds were kept in all of the first replicates."""
    tickets = Tickets(Folder(path))
    cells = [c for c in source.grid.cells() if c.arm == "ticket" and tickets.are_there(c)]
    if not cells:
        raise InputError(
            f"the run in {path} kept no tickets; its own command keeps them, with `keep` all: what "
            f"is done is trained again, in the same bits, and its results stay as they are"
        )
    ks = sorted({cell.rewind_epoch for cell in cells}, key=number)
    try:
        k = ks[0] if asked is None else rewind(asked)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"`rewind_epoch` takes {KS}; got {asked!r}") from None
    if k not in ks or (asked is None and len(ks) > 1):
        raise InputError(
            f"the run in {path} kept tickets of the rewind epochs {listed(ks)}; say which one is "
            f"meant, with `rewind_epoch` (--set source.rewind_epoch={ks[0]})"
        )
    of = {(c.replicate, c.threshold): c for c in cells if c.rewind_epoch == k}
    replicates = [*range(source.grid.replicates)]
    while replicates and not any(of_r == replicates[-1] for of_r, _ in of):
        replicates.pop()
    whole = [t for t in source.grid.thresholds if all((r, t) in of for r in replicates)]
    if not whole:
        raise InputError(
            f"of no threshold did the run in {path} keep the tickets of all replicates up to "
            f"{replicates[-1]}; its own command keeps them, with `keep` all"
        )
    return [of[r, t] for r in replicates for t in whole]


def _of_file(path: Path) -> _Found:
    if not path.exists():
        raise InputError(
            f"there is nothing at {path}; give the folder of a run, or the file of a ticket, as "
            f"`ticket`"
        )
    ticket, about = read(path)
    beside = path.with_name(path.name.removesuffix(SUFFIX) + REWOUND)
    try:
        study, cell = about["study"], about["cell"]
        threshold = float(cell["threshold"])
        names = study["name"], study["data"]["name"], study["pruning"]["by"]
        arm = cell["arm"]
        rewind(cell["rewind_epoch"])
        if not all(isinstance(name, str) for name in names):
            raise TypeError("names are text")
        if arm == "ticket" and not ticket.mask:
            raise ValueError("it has no mask")
    except (TypeError, ValueError, LookupError, OverflowError):
        raise InputError(f"{path} does not say which ticket of which study it is") from None
    if arm != "ticket":
        raise InputError(
            f"{path} is of the arm {arm}, which is no ticket; give the file of one, or the folder "
            f"of a run, as `ticket`"
        )
    if not beside.exists():
        raise InputError(
            f"what {path.name} was trained from does not lie beside it, as {beside.name}; the "
            f"command of its run keeps it, with `keep` and `keep_rewound`"
        )
    at = f"-t{threshold:.12g}"
    readers: Readers = {
        f"ticket{at}": lambda: _in_float32(read(path)[0]),
        f"rewound{at}": lambda: _alone(read_rewound(beside, ticket.mask)[0]),
    }
    return _Found(about, _named(path, about, readers), [threshold], WITHOUT_DENSE)


def _named(path: Path, about: About, readers: Readers) -> dict[str, str]:
    """Return the digests of files of a source, each of which is read once, and fits its network."""
    files = dict[str, str]()
    for name, reader in readers.items():
        ticket = reader()
        require_valid(path, about, ticket.origin.weights)
        files[name] = digest_of(ticket)
        given(files[name], reader)
    return files


def _of_cell(tickets: Tickets, cell: Cell) -> Ticket:
    return _in_float32(tickets.load(cell))


def _start_of(tickets: Tickets, cell: Cell) -> Ticket:
    return _alone(tickets.read_rewound(cell, tickets.load(cell).mask) or {})


def _of_dense(path: Path, digest: str) -> Ticket:
    return _alone(checkpoints.load(path, digest).weights)


def _alone(weights: dict[str, torch.Tensor]) -> Ticket:
    return _in_float32(Ticket(Checkpoint(0, weights), {}, {}))


def _in_float32(ticket: Ticket) -> Ticket:
    """Return a ticket with exact copies of weights of 16 bits, as an export may have them."""
    weights = {
        name: of.float() if of.dtype in (torch.float16, torch.bfloat16) else of
        for name, of in ticket.origin.weights.items()
    }
    return replace(ticket, origin=Checkpoint(0, weights))
