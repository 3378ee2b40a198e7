"""Names on disk. A sync of a file says nothing of the folders that lead to it, nor of what others have written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

__all__ = ["append", "sync", "sync_above"]


def sync(path: Path) -> None:
    """A file, or the names in a folder, whoever wrote them."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_above(path: Path, top: Path) -> None:
    """The names of *path* and of the folders above it, up to those in *top*."""
    for folder in path.parents:
        with suppress(PermissionError):  # where we may not look we made nothing
            sync(folder)
        if folder == top:
            break


def append(path: Path, lines: Iterable[bytes]) -> None:
    """Add *lines* to a file; on disk when this returns."""
    with path.open("ab") as file:
        file.write(b"".join(lines))
        file.flush()
        os.fsync(file.fileno())
    sync(path.parent)
