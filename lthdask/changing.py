"""Changes of a study: new values of its keys, as they come from Python or the command line."""

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from os import PathLike, fspath
from typing import Any

from lthdask.arms import ARMS
from lthdask.errors import InputError
from lthdask.own import name_of
from lthdask.reading import flattened, nearest, value_of
from lthdask.rewinding import as_given, ordered, rewind

THRESHOLDS = "grid.thresholds"
MOST_BITS = 10_000
REWIND_EPOCHS_OF, THRESHOLDS_OF = OF_ARMS = "grid.rewind_epochs_of", "grid.thresholds_of"
"""Blocks whose keys are arms, and need not be there yet."""


def plain(value: Any) -> Any:
    """Return a value of Python, NumPy, pandas or xarray as numbers, texts, lists and mappings.

    A function, which is code of one's own, is its name.

    Raises
    ------
    InputError
        If it is something else.

    Examples
    --------
    >>> plain(range(3)), plain((0.5, {"a": {1}}))
    ([0, 1, 2], [0.5, {'a': [1]}])
    """
    single = str(getattr(value, "dtype", "")) == "float32"  # whose 0.9 is 0.899999976158
    for convert in ("to_numpy", "tolist"):
        if hasattr(value, convert):
            value = getattr(value, convert)()
    if single and isinstance(value, float):
        value = float(f"{value:.7g}")
    elif single:
        value = [float(f"{one:.7g}") for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | range | set | frozenset):
        return [plain(part) for part in value]
    if type(value) is int and value.bit_length() > MOST_BITS:
        raise InputError(f"a number of a study has {MOST_BITS:,} bits at most")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, PathLike):
        return fspath(value)
    if callable(value):
        return name_of(value)
    raise InputError(
        f"a study is made of numbers, texts, lists, mappings and functions; got {value!r}"
    )


def changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values, some of which are changed by their dotted keys.

    Raises
    ------
    InputError
        If there is no such key, it is a block, or a text is not YAML.
    """
    new: dict[str, Any] = plain(values)
    for key, value in ((str(key), value) for key, value in changes.items()):
        *path, last = key.split(".")
        block: Any = new
        for part in path:
            block = block.get(part) if isinstance(block, dict) else None
        if isinstance(block, dict) and ".".join(path) in OF_ARMS:
            block.setdefault(last, [])
        if not isinstance(block, dict) or last not in block:
            raise InputError(f"unknown key {key!r}{nearest(key, list(flattened(values)))}")
        if key in OF_ARMS and isinstance(value, Mapping):
            block[last] = plain(value)
            continue
        if isinstance(block[last], dict):
            parts = ", ".join(f"{key}.{part}" for part in block[last]) or f"its keys, {key}.NAME"
            raise InputError(f"{key!r} is a block; set one of {parts}")
        block[last] = _taken(value, block[last], key)
    return new


def settled(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a changed study without those that the changes leave no meaning.

    What is said of single arms goes with the arms; a pruning rule, where masks are given; and
    thresholds that are not asked for, where they follow from masks or from rounds.
    """
    grid, pruning = dict(values["grid"]), values["pruning"]
    for name in ("rewind_epochs_of", "thresholds_of"):
        arms, of = grid["arms"], grid[name]
        if isinstance(arms, list) and isinstance(of, dict):  # of others, it binds nothing
            grid[name] = {arm: some for arm, some in of.items() if arm in arms or arm not in ARMS}
    masks = "pruning.masks" in changes and pruning["masks"]
    if masks:
        pruning = {key: some for key, some in pruning.items() if f"pruning.{key}" in changes}
    named = masks and all(isinstance(mask, str) for mask in masks)
    if (named or pruning.get("schedule") == "iterative") and THRESHOLDS not in changes:
        grid.pop("thresholds", None)
    return {**values, "grid": grid, "pruning": pruning}


def grown(grid: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes by which a grid has the values of some axes, besides those it has."""
    changes = dict[str, Any]()
    for axis, given in more.items():
        now, key = grid[axis], f"grid.{axis}"
        values = _taken(given, now, key)
        if not isinstance(now, list):
            changes[key] = max(now, values) if isinstance(values, int) else values
        else:
            all_of = list(now)
            for value in values:
                if value not in all_of:
                    all_of.append(value)
            if len(all_of) > len(now):
                changes[key] = _in_order(axis, all_of)
    return changes


def _in_order(axis: str, values: list[Any]) -> list[Any]:
    """Return the values of an axis in their order; what has none, as arms, as they are."""
    try:
        if axis == "rewind_epochs":
            return [as_given(k) for k in ordered(axis, [*dict.fromkeys(map(rewind, values))])]
        return values if axis == "arms" else sorted(values)
    except InputError:
        raise
    except (TypeError, ValueError, OverflowError):  # which the study then explains
        return values


def _taken(value: Any, now: Any, key: str) -> Any:
    """Return a new value of a key, of which it is known what it is now.

    A text is read as on the command line. What comes from arithmetic becomes what was meant: 2.0
    is 2 where whole numbers are wanted, and a threshold has the twelve digits of its name.
    """
    is_list = isinstance(now, list)
    if isinstance(value, str):
        return value_of(value, is_list, key)
    value = plain(value)
    if not is_list:
        return _as_meant(value, now, key)
    several = value if isinstance(value, list) else [value]
    return [_as_meant(one, now[0] if now else None, key) for one in several]


def _as_meant(value: Any, now: Any, key: str) -> Any:
    if isinstance(value, bool) and type(now) in (int, float):
        raise InputError(f"{key!r} takes numbers; got {value}")
    if type(now) is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return float(f"{value:.12g}") if key == THRESHOLDS and isinstance(value, float) else value
