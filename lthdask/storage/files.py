"""Files that are written whole or not at all."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, finds the old content or the new one."""
    with written_whole(path) as file:
        file.write(content)


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write; a reader, or a crash, finds the old content or the new one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    # Others may read it as far as the user's mask has it: colleagues look at results.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_json(file: str | Path) -> dict[str, Any]:
    """Return what a small file holds; nothing if it was not written completely."""
    try:
        with open(file, "rb") as opened:
            found = json.loads(opened.read())
    except PermissionError:
        raise
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
