"""The folder of a study: what it is, how it was computed, and how often a cell was tried.

runs/<name>/
    study.yaml      the study as resolved
    skipped.json    why cells were skipped, if any were
    manifest.json   versions, engine, host, axes, what was found of the data, every digest
    checkpoints/    of the dense runs
    cells/          one small file per attempt at a run, and the state of unfinished ones
    tickets/        the tickets that are kept
    results.zarr    the results
    code/           the files of code of one's own, if the study has any
    masks/          the masks that it was given, if it was
    source/         what it has of another study, if its tickets come from there
    log.txt         what the commands that ran the study said
"""

import json
import os
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from lthdask.errors import ExhaustedError, InputError, as_path, forbidden, may, permitted
from lthdask.storage.files import read_json, write_whole
from lthdask.storage.manifest import Manifest


class Folder:
    """The folder of one study.

    Parameters
    ----------
    path : Path
        The folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = as_path(path).absolute()
        self.cube = self.path / "results.zarr"
        self.log = self.path / "log.txt"
        self.code = self.path / "code"
        self.masks = self.path / "masks"
        self.source = self.path / "source"
        self._study = self.path / "study.yaml"
        self._manifest = self.path / "manifest.json"
        self._skipped = self.path / "skipped.json"

    def check(self) -> None:
        """Check, without writing anything, that this can be the folder of a study.

        Raises
        ------
        InputError
            If it cannot be written, or holds something that is not a study.
        """
        with permitted(self.path):
            there = next(p for p in (self.path, *self.path.parents) if os.path.lexists(p))
        if not there.is_dir() or not may(there, os.W_OK | os.X_OK):
            reason = "is not writable" if there.is_dir() else "is not a folder"
            raise InputError(
                f"cannot write to the folder {self.path}: {there} {reason}; "
                f"choose another folder with `out`"
            )
        self.require_writable()
        inside = [*self.path.iterdir()] if there == self.path else []
        before = (self.log, self.code, self.masks, self.source)
        holds = [path for path in inside if path.name[0] != "." and path not in before]
        if self._manifest in holds and self.study() is None:
            raise InputError(
                f"{self._study} is missing; `lthdask check {self.path} --repair` writes its copy, "
                f"which results.zarr has"
            )
        if holds and self.study() is None:
            raise InputError(
                f"the folder {self.path} contains something other than a study, such as "
                f"{holds[0].name}; choose another folder with `out`"
            )

    def require_writable(self) -> None:
        """Refuse a folder that this user may not write, or with such a part of a study.

        Raises
        ------
        ForbiddenError
            It names the first one.
        """
        parts = ("cells", "checkpoints", "checkpoints/*", "tickets", "code", "masks", "source")
        inside = (*parts, "results.zarr", "results.zarr/*", "results.zarr/*/c")
        for place in (self.path, *(place for part in inside for place in self.path.glob(part))):
            if place.is_dir() and not may(place, os.W_OK | os.X_OK):
                raise forbidden(place)

    def require_readable(self) -> None:
        """Refuse a folder with anything that this user may not read; what is hidden is not asked.

        Raises
        ------
        ForbiddenError
            It names the first one.
        """

        def refuse(error: OSError) -> None:
            if isinstance(error, PermissionError):  # the rest has just been removed
                raise forbidden(Path(error.filename))

        for place, folders, files in os.walk(self.path, onerror=refuse):
            for name in (*folders, *files):
                file = Path(place, name)
                if name[0] != "." and not may(file, os.R_OK) and file.exists():
                    raise forbidden(file)

    def make(self) -> None:
        """Make the folder.

        Raises
        ------
        InputError
            If it cannot be made, or nothing can be written into it.
        """
        self.check()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._leave_probe().unlink()
        except OSError as error:
            raise InputError(
                f"cannot write to the folder {self.path}: {error.strerror}; "
                f"choose another folder with `out`"
            ) from None

    @contextmanager
    def probe(self) -> Iterator[str]:
        """Yield the name of a small file in the folder, for workers to :meth:`sees`."""
        file = self._leave_probe()
        try:
            yield file.name
        finally:
            file.unlink(missing_ok=True)

    def sees(self, name: str) -> bool:
        """Return whether the file is visible from here; it may take a second look."""
        return (self.path / name).exists()

    def _leave_probe(self) -> Path:
        probe = self.path / f".probe-{secrets.token_hex(8)}"
        probe.touch()
        return probe

    def study(self) -> str | None:
        """Return the study of the folder as YAML, None if it holds none yet."""
        try:
            return self._study.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except PermissionError:
            raise
        except (OSError, UnicodeDecodeError):
            raise InputError(f"{self._study} is damaged: it cannot be read as text") from None

    def write_study(self, text: str) -> None:
        """Write the study as YAML."""
        write_whole(self._study, text.encode())

    def write_code(self, files: Mapping[str, bytes]) -> None:
        """Write the files of code of one's own, for workers to run: name → what it holds."""
        self._write(self.code, files)

    def write_masks(self, files: Mapping[str, bytes]) -> None:
        """Write the masks that a study is given, for workers to read: name → what it holds."""
        self._write(self.masks, files)

    def _write(self, place: Path, files: Mapping[str, bytes]) -> None:
        for name, content in files.items():
            place.mkdir(exist_ok=True)
            write_whole(place / name, content)

    def manifest(self) -> Manifest | None:
        """Return how the study was computed; None if it was not begun.

        Raises
        ------
        InputError
            As for :meth:`Manifest.read`.
        """
        return Manifest.read(self._manifest)

    def dense_runs(self) -> int:
        """Return how many dense runs are trained, by the manifest.

        Raises
        ------
        InputError
            As for :meth:`Manifest.read`.
        """
        return Manifest.dense_runs(self._manifest)

    def write_manifest(self, manifest: Manifest) -> None:
        """Write how the study was computed."""
        manifest.write(self._manifest)

    def leave_whole(self, study: str, manifest: Manifest) -> None:
        """Write study and manifest again, if somebody has removed or damaged them meanwhile."""
        try:
            there = self.study() is not None and self.manifest() is not None
        except InputError:
            there = False
        if not there:
            self.write_study(study)
            self.write_manifest(manifest)

    def of_run(self, name: object) -> Path:
        """Return where the run of a cell, or a dense run, keeps its attempts and its state."""
        return self.path / "cells" / str(name)

    def final(self, cell: object) -> Path:
        """Return where a cell's final weights lie for as long as others need them."""
        return self.of_run(cell) / "final.safetensors"

    def remove_finals(self, needed: Iterable[object]) -> None:
        """Remove the final weights of all cells but those that are needed."""
        kept = {self.final(cell) for cell in needed}
        for file in self.files_of_runs("final.safetensors"):
            if file not in kept:
                file.unlink(missing_ok=True)

    def remove_states(self, done: Iterable[object]) -> None:
        """Remove the states of runs that are done.

        A worker that dies after writing a cell's results may leave its state behind.
        """
        names = set(map(str, done))
        for file in self.files_of_runs("state-"):
            if file.parent.name in names:
                file.unlink(missing_ok=True)

    def write_skipped(self, reasons: Mapping[str, str], before: Collection[str] = ()) -> None:
        """Keep why cells were skipped: name of the cell → reason; and of those skipped `before`."""
        known = read_json(self._skipped) if before else {}
        reasons = {name: why for name, why in known.items() if name in before} | dict(reasons)
        write_whole(self._skipped, (json.dumps(reasons, indent=2) + "\n").encode())

    def begin_attempt(self, name: object, about: Mapping[str, Any], most: int) -> int:
        """Record that a run is being trained, and return which attempt this is, from 1.

        Parameters
        ----------
        name : object
            What names the run.
        about : mapping
            What is recorded: ``started``, ``place``, ``pid``; ``driver``, the run of the
            command; ``epoch`` and ``step``, where the attempt starts; and ``beside``, how many
            runs are trained in one step.
        most : int
            How many attempts of one driver may end where they started. One that saved a
            newer state does not count, so that preemption never uses them up.

        Raises
        ------
        ExhaustedError
            If that many attempts have.
        """
        place = self.of_run(name)
        place.mkdir(parents=True, exist_ok=True)
        before = self.attempts(name)
        ours = [attempt for attempt in before if attempt.get("driver") == about["driver"]]
        start = (about["epoch"], about["step"])
        fruitless = takewhile(lambda a: (a["epoch"], a["step"]) >= start, reversed(ours))
        # If many runs end at once, one of them may have caused it.
        beside = about.get("beside", 1)
        if (count := sum(a.get("beside", 1) <= beside for a in fruitless)) >= most:
            raise ExhaustedError(
                f"{count} attempt{'s' * (count != 1)} ended without getting further than epoch "
                f"{start[0]}, step {start[1]}; the last one ran on {ours[-1]['place']}, and its "
                f"process may have been killed, for example because it ran out of memory"
            )
        number = len(before)
        while True:
            number += 1
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                handle = os.open(place / f"attempt-{number}.json", flags, 0o666)
                break
            except FileExistsError:
                continue
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(about, file)
        return number

    def begun(self, name: object, times: int = 1) -> bool:
        """Return whether so many attempts were recorded; this is quicker than asking the cube."""
        return (self.of_run(name) / f"attempt-{times}.json").exists()

    def begun_runs(self) -> set[str]:
        """Return the names of all runs that were ever begun."""
        try:
            return set(os.listdir(self.path / "cells"))
        except FileNotFoundError:
            return set()

    def files_of_runs(self, begins: str) -> Iterator[Path]:
        """Yield the files in ``cells/`` whose names begin so, as a glob would, but quicker."""
        for run in self.begun_runs():
            with suppress(FileNotFoundError, NotADirectoryError):
                for name in os.listdir(self.of_run(run)):
                    if name.startswith(begins):
                        yield self.of_run(run) / name

    def attempts(self, name: object) -> list[dict[str, Any]]:
        """Return what is recorded of each attempt at a run, oldest first; nothing of other runs."""
        files = self.of_run(name).glob("attempt-*.json")
        found = [read_json(file) for file in sorted(files, key=lambda f: (len(f.name), f))]
        return [about if about.get("run", str(name)) == str(name) else {} for about in found]

    def fruitless(self, name: object, driver: str) -> list[dict[str, Any]]:
        """Return a driver's attempts at a run that got no further; the newest is last.

        Those that were made beside others are left out: any of them may have ended them all.
        """
        ours = [a for a in self.attempts(name) if a.get("driver") == driver and a["beside"] == 1]
        points = [(attempt["epoch"], attempt["step"]) for attempt in ours]
        reached = [*points[1:], points[-1]] if points else []
        ended = zip(ours, points, reached, strict=True)
        return [attempt for attempt, start, end in ended if end <= start]

    def unfinished(self) -> dict[str, str]:
        """Return the runs that have a saved state: name → its last attempt, in words."""
        found = {}
        states = (file for file in self.files_of_runs("state-") if file.suffix == ".safetensors")
        for name in sorted({state.parent.name for state in states}):
            attempts = self.attempts(name)
            last: dict[str, Any] = {"place": "?", "started": 0.0} | (attempts or [{}])[-1]
            found[name] = (
                f"attempt {len(attempts)}, since {_moment(last['started'])}, on {last['place']}"
            )
        return found

    def write_traceback(self, name: object, text: str) -> None:
        """Keep the reason why a run failed."""
        place = self.of_run(name)
        place.mkdir(parents=True, exist_ok=True)
        write_whole(place / "traceback.txt", text.encode(errors="backslashreplace"))

    def has_traceback(self, name: object) -> bool:
        """Return whether there is a reason why a run failed."""
        return (self.of_run(name) / "traceback.txt").exists()

    def remove_traceback(self, name: object) -> None:
        """Forget the reason: the run is tried again."""
        if self.has_traceback(name):
            (self.of_run(name) / "traceback.txt").unlink(missing_ok=True)

    def reason(self, name: object) -> str:
        """Return what a failed run raised, in one line, from its traceback; empty without one."""
        try:
            text = (self.of_run(name) / "traceback.txt").read_text(errors="replace")
        except OSError:
            return ""
        *_, last = text.rpartition("Traceback (most recent call last):\n")
        lines = [line.strip() for line in last.splitlines() if line[:1].strip()]
        # Several lines may be one message, whose first one says what was wrong.
        return lines[0].removeprefix(f"{InputError.__module__}.InputError: ") if lines else ""

    def reasons(self, failed: Iterable[object]) -> dict[str, str]:
        """Return why runs failed: what they raised → a file that ends with it."""
        files: dict[str, str] = {}
        for name in failed:
            if reason := self.reason(name):
                files.setdefault(reason, str(self.of_run(name) / "traceback.txt"))
        return files


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")
