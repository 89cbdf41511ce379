"""The manifest of a study: how it was computed, and the digests of what it rests on."""

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lthdask.data.digest import DataDigest
from lthdask.errors import InputError
from lthdask.rewinding import Place, place, rewind
from lthdask.storage.files import write_whole
from lthdask.training.engine import Engine

FORMAT = 5
"""Format of manifest and cube: it rises with every change of what lies on disk. The files of
format 1 have no number."""
EARLIER = {"matmul": "default", "evaluation": "plain"}
"""What an engine did of which nothing is written down."""
NOT_IN_CUBE = ("axes", "checkpoints", "study_digest", "format")
"""What the cube says otherwise, or not at all."""
PACKAGES = ("lthdask", "torch", "torchvision", "numpy", "dask", "distributed", "zarr", "pillow")
NUMBER = re.compile("0|[1-9][0-9]{0,8}")
PLACE = re.compile(f"(?:{NUMBER.pattern})|[1-9][0-9]{{0,8}}it")


@dataclass(frozen=True)
class Manifest:
    """How a study was computed, and what it rests on.

    Attributes
    ----------
    versions : mapping of str to str
        Package, or ``python`` → its version.
    host : str
        Where the study was begun.
    engine : Engine
        The engine, with nothing left on ``auto``.
    engine_reason : str
        Why its precision was chosen.
    study_digest : str
        SHA-256 of ``study.yaml``.
    axes : mapping of str to list
        The values along each axis of cells, in the order of the cube.
    steps : int
        Batches in an epoch; 0 where that is unknown.
    majority : float, optional
        Share of the validation images that belong to the most frequent class.
    data : DataDigest, optional
        What identifies the data. Format 2 knew their shape and classes alone, format 1 nothing.
    checkpoints : mapping of int to mapping of Place to str
        Replicate → epoch, or steps inside one, such as ``12it`` → SHA-256 of the checkpoint's
        file. A replicate is listed once its dense run is trained.
    earlier_versions : tuple of mapping
        `versions` of earlier runs, where they differ.
    format, first_format : int
        `FORMAT` when it was written, and when the study was begun.
    identity : str
        What names the study in digests of what was computed for it, for as long as it grows; empty
        before format 5.
    """

    versions: Mapping[str, str]
    host: str
    engine: Engine
    engine_reason: str
    study_digest: str
    axes: Mapping[str, list[Any]]
    steps: int
    majority: float | None = None
    data: DataDigest | None = None
    checkpoints: Mapping[int, Mapping[Any, str]] = field(default_factory=dict)
    earlier_versions: tuple[Mapping[str, str], ...] = ()
    format: int = FORMAT
    first_format: int = FORMAT
    identity: str = ""

    @classmethod
    def read(cls, path: Path) -> "Manifest | None":
        """Read a manifest; None if there is no such file.

        Raises
        ------
        InputError
            If the file is damaged, or a newer version of lthdask wrote it.
        """
        values = cls._values(path)
        return cls._of(values, path) if values else None

    @classmethod
    def dense_runs(cls, path: Path) -> int:
        """Return how many dense runs a manifest lists; what else it says is not looked at.

        Raises
        ------
        InputError
            As for :meth:`read`.
        """
        return len((cls._values(path) or {}).get("checkpoints", ()))

    @classmethod
    def _values(cls, path: Path) -> dict[str, Any] | None:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except PermissionError:
            raise
        except (OSError, ValueError, RecursionError):
            found = None
        values = found if isinstance(found, dict) else {}
        if values.pop("digest", None) != digest_of(values):
            raise InputError(f"{path} is damaged: its digest does not match its content")
        values.setdefault("first_format", require_known(values.setdefault("format", 1), path))
        if not _names_epochs(values.get("checkpoints")):
            raise InputError(
                f"{path} was not written by lthdask: its checkpoints are not listed by the "
                f"numbers of replicate and epoch"
            )
        if shape := values.pop("shape", None):  # of format 2
            values["data"] = {"shape": shape, "classes": values.pop("classes", None)}
        return values

    @classmethod
    def of_cube(
        cls, path: Path, about: Mapping[str, Any], axes: Mapping[str, list[Any]]
    ) -> "Manifest":
        """Return what a cube still tells where the manifest is lost.

        Parameters
        ----------
        path : Path
            The cube.
        about : mapping
            What is kept with the cube, as :meth:`about` returned it; formats 1 and 2 kept less.
        axes : mapping of str to list

        Raises
        ------
        InputError
            If it does not tell how its numbers were computed.
        """
        unknown = {"host": "", "engine_reason": "", "study_digest": "", "steps": 0, "versions": {}}
        told = {name: value for name, value in about.items() if name not in NOT_IN_CUBE}
        first = {"first_format": about.get("format", 1)}
        return cls._of(unknown | first | told | {"axes": axes}, path)

    @classmethod
    def _of(cls, values: Mapping[str, Any], path: Path) -> "Manifest":
        import pydantic  # takes as long as a look at a study may take in all

        if isinstance(used := values.get("engine"), dict):
            values = {**values, "engine": EARLIER | used}
        try:
            found = pydantic.TypeAdapter(cls).validate_python(values)
        except pydantic.ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(str(part) for part in problem["loc"])
            raise InputError(f"{path} is damaged: {key}: {problem['msg']}") from None
        try:
            axes = {
                name: [*map(rewind, values)] if name == "rewind_epoch" else values
                for name, values in found.axes.items()
            }
            checkpoints = {
                replicate: {place(str(at)): digest for at, digest in digests.items()}
                for replicate, digests in found.checkpoints.items()
            }
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"{path} is damaged: the rewind epochs are not valid") from None
        return replace(found, axes=axes, checkpoints=checkpoints)

    def write(self, path: Path) -> None:
        """Write the manifest, with a digest of itself."""
        values = self._plain()
        whole = values | {"digest": digest_of(values)}
        write_whole(path, (json.dumps(whole, indent=2) + "\n").encode())

    def identified(self) -> "Manifest":
        """Return the manifest with a name for the study, by all that its results depend on."""
        values = self._plain()
        about = [values[name] for name in ("study_digest", "engine", "data")]
        return replace(self, identity=self.identity or digest_of({"study": about})[:16])

    def with_dense_run(self, replicate: int, digests: Mapping[Place, str]) -> "Manifest":
        """Return the manifest once a replicate's dense run is trained."""
        return replace(self, checkpoints={**self.checkpoints, replicate: digests})

    def without_dense_run(self, replicate: int) -> "Manifest":
        """Return the manifest as it was before a replicate's dense run was trained."""
        kept = {r: digests for r, digests in self.checkpoints.items() if r != replicate}
        return replace(self, checkpoints=kept)

    def about(self, study: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is kept with the cube of a study: how its numbers came about."""
        kept = {name: value for name, value in self._plain().items() if name not in NOT_IN_CUBE}
        return {"study": study, **kept}

    def _plain(self) -> dict[str, Any]:
        """Return it as JSON has it: the numbers of replicates are texts, and so is ``500it``."""
        values = asdict(self)
        values["checkpoints"] = {
            replicate: {str(at): digest for at, digest in digests.items()}
            for replicate, digests in self.checkpoints.items()
        }
        plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
        return plain


def versions_here(network: str = "") -> Mapping[str, str]:
    """Return the versions that results may depend on: package, or ``python`` → its version.

    That of timm counts where it makes the network.
    """
    found = {package: version(package) for package in PACKAGES}
    with suppress(PackageNotFoundError):  # a checkout that is merely imported from
        found |= {"timm": version("timm")} if network.startswith("timm/") else {}
    return found | {"python": platform.python_version()}


def require_known(found: Any, path: Path) -> int:
    """Return the format of a file, and refuse a newer one.

    Raises
    ------
    InputError
        If a newer version of lthdask wrote it.
    """
    if type(found) is int and 1 <= found <= FORMAT:
        return found
    raise InputError(
        f"{path} has format {found!r}, but this version of lthdask knows only 1 to {FORMAT}; "
        f"update lthdask to continue this study"
    )


def digest_of(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what JSON can hold."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _names_epochs(digests: object) -> bool:
    """Return whether these are numbers of replicates → numbers of epochs → digests.

    They become part of paths, which must not point out of the folder.
    """
    return isinstance(digests, dict) and all(
        NUMBER.fullmatch(replicate) and isinstance(of, dict) and all(map(PLACE.fullmatch, of))
        for replicate, of in digests.items()
    )
