"""The retention of a content: until when it stays although whoever locked it is gone.

By two clocks, and it is over when it is over by both of them:

* ``.rtm`` has a time of day, as git-annex reads and writes it (fact sheet repository-format, section 2): seconds
  since 1970 as text, without a newline (git-annex ignores the file otherwise). Alone it would end too early where
  somebody sets the clock of the machine forward.
* ``.rtl``, which git-annex locks and never reads, has moments of ``Clock.now()``, which nobody can set. Those of
  another boot mean nothing any more, but that was before this boot: then it is over when this boot is as old as
  any retention gets.

Beside that, ``.rtl`` keeps until when those want the content who have vanished, which must survive that somebody
else locks and unlocks it.
"""

from __future__ import annotations

from math import inf
from typing import Final, NamedTuple

from annexpy.clock import LOCK_RETENTION, Clock
from annexpy.patterns import regex

__all__ = ["LONGEST_NOTE", "NEVER", "NONE", "Moments", "Retention"]

_TIME_OF_DAY: Final = regex(rb"(\d+(?:\.\d+)?)s?\Z")
LONGEST_NOTE: Final = 100
_NOTE: Final = regex(rb"(\d+\.\d+)s(?: (\d+\.\d+) (\d+\.\d+))?\Z")


class Moments(NamedTuple):
    """One moment by the two clocks of a machine; 0 where one of them has nothing to say."""

    wall: float
    steady: float

    @classmethod
    def of(cls, clock: Clock, after: float = 0.0) -> Moments:
        """So many seconds from now, as a file can have it."""
        return cls(round(clock.wall() + after, 9), round(clock.now() + after, 6))

    def later(self, other: Moments) -> Moments:
        """The later one, by each clock."""
        return Moments(max(self.wall, other.wall), max(self.steady, other.steady))

    def left(self, now: Moments) -> float:
        """Seconds from *now*, by the clock that has more of them; negative: both say that it is over."""
        return max((at - present for at, present in zip(self, now, strict=True) if at), default=-inf)


NEVER: Final = Moments(0.0, 0.0)


class Retention(NamedTuple):
    """What the two files of a content say.

    Attributes:
        until: When the latest lock that was given is over.
        vanished: Until when those want the content who did not unlock it.
    """

    until: Moments
    vanished: Moments

    @classmethod
    def parse(cls, time_of_day: bytes | None, note: bytes | None, clock: Clock) -> Retention:
        """From ``.rtm`` and ``.rtl``. What git-annex would ignore says nothing; nor does a note that is none."""
        if time_of_day is None and note is None:
            return NONE
        wall = _TIME_OF_DAY.match(time_of_day) if time_of_day else None
        found = _NOTE.match(note) if note else None
        vanished, last = (found[2], found[3]) if found else (None, None)
        return cls(
            Moments(float(wall[1]) if wall else 0.0, _of_this_boot(last, clock)),
            Moments(float(found[1]) if found else 0.0, _of_this_boot(vanished, clock)),
        )

    @property
    def whole(self) -> Moments:
        """When all of it is over."""
        return self.until.later(self.vanished)

    def time_of_day(self) -> bytes:
        """For ``.rtm``."""
        return b"%.9fs" % self.until.wall

    def note(self) -> bytes:
        """For ``.rtl``; always of one length, so that it is replaced in one write."""
        return b"%021.9fs %018.6f %018.6f" % (self.vanished.wall, self.vanished.steady, self.until.steady)


NONE: Final = Retention(NEVER, NEVER)
"""Where there are no files."""


def _of_this_boot(text: bytes | None, clock: Clock) -> float:
    moment = float(text) if text is not None else 0.0
    if not moment:
        return 0.0
    began = clock.booted()
    return moment if began <= moment <= clock.now() + LOCK_RETENTION + 1 else began + LOCK_RETENTION
