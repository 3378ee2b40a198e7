"""What the system has in memory of a file, read where we are: a hop to a thread costs more than the copy."""

from __future__ import annotations

import errno
import os
from functools import lru_cache
from typing import Final

__all__ = ["MemoryReader", "lies_in_memory"]

_MOUNTS: Final = "/proc/self/mountinfo"
_IN_MEMORY: Final = (b"tmpfs", b"ramfs")
_CANNOT_SAY: Final = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


class MemoryReader:
    """Reads pieces of one open file that need not come from a disk or over a network."""

    __slots__ = ("_asks", "_buffer", "_fd", "_in_memory")

    def __init__(self, fd: int) -> None:
        self._fd, self._buffer = fd, bytearray()
        self._asks, self._in_memory = hasattr(os, "RWF_NOWAIT"), False

    def read(self, size: int, offset: int) -> bytes | None:
        """*size* bytes from *offset*; None when they may have to be waited for, or are fewer.

        Raises:
            OSError: They cannot be read.
        """
        if self._in_memory:
            piece = os.pread(self._fd, size, offset)
            return piece if len(piece) == size else None
        if not self._asks:
            return None
        if len(self._buffer) != size:
            self._buffer = bytearray(size)
        try:
            there = os.preadv(self._fd, (self._buffer,), offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno not in _CANNOT_SAY:
                raise
            self._asks, self._in_memory = False, lies_in_memory(os.fstat(self._fd).st_dev)
            return self.read(size, offset)
        return bytes(self._buffer) if there == size else None


@lru_cache
def lies_in_memory(device: int) -> bool:
    """The file system on *device* (``st_dev``) has no disk below it, as far as the system tells."""
    number = b"%d:%d" % (os.major(device), os.minor(device))
    try:
        with open(_MOUNTS, "rb") as file:
            mounts = file.read().splitlines()
    except OSError:
        return False
    for mount in mounts:
        about, _, kind = mount.partition(b" - ")
        if about.split(b" ", 3)[2] == number:
            return kind.startswith(_IN_MEMORY)
    return False
