"""The real clock and real randomness. Nothing else in annexpy reads either."""

from __future__ import annotations

import os
import time
import zlib
from typing import TYPE_CHECKING

from annexpy.uuids import UUID

if TYPE_CHECKING:
    import random

    RANDOM: random.SystemRandom

__all__ = ["CLOCK", "RANDOM", "SystemClock", "new_uuid"]

_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_BEGINNINGS = 1 << 30


def _boot_id() -> bytes:
    """What tells this boot from all others; nothing where the system has no such thing."""
    try:
        with open(_BOOT_ID, "rb") as file:
            return file.read().strip()
    except OSError:
        return b""


class SystemClock:
    """``Clock`` of this machine.

    The system's own clock begins at 0 with each boot, so a removal deadline of a boot that was short would be one of
    the next boot, too. This one begins somewhere else in 34 years with each boot, for all processes alike: a deadline
    of another boot is over, or too far ahead, but for one in a million. Where the system does not tell its boots
    apart (Linux does), it begins at 0.
    """

    def __init__(self, boot_id: bytes | None = None) -> None:
        """*boot_id* is for tests."""
        boot_id = _boot_id() if boot_id is None else boot_id
        self._beginning = zlib.crc32(boot_id) % _BEGINNINGS if boot_id else 0

    def now(self) -> float:
        return time.clock_gettime(_STEADY) + self._beginning

    def booted(self) -> float:
        return self._beginning

    def wall(self) -> float:
        """``GIT_ANNEX_VECTOR_CLOCK`` overrides it, as it does for git-annex."""
        fixed = os.environ.get("GIT_ANNEX_VECTOR_CLOCK")
        return float(fixed) if fixed else time.time()


CLOCK = SystemClock()


def __getattr__(name: str) -> object:
    # random and uuid cost 6 ms of import, and most processes need neither
    if name != "RANDOM":
        raise AttributeError(name)
    import random

    globals()["RANDOM"] = generator = random.SystemRandom()
    return generator


def new_uuid() -> UUID:
    """A fresh version-4 UUID."""
    import uuid

    return UUID(str(uuid.uuid4()))
