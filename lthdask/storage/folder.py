"""The folder of a study: what it is, and how it was computed.

runs/<name>/
    study.yaml      the study as resolved
    skipped.json    why cells were skipped, if any were
    manifest.json   versions, engine, host, axes, what was found of the data, every digest
    checkpoints/    of the dense runs
    cells/          of each run: its attempts, and its state (`lthdask.storage.runs`)
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
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lthdask.errors import InputError, as_path, forbidden, may, permitted
from lthdask.storage.files import read_json, write_whole
from lthdask.storage.manifest import Manifest
from lthdask.storage.runs import Runs


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
        self.runs = Runs(self.path / "cells")
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
        if self.path.name == self.cube.name:
            raise InputError(
                f"{self.path} has the name of the results in a study's folder; choose another one "
                f"with `out`"
            )
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
                file = os.path.join(place, name)
                if name[0] != "." and not may(file, os.R_OK) and os.path.exists(file):
                    raise forbidden(Path(file))

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

    def write_skipped(self, reasons: Mapping[str, str], before: Collection[str] = ()) -> None:
        """Keep why cells were skipped: name of the cell → reason; and of those skipped `before`."""
        known = read_json(self._skipped) if before else {}
        reasons = {name: why for name, why in known.items() if name in before} | dict(reasons)
        write_whole(self._skipped, (json.dumps(reasons, indent=2) + "\n").encode())
