"""What the shell offers when Tab is pressed; only what is known without reading a study."""

import os
from collections.abc import Callable, Collection, Iterable
from importlib import resources

from click import Context, Parameter
from click.shell_completion import CompletionItem

Complete = Callable[[Context, Parameter, str], list[CompletionItem]]


def shipped(folder: str) -> list[str]:
    """Return the names of the YAML files in one of the package's folders."""
    files = (resources.files("lthdask") / folder).iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def one_of(values: Collection[str]) -> Complete:
    """Return what completes one of these values."""
    return lambda context, parameter, begun: _items(v for v in values if v.startswith(begun))


def list_of(values: Collection[str]) -> Complete:
    """Return what completes the last value of a list with commas."""

    def complete(context: Context, parameter: Parameter, begun: str) -> list[CompletionItem]:
        *before, last = begun.split(",")
        rest = (v for v in values if v not in before and v.startswith(last))
        return _items(",".join([*before, value]) for value in rest)

    return complete


def study(context: Context, parameter: Parameter, begun: str) -> list[CompletionItem]:
    """Complete a shipped study, or a YAML file; without either, walk through the folders."""
    place = os.path.dirname(begun)  # as it was typed, "./" included
    there = sorted(os.listdir(place or ".")) if os.path.isdir(place or ".") else []
    files = [os.path.join(place, name) for name in there if name.endswith((".yaml", ".yml"))]
    found = [name for name in (*shipped("studies"), *files) if name.startswith(begun)]
    return _items(found) or [CompletionItem(begun, type="file")]


def folder(context: Context, parameter: Parameter, begun: str) -> list[CompletionItem]:
    """Leave it to the shell to complete a folder."""
    return [CompletionItem(begun, type="dir")]


def _items(values: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(value) for value in values]
