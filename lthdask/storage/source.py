"""What a study's folder takes over of its source, the study that its tickets come from.

source/<name>.safetensors    what `lthdask.source.Source.files` names, in the form of kept tickets
"""

from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from lthdask.errors import InputError
from lthdask.lottery.ticket import Ticket
from lthdask.lottery.transferred import head_of, require_fit
from lthdask.source import Source
from lthdask.storage.folder import Folder
from lthdask.storage.ticket_file import SUFFIX, mask_digest, read, write
from lthdask.study import Study

_known: dict[str, Callable[[], Ticket]] = {}
"""Digest → what reads it where it was given to this process."""


def given(digest: str, reader: Callable[[], Ticket]) -> None:
    """Note where a file of a source can be read in this process."""
    _known[digest] = reader


def digest_of(ticket: Ticket) -> str:
    """Return the beginning of the SHA-256 of weights and mask."""
    both = f"{ticket.origin.digest()} {mask_digest(ticket.mask)}"
    return sha256(both.encode()).hexdigest()[:16]


def require(study: Study, folder: Folder, known: tuple[tuple[int, ...], int] | None = None) -> None:
    """Refuse a study whose source was given to another process, unless its folder has it.

    Parameters
    ----------
    study : Study
    folder : Folder
    known : tuple of shape and int, optional
        The shape of an input and the number of classes. Then what does not fit is refused, too.

    Raises
    ------
    InputError
        If it is so.
    """
    if not study.source:
        return
    for name, digest in study.source.files.items():
        reader = _known.get(digest)
        ticket = reader() if reader else load(folder, study.source, name)
        if known:
            shape, classes = known
            new = has_new_head(study, classes)
            head = head_of(study.network, shape, classes) if new else frozenset[str]()
            require_fit(study.source, ticket.origin.weights, study.network, shape, head, classes)


def has_new_head(study: Study, classes: int) -> bool:
    """Return whether the classes are others than those of the source."""
    source = study.source
    return source is not None and (source.data, source.classes) != (study.data.name, classes)


def take_over(study: Study, folder: Folder) -> None:
    """Copy into a study's folder what it needs of its source and does not have yet."""
    for name, digest in (study.source.files if study.source else {}).items():
        if digest in _known and not is_kept(folder, name, digest):
            ticket = _known[digest]()
            folder.source.mkdir(exist_ok=True)
            write(_path(folder, name), ticket.origin.weights, ticket.mask, {"name": name})


def load(folder: Folder, source: Source, name: str) -> Ticket:
    """Return what a study's folder has of its source, by its name.

    Raises
    ------
    InputError
        If it is missing, damaged, or another one.
    """
    return _loaded(_path(folder, name), source.files[name], source.study)


def is_kept(folder: Folder, name: str, digest: str) -> bool:
    """Return whether the folder of a study has this file of its source, whole."""
    try:
        return digest_of(read(_path(folder, name))[0]) == digest
    except InputError:
        return False


@lru_cache(maxsize=8)
def _loaded(path: Path, digest: str, study: str) -> Ticket:
    problem = "it is another one"
    try:
        ticket, _ = read(path)
        if digest_of(ticket) == digest:
            return ticket
    except InputError as error:
        problem = str(error)
    raise InputError(
        f"the folder lacks what it took over of the study {study} ({problem}); give its run, or "
        f"the file of its ticket, again as `ticket`"
    )


def _path(folder: Folder, name: str) -> Path:
    return folder.source / f"{name}{SUFFIX}"
