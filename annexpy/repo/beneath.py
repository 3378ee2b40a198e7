"""Open what is some folders further down without following symbolic links, in one system call.

To open one folder after the other costs two calls for each. Linux has ``openat2`` since 5.6, which Python does not
offer; where there is none, or a sandbox forbids it, the caller goes step by step.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ctypes import c_size_t

__all__ = ["OUT_OF_REACH", "open_beneath", "statuses_beneath"]

_OPENAT2: Final = 437  # on every architecture
_RESOLVE_NO_SYMLINKS: Final = 0x04
_HOW: Final = struct.Struct("QQQ")
_WORTH: Final = 400
"""Calls from which on they are worth the 2 ms that ctypes costs."""
_UNKNOWN: Final = frozenset((errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG))

OUT_OF_REACH: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.ENAMETOOLONG))
"""What the system says of a file that is not there for us, whatever else goes wrong."""

_LOOK: Final = getattr(os, "O_PATH", 0) | os.O_NOFOLLOW | os.O_CLOEXEC

_Opens = Callable[[int, bytes, bytes, "c_size_t"], int]
"""``openat2`` from a folder to a path, with what ``_how`` gives: a descriptor, or -1 and what ``_error`` says."""

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
    opens = _usable(fd, 1)
    # What may lead up or has an empty part has to be looked at part by part.
    if opens is None or path[0] == 47 or path[-1] == 47 or b".." in path or b"//" in path or 0 in path:
        return -1
    opened = opens(fd, path, *_how(flags, mode))
    if opened < 0:
        opened, error = _error(opens, fd, path, flags, mode)
        if error:
            raise OSError(error, os.strerror(error), path)
    return opened


def statuses_beneath(fd: int, paths: Sequence[bytes]) -> list[os.stat_result | None] | None:
    """As ``os.lstat`` of each of *paths*, None where nothing can be reached, as behind a symbolic link.

    Args:
        fd: Of the folder that they start from.
        paths: Relative, of parts that are neither empty nor ``.`` or ``..``.

    Returns:
        None when one has to go step by step.

    Raises:
        OSError: One could not be looked at, and may be there.
    """
    opens = _usable(fd, len(paths))
    if opens is None:
        return None
    how, size = _how(_LOOK, 0)
    fstat, close = os.fstat, os.close
    found: list[os.stat_result | None] = []
    for path in paths:
        if 0 in path:  # which would end it early
            found.append(None)
            continue
        looked = opens(fd, path, how, size)
        if looked < 0:
            looked, error = _error(opens, fd, path, _LOOK, 0)
            if error in OUT_OF_REACH:
                found.append(None)
                continue
            if error:
                raise OSError(error, os.strerror(error), path)
        try:
            found.append(fstat(looked))
        finally:
            close(looked)
    return found


def _usable(fd: int, calls: int) -> _Opens | None:
    """The system call, tried on the folder *fd*, once there were so many *calls* that it is worth it."""
    global _calls, _opens
    if _opens is None:
        _calls += calls
        if _calls <= _WORTH:
            return None
        _opens = _system_call(fd) or _never
    return None if _opens is _never else _opens


def _never(fd: int, path: bytes, how: bytes, size: c_size_t) -> int:
    return -1


@cache
def _how(flags: int, mode: int) -> tuple[bytes, c_size_t]:
    from ctypes import c_size_t

    return _HOW.pack(flags, mode if flags & os.O_CREAT else 0, _RESOLVE_NO_SYMLINKS), c_size_t(_HOW.size)


def _error(opens: _Opens, fd: int, path: bytes, flags: int, mode: int) -> tuple[int, int]:
    """After a failure: -1 and its ``errno``; or, where it was a signal only, the descriptor after all and 0."""
    from ctypes import get_errno

    while (error := get_errno()) == errno.EINTR:
        opened = opens(fd, path, *_how(flags, mode))
        if opened >= 0:
            return opened, 0
    return -1, error


def _system_call(fd: int) -> _Opens | None:
    """The system call, if it works on the folder *fd*."""
    if not sys.platform.startswith("linux") or struct.calcsize("P") != 8:
        return None
    import ctypes

    call = ctypes.CDLL(None, use_errno=True).syscall
    # Without argtypes, which would be looked up for each argument of each call: what is not an int is made so once.
    call.restype = ctypes.c_long
    opens: _Opens = partial(call, ctypes.c_long(_OPENAT2))
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    tried = opens(fd, b".", *_how(flags, 0))
    if tried < 0:
        tried, error = _error(opens, fd, b".", flags, 0)
        if error in _UNKNOWN:
            return None
        if error:
            raise OSError(error, os.strerror(error), b".")
    os.close(tried)
    return opens
