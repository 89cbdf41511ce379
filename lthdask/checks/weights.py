"""Whether states of unfinished runs, final weights and kept tickets are as they were written."""

from collections.abc import Iterator, Sequence
from functools import partial

from lthdask.checks.damage import Damage, problem_of
from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.lottery.ticket import Ticket
from lthdask.storage import checkpoints
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.meanings import LAYERS
from lthdask.storage.schema import Status
from lthdask.storage.tickets import Tickets, read, read_rewound

AGAIN = "a run that is to `keep` it makes it again"


def damaged_states(folder: Folder) -> Iterator[Damage]:
    """Find damaged states of unfinished runs."""
    files = [*folder.path.glob("cells/*/state-*.safetensors")]
    for file in sorted([*files, *folder.path.glob("cells/*/final.safetensors")]):
        try:
            checkpoints.load_state(file)
        except FileNotFoundError:
            continue  # the run has ended meanwhile
        except InputError:
            remedy = f"{file.parent.name} is trained again from its other state"
            if file.name == "final.safetensors":
                remedy = f"{file.parent.name} is trained again, if other cells still wait for it"
            mend = partial(file.unlink, missing_ok=True)
            yield Damage(str(file.relative_to(folder.path)), problem_of(file), remedy, mend)


def damaged_tickets(folder: Folder, sound: Cube, cells: Sequence[Cell]) -> Iterator[Damage]:
    """Find kept tickets that are damaged, missing, of another study, or do not fit the results."""
    tickets, known = Tickets(folder), {str(cell): cell for cell in cells}
    for name in sorted(tickets.names()):
        if name in known:
            yield from _damaged_ticket(tickets, sound, known[name])
        else:
            yield _foreign(f"tickets/{name}", "this study has no such cell")


def _damaged_ticket(tickets: Tickets, sound: Cube, cell: Cell) -> Iterator[Damage]:
    recorded, ticket = tickets.recorded(cell), None
    for file in (tickets.trained(cell), tickets.rewound(cell)):
        what, mend = f"tickets/{file.name}", partial(tickets.remove, cell, file)
        if not file.exists():
            if file.name in recorded:
                yield Damage(what, problem_of(file), AGAIN, mend)
            continue
        try:
            if file == tickets.trained(cell):
                ticket, about = read(file)
            elif ticket:
                _, about = read_rewound(file, ticket.mask)
            else:
                continue
        except InputError:
            yield Damage(what, problem_of(file), AGAIN, mend)
            continue
        if about["digest"] != recorded.get(file.name):
            if recorded or sound.status(cell) is Status.DONE:  # else its training was broken off
                yield _foreign(what, "this study did not write it")
        elif ticket and not _fits(ticket, sound, cell):
            problem = "its mask does not fit the density that the results have of the cell"
            yield Damage(what, problem, AGAIN, mend)


def _fits(ticket: Ticket, sound: Cube, cell: Cell) -> bool:
    """Return whether each layer has the density that was counted when the cell was trained."""
    layers = sound.read(cell)[0].get("layers")
    if layers is None or sound.status(cell) is not Status.DONE:
        return True
    counted: list[float] = layers[:, list(LAYERS).index("density")].tolist()
    weights = [ticket.origin.weights[name] for name in sound.axis("layer")]
    return counted == [int(weight.count_nonzero()) / weight.numel() for weight in weights]


def _foreign(what: str, problem: str) -> Damage:
    return Damage(what, problem, "it is left alone; move it elsewhere")
