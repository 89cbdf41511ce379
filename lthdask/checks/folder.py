"""Whether the folder of a study is whole, and if not, what must be computed again.

A sound cube is made aside from the study and the manifest. Its metadata and axes are what
those in the folder should be, and with them every chunk is read.
"""

import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

from lthdask import given
from lthdask.checks.damage import Damage, problem_of
from lthdask.checks.results import damaged_cell, damaged_dense_run, damaged_masks
from lthdask.checks.weights import damaged_attempts, damaged_states, damaged_tickets
from lthdask.driver.opening import extent_of, layers_of
from lthdask.errors import InputError, permitted
from lthdask.grid import Cell
from lthdask.reading import yaml_mapping
from lthdask.storage import source
from lthdask.storage.creation import create_cube
from lthdask.storage.cube import Cube
from lthdask.storage.driver import driving
from lthdask.storage.files import write_whole
from lthdask.storage.folder import Folder
from lthdask.storage.manifest import FORMAT, Manifest
from lthdask.storage.readable import attributes, link_chunks
from lthdask.storage.schema import ADDED, CELL
from lthdask.strict_yaml import dumped
from lthdask.study import Study


def check(path: str | Path) -> list[Damage]:
    """Read everything that a study wrote, and return what is damaged.

    The study may be running: what is not done yet does not count as damage.

    Parameters
    ----------
    path : str or Path
        The study's folder.

    Raises
    ------
    InputError
        If there is no study, or a file may not be read, which is no damage.
    """
    folder = _existing(path)
    with permitted(folder.path):
        return list(_damages(folder))


def repair(path: str | Path) -> list[Damage]:
    """Mark what is damaged, so that the next run of the study computes it again.

    Returns
    -------
    list of Damage
        What was damaged; where it is beyond repair, it still is.

    Raises
    ------
    InputError
        If there is no study, it is being run, or its folder may not be read or written.
    """
    folder = _existing(path)
    folder.require_writable()
    with driving(folder.path), permitted(folder.path):
        found = list(_damages(folder))
        for damage in found:
            try:
                if damage.mend:
                    damage.mend()
            except OSError as error:
                raise InputError(f"cannot repair {damage.what}: {error}") from None
    return found


def _existing(path: str | Path) -> Folder:
    folder = Folder(Path(path))
    parts = [folder.path / name for name in ("study.yaml", "manifest.json", "results.zarr")]
    with permitted(folder.path):
        if not any(part.exists() for part in parts):
            raise InputError(f"there is no study in {folder.path}; give the folder of one")
        folder.require_readable()
    return folder


def _damages(folder: Folder) -> Iterator[Damage]:
    """Find damage, in the order in which it can be mended."""
    file = folder.path / "study.yaml"
    anew = f"`lthdask run --study {file} --out {folder.path}-again` trains it anew"
    try:
        manifest, problem = folder.manifest(), "it is missing"
    except InputError as error:
        manifest, problem = None, str(error)
    if manifest is None:
        if problem != "it is missing" or folder.cube.exists():  # else it was not begun
            remedy = (
                f"beyond repair, because only it tells sound checkpoints from damaged ones; "
                f"without it, `lthdask run --study {file} --out {folder.path}` trains the dense "
                f"runs again, and keeps the cells"
            )
            yield Damage("manifest.json", problem, remedy)
        return
    if manifest.format < FORMAT:
        raise InputError(
            f"the study in {folder.path} was written by an earlier version of lthdask (format "
            f"{manifest.format}; this one writes {FORMAT}); bring it up to date first: run the "
            f"study's own command, for example `lthdask run --study {file} --out {folder.path}`"
        )
    text, copy = _texts(folder)
    if _digest(text) != (digest := manifest.study_digest):
        if _digest(copy) != digest:
            remedy = f"beyond repair, because its copy in results.zarr is damaged too; {anew}"
            yield Damage("study.yaml", problem_of(file), remedy.replace(str(file), "FILE"))
            return
        mend = partial(folder.write_study, copy)
        yield Damage("study.yaml", problem_of(file), "its copy in results.zarr is whole", mend)
    study = Study.parse(copy if _digest(text) != digest else text, str(file))
    if not _holds(manifest.axes, study.grid.axes()):
        problem = "its axes do not match the study; another version of lthdask wrote it"
        yield Damage("manifest.json", problem, f"beyond repair; {anew}")
        return
    if folder.cube.exists() or manifest.checkpoints:
        with tempfile.TemporaryDirectory() as aside:
            written = yaml_mapping(copy if _digest(text) != digest else text, str(file))
            try:
                layers = layers_of(study, folder.cube)
            except InputError:  # of a network of one's own
                remedy = f"beyond repair, because only it names the network's layers; {anew}"
                yield Damage("results.zarr", problem_of(folder.cube), remedy)
                return
            sound = _sound_cube(Path(aside) / "results.zarr", study, layers, manifest, written)
            yield from _damaged_files(folder, link_chunks(sound.path, folder.cube))
            lacking = {name for name, first in ADDED.items() if first > manifest.first_format}
            cells = [Cell(*at) for at in product(*(manifest.axes[name] for name in CELL))]
            for cell in cells:
                yield from damaged_cell(folder, sound, cell, study, manifest.steps, lacking)
            yield from damaged_tickets(folder, sound, cells, study)
            for replicate in manifest.axes["replicate"]:
                yield from damaged_dense_run(folder, sound, manifest, replicate, study)
                yield from damaged_masks(folder, sound, replicate)
    yield from damaged_states(folder, manifest.identity)
    yield from damaged_attempts(folder)
    for mask in study.pruning.masks:
        if not given.is_kept(folder.masks, mask):
            remedy = f"run the study with the file of {mask} as pruning.masks; nothing is trained"
            file = folder.masks / given.file_of(mask[-16:])
            yield Damage(str(file.relative_to(folder.path)), problem_of(file), remedy)

    for name, digest in (study.source.files if study.source else {}).items():
        if not source.is_kept(folder, name, digest):
            file = folder.source / f"{name}.safetensors"
            remedy = "run the study with its source as `ticket`; nothing is trained"
            yield Damage(str(file.relative_to(folder.path)), problem_of(file), remedy)


def _texts(folder: Folder) -> tuple[str, str]:
    """Return the study of the folder, and its copy in the cube; empty where damaged.

    The copy has the keys that studies had when it was written.
    """
    try:
        text = folder.study() or ""
    except InputError:
        text = ""
    written = attributes(folder.cube).get("study", {})
    try:
        Study.from_dict(written)
        copy = dumped(written)  # with the keys that it had then
    except InputError:
        copy = ""
    return text, copy


def _sound_cube(
    path: Path, study: Study, layers: list[str], manifest: Manifest, written: Mapping[str, Any]
) -> Cube:
    """Make the cube of the study as it was before any cell was trained.

    The study is kept with it as it was `written`, with the keys that it had then.
    """
    create_cube(path, extent_of(study, manifest, layers), manifest.about(written))
    return Cube(path)


def _damaged_files(folder: Folder, files: Mapping[Path, bytes | None]) -> Iterator[Damage]:
    """Find metadata and axes of the cube that are not what they should be."""
    for name, content in files.items():
        file = folder.cube / name
        mend = partial(_write, file, content)
        remedy = "it is made again from the study and the manifest; nothing is trained"
        yield Damage(f"results.zarr/{name}", problem_of(file), remedy, mend)


def _write(file: Path, content: bytes | None) -> None:
    if content is None:
        file.unlink()
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, content)
    file.chmod(file.parent.stat().st_mode & 0o666)  # as readable as what lies beside it


def _holds(axes: object, values: Mapping[str, list[Any]]) -> bool:
    """Return whether these are axes of these values, in any order."""
    return isinstance(axes, dict) and all(
        isinstance(axes.get(name), list) and sorted(map(repr, axes[name])) == sorted(map(repr, of))
        for name, of in values.items()
    )


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
