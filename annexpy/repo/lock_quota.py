"""How many content locks each client holds or has left behind in a repository, counted by all its processes.

``annexpy-shell`` is a process for each connection, so what a client may do altogether stands in a file: one record
for each lock that was given, with the moment when its retention is over. Who unlocks takes its record away; the record
of who vanishes stays as long as the content stays locked. A lock that is held for longer than its retention is no
longer counted: it ends with its process.

The file is never longer than all clients together may have locks, and a file that is lost costs the counts only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from struct import Struct
from typing import Final

from annexpy.clock import LOCK_RETENTION
from annexpy.repo.format import STATE, apply_mode, make_folders
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Lockdown

__all__ = ["SharedLockQuota"]

_PATH: Final = STATE + b"/content-locks"
_RECORD: Final = Struct("<d12s12s")
_PIECE: Final = 16 * 1024
_TRIES: Final = 2000
"""Looks at a file that another process has for some ten microseconds."""

_Record = tuple[float, bytes, bytes]


class SharedLockQuota:
    """A ``Quota`` of the server, for a repository. What cannot be counted is not refused: locking it would fail too."""

    def __init__(self, repository: Repository, *, limit: int, crowd: int) -> None:
        """Count those in *repository*.

        Args:
            repository: Open.
            limit: Locks of one client.
            crowd: Locks of all clients of one user.
        """
        self._files, self._clock, self._limit, self._crowd = repository.files, repository.clock, limit, crowd
        self._lockdown = Lockdown.of(repository.config.get("core.sharedrepository"))
        self._mine: dict[tuple[bytes, bytes], list[float]] = {}
        self._fd, self._process = -1, 0

    def take(self, client: str, who: str) -> bool:
        """As ``Quota``."""
        at = _digest(who), _digest(client)
        until = self._clock.wall() + LOCK_RETENTION

        def count(records: list[_Record]) -> bool:
            of_who = [one for one in records if one[1] == at[0]]
            if len(of_who) >= self._crowd or sum(one[2] == at[1] for one in of_who) >= self._limit:
                return False
            records.append((until, *at))
            return True

        if self._change(count):
            self._mine.setdefault(at, []).append(until)
            return True
        return False

    def give_back(self, client: str, who: str, *, left_behind: bool) -> None:
        """As ``Quota``."""
        at = _digest(who), _digest(client)
        until = self._mine[at].pop()
        if not left_behind:

            def forget(records: list[_Record]) -> bool:
                if (until, *at) in records:
                    records.remove((until, *at))
                return True

            self._change(forget)

    def _change(self, change: Callable[[list[_Record]], bool]) -> bool:
        """What *change* says of the records that still count, which it may change; True where there is no file."""
        try:
            fd = self._locked()
            try:
                return self._rewrite(fd, change)
            finally:
                self._files.unlock(fd)
        except OSError:
            return True

    def _locked(self) -> int:
        """The file, locked. It stays open: a session locks and unlocks again and again."""
        files = self._files
        for _ in range(_TRIES):
            if self._process != os.getpid():  # a lock belongs to whoever opened the file
                self.close()
            if self._fd < 0:
                self._fd, self._process = self._opened(), os.getpid()
            if not files.try_lock(self._fd, exclusive=True):
                continue
            if files.fstatus(self._fd).st_nlink:
                return self._fd
            self.close()
        raise OSError("content locks are being counted all the time")

    def _opened(self) -> int:
        try:
            return self._files.open_write(_PATH, append=True, mode=0o666)
        except FileNotFoundError:
            make_folders(self._files, STATE, self._lockdown)
            return self._files.open_write(_PATH, append=True, mode=0o666)

    def close(self) -> None:
        """Let go of the file. Using this again opens it again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._files.close_fd(fd)

    def _rewrite(self, fd: int, change: Callable[[list[_Record]], bool]) -> bool:
        files, raw, now = self._files, b"", self._clock.wall()
        while piece := files.pread(fd, _PIECE, len(raw)):
            raw += piece
            if len(piece) < _PIECE:
                break
        if not raw:
            with suppress(PermissionError):  # another user made it, with the mode that all of us give it
                apply_mode(files, fd, self._lockdown)
        whole = raw[: len(raw) - len(raw) % _RECORD.size]
        records = [one for one in _RECORD.iter_unpack(whole) if now < one[0] <= now + LOCK_RETENTION]
        answer = change(records)
        new = b"".join([_RECORD.pack(*one) for one in records])
        if not new.startswith(raw):
            files.truncate(fd, 0)
            raw = b""
        if len(new) > len(raw):
            files.write(fd, new[len(raw) :])
        return answer


@lru_cache(1024)
def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogateescape")).digest()[:12]
