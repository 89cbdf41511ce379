"""Code of one's own: functions of a file that a study names, such as ``mine:build``.

A study never runs code by itself: its file must be given first, by a path or by one of its
functions. From then on the name carries the beginning of the file's digest, as in
``mine:build@0123456789abcdef``, and is written down and compared as any other name is. Each process
that needs the file runs it under a name that no other module has.
"""

import inspect
import platform
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from lthdask.errors import InputError, as_path, listed, one_of, require_regular

NAME = re.compile(r"([A-Za-z_]\w*):([A-Za-z_]\w*)(?:@([0-9a-f]{16}))?", re.ASCII)
"""File without ``.py``, function, and digest."""


@dataclass(frozen=True)
class Code:
    """A file of code that may be run in this process.

    Attributes
    ----------
    path : Path
    text : bytes
        What it held when it was given.
    """

    path: Path
    text: bytes

    @cached_property
    def digest(self) -> str:
        """The beginning of its SHA-256."""
        return sha256(self.text).hexdigest()[:16]


_given: dict[tuple[str, str], Code] = {}
_newest: dict[str, Code] = {}


def is_own(name: str) -> bool:
    """Return whether a name stands for a function of one's own."""
    return NAME.fullmatch(name) is not None


def plain(name: str) -> str:
    """Return a name without its digest.

    Examples
    --------
    >>> plain("mine:build@0123456789abcdef")
    'mine:build'
    """
    return name.partition("@")[0]


def file_of(name: str) -> str:
    """Return the name of the file that a function is in.

    Examples
    --------
    >>> file_of("mine:build@0123456789abcdef")
    'mine.py'
    """
    return f"{name.partition(':')[0]}.py"


def chosen(what: str, given: str | Callable[..., Any], known: Iterable[str]) -> str:
    """Return the name of what was chosen: a known one, or a function of one's own.

    Raises
    ------
    InputError
        If it is neither, or its file has not been given.
    """
    if not isinstance(given, str):
        return name_of(given)
    if given in (names := list(known)):
        return given
    if not (found := NAME.fullmatch(given)):
        raise one_of(what, given, names)
    if found[3]:
        return given  # to read a study, its code need not be here
    if found[1] not in _newest:
        raise _not_given(given)
    name = f"{given}@{_newest[found[1]].digest}"
    function(name)
    return name


def allow(path: str | Path) -> None:
    """Let studies run the functions of a file.

    Raises
    ------
    InputError
        If it cannot be read, or is not named like a module.
    """
    _allow(as_path(path))


def _allow(path: Path, digest: str | None = None) -> Code:
    try:
        require_regular(path)
        code = Code(path.absolute(), path.read_bytes())
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read the code {path} on {_host()}: {why}") from None
    if path.suffix != ".py" or not NAME.fullmatch(f"{path.stem}:_"):
        raise InputError(f"`code` is a file named as a module is, such as mine.py; got {path}")
    if digest not in (None, code.digest):
        raise InputError(
            f"{path}, as {_host()} reads it, is not the code that the study was begun with; put "
            f"that file back, or choose another folder with `out`"
        )
    _given[path.stem, code.digest] = _newest[path.stem] = code
    return code


def name_of(given: Callable[..., Any]) -> str:
    """Return the name of a function, whose file is given by it.

    Raises
    ------
    InputError
        If it is not a function of a file that can be imported.
    """
    module, name = getattr(given, "__module__", None), getattr(given, "__qualname__", "")
    path = Path(getattr(sys.modules.get(module or ""), "__file__", None) or "")
    if module == "__main__" or path.suffix != ".py" or not name.isidentifier():
        raise InputError(
            f"workers cannot import {name or given!r}: put it into a file, such as mine.py, as a "
            f"function of its own, and import it (a cell of a notebook is written into a file "
            f"where it begins with %%writefile mine.py)"
        )
    code = _allow(path)
    return f"{code.path.stem}:{name}@{code.digest}"


def is_given(name: str) -> bool:
    """Return whether a function may be run in this process."""
    file, _, digest = _parts(name)
    return (file, digest) in _given


def require_code(values: Iterable[object]) -> None:
    """Refuse values that name functions by no digest, and whose files have not been given.

    Raises
    ------
    InputError
        If there is one.
    """
    for value in values:
        if isinstance(value, str) and is_own(value):
            chosen("function", value, ())


def require_given(names: Iterable[str]) -> None:
    """Refuse names of functions whose files have not been given.

    Raises
    ------
    InputError
        If there is one.
    """
    for name in names:
        if not is_given(name):
            raise _not_given(name)


def codes(names: Iterable[str]) -> dict[str, bytes]:
    """Return the files of functions that were given: name of the file → what it holds.

    Raises
    ------
    InputError
        If two files have the same name.
    """
    found: dict[str, bytes] = {}
    for name in names:
        file, _, digest = _parts(name)
        text = _given[file, digest].text
        if found.setdefault(file_of(name), text) != text:
            raise InputError(f"the study uses two files named {file_of(name)}; rename one")
    return found


def load(folder: Path, names: Iterable[str]) -> None:
    """Have the files of some functions run, from a folder that holds those which the driver gave.

    Raises
    ------
    InputError
        If a file is not there, is another one, or cannot be run here.
    """
    for name in names:
        if not is_given(name):
            _allow(folder / file_of(name), _parts(name)[2])
        function(name)


def function(name: str) -> Callable[..., Any]:
    """Return the function that a name stands for.

    Raises
    ------
    InputError
        If its file has not been given or cannot be run, or has no such function.
    """
    file, wanted, digest = _parts(name)
    if (file, digest) not in _given:
        raise _not_given(name)
    module = _run(_given[file, digest])
    found: Callable[..., Any] | None = getattr(module, wanted, None)
    if not callable(found):
        raise InputError(f"{file}.py has no function {wanted!r}")
    return found


def parameters(what: str, name: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return the parameters of a function, which are some of those that are `known`.

    Raises
    ------
    InputError
        If it has none, or others.
    """
    asked, names = tuple(inspect.signature(function(name)).parameters), list(known)
    if not asked or set(asked) - set(names):
        raise InputError(
            f"the parameters of the {what} {plain(name)} must be some of "
            f"{', '.join(names[:-1])} and {names[-1]}; got {listed(asked) or 'none'}"
        )
    return asked


@cache
def _run(code: Code) -> ModuleType:
    """Run a file; what it holds is known by a name that no other module has."""
    module = ModuleType(f"lthdask_own_{code.path.stem}_{code.digest}")
    module.__file__ = str(code.path)
    sys.modules[module.__name__] = module  # dataclasses look there
    with explained(f"{code.path.name} cannot be run"):
        exec(compile(code.text, code.path, "exec"), vars(module))
    return module


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Say in one sentence what code of one's own raised, and where.

    Raises
    ------
    InputError
        In place of any other exception.
    """
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        files = {str(code.path) for code in _given.values()}
        frames = traceback.extract_tb(error.__traceback__)
        lines = [
            f"{frame.filename}, line {frame.lineno}: "
            for frame in frames
            if frame.filename in files
        ]
        problem = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise InputError(f"{what} on {_host()}: {lines[-1] if lines else ''}{problem}") from error


def _not_given(name: str) -> InputError:
    file = file_of(name)
    library, _, wanted = name.partition(":")
    if library in ("torchvision", "timm"):
        return InputError(f"a network of {library} is named with a slash: {library}/{wanted}")
    if file.removesuffix(".py") in _newest:
        return InputError(
            f"{file} is not the file that the study was begun with, which names {name}; give that "
            f"one with `code`: a copy lies in the study's folder, in code/"
        )
    return InputError(
        f"the study runs code of its own, {plain(name)}; if you trust it, give the file {file} "
        f"with `code`"
    )


def _parts(name: str) -> tuple[str, str, str]:
    found = NAME.fullmatch(name)
    assert found
    return found[1], found[2], found[3] or ""


def _host() -> str:
    return platform.node()
