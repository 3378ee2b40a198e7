"""Time as values: the clock that is handed in, removal deadlines.

Nothing here reads a clock. The real one is ``annexpy.system.SystemClock``; the simulator hands in
its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["LOCK_RETENTION", "MAX_REMOVAL_AHEAD", "Clock", "Deadline"]

LOCK_RETENTION = 600
"""Seconds that a content lock outlives LOCKCONTENT (fact sheet p2p-protocol, section 4)."""

MAX_REMOVAL_AHEAD = 900
"""A REMOVE-BEFORE further ahead than this many seconds is refused: it cannot come from a lock, only
from a proof older than a reboot (fact sheet reliability, section 0.3)."""


class Clock(Protocol):
    """Two clocks of one machine."""

    def now(self) -> float:
        """Seconds on a clock that never steps and counts suspend (``CLOCK_BOOTTIME`` on Linux).

        It begins anew with each boot: at 0 for git-annex, elsewhere for ``annexpy.system.SystemClock``.
        """
        ...

    def booted(self) -> float:
        """``now()`` at the boot: a moment before it is none of this boot."""
        ...

    def wall(self) -> float:
        """Seconds since 1970, as everybody else means it. May step."""
        ...


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """The latest moment at which a removal may still happen, in seconds of ``Clock.now()``.

    It means nothing on another machine or after a reboot: each hop converts it to its peer's clock.
    """

    at: float
