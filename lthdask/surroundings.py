"""What is wrong around a command that ended unexpectedly: other modules, variables of others."""

import os
import sys
import traceback
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

OF_OTHERS = {"DISTRIBUTED": "DASK"}
"""Packages whose variables are named for another one."""


def hidden_by(error: BaseException) -> str | None:
    """Return which file of ``PYTHONPATH``, as a random.py, was imported in place of another.

    It is a sentence; None if there is no such file on the way to this error.
    """
    folders = {Path(f).absolute() for f in os.environ.get("PYTHONPATH", "").split(os.pathsep) if f}
    for one in _causes(error):
        module = getattr(getattr(one, "obj", None), "__file__", None)
        files = [module, getattr(one, "path", None), getattr(one, "filename", None), *_files(one)]
        for file in files:
            if isinstance(file, str) and _hides(Path(file).absolute(), folders):
                return (
                    f"{file} hides a module of Python's, or of a package's, as its folder is in "
                    f"PYTHONPATH; rename it, or take the folder out"
                )
    return None


def told_by(error: BaseException) -> str | None:
    """Return which variables tell something to a package that an unexpected error came through.

    It is a sentence; None if there are no such variables.
    """
    installed = os.sep + "site-packages" + os.sep
    files = [file for one in _causes(error) for file in _files(one) if installed in file]
    packages = {file.rpartition(installed)[2].split(os.sep)[0].upper() for file in files}
    names = {OF_OTHERS.get(package, package) for package in packages}
    what = traceback.format_exception_only(error)[-1].splitlines()[0]
    told = [
        name
        for name, value in sorted(os.environ.items())
        if name.split("_")[0] in names or (len(value) > 2 and repr(value) in what)
    ]
    if not told:
        return None
    return (  # without their values, which may be secrets
        f"{what}; this may come from the environment, which has {', '.join(told)}: run without it"
    )


def _hides(file: Path, folders: set[Path]) -> bool:
    """Return whether a file lies in one of these folders, and a module of its name elsewhere."""
    others = [place for place in sys.path if Path(place).absolute() not in folders]
    return file.parent in folders and PathFinder.find_spec(file.stem, others) is not None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _files(error: BaseException) -> list[str]:
    return [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
