"""cluster.yaml: Dask's own configuration, read strictly.

Dask accepts any key in silence, so with a misspelt wall-time, a run uses the default one. Here
every key is checked against the defaults that Dask and dask-jobqueue ship, even in sections
that are not in use, and errors name the line.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import yaml
from dask.utils import parse_timedelta

from lthdask.cluster.ambient import require_usable
from lthdask.cluster.overrides import SETTINGS
from lthdask.cluster.places import QUEUES
from lthdask.cluster.values import NAMES, problem_of, seconds
from lthdask.errors import InputError, as_path
from lthdask.strict_yaml import composed, text_of, value_of

OURS = {
    "deployment": "auto",
    "patience": "24 hours",
    "scheduler": None,
    "checkpoint-interval": "60 seconds",
}
RENAMED = {
    "env_extra": "job_script_prologue",
    "job_extra": "job_extra_directives",
    "extra": "worker_extra_args",
}
"""Older names of lists that dask-jobqueue still has, without a word where both are given."""


@dataclass(frozen=True)
class Settings:
    """Where to train.

    Attributes
    ----------
    file : Path or None
        The file they were read from.
    deployment : str
        One of `DEPLOYMENTS`.
    patience : float
        Seconds to wait for the first worker.
    scheduler : str or None
        Address of a scheduler that runs already.
    checkpoint_interval : float
        Seconds between two saved states of a cell.
    values : dict
        The file, as Dask takes it.
    """

    file: Path | None = None
    deployment: str = "auto"
    patience: float = 86400.0
    scheduler: str | None = None
    checkpoint_interval: float = 60.0
    values: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | None) -> "Settings":
        """Read a cluster file; without one, everything is at Dask's defaults.

        Raises
        ------
        InputError
            If the file cannot be read, or anything in it is unknown or impossible. Or, file or
            not, if something is impossible that Dask is told elsewhere.
        """
        known = {name: _known()[name] for name in ("distributed", "temporary-directory")}
        require_usable(known, dask.config.config)
        if path is None:
            return cls()
        path = as_path(path)
        node = composed(text_of(path, "cluster file"), str(path))
        values = value_of(node, str(path)) if node else None
        if node is None or not isinstance(values, dict):
            raise InputError(
                f"{path}: a cluster file must be a mapping of sections, like the one that "
                f"`lthdask cluster-file` writes"
            )
        _check(path, node, _known(), "")
        given = values.get("lthdask") or {}
        given = {key.replace("_", "-"): value for key, value in given.items()}
        ours = OURS | {key: value for key, value in given.items() if value is not None}
        settings = cls(
            path.absolute(),
            ours["deployment"],
            parse_timedelta(ours["patience"]),
            ours["scheduler"],
            parse_timedelta(ours["checkpoint-interval"]),
            values,
        )
        for queue, section in (values.get("jobqueue") or {}).items():
            if section is not None:
                settings._check_lifetime(queue)
        return settings

    def queue(self, name: str) -> dict[str, Any]:
        """Return the section of a queue, with ``-`` in its keys as ``_``."""
        section = (self.values.get("jobqueue") or {}).get(name)
        if section is None:
            lack = f"{self.file} has no" if self.file else f"{name} needs a cluster file with a"
            raise InputError(
                f"{lack} section jobqueue.{name}; `lthdask cluster-file` writes such a file, "
                f"and `cluster` chooses another one"
            )
        found = {
            key.replace("-", "_"): list(map(str, value)) if isinstance(value, list) else value
            for key, value in section.items()
        }
        for old, new in RENAMED.items():  # of which dask-jobqueue takes the new one alone
            if lines := found.pop(old, None):
                found[new] = [*(found.get(new) or []), *lines]
        return found

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have Dask use what the file says, on top of what lthdask rests on."""
        if self.file:  # so that processes that are started from here read it, too
            os.environ["DASK_CONFIG"] = str(self.file)
        with dask.config.set(SETTINGS), dask.config.set(self._dasks_own()):
            yield

    def _dasks_own(self) -> dict[str, Any]:
        """Return the file's sections that are Dask's; those of queues become arguments."""
        sections = self.values.items()
        return _flat({name: part for name, part in sections if name not in ("lthdask", "jobqueue")})

    def lifetime(self, queue: str) -> tuple[float, float] | None:
        """Return after how many seconds a worker leaves, and how much earlier or later.

        It leaves a tenth of the wall-time before its job is killed, at most ten minutes. It does
        so up to half of that earlier or later, so that jobs that began together do not end
        together. ``worker-extra-args`` may say otherwise. None without a wall-time.
        """
        section = self.queue(queue)
        lines = section.get("worker_extra_args") or []
        arguments = [part for line in lines for part in str(line).split("=", 1)]
        given = dict(pairwise(arguments))
        if "--lifetime" in given:
            try:
                stagger = parse_timedelta(given.get("--lifetime-stagger", 0))
                return parse_timedelta(given["--lifetime"]), stagger
            except (KeyError, ValueError):
                raise InputError(
                    f"{self.file}: jobqueue.{queue}.worker-extra-args has a lifetime that is no "
                    f"time, such as 30 minutes; got {' '.join(lines)}"
                ) from None
        walltime = self._walltime(queue)
        if walltime is None:
            return None
        return walltime - margin(walltime), margin(walltime) // 2

    def _walltime(self, queue: str) -> int | None:
        walltime = self.queue(queue).get("walltime")
        # LSF's have no seconds.
        return seconds(f"{walltime}:00" if queue == "lsf" else walltime) if walltime else None

    def _check_lifetime(self, queue: str) -> None:
        """Refuse a checkpoint interval that ends after the worker does, and show the arithmetic."""
        life, interval = self.lifetime(queue), self.checkpoint_interval
        if life is None or interval < life[0] - life[1]:
            return
        lifetime, stagger = life
        walltime = self._walltime(queue)
        whole = f"{walltime} s of wall-time - {walltime - lifetime:g} s" if walltime else ""
        raise InputError(
            f"{self.file}: a state every {interval:g} s (lthdask.checkpoint-interval) is never "
            f"saved by workers that may leave after {lifetime - stagger:g} s (jobqueue.{queue}: "
            f"{whole or f'{lifetime:g} s'} - {stagger:g} s of staggering); shorten the interval, "
            f"or lengthen the jobs"
        )


def margin(walltime: float) -> float:
    """Return how many seconds before the end of a job its workers leave."""
    return min(walltime // 10, 600)


@cache
def _known() -> Mapping[str, Any]:
    """Return every key there is, with its default."""
    known: dict[str, Any] = {"lthdask": OURS}
    for package in ("dask", "distributed", "dask_jobqueue"):
        name = "jobqueue" if package == "dask_jobqueue" else package
        # Found without importing it: dask_jobqueue's import changes what Ctrl-C does.
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        shipped = Path(spec.origin).parent / f"{name}.yaml"
        known |= yaml.safe_load(shipped.read_text(encoding="utf-8"))
    known["jobqueue"] = {name: known["jobqueue"][name] for name in QUEUES}
    return known


def _check(path: Path, node: yaml.Node, known: Mapping[str, Any], prefix: str) -> None:
    """Check one mapping of the file against the mapping of what is known there."""
    names = {key.replace("_", "-"): key for key in known}
    seen = set[str]()
    for key_node, value_node in node.value:
        where = f"{path}, line {key_node.start_mark.line + 1}"
        key = str(key_node.value)
        name = names.get(key.replace("_", "-"))
        if name is None:
            close = get_close_matches(key, known, 1, cutoff=0.5)
            hint = f"did you mean {prefix + close[0]!r}?" if close else f"known: {_listed(known)}"
            raise InputError(f"{where}: unknown key {prefix + key!r}; {hint}")
        if name in seen:
            raise InputError(f"{where}: {prefix + name} is given twice, with - and with _")
        seen.add(name)
        default = known[name]
        names_are_free = not default or name in ("pre-spawn-environ", "default-task-durations")
        if isinstance(default, dict) and not names_are_free:
            if not isinstance(value_node, yaml.MappingNode):
                raise InputError(f"{where}: {prefix + name} must be a section of keys and values")
            _check(path, value_node, default, f"{prefix}{name}.")
        else:
            value = value_of(value_node, where)
            if name in NAMES and value is not None and str(value) != value_node.value:
                raise InputError(
                    f"{where}: {prefix + name} is a name; put quotes around it, as in "
                    f"'{value_node.value}'"
                )
            if problem := problem_of(prefix + name, value, default):
                raise InputError(f"{where}: {prefix + name} {problem}; got {value!r}")


def _listed(names: Any) -> str:
    return ", ".join(names)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested keys as dotted ones: given a nested one, Dask replaces the whole section."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
