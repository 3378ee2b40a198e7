"""Locks that belong to an open descriptor.

They conflict with git-annex's POSIX locks, belong to the descriptor (so threads conflict too) and survive the closing
of other descriptors of the same file. Fact sheet repository-format, section 0 rule 6.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import Final

__all__ = ["DescriptorLocks"]

_F_OFD_SETLK: Final = getattr(fcntl, "F_OFD_SETLK", 37)
_F_OFD_GETLK: Final = getattr(fcntl, "F_OFD_GETLK", 36)
_FLOCK: Final = struct.Struct("hhqqi4x")
_READ_LOCK: Final = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
_WRITE_LOCK: Final = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_NO_LOCK: Final = _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0)


class DescriptorLocks:
    """The part of ``Files`` that locks what is open."""

    __slots__ = ()

    def try_lock(self, fd: int, *, exclusive: bool) -> bool:
        try:
            fcntl.fcntl(fd, _F_OFD_SETLK, _WRITE_LOCK if exclusive else _READ_LOCK)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def unlock(self, fd: int) -> None:
        fcntl.fcntl(fd, _F_OFD_SETLK, _NO_LOCK)

    def locked_by_other(self, fd: int) -> bool:
        return bool(_FLOCK.unpack(fcntl.fcntl(fd, _F_OFD_GETLK, _WRITE_LOCK))[0] != fcntl.F_UNLCK)

    def lock_holder(self, fd: int) -> str:
        answer = fcntl.fcntl(fd, _F_OFD_GETLK, _WRITE_LOCK)
        kind, _, _, _, pid = _FLOCK.unpack(answer)
        if kind == fcntl.F_UNLCK:
            return "nobody any more"
        return f"pid {pid}" if pid > 0 else "a process that does not show its pid"
