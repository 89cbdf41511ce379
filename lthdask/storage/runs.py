"""What a folder keeps of each run, a dense one or a cell: its attempts, and why it failed.

cells/<run>/
    attempt-1.json              where and when each attempt began
    state-*.safetensors         the state that an unfinished run goes on from
    final.safetensors           a cell's last weights, for as long as others need them
    traceback.txt               why it failed
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from lthdask.errors import ExhaustedError, InputError
from lthdask.storage.files import read_json, write_whole


class Runs:
    """The runs of one study, by their names.

    Parameters
    ----------
    place : Path
        The folder ``cells`` of the study's folder; it need not exist yet.
    """

    def __init__(self, place: Path) -> None:
        self.place = place

    def of(self, name: object) -> Path:
        """Return where the run of a cell, or a dense run, keeps its attempts and its state."""
        return self.place / str(name)

    def final(self, cell: object) -> Path:
        """Return where a cell's final weights lie for as long as others need them."""
        return self.of(cell) / "final.safetensors"

    def remove_finals(self, needed: Iterable[object]) -> None:
        """Remove the final weights of all cells but those that are needed."""
        kept = {self.final(cell) for cell in needed}
        for file in self.files("final.safetensors"):
            if file not in kept:
                file.unlink(missing_ok=True)

    def remove_states(self, done: Iterable[object]) -> None:
        """Remove the states of runs that are done.

        A worker that dies after writing a cell's results may leave its state behind.
        """
        names = set(map(str, done))
        for file in self.files("state-"):
            if file.parent.name in names:
                file.unlink(missing_ok=True)

    def begin(self, name: object, about: Mapping[str, Any], most: int) -> int:
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
        place = self.of(name)
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
        return (self.of(name) / f"attempt-{times}.json").exists()

    def names(self) -> set[str]:
        """Return the names of all runs that were ever begun."""
        try:
            return set(os.listdir(self.place))
        except FileNotFoundError:
            return set()

    def files(self, begins: str) -> Iterator[Path]:
        """Yield the files in ``cells/`` whose names begin so, as a glob would, but quicker."""
        for run in self.names():
            yield from map(Path, self._inside(run, begins))

    def _inside(self, run: str, begins: str) -> list[str]:
        """Return the files of a run whose names begin so, as texts: a `Path` takes 10 µs."""
        place = f"{self.place}/{run}"
        try:
            return [f"{place}/{name}" for name in os.listdir(place) if name.startswith(begins)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def attempts(self, name: object) -> list[dict[str, Any]]:
        """Return what is recorded of each attempt at a run, oldest first; nothing of other runs."""
        name = str(name)
        files = sorted(self._inside(name, "attempt-"), key=lambda file: (len(file), file))
        found = [read_json(file) for file in files]
        return [about if about.get("run", name) == name else {} for about in found]

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
        states = (file for file in self.files("state-") if file.suffix == ".safetensors")
        for name in sorted({state.parent.name for state in states}):
            attempts = self.attempts(name)
            last: dict[str, Any] = {"place": "?", "started": 0.0} | (attempts or [{}])[-1]
            found[name] = (
                f"attempt {len(attempts)}, since {_moment(last['started'])}, on {last['place']}"
            )
        return found

    def write_traceback(self, name: object, text: str) -> None:
        """Keep the reason why a run failed."""
        place = self.of(name)
        place.mkdir(parents=True, exist_ok=True)
        write_whole(place / "traceback.txt", text.encode(errors="backslashreplace"))

    def has_traceback(self, name: object) -> bool:
        """Return whether there is a reason why a run failed."""
        return (self.of(name) / "traceback.txt").exists()

    def remove_traceback(self, name: object) -> None:
        """Forget the reason: the run is tried again."""
        if self.has_traceback(name):
            (self.of(name) / "traceback.txt").unlink(missing_ok=True)

    def reason(self, name: object) -> str:
        """Return what a failed run raised, in one line, from its traceback; empty without one."""
        try:
            text = (self.of(name) / "traceback.txt").read_text(errors="replace")
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
                files.setdefault(reason, str(self.of(name) / "traceback.txt"))
        return files


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")
