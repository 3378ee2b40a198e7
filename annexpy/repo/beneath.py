"""Open what is some folders further down without following symbolic links, in one system call.

To open one folder after the other costs two calls for each. Linux has ``openat2`` since 5.6, which Python does not
offer; where there is none, or a sandbox forbids it, the caller goes step by step.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Callable
from typing import Final

__all__ = ["open_beneath"]

_OPENAT2: Final = 437  # on every architecture
_RESOLVE_NO_SYMLINKS: Final = 0x04
_HOW: Final = struct.Struct("QQQ")
_WORTH: Final = 400
"""Calls from which on they are worth the 2 ms that ctypes costs."""
_UNKNOWN: Final = frozenset((errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG))

_Opens = Callable[[int, bytes, int, int], int]

_calls = 0
_opens: _Opens | None = None


def open_beneath(fd: int, path: bytes, flags: int, mode: int = 0) -> int:
    """As ``os.open(path, flags, mode, dir_fd=fd)``, but a symbolic link anywhere on the way raises ``OSError(ELOOP)``.

    Args:
        fd: Of the folder that *path* starts from.
        path: Relative. One that has to be looked at part by part, because it may lead up or has an empty part, is
            left to the caller.
        flags: With ``O_NOFOLLOW``.
        mode: Of a file that is made.

    Returns:
        The descriptor; -1 when one has to go step by step.
    """
    global _calls, _opens
    if _opens is None:
        _calls += 1
        if _calls <= _WORTH:
            return -1
        _opens = _system_call(fd) or _never
    if path[0] == 47 or path[-1] == 47 or b".." in path or b"//" in path or b"\0" in path:
        return -1
    return _opens(fd, path, flags, mode)


def _never(fd: int, path: bytes, flags: int, mode: int) -> int:
    return -1


def _system_call(fd: int) -> _Opens | None:
    """The system call, if it works on the folder *fd*."""
    if not sys.platform.startswith("linux") or struct.calcsize("P") != 8:
        return None
    import ctypes

    call = ctypes.CDLL(None, use_errno=True).syscall
    call.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
    call.restype = ctypes.c_long
    hows: dict[tuple[int, int], bytes] = {}

    def opens(fd: int, path: bytes, flags: int, mode: int) -> int:
        how = hows.get((flags, mode))
        if how is None:
            how = hows[flags, mode] = _HOW.pack(flags, mode if flags & os.O_CREAT else 0, _RESOLVE_NO_SYMLINKS)
        while True:
            opened: int = call(_OPENAT2, fd, path, how, len(how))
            if opened >= 0:
                return opened
            number = ctypes.get_errno()
            if number != errno.EINTR:
                raise OSError(number, os.strerror(number), path)

    try:
        os.close(opens(fd, b".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, 0))
    except OSError as error:
        if error.errno in _UNKNOWN:
            return None
        raise
    return opens
