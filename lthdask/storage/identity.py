"""What tells whose a value is: digests that name the study and the run, beside the values.

A chunk that was exchanged for that of another cell is whole, and its checksum is right. So what
is written for a run of a study goes with a digest of the study, the run and the values.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import numpy as np

from lthdask.storage.schema import ARRAYS, DIGESTS


def run_of(study: str, run: object) -> str:
    """Return what names a run of a study, in states and final weights."""
    return f"{run} of {study}"


def digests(run: str, values: Mapping[str, Any]) -> str:
    """Return the digests of what is written for a run, as text.

    Parameters
    ----------
    run : str
        As of :func:`run_of`.
    values : mapping of str to array
        Array of the cube → what it holds of the run.
    """
    return json.dumps(_digests(run, values))


def strangers(run: str, found: Mapping[str, Any]) -> list[str]:
    """Return the arrays that hold something else than was written for a run.

    Parameters
    ----------
    run : str
    found : mapping of str to array
        What is read, as for :func:`digests`, and the text that it returned. Where there is none,
        as in cells that an earlier version trained, nothing is known.
    """
    values = {array: of for array, of in found.items() if array not in DIGESTS}
    text = "".join(str(found[array]) for array in DIGESTS if array in found)
    try:
        written = dict(json.loads(text)) if text else None
    except (ValueError, TypeError, RecursionError):
        written = {}
    if written is None:
        return []
    now = _digests(run, values)
    return [array for array in values if written.get(array) != now.get(array)]


def _digests(run: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Return array → digest, of those that hold anything."""
    found = dict[str, str]()
    for array, of in values.items():
        if content := _content(array, of):
            found[array] = sha256(f"{run} {array}\0".encode() + content).hexdigest()[:16]
    return found


def _content(array: str, of: Any) -> bytes:
    """Return what an array holds; metrics that were added later, and are NaN, change nothing."""
    declared = ARRAYS[array]
    if declared.dtype != "f8":
        return str(of).encode()
    numbers = np.array(of, "<f8")
    numbers[np.isnan(numbers)] = np.nan  # of which there are many
    if not declared.names:
        return b"" if np.isnan(numbers).all() else numbers.tobytes()
    parts = [
        f"{name}\0".encode() + numbers[..., place].tobytes()
        for place, name in enumerate(declared.names)
        if not np.isnan(numbers[..., place]).all()
    ]
    return b"".join(parts)
