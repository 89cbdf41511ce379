"""Whether results were computed for the study and the run that they lie with.

A run goes on from some of them. It must not go on from those of others.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from lthdask.errors import InputError, listed
from lthdask.grid import Cell
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.manifest import Manifest
from lthdask.storage.readable import attributes
from lthdask.storage.schema import Status


def require_cube_of(folder: Folder, manifest: Manifest) -> None:
    """Refuse a cube that was made for another study than the manifest.

    Raises
    ------
    InputError
        If it was. Before format 5, it does not say for which.
    """
    if attributes(folder.cube).get("identity", manifest.identity) != manifest.identity:
        raise InputError(
            f"the results at {folder.cube} are not those of the study that manifest.json beside "
            f"them is of; put back the one or the other, or choose another folder with `out`"
        )


def require_dense_runs(cube: Cube, replicates: Iterable[int]) -> None:
    """Refuse curves of dense runs that were not written for them: cells are compared with them.

    Raises
    ------
    InputError
        If there are such.
    """
    for replicate in replicates:
        run = f"dense-r{replicate}"
        if odd := cube.strangers(run, cube.read_dense(replicate)[0]):
            raise _strange(cube, odd[0], run)


def require_cells(cube: Cube, cells: Mapping[Cell, Status], arrays: Collection[str] = ()) -> None:
    """Refuse results that were not written for their cells: all of them, or those of some arrays.

    Raises
    ------
    InputError
        If there are such.
    """
    for cell, status in cells.items():
        if status in (Status.DONE, Status.DIVERGED):
            odd = cube.strangers(str(cell), cube.read(cell, *arrays)[0])
            if odd:
                raise _strange(cube, odd[0], cell)


def require_axes(cube: Cube, axes: Mapping[str, list[Any]]) -> None:
    """Refuse axes of cells that the study does not have, where there is no manifest to tell.

    Raises
    ------
    InputError
        If there are such.
    """
    for name, known in axes.items():
        if odd := [value for value in cube.axis(name) if value not in known]:
            raise InputError(
                f"the results at {cube.path} have the {name} {listed(odd)}, which the study does "
                f"not have; put back manifest.json, or choose another folder with `out`"
            )


def _strange(cube: Cube, array: str, run: object) -> InputError:
    folder = cube.path.parent
    return InputError(
        f"what {cube.path / array} holds of {run} was not written for it; `lthdask check {folder}` "
        f"says what else, and `lthdask check {folder} --repair` marks it to be trained again"
    )
