"""What a process that serves many asks of the system, once, at its start."""

from __future__ import annotations

import ctypes
import resource
from typing import Final

__all__ = ["prepare_process"]

_DESCRIPTORS: Final = 65536
_M_ARENA_MAX: Final = -8
_ARENAS: Final = 2


def prepare_process() -> None:
    """Make this process fit to serve many: descriptors for every connection, and memory that does not pile up.

    A soft limit of 1,024 descriptors is usual, for the sake of programs that use ``select``. It becomes 65,536, or as
    many as the hard limit allows. glibc keeps what a thread has freed for that thread and its like, in up to eight
    places for each core: 16 transfers at once left 57 MiB there that are 41 with two places. Where the system has no
    such limits, nothing is done.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
    except (AttributeError, OSError):
        return  # no glibc
