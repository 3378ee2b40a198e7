"""How many requests to each node the processes of one gateway have under way, each seen by all of them.

A request is one locked byte of a file that stays empty, so what a killed process had under way is forgotten the
moment it dies. The lock belongs to the open file (``F_OFD_SETLK``): a process counts the bytes that others
have locked, and knows its own. Where such locks are not to be had, nobody counts anything: the counts only say
which of several nodes is the least busy. Beside it, a small file for each node keeps what went wrong there last.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import struct
import zlib
from typing import Final

from annexpy.repo.files import Files
from annexpy.uuids import UUID

__all__ = ["InUse", "NodeInUse"]

log = logging.getLogger(__name__)

_FILE: Final = b"annex/annexpy.in-use"
_ERRORS: Final = b"annex/annexpy.errors"
_SET: Final = getattr(fcntl, "F_OFD_SETLK", 37)
_GET: Final = getattr(fcntl, "F_OFD_GETLK", 36)
_FLOCK: Final = struct.Struct("hhqqi4x")
_PLACES: Final = 4096
"""Requests to one node that can be told apart."""


class InUse:
    """The counts of one process."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._fd: int | None = None
        self._process = 0

    def node(self, uuid: UUID) -> NodeInUse:
        """The count of one node."""
        return NodeInUse(self, uuid, (zlib.crc32(uuid.encode()) & 0x7FFFFFFF) * _PLACES)

    def descriptor(self) -> int | None:
        """The file; None where it cannot be had. A forked child has one of its own."""
        if self._fd is None or self._process != os.getpid():
            self._process = os.getpid()
            try:
                self._fd = self._files.open_write(_FILE)
            except OSError:
                self._fd = -1
        return None if self._fd < 0 else self._fd

    def read_error(self, uuid: UUID) -> tuple[str, float, float] | None:
        """What went wrong last at a node, when, and until when nobody else need try."""
        try:
            found = json.loads(self._files.read(b"%b/%b" % (_ERRORS, os.fsencode(uuid))) or b"null")
            return None if found is None else (str(found["error"]), float(found["time"]), float(found["until"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None  # told again with the next error

    def write_error(self, uuid: UUID, error: str, time: float, until: float) -> None:
        """Keep it for ``read_error``. Nobody depends on it, so what cannot be written is not."""
        name = b"%b/%b" % (_ERRORS, os.fsencode(uuid))
        new = b"%b.%d" % (name, os.getpid())
        try:
            self._files.make_folders(_ERRORS)
            fd = self._files.open_write(new)
            try:
                self._files.truncate(fd, 0)
                self._files.write(fd, json.dumps({"error": error, "time": time, "until": until}).encode())
            finally:
                self._files.close_fd(fd)
            self._files.rename(new, name)
        except OSError as failure:
            log.debug("%s", failure)

    def close(self) -> None:
        """Forget what this process has under way."""
        if self._fd is not None and self._fd >= 0 and self._process == os.getpid():
            self._files.close_fd(self._fd)
        self._fd = None


class NodeInUse:
    """The count of one node: a ``Usage``."""

    __slots__ = ("_all", "_first", "_mine", "_uuid")

    def __init__(self, all_: InUse, uuid: UUID, first: int) -> None:
        self._all, self._uuid, self._first = all_, uuid, first
        self._mine: list[int] = []

    def begin(self) -> None:
        """One more of ours."""
        fd = self._all.descriptor()
        # Beginning elsewhere than others do, so that the first try is usually the last.
        place, taken = (os.getpid() * 61) % _PLACES, set(self._mine)
        for step in range(_PLACES if fd is not None else 0):
            at = (place + step) % _PLACES
            if at in taken:
                continue
            assert fd is not None
            try:
                fcntl.fcntl(fd, _SET, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, self._first + at, 1, 0))
            except (BlockingIOError, PermissionError):
                continue
            except OSError:
                break
            self._mine.append(at)
            return
        self._mine.append(-1)

    def end(self) -> None:
        """One less."""
        if not self._mine:
            return
        at, fd = self._mine.pop(), self._all.descriptor()
        if at >= 0 and fd is not None:
            try:
                fcntl.fcntl(fd, _SET, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, self._first + at, 1, 0))
            except OSError:
                self._all.close()  # it gives up all of them; the counts are too low for a moment

    def down(self, error: str, time: float, until: float) -> None:
        """It could not be reached at *time*; others need not try before *until* (seconds since 1970)."""
        self._all.write_error(self._uuid, error, time, until)

    def up(self) -> None:
        """It can be reached again."""
        known = self._all.read_error(self._uuid)
        if known is not None and known[2]:
            self._all.write_error(self._uuid, known[0], known[1], 0.0)

    def told_down(self, now: float) -> tuple[str, float] | None:
        """Why others need not try, and until when."""
        known = self._all.read_error(self._uuid)
        return None if known is None or not known[1] <= now < known[2] else (known[0], known[2])

    def last_error(self) -> tuple[str, float] | None:
        """What ``down`` was told last, by any process, and when."""
        known = self._all.read_error(self._uuid)
        return None if known is None else known[:2]

    def others(self) -> int:
        """How many other processes have under way."""
        fd = self._all.descriptor()
        at, end, count = self._first, self._first + _PLACES, 0
        while fd is not None and at < end:
            try:
                kind, _, start, length, _ = _FLOCK.unpack(
                    fcntl.fcntl(fd, _GET, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, at, end - at, 0))
                )
            except OSError:
                break
            if kind == fcntl.F_UNLCK:
                break
            # Neighbouring bytes that one process has locked are told as one stretch.
            upto = min(end, start + length) if length else end
            count += upto - max(at, start)
            at = upto
        return count
