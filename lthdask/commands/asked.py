"""What the options of a command mean together: which study, where and how it is trained."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lthdask.arms import CHILDREN
from lthdask.cluster.places import DEPLOYMENTS
from lthdask.commands.options import KEYS
from lthdask.errors import InputError, one_of
from lthdask.options import Options

if TYPE_CHECKING:
    from lthdask.study import Study

Given = Mapping[str, Any]
"""What click passes to a command: option → value."""


@dataclass(frozen=True)
class Where:
    """Where to train; only what could be used."""

    workers: tuple[int, int] | None
    cluster: Path | None
    deploy: str | None
    scheduler: str | None

    @classmethod
    def of(cls, given: Given) -> "Where":
        """Read the options of `where_to_train`.

        Raises
        ------
        InputError
            If the number of workers or the deployment cannot be one.
        """
        cluster = _cluster_file(given["cluster"], given["deploy"])
        return cls(_worker_count(given["workers"]), cluster, given["deploy"], given["scheduler"])


def how_to_train(given: Given) -> Options:
    """Return the options of a run, as far as the command has them.

    Raises
    ------
    InputError
        If one of them is out of its range.
    """
    return Options(**{f.name: given[f.name] for f in fields(Options) if f.name in given})


def asked_study(given: Given) -> "Study":
    """Return the study that the options of `whole_study` describe.

    Raises
    ------
    InputError
        If there is no such study, or a key or value of it is impossible.
    """
    from lthdask.study import Study

    keys = {key: str(given[name]) for name, key in KEYS.items() if given[name] is not None}
    more = changes(given["settings"])
    if twice := [key for key in more if key in keys]:
        option = next(name for name, key in KEYS.items() if key == twice[0])
        raise InputError(f"{twice[0]} is given twice, with --{option.replace('_', '-')} and --set")
    asked = Study.read(given["study"], given["code"])
    if given["ticket"] is not None:
        from lthdask.reading import value_of
        from lthdask.storage.transfer import transfer

        k = more.pop("source.rewind_epoch", None)
        k = None if k is None else value_of(k, False, "source.rewind_epoch")
        asked = transfer(asked, given["ticket"], k)
        for key in more:
            if key.startswith("source.") or key == "pruning.by":
                raise InputError(f"{key} is said by the tickets; leave it out")
    asked = asked.changed(keys | more)
    if not given["stability"]:
        return asked
    arms = dict.fromkeys([*asked.grid.arms, *CHILDREN])
    return asked.changed({"grid.arms": ",".join(arms)})


def _worker_count(text: str | None) -> tuple[int, int] | None:
    """Return the least and the most workers of ``--workers``."""
    if text is None:
        return None
    if not (found := re.fullmatch(r"(-?\d{1,9})(?:\.\.(-?\d{1,9}))?", text.strip(), re.ASCII)):
        raise InputError(f"`workers` must be a number, or MIN..MAX; got {text!r}")
    least, most = int(found[1]), int(found[2] or found[1])
    if not 1 <= least <= most:
        raise InputError(f"`workers` must be 1 or more, and MIN not above MAX; got {text}")
    return least, most


def changes(settings: tuple[str, ...]) -> dict[str, str]:
    """Return the keys and values of ``--set``."""
    found = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set takes KEY=VALUE; got {setting!r}")
        if key.strip() in found:
            raise InputError(f"--set: {key.strip()} is given twice")
        found[key.strip()] = value.strip()
    return found


def _cluster_file(cluster: Path | None, deploy: str | None) -> Path | None:
    """Return the cluster file, given or lying here; refuse an unknown deployment."""
    if deploy is not None and deploy not in DEPLOYMENTS:
        raise one_of("deployment", deploy, DEPLOYMENTS)
    here = Path("cluster.yaml")
    return here if cluster is None and here.is_file() else cluster
