"""The real clock and real randomness. Nothing else in annexpy reads either."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from annexpy.uuids import UUID

if TYPE_CHECKING:
    import random

    RANDOM: random.SystemRandom

__all__ = ["CLOCK", "RANDOM", "SystemClock", "new_uuid"]

_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """``Clock`` of this machine."""

    def now(self) -> float:
        return time.clock_gettime(_STEADY)

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
