"""The folder in which an export is made, beside its target: the next one uses what an interrupted one left there."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from annexpy import AnnexError
from glimmer_store.errors import ConfigError
from glimmer_store.synced import sync

__all__ = ["DATA", "keep_only", "publish", "staged"]

DATA: Final = "data"
"""The folder of the contents, which alone is kept for the next."""
_PARTIAL: Final = ".annexpy-*.part"
"""Contents on their way, which go on where they were."""


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder beside *target*, to be published as it, with the contents that an interrupted export left.

    It stays when this is interrupted, or fails in a way that may pass. Only one process has it.

    Raises:
        ConfigError: The target is taken, or being written by somebody else.
    """
    while True:
        _check_free(target)
        aside = target.absolute().parent / f".{target.name}.part"
        aside.mkdir(exist_ok=True)
        fd = os.open(aside, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _lock(fd, target)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), aside.stat()):  # else somebody has published it meanwhile
                    break
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    try:
        for entry in aside.iterdir():
            if entry.name != DATA:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        (aside / DATA).mkdir(exist_ok=True)
        yield aside
    except Exception as error:
        if not (isinstance(error, AnnexError) and error.retryable):
            shutil.rmtree(aside, ignore_errors=True)
        raise
    finally:
        os.close(fd)


def _check_free(target: Path) -> None:
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise ConfigError(f"{target}: is there already", remedy="name a folder that does not exist yet")
    if not target.absolute().parent.is_dir():
        raise ConfigError(f"{target.parent}: no such folder", remedy="make it first")


def _lock(fd: int, target: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(
            f"{target}: another export is writing it", remedy="wait for that one, or name another folder"
        ) from error


def keep_only(folder: Path, wanted: Collection[str], *, partials: bool) -> None:
    """Take away everything below *folder* that is not one of the *wanted* paths, or with *partials* on its way."""
    for name, folders, files in os.walk(folder, topdown=False):
        for file in files:
            path = Path(name, file)
            if path.relative_to(folder).as_posix() not in wanted and not (partials and path.match(_PARTIAL)):
                path.unlink()
        for inner in folders:
            path = Path(name, inner)
            if path.is_symlink():
                path.unlink()
                continue
            with suppress(OSError):
                path.rmdir()  # if it is empty


def publish(aside: Path, target: Path) -> None:
    """Everything on disk, then the name."""
    for folder, _, names in os.walk(aside):
        for name in names:
            sync(Path(folder, name))
        sync(Path(folder))
    with suppress(FileNotFoundError):
        target.rmdir()  # it was empty
    aside.rename(target)
    sync(target.absolute().parent)
