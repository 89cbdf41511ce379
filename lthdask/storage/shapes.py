"""Shapes of a study's weights, from the head of a checkpoint: quick, and without torch."""

import json
from pathlib import Path

_PREFIX = "weights/"
_LONGEST = 10_000_000
"""Bytes of a head; the format of safetensors allows ten times as many."""


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight of a study; nothing if no checkpoint tells.

    Parameters
    ----------
    folder : Path
        The study's folder.
    """
    file = next((folder / "checkpoints").glob("replicate-*/epoch-*.safetensors"), None)
    try:
        return _shapes(file) if file else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # damaged, or just removed
        return {}


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        head = json.loads(opened.read(min(length, _LONGEST)))
    return {
        name.removeprefix(_PREFIX): tuple(about["shape"])
        for name, about in head.items()
        if name.startswith(_PREFIX)
    }
