"""The folder of a study: what it is, how it was computed, and how often a cell was tried.

runs/<name>/
    study.yaml      the study as resolved
    manifest.json   versions, engine, host, digest of every checkpoint
    checkpoints/    of the dense runs
    cells/          one small file per attempt at a cell
    results.zarr    the results
"""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lthdask.errors import InputError
from lthdask.storage.files import write_whole


class Folder:
    """The folder of one study.

    Parameters
    ----------
    path : Path
        Need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.cube = self.path / "results.zarr"
        self._study = self.path / "study.yaml"
        self._manifest = self.path / "manifest.json"

    def check(self) -> None:
        """Check, without writing anything, that this can be the folder of a study.

        Raises
        ------
        InputError
            If it cannot be written, or holds something that is not a study.
        """
        there = next(p for p in (self.path, *self.path.parents) if p.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            reason = "may not be written" if there.is_dir() else "is not a folder"
            raise InputError(
                f"cannot write to the folder {self.path}: {there} {reason}; "
                f"give another one with --out"
            )
        holds = [p for p in self.path.iterdir() if p.name[0] != "."] if there == self.path else []
        if holds and self.study() is None:
            raise InputError(
                f"the folder {self.path} holds something else than a study, such as "
                f"{holds[0].name}; give another one with --out"
            )

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
            self._leave_word().unlink()
        except OSError as error:
            raise InputError(
                f"cannot write to the folder {self.path}: {error.strerror}; "
                f"give another one with --out"
            ) from None

    def leave_word(self) -> str:
        """Write a small file and return its name, for a worker to :meth:`find_word`."""
        return self._leave_word().name

    def find_word(self, name: str) -> bool:
        """Return whether the file is seen from here, and remove it."""
        try:
            (self.path / name).unlink()
        except FileNotFoundError:
            return False
        return True

    def _leave_word(self) -> Path:
        word = self.path / f".word-{secrets.token_hex(8)}"
        word.touch()
        return word

    def study(self) -> str | None:
        """Return the study of the folder as YAML, None if it holds none yet."""
        try:
            return self._study.read_text()
        except FileNotFoundError:
            return None

    def write_study(self, text: str) -> None:
        """Write the study as YAML."""
        write_whole(self._study, text.encode())

    def manifest(self) -> dict[str, Any]:
        """Return how the study was computed; empty if it was not begun.

        Raises
        ------
        InputError
            If the file is damaged.
        """
        try:
            found = json.loads(self._manifest.read_text())
        except FileNotFoundError:
            return {}
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise InputError(f"{self._manifest} is damaged: it is not a JSON object")
        return found

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write how the study was computed."""
        write_whole(self._manifest, (json.dumps(manifest, indent=2) + "\n").encode())

    def begin_attempt(self, cell: object, about: Mapping[str, Any]) -> int:
        """Record that a cell is being trained, and return which attempt this is, from 1."""
        place = self.path / "cells" / str(cell)
        place.mkdir(parents=True, exist_ok=True)
        number = 1 + sum(1 for _ in place.glob("attempt-*.json"))
        while True:
            try:
                handle = os.open(
                    place / f"attempt-{number}.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL
                )
                break
            except FileExistsError:
                number += 1
        with os.fdopen(handle, "w") as file:
            json.dump(about, file)
        return number

    def write_traceback(self, cell: object, text: str) -> None:
        """Keep the reason why a cell failed."""
        place = self.path / "cells" / str(cell)
        place.mkdir(parents=True, exist_ok=True)
        write_whole(place / "traceback.txt", text.encode())
