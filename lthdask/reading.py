"""Values from YAML and from the command line, and one sentence for what is wrong with them."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from lthdask.errors import InputError, as_path
from lthdask.strict_yaml import composed, loaded, text_of
from lthdask.strict_yaml import value_of as value_of_node

T = TypeVar("T")


def yaml_mapping(text: str, source: str) -> dict[str, Any]:
    """Read a mapping from YAML text, strictly; `source` names it in errors.

    Raises
    ------
    InputError
        If it is not a mapping, or a key is given twice.
    """
    node = composed(text, source)
    values = node and value_of_node(node, source)
    if node is None or not isinstance(values, dict):
        raise InputError(f"{source}: a study must be a mapping of keys to values, such as seed: 0")
    for key, value in node.value:
        if key.value == "name" and type(values["name"]) in (int, float):
            values["name"] = value.value  # 008 or 1e3, which PyYAML writes without quotes
    return values


def value_of(text: str, is_list: bool, key: str) -> Any:
    """Read a value from the command line.

    Raises
    ------
    InputError
        If it is not YAML.
    """
    parts = text.split(",") if is_list and not text.startswith("[") else [text]
    try:
        values = [_value(part.strip()) for part in parts]
    except InputError as error:
        raise InputError(f"{key}: cannot read {clipped(text)!r} as YAML{error}") from None
    if not is_list or text.startswith("["):
        return values[0]
    return [value for value in values if value is not None]


def _value(text: str) -> Any:
    """Read one value. A pattern such as ``*.bias`` is a text: no alias can stand for anything."""
    return text if text.startswith("*") else loaded(text, "")


def strictly(kind: type[T], values: Any, name: str = "") -> T:
    """Return plain values as a dataclass or another type, strictly validated.

    `name` is that of the block in a study.

    Raises
    ------
    InputError
        If something in them is wrong.
    """
    import pydantic  # which takes long, and readers of results do without

    try:
        # Through JSON, which is where pydantic is strict on types and takes lists.
        found: T = _reader(cast(Any, kind)).validate_json(json.dumps(values), strict=True)
    except pydantic.ValidationError as error:
        problems = (explained(problem, kind, name) for problem in error.errors()[:3])
        raise InputError("; ".join(problems)) from None
    return found


@cache
def _reader(kind: Any) -> Any:
    import pydantic

    return pydantic.TypeAdapter(kind)


def explained(problem: Any, block: type, name: str = "") -> str:
    """Return what pydantic found wrong with a `block`, of a name, as a sentence for its author."""
    path = [str(part) for part in problem["loc"]]
    key = ".".join([name, *path] if name else path)
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown key {key!r}{nearest(key, _keys(block, path[:-1]))}"
    if problem["type"] in ("missing", "missing_argument"):
        return f"the key {key!r} is missing"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if problem["type"] == "value_error":
        return f"{key}: {message}" if key else str(message)
    wanted = message if problem["type"] == "literal_error" else message.removeprefix("Input ")
    return f"{key} should be {wanted}; got {shown(problem['input'])}"


def _keys(whole: type, path: Iterable[str]) -> list[str]:
    """Return the dotted keys that a block of the whole can hold."""
    block: Any = whole
    for part in path:
        block = get_type_hints(block).get(part, block)
    prefix = "".join(f"{part}." for part in path)
    return [prefix + field.name for field in fields(block)] if is_dataclass(block) else []


def nearest(key: str, known: list[str]) -> str:
    """Return the end of a sentence about an unknown key."""
    close = get_close_matches(key, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(flattened(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def in_lines(study: Any) -> str:
    """Return a study in a few lines, without what is as by default."""
    lines = list[str]()
    for field in fields(study)[1:]:
        value = getattr(study, field.name)
        if is_dataclass(value):
            lines.append(f"  {field.name:<16}{_in_brief(value)}")
        elif value != field.default:
            lines.append(f"  {field.name:<16}{value}")
    return "\n".join([f"{study.name}: {len(study.grid.cells())} cells", *lines])


def _in_brief(block: Any) -> str:
    """Return what a block of a study holds: its first field, and others that are not by default."""
    told = []
    for place, field in enumerate(fields(block)):
        value = getattr(block, field.name)
        default = field.default_factory() if callable(field.default_factory) else field.default
        if place and value == default:
            continue
        label = "" if field.name == "name" else f"{field.name} "
        if is_dataclass(value):
            told.append(f"{label}({_in_brief(value)})")
        else:
            several = value if isinstance(value, tuple) else [value]
            told.append(label + " ".join(str(one) for one in several))
    return ", ".join(told)


def shown(value: Any) -> str:
    """Return a value as it is written in YAML, on one line."""
    return "none" if value is None else clipped(json.dumps(value, ensure_ascii=False))


def clipped(text: str, most: int = 200) -> str:
    """Return a text, or the beginning of a long one, as messages show it."""
    return text if len(text) <= most else f"{text[:most]}…"


def studies() -> list[str]:
    """Return the names of the studies that are shipped with the package."""
    folder = resources.files("lthdask") / "studies"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name[-5:] == ".yaml")


def study_text(which: str | Path) -> str:
    """Return the text of a study: of a shipped one, or of a file.

    Raises
    ------
    InputError
        If there is no such study, or the file cannot be read.
    """
    if str(which) in studies():
        shipped = resources.files("lthdask") / "studies" / f"{which}.yaml"
        return shipped.read_text(encoding="utf-8")
    path = as_path(which)
    if path.suffix in (".yaml", ".yml") or os.path.isfile(path):
        return text_of(path, "study file")
    close = get_close_matches(str(which), studies(), 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise InputError(
        f"unknown study {clipped(str(which))!r}; {hint}known: {', '.join(studies())}, "
        f"or the path of a YAML file"
    )
