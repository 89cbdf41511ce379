"""What Dask is told by somebody else than lthdask: files of its own, and the environment.

Dask reads both as it is imported, and looks at a value when it needs it.
"""

import os
from collections.abc import Mapping
from typing import Any

from lthdask.errors import InputError


def malformed() -> str | None:
    """Return in a sentence which of Dask's own files cannot be read; None if all can.

    Nothing of Dask can be imported then, and xarray, which tries to, raises whatever it likes.
    """
    try:
        import dask  # noqa: F401
    except ValueError as error:
        return f"{str(error).partition(', original')[0]}; mend it, or move it away"
    return None


def require_usable(known: Mapping[str, Any], found: Any, prefix: str = "") -> None:
    """Refuse values with which Dask would end in the middle of its work.

    Parameters
    ----------
    known : mapping
        Key → default, or section.
    found : mapping
        The same, as Dask has it now. Keys that are not known are somebody else's.
    prefix : str
        Of these keys.

    Raises
    ------
    InputError
        If there are such values.
    """
    from lthdask.cluster.values import problem_of

    for name, default in known.items():
        key, value = f"{prefix}{name}", found.get(name, found.get(name.replace("-", "_"), default))
        if isinstance(default, dict) and default:
            if not isinstance(value, dict):
                raise _unusable(key, "must be a section of keys and values", value)
            require_usable(default, value, f"{key}.")
        elif value != default and (problem := problem_of(key, value, default)):
            raise _unusable(key, problem, value)


def _unusable(key: str, problem: str, value: object) -> InputError:
    variable = "DASK_" + key.upper().replace(".", "__").replace("-", "_")
    there = variable in os.environ
    where = f"the environment, as {variable}" if there else "a file of Dask's, as in ~/.config/dask"
    return InputError(f"{key} {problem}; got {value!r}, which Dask is told by {where}")
