"""Records of other processes that lie ahead of the clock: it was set back after they were written.

A record queued now is later than those all the same, or what was said an hour "later" would win over it. Of lines
in the branch the commit that goes with a record tells that (records.py), of lines in the journal ``Journaled``.
"""

from __future__ import annotations

from typing import Final

from annexpy.clock import Clock
from annexpy.repo.spool import Spool

__all__ = ["Ahead"]

_STEP: Final = 0.5  # seconds that the clock has to go back to count as set back


class Ahead:
    """Looks into the spool once, and again whenever the clock was set back. For any number of threads."""

    __slots__ = ("_clock", "_lines", "_spool", "_steady")

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self._spool, self._clock = spool, clock
        self._steady = float("inf")
        self._lines: dict[tuple[bytes, bytes], tuple[int, bytes]] = {}

    def look(self, wall: float) -> bool:
        """Whether there is any such record; where the spool cannot be read there is none."""
        steady = wall - self._clock.now()
        if steady < self._steady - _STEP:
            self._steady = steady
            try:
                self._lines = self._spool.later(wall)
            except OSError:
                self._lines = {}
        return bool(self._lines)

    def second(self, wall: float, path: bytes, info: bytes, status: bytes) -> int:
        """The second of a record that waits, is later than *wall*, and says something else of *info* in *path*; or 0.

        Without what cannot be read a record is a little weaker, and still a record.
        """
        said = self._lines.get((path, info)) if self.look(wall) else None
        return 0 if said is None or said[1] == status else said[0]
