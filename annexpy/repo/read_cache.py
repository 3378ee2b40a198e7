"""Contents that were read through a gateway, kept for the next reader: in ``annex/annexpy/cache``, bounded.

A cache, and no copy: nothing here is looked for in a presence check, counted, listed or locked, and every file may go
at any moment. Only what has a hash that was verified comes in; who was read longest ago goes first.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from typing import Final

from annexpy.keys.backend import Verifier, verifier
from annexpy.keys.key import Key
from annexpy.repo.door import Files
from annexpy.repo.format import STATE, apply_mode, make_folders
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Lockdown

__all__ = ["CachedContent", "Filling", "ReadCache"]

_FOLDER: Final = STATE + b"/cache"
_NEW: Final = b".new-"
_FORGOTTEN: Final = 24 * 3600.0
"""Seconds after which nobody fills a file any more."""
_PART: Final = 4
"""One content may take this part of the cache."""


class ReadCache:
    """The cache of one repository, of at most *limit* bytes. Files that are being filled come on top."""

    def __init__(self, repository: Repository, limit: int) -> None:
        self.limit = limit
        self._files, self._clock = repository.files, repository.clock
        self._lockdown = Lockdown.of(repository.config.get("core.sharedrepository"))
        self._total: int | None = None
        self._numbers = count()

    def open(self, key: Key) -> CachedContent | None:
        """The content of *key*, which is not verified again here; close it. None: it is not here."""
        name = _name(key)
        try:
            fd = self._files.open_read(name)
        except OSError:
            return None
        if self._files.fstatus(fd).st_size != key.size:
            self._files.close_fd(fd)
            self.forget(key)
            return None
        with suppress(OSError):
            self._files.utime(name, self._clock.wall())
        return CachedContent(self._files, fd, key.size)

    def fill(self, key: Key) -> Filling | None:
        """A new file for the content of *key*; None where it is not kept: of no verifiable hash, or too large."""
        hashing = verifier(key)
        if hashing is None or not key.size or key.size > self.limit // _PART:
            return None
        name = _name(key) + _NEW + b"%d-%d" % (os.getpid(), next(self._numbers))
        try:
            make_folders(self._files, _FOLDER, self._lockdown)
            fd = self._files.open_write(name, exclusive=True, mode=0o600)
            apply_mode(self._files, fd, self._lockdown)
        except OSError:
            return None
        return Filling(self, self._files, key, name, fd, hashing)

    def forget(self, key: Key) -> None:
        """Whoever opened it goes on reading."""
        with suppress(OSError):
            self._files.unlink(_name(key))

    def added(self, key: Key) -> None:
        """The content of *key* was put in place: make room."""
        if self._total is not None:
            self._total += key.size or 0
        if self._total is None or self._total > self.limit:
            self._total = self._make_room()

    def _make_room(self) -> int:
        """Remove what was read longest ago; how much is left."""
        now, found, total = self._clock.wall(), [], 0
        for name in self._files.names(_FOLDER):
            path = _FOLDER + b"/" + name
            status = self._files.status(path)
            if status is None:
                continue
            if _NEW in name:
                if now - status.st_mtime > _FORGOTTEN:
                    self._files.unlink(path)
                continue
            found.append((status.st_mtime, status.st_size, path))
            total += status.st_size
        for _, size, path in sorted(found):
            if total <= self.limit:
                break
            self._files.unlink(path)
            total -= size
        return total


@dataclass(slots=True)
class CachedContent:
    """A content of the cache, open.

    Attributes:
        size: Bytes.
    """

    _files: Files
    _fd: int
    size: int

    def read(self, size: int, offset: int) -> bytes:
        """Fewer bytes where somebody has cut the file."""
        return self._files.pread(self._fd, size, offset)

    def close(self) -> None:
        self._files.close_fd(self._fd)


@dataclass(slots=True)
class Filling:
    """A content on its way in. ``finish`` or ``leave`` it; what cannot be written is left out in silence."""

    _cache: ReadCache
    _files: Files
    _key: Key
    _path: bytes
    _fd: int
    _verifier: Verifier
    _failed: bool = field(default=False)

    def write(self, data: bytes) -> None:
        """The next bytes."""
        if not self._failed:
            try:
                self._verifier.update(data)
                self._files.write(self._fd, data)
            except OSError:
                self._failed = True

    def finish(self) -> None:
        """That was all: keep it if it is the content."""
        if self._failed or not self._verifier.matches():
            self.leave()
            return
        self._files.close_fd(self._fd)
        try:
            self._files.rename(self._path, _name(self._key))
            self._cache.added(self._key)
        except OSError:
            self._files.unlink(self._path)

    def leave(self) -> None:
        """Forget it."""
        self._files.close_fd(self._fd)
        with suppress(OSError):
            self._files.unlink(self._path)


def _name(key: Key) -> bytes:
    return _FOLDER + b"/" + sha256(bytes(key)).hexdigest()[:40].encode()
