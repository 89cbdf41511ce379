"""YAML and text as people write them, read in one way on every machine.

YAML 1.1, which PyYAML reads, takes 010 for eight, 12:30 for 750, ``no`` for false and 2024-05-01
for a date. Here, as in the core schema of YAML 1.2 (section 10.3), words and dates are texts, and
numbers are decimal.
"""

import os
import re
import stat
from pathlib import Path
from typing import Any

import yaml

from lthdask.errors import InputError

LARGEST_FILE = 1_000_000
"""Bytes. A study is a page of text."""
NUMBERS = {
    "int": re.compile(r"[-+]?[0-9]+$"),
    "float": re.compile(
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$"
        r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
    ),
}
WORDS = {
    "null": re.compile(r"(~|null|Null|NULL|)$"),
    "bool": re.compile(r"(true|True|TRUE|false|False|FALSE)$"),
}


class _Loader(yaml.SafeLoader):
    """The core schema, in which an alias or a repeated key is an error.

    A few aliases of aliases can stand for more values than fit into memory.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own name

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            problem = f"write out the value of the alias *{event.anchor}"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key_node, _ in node.value:
            if key_node.value.__hash__ and key_node.value in seen:
                problem = f"the key {key_node.value!r} is given twice"
                raise yaml.composer.ComposerError(None, None, problem, key_node.start_mark)
            seen.add(str(key_node.value))
        return node


class _Dumper(yaml.SafeDumper):
    """It puts quotes around texts that `_Loader`, or YAML 1.1, would take for something else."""


for _kind, _pattern in (WORDS | NUMBERS).items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", _pattern, None)
for _kind, _pattern in NUMBERS.items():
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", _pattern, list("-+.0123456789"))
_Loader.yaml_constructors = {  # without those of dates, sets and bytes
    tag: make
    for tag, make in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in ("null", "bool", "str", "seq", "map")
}
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))
_Loader.add_constructor(
    "tag:yaml.org,2002:float",
    lambda _, node: float(re.sub(r"\.(?=[a-zA-Z])", "", node.value)),
)


def composed(text: str, source: str) -> yaml.Node | None:
    """Return the nodes of a YAML text, which know their lines; `source` names it in errors.

    Raises
    ------
    InputError
        If it is not YAML, holds an alias, or a key twice.
    """
    node: yaml.Node | None = _told(lambda: yaml.compose(text, _Loader), source)
    return node


def value_of(node: yaml.Node, source: str) -> Any:
    """Return what a node holds.

    Raises
    ------
    InputError
        If it asks for anything but numbers, texts, lists and mappings.
    """
    return _told(lambda: _Loader("").construct_document(node), source)


def loaded(text: str, source: str) -> Any:
    """Return what a YAML text holds; errors are as in :func:`composed` and :func:`value_of`."""
    node = composed(text, source)
    return None if node is None else value_of(node, source)


def dumped(values: Any, on_a_line: bool = False) -> str:
    """Return YAML text, from which :func:`loaded` makes the same values."""
    style = True if on_a_line else None
    width = 10**6 if on_a_line else None
    text: str = yaml.dump(
        values, Dumper=_Dumper, sort_keys=False, default_flow_style=style, width=width
    )
    return text


def _told(read: Any, source: str) -> Any:
    try:
        return read()
    except (yaml.YAMLError, ValueError, TypeError, KeyError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{source}{line}: {_problem(error)}") from None


def _problem(error: Exception) -> str:
    """Return what is wrong with a text that is not YAML."""
    if isinstance(error, yaml.reader.ReaderError):
        return f"it holds the character {chr(error.character)!r}, which is no text"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if "integer string conversion" in str(error):
        return "it holds a number of too many digits"
    return getattr(error, "problem", None) or "not YAML"


def text_of(path: Path, what: str) -> str:
    """Return the text of a file that a person wrote, in UTF-8 whatever the locale.

    Parameters
    ----------
    path : Path
    what : str
        What the file is, for errors.

    Raises
    ------
    InputError
        If it cannot be read, is no regular file, is larger than `LARGEST_FILE`, or no UTF-8.
    """
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):  # a pipe, for example, would be waited for
            reason = "it is no regular file"
        elif found.st_size > LARGEST_FILE:
            reason = f"it has {found.st_size:,} bytes, and {LARGEST_FILE:,} are the most"
        else:
            return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        reason = "it is not text in UTF-8"
    except (OSError, ValueError) as error:  # a path can hold a null character
        reason = getattr(error, "strerror", None) or str(error)
    raise InputError(f"cannot read the {what} {path}: {reason}")
