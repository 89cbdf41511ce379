"""The source of a transfer: the study whose tickets are trained on the data of another."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from lthdask.arguments import block
from lthdask.arms import ARMS
from lthdask.errors import InputError, listed
from lthdask.own import is_own, plain

KINDS = {
    "rewound": ("early", "rewound"),
    "final": ("final",),
    "trained": ("ticket",),
    "new": (),
}
"""Start of an arm → the kinds of files that have it, the first one best."""
NAMES = {
    "ticket": "a rewound ticket: ",
    "trained_ticket": "a trained ticket: ",
    "dense_pretrained": "the pretrained dense network: ",
}
STARTS = {
    "rewound": "the weights that tickets were trained from there",
    "final": "the final weights of the dense network there",
    "trained": "the trained weights of the ticket",
    "new": "a new initialisation",
}
MASKS = {
    "ticket": "under the ticket's mask",
    "random": "under a random mask with the ticket's count in each layer",
    "none": "without a mask",
}
NAME = re.compile(r"(ticket|early|final|rewound)(-r\d{1,9})?(-t[\d.e-]{1,20})?", re.ASCII)
DIGEST = re.compile("[0-9a-f]{16}")


@block
@dataclass(frozen=True)
class Source:
    """Where the tickets of a study come from that draws none of its own.

    Parameters
    ----------
    study, data : str
        The name of the other study, and that of its data set.
    input : tuple of int
        Shape of one of its inputs.
    classes : int
        How many it has.
    rewind_epoch : int, float or str
        The k of its tickets.
    files : mapping of str to str
        What is taken over of it → digest: ``ticket-r0-t0.9``, trained weights and mask;
        ``early-r0`` and ``final-r0``, the dense run at k and at its end, or, of a study that is a
        transfer itself, ``rewound-r0-t0.9``, what the ticket was trained from. Of the file of one
        ticket, which all replicates have: ``ticket-t0.9`` and ``rewound-t0.9``.
    """

    study: str
    data: str
    input: tuple[int, ...]
    classes: int
    rewind_epoch: Any
    files: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name, digest in self.files.items():  # which become part of paths
            if not (NAME.fullmatch(name) and DIGEST.fullmatch(digest)):
                raise ValueError(
                    f"files are a name, such as ticket-r0-t0.9, and a digest; got {name}: {digest}"
                )

    @property
    def is_one(self) -> bool:
        """Whether it is a single ticket, which all replicates have."""
        return is_one(self.files)

    def ticket_of(self, replicate: int, threshold: float) -> str:
        """Return the file that has the mask of a cell, and the trained weights.

        Raises
        ------
        InputError
            If there is none.
        """
        if name := self._file(("ticket",), replicate, threshold):
            return name
        if self.is_one:
            raise InputError(
                f"the one ticket of {self.study} is {listed(self.files)}, and there is none at the "
                f"threshold {threshold:g}; give the folder of its run as `ticket`"
            )
        raise InputError(
            f"no ticket of {self.study} was given for replicate {replicate} at the threshold "
            f"{threshold:g}; ask for fewer, or give a run that kept it as `ticket`"
        )

    def start_of(self, arm: str, replicate: int, threshold: float) -> str | None:
        """Return the file that has the weights that a cell starts from; None if they are new.

        Raises
        ------
        InputError
            If there is none.
        """
        kinds = KINDS[ARMS[arm].start]
        if ARMS[arm].mask != "ticket":  # what was rewound has no weight outside its own mask
            kinds = tuple(kind for kind in kinds if kind != "rewound")
        name = self._file(kinds, replicate, threshold)
        if kinds and not name:
            raise InputError(
                f"the arm {arm} starts from dense weights of {self.study}, which neither the file "
                f"of a ticket has, nor a run whose tickets come from another study; give the "
                f"folder of the run that drew the ticket as `ticket`, or leave the arm out"
            )
        return name

    def _file(self, kinds: Sequence[str], replicate: int, threshold: float) -> str | None:
        of, at = f"-r{replicate}", f"-t{threshold:.12g}"
        names = (f"{kind}{which}" for kind in kinds for which in (of + at, of, at))
        return next((name for name in names if name in self.files), None)

    def for_grid(self, axes: Mapping[str, Sequence[Any]]) -> "Source":
        """Return the source with the files that a grid needs, and no others.

        Raises
        ------
        InputError
            If one is not there, an arm means nothing in a transfer, or k is not 0 alone.
        """
        if odd := [arm for arm in axes["arm"] if arm not in transferable()]:
            raise InputError(
                f"the arm {odd[0]} means nothing with tickets of another study; there are "
                f"{listed(transferable())}"
            )
        if list(axes["rewind_epoch"]) != [0]:
            raise InputError(
                "tickets of another study are trained for all epochs, so the only one of "
                "rewind_epochs is 0; which k they have there is said by source.rewind_epoch"
            )
        needed = dict.fromkeys(
            name
            for arm, replicate, threshold in product(
                axes["arm"], axes["replicate"], axes["threshold"]
            )
            for name in (
                self.ticket_of(replicate, threshold),
                self.start_of(arm, replicate, threshold),
            )
            if name
        )
        return replace(self, files={name: self.files[name] for name in sorted(needed)})


def transferable() -> list[str]:
    """Return the arms that can start from the tickets of another study."""
    return [
        name
        for name, arm in ARMS.items()
        if arm.start in KINDS and not arm.reordered and not is_own(name)
    ]


def meaning(arm: str) -> str:
    """Return what an arm is that starts from another study, where `ARMS` speaks of its own.

    Examples
    --------
    >>> meaning("reinit")
    "a new initialisation under the ticket's mask"
    """
    start, mask = STARTS[ARMS[arm].start], MASKS[ARMS[arm].mask]
    rate = ", at the rate for fine-tuning" if ARMS[arm].fine_tuned else ""
    return f"{NAMES.get(arm, '')}{start} {mask}{rate}"


def is_one(files: Mapping[str, str]) -> bool:
    """Return whether files of a source are those of one ticket."""
    return bool(files) and not any("-r" in name for name in files)


def in_words(source: Mapping[str, Any]) -> str:
    """Return what a reader of results has to know of the source of a study."""
    k, data = source["rewind_epoch"], plain(source["data"])
    of = f"the study {source['study']} ({data}, k={k})"
    if is_one(source["files"]):
        tickets = [name for name in source["files"] if name.startswith("ticket")]
        one, alone = "one ticket", "that ticket"
        if len(tickets) > 1:
            one, alone = "one ticket at each threshold", "those tickets"
        return (
            f"all replicates have {one} of {of}: what is shown here is shown of {alone} alone, and "
            f"of no other"
        )
    return f"each replicate has the tickets of its own replicate of {of}"
