"""What is given to a public function, checked by what its signature says of it.

Python passes anything to anybody: a text where a list of paths is wanted is taken letter by letter,
and a number fails somewhere within.
"""

import inspect
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields
from functools import cache, wraps
from operator import index
from os import PathLike, fsdecode
from typing import Any, Literal, SupportsFloat, TypeVar, Union, get_args, get_origin

from lthdask.errors import InputError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    "Path": "a path",
    "Study": "a Study, as lthdask.Study.read returns it",
    "Client": "a client, as lthdask.open_client returns it",
    "Options": "an lthdask.Options",
    Callable: "a function",
    Mapping: "a mapping",
    types.NoneType: "None",
}


def checked(function: F) -> F:
    """Have a function refuse what its annotations exclude; other types than `WORDS` pass.

    Raises
    ------
    InputError
        If something is of another type; a whole number may be one of NumPy's.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: Any, **more: Any) -> Any:
        for name, value in signature.bind(*args, **more).arguments.items():
            parameter = signature.parameters[name]
            several = value if parameter.kind is parameter.VAR_POSITIONAL else (value,)
            for one in several if parameter.kind is not parameter.VAR_KEYWORD else ():
                require(name, one, parameter.annotation)
        return function(*args, **more)

    return call  # type: ignore[return-value]


def block(kind: type[T]) -> type[T]:
    """Have a dataclass of a study refuse what is no number, and say so as any other input does."""
    of_study: Any = kind
    check = of_study.__post_init__

    def look(self: Any) -> None:
        for of in fields(self):
            if of.type in (bool, int, float):
                require(of.name, getattr(self, of.name), of.type)
        try:
            check(self)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(str(error)) from None

    of_study.__post_init__ = look
    return kind


def require(name: str, value: Any, kind: Any) -> None:
    """Refuse a value that is not of a kind, as an annotation says it.

    Raises
    ------
    InputError
        If it is not, or is a path that no file can have.
    """
    if not _is(value, kind):
        shown = repr(value)
        shown = shown if len(shown) <= 200 else f"{shown[:200]}…"
        raise InputError(f"`{name}` is {_words(kind)}; got {shown}")
    if _is(value, PathLike) and "Path" in _names(kind) and "\0" in fsdecode(value):
        raise InputError(f"`{name}` is a path, and holds a null character: {value!r}")


def _is(value: Any, kind: Any) -> bool:
    """Return whether a value is of a kind; of one that is not known here, it is."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return any(_is(value, one) for one in get_args(kind))
    if origin is Literal:
        return True  # whose values are told by name
    if origin is tuple:
        return isinstance(value, tuple) and (
            ... in get_args(kind) or len(value) == len(get_args(kind))
        )
    if origin is Iterable:
        alone = isinstance(value, str | bytes | PathLike) or not isinstance(value, Iterable)
        items = value if isinstance(value, Collection) and not alone else ()
        return not alone and all(_is(item, get_args(kind)[0]) for item in items)
    if Mapping in (kind, origin):
        return isinstance(value, Mapping)
    if origin is Callable:
        return callable(value)
    return _is_one(value, kind)


def _is_one(value: Any, kind: Any) -> bool:
    if kind in (bool, int, float):
        flag = isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")
        number = not flag and not isinstance(value, str) and not getattr(value, "ndim", 0)
        if kind is bool:
            return flag
        return number and (isinstance(value, SupportsFloat) if kind is float else _is_whole(value))
    if kind is str or kind is PathLike:
        return isinstance(value, str if kind is str else str | PathLike)
    name = next(iter(_names(kind)), "")
    if name == "Path":
        return isinstance(value, PathLike)
    if name in WORDS:
        return name in {of.__name__ for of in type(value).__mro__}
    return value is None if kind in (None, types.NoneType) else True


def _is_whole(value: Any) -> bool:
    try:
        return index(value) is not None
    except TypeError:
        return False


@cache
def _names(kind: Any) -> frozenset[str]:
    """Return the names of the classes of a kind, which may be a text before they are imported."""
    parts = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return frozenset(
        part if isinstance(part, str) else getattr(part, "__name__", "") for part in parts
    )


def _words(kind: Any) -> str:
    """Return what a kind is, in words."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        words = list(dict.fromkeys(map(_words, parts)))
        words = [word for word in words if word != "None"] + ["None"] * ("None" in words)
        return " or ".join(words)
    if origin is Iterable:
        return "a list of paths" if "Path" in _names(parts[0]) else "a list of texts"
    if origin is tuple:
        return "a list" if ... in parts else "a pair of whole numbers"
    name = next(iter(_names(kind)), "")
    return WORDS.get(origin) or WORDS.get(kind) or WORDS.get(name) or name
