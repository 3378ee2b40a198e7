"""Get one content from whoever has a good copy, the cheapest first, and from the web when nobody has."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from anyio import to_thread

import annexpy as annex

__all__ = ["get_from_web", "get_good", "is_content"]

_PIECE: Final = 1 << 20
_SECONDS: Final = 60.0
_SCHEMES: Final = ("http://", "https://", "ftp://", "file://")


async def get_good(
    sources: Sequence[annex.Remote],
    key: annex.Key,
    target: Path,
    *,
    associated_file: str = "",
    progress: annex.Progress | None = None,
) -> None:
    """Write the content of *key* to *target*, verified while it comes: a bad copy is no reason to stop.

    Raises:
        KeyNotPresent, VerificationFailed, AnnexError: None of *sources* has a good copy.
    """
    try:
        await annex.get(sources, key, target, associated_file=associated_file, progress=progress)
    except annex.AnnexError:
        if len(sources) == 1:
            raise
        for remaining, remote in enumerate(reversed(sources), 1):
            try:
                await annex.get(remote, key, target, associated_file=associated_file, progress=progress)
                return
            except annex.AnnexError:
                if remaining == len(sources):
                    raise


async def get_from_web(url: str, key: annex.Key, target: Path) -> None:
    """Write what *url* leads to to *target*, if it is the content of *key*; else nothing is left there.

    Raises:
        VerificationFailed: It is something else, or *key* has no hash to compare it with.
        ConnectFailed: It cannot be had.
    """
    if not url.startswith(_SCHEMES):
        raise annex.InvalidInput("url", url, "http, https, ftp or file")
    if not annex.is_verifiable(key):
        raise annex.VerificationFailed(key, url, "its key has no hash")
    await to_thread.run_sync(_from_web, url, key, target)


def _from_web(url: str, key: annex.Key, target: Path) -> None:
    aside = target.with_name(f"{target.name}.{os.getpid()}.web")
    try:
        try:
            with urllib.request.urlopen(url, timeout=_SECONDS) as answer, aside.open("wb") as file:
                found = _named(_written(answer, file), key)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, urllib.error.URLError, ValueError) as error:
            raise annex.ConnectFailed(url, str(error)) from error
        if not _same(found, key):
            raise annex.VerificationFailed(key, url)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def is_content(path: Path, key: annex.Key) -> bool:
    """A regular file is there, and what is in it is the content of *key*."""
    if path.is_symlink() or not path.is_file() or key.size not in (None, path.stat().st_size):
        return False
    with path.open("rb") as file:
        return _same(_named(iter(lambda: file.read(_PIECE), b""), key), key)


def _named(pieces: Iterator[bytes], key: annex.Key) -> annex.Key:
    """The key that content has, named as *key* is."""
    return annex.name_content(pieces, key.backend, key.name[len(key.name.split(b".")[0]) :])


def _same(found: annex.Key, key: annex.Key) -> bool:
    return (found.name, found.size) == (key.name, key.size if key.size is not None else found.size)


def _written(answer: BinaryIO, file: BinaryIO) -> Iterator[bytes]:
    """Each piece that was read, after it was written: hashing and writing share one pass."""
    while piece := answer.read(_PIECE):
        file.write(piece)
        yield piece
