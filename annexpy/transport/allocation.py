"""Memory for large pieces: that which is freed stays with this process."""

from __future__ import annotations

import functools
from typing import Final

__all__ = ["keep_memory"]

_MALLOC: Final = ((-1, 64 << 20), (-2, 4 << 20), (-3, 16 << 20))
"""M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD."""


@functools.cache
def keep_memory() -> None:
    """Let freed memory stay with this process: else glibc may fetch it anew from the system for every piece.

    Whether it does depends on what lies where. At its worst that are two million page faults for a gigabyte, three
    times as long as everything else together.
    """
    import ctypes  # not for those who never get much

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return  # no glibc
    for setting, size in _MALLOC:
        mallopt(setting, size)
