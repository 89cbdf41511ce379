"""Whether states of unfinished runs, final weights and kept tickets are as they were written."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from lthdask import growing
from lthdask.checks.damage import Damage, problem_of
from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.lottery.ticket import Ticket
from lthdask.storage import checkpoints
from lthdask.storage.cube import Cube
from lthdask.storage.files import read_json, write_whole
from lthdask.storage.folder import Folder
from lthdask.storage.identity import run_of
from lthdask.storage.meanings import LAYERS
from lthdask.storage.schema import Status
from lthdask.storage.ticket_file import About, read, read_rewound
from lthdask.storage.tickets import Tickets
from lthdask.study import Study

AGAIN = "a run that is to `keep` it makes it again"


def damaged_attempts(folder: Folder) -> Iterator[Damage]:
    """Find records of attempts that were made for another run."""
    for file in sorted(folder.runs.files("attempt-")):
        if (whose := read_json(file).get("run", file.parent.name)) != file.parent.name:
            what, remedy = str(file.relative_to(folder.path)), "it is emptied; nothing is trained"
            yield Damage(what, f"it is that of {whose}", remedy, partial(write_whole, file, b"{}"))


def damaged_states(folder: Folder, identity: str) -> Iterator[Damage]:
    """Find states of unfinished runs, and final weights, that are damaged, or of other runs."""
    files = [*folder.runs.files("state-"), *folder.runs.files("final.")]
    for file in sorted(files):
        try:
            checkpoints.load_state(file, run_of(identity, file.parent.name))
        except FileNotFoundError:
            continue  # the run has ended meanwhile
        except InputError:
            remedy = f"{file.parent.name} is trained again from its other state"
            if file.name == "final.safetensors":
                remedy = f"{file.parent.name} is trained again, if other cells still wait for it"
            mend = partial(file.unlink, missing_ok=True)
            yield Damage(str(file.relative_to(folder.path)), problem_of(file), remedy, mend)


def damaged_tickets(
    folder: Folder, sound: Cube, cells: Sequence[Cell], study: Study
) -> Iterator[Damage]:
    """Find kept tickets that are damaged, missing, of another study, or do not fit the results."""
    tickets, known = Tickets(folder), {str(cell): cell for cell in cells}
    for name in sorted(tickets.names()):
        if name in known:
            yield from _damaged_ticket(tickets, sound, known, known[name], study)
        else:
            yield _foreign(f"tickets/{name}", "this study has no such cell")


def _damaged_ticket(
    tickets: Tickets, sound: Cube, known: Mapping[str, Cell], cell: Cell, study: Study
) -> Iterator[Damage]:
    recorded, ticket = tickets.recorded(cell), None
    if record := tickets.record_of_others(cell):
        what = str(record.relative_to(tickets.folder.path))
        yield Damage(what, "it is that of another cell", AGAIN, partial(tickets.drop, cell))
        return
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
        if _kept_of(tickets, known, about) not in (None, cell):
            yield Damage(what, f"it is that of {about['name']}", AGAIN, mend)
        elif "study" in about and not _is_of(about["study"], study):
            yield _foreign(what, "it is of another study")
        elif about["digest"] != recorded.get(file.name):
            if recorded or sound.status(cell) is Status.DONE:  # else its training was broken off
                yield _foreign(what, "this study did not write it")
        elif ticket and not _fits(ticket, sound, cell):
            problem = "its mask does not fit the density that the results have of the cell"
            yield Damage(what, problem, AGAIN, mend)


def _kept_of(tickets: Tickets, known: Mapping[str, Cell], about: About) -> Cell | None:
    """Return the cell that this study kept a file of, by what it says; None if it did not."""
    cell = known.get(str(about.get("name")))
    return cell if cell and about["digest"] in tickets.recorded(cell).values() else None


def _is_of(written: Any, study: Study) -> bool:
    """Return whether a study is the same, whatever lies along the axes of its grid."""
    try:
        return not growing.differences(Study.from_dict(written), study)
    except InputError:
        return False


def _fits(ticket: Ticket, sound: Cube, cell: Cell) -> bool:
    """Return whether each layer has the density that was counted when the cell was trained."""
    found = sound.read(cell)[0]
    layers = found.get("layers")
    if layers is None or sound.status(cell) is not Status.DONE:
        return True
    if sound.strangers(str(cell), found):  # which is said of the cell
        return True
    counted: list[float] = layers[:, list(LAYERS).index("density")].tolist()
    weights = [ticket.origin.weights[name] for name in sound.axis("layer")]
    return counted == [int(weight.count_nonzero()) / weight.numel() for weight in weights]


def _foreign(what: str, problem: str) -> Damage:
    return Damage(what, problem, "it is left alone; move it elsewhere")
