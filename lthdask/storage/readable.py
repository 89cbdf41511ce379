"""What can be read of a cube of which something is damaged, and how that is said."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zarr

from lthdask.errors import InputError, is_there, permitted
from lthdask.limits import lacking
from lthdask.storage.schema import ARRAYS, COORDINATES
from lthdask.surroundings import told_by


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Say in one sentence that results cannot be read, whatever Zarr and its codecs raise."""
    folder = path.parent if path.name == "results.zarr" else path
    cube = folder / "results.zarr"
    with permitted(cube):
        if not is_there(cube):
            raise InputError(
                f"there are no results at {cube}; give the folder of a study that was begun"
            )
    try:
        with permitted(cube):
            yield
    except InputError:
        raise
    except Exception as error:
        if problem := lacking(error) or told_by(error):  # which is no damage
            raise InputError(problem) from None
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"the results at {cube} cannot be read: {reason}; `lthdask check {folder}` says "
            f"what is damaged, and `lthdask check {folder} --repair` marks it to be trained again"
        ) from None


def layers(path: Path) -> list[str]:
    """Return the names of a network's prunable weights, whatever else of the cube is damaged.

    Raises
    ------
    InputError
        If they cannot be read.
    """
    with readable(path):
        names: Any = zarr.open_array(path / "layer", mode="r", zarr_format=3)[:]
        if not all(names):
            raise ValueError("names of layers are missing")
    found: list[str] = names.tolist()
    return found


def attributes(path: Path) -> dict[str, Any]:
    """Return what is kept with a cube; nothing where it cannot be read."""
    try:
        return dict(json.loads((path / "zarr.json").read_bytes())["attributes"])
    except PermissionError:
        raise
    except (OSError, LookupError, TypeError, ValueError, RecursionError):
        return {}


def link_chunks(sound: Path, path: Path) -> dict[Path, bytes | None]:
    """Link the chunks of the cube at `path` into `sound`, an empty one with its metadata.

    Returns
    -------
    dict of Path to bytes or None
        The files of metadata and axes that differ from those of `sound` → what they
        should hold; None where there should be no file.
    """
    ours = {f.relative_to(sound): f.read_bytes() for f in sound.rglob("*") if f.is_file()}
    theirs = (f.relative_to(path) for name in COORDINATES for f in (path / name / "c").glob("*"))
    files = {*ours, *(f for f in theirs if f.name.isdigit())}  # the rest is a killed writer's
    for name in ARRAYS:
        (sound / name / "c").symlink_to(path / name / "c")
    return {f: ours.get(f) for f in sorted(files) if not _holds(path / f, ours.get(f))}


def _holds(file: Path, content: bytes | None) -> bool:
    """Return whether a file holds this; JSON counts by its meaning. None: it should be missing."""
    try:
        found = file.read_bytes()
        if content is not None and file.suffix == ".json":
            return bool(json.loads(found) == json.loads(content))
    except FileNotFoundError:
        return content is None
    except PermissionError:
        raise
    except (OSError, ValueError, RecursionError):
        return False
    return found == content
