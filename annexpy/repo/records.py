"""What is to be written to the branch: one line per record, and what a log becomes when records arrive late.

A record is queued at one time and reaches the branch at another, perhaps after a crash, perhaps twice, and
git-annex may have written to the same log in between. So the rule for a presence record of time *t* is not
git-annex's "one second after whatever is there":

* what is there says so already → nothing changes;
* it is older than *t* → the line gets *t*;
* it was there already when the record was queued (then *t* is only smaller because clocks differ), or it comes
  from an earlier record of the same round → the line gets a second more;
* otherwise somebody decided otherwise after us, or in the same second → the record is dropped.

Hence absorbing a record again changes nothing: an old "present" does not come back over a later "missing".

As text a record is ``path TAB time TAB kind TAB status TAB info``, so records sort by path, then by time. The
time is in microseconds. A process that changes its mind about one line within a second dates the later record
a second on, as git-annex would (``Clockwork``), so the order of its own records is in their seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from annexpy.logs.line import SECOND, VectorClock, tick, union_merge
from annexpy.logs.presence import PresenceLog, format_presence, parse_presence

__all__ = [
    "LINES",
    "PRESENCE",
    "Clockwork",
    "Queued",
    "apply_records",
    "escaped",
    "lines_record",
    "presence_of",
    "presence_record",
    "presence_records",
    "record_path",
    "record_time",
]

PRESENCE: Final = b"P"
LINES: Final = b"L"
PRIVATE_PRESENCE: Final = b"p"
PRIVATE_LINES: Final = b"l"


_REMEMBERED: Final = 4096


class Queued(NamedTuple):
    """A record and what its writer knew: the commit of the branch when it was queued (40 hex digits or empty)."""

    line: bytes
    base: bytes


class Clockwork:
    """The times of the records of one process: strictly increasing, and whole seconds apart where it matters.

    Of the lines that were recorded most lately it remembers what was said of them.
    """

    __slots__ = ("_before", "_last", "_recent")

    def __init__(self) -> None:
        self._last = 0
        self._recent: dict[tuple[bytes, bytes], tuple[int, bytes]] = {}
        self._before = self._recent  # those that became too many

    def tick(self, wall: float) -> int:
        """The time, in microseconds, of something that happens at *wall*."""
        now, last = int(wall * 1_000_000), self._last
        self._last = last = now if now > last else last + 1
        return last

    def time(self, wall: float, path: bytes, info: bytes, status: bytes, *, after: int = 0) -> int:
        """The time of the record that *info* gets *status* in *path* at *wall*, later than the second *after*."""
        time = self.tick(wall)
        second = time // 1_000_000
        if after >= second:
            second = after + 1
            time = second * 1_000_000
        recent, line = self._recent, (path, info)
        said = recent.get(line) or self._before.get(line)
        if said is None:
            if len(recent) >= _REMEMBERED and self._recent is recent:  # else another thread has just done it
                fresh: dict[tuple[bytes, bytes], tuple[int, bytes]] = {}
                self._before, self._recent = recent, fresh
                recent = fresh
        elif said[0] >= second:
            second = said[0] if said[1] == status else said[0] + 1
            time = max(time, second * 1_000_000)
        recent[line] = (second, status)
        return time


def escaped(raw: bytes) -> bytes:
    """*raw* as it stands in a record."""
    if b"\t" in raw or b"\n" in raw or b"\\" in raw:
        return raw.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n")
    return raw


def _plain(escaped: bytes) -> bytes:
    if b"\\" not in escaped:
        return escaped
    parts = escaped.split(b"\\\\")
    return b"\\".join([part.replace(b"\\t", b"\t").replace(b"\\n", b"\n") for part in parts])


def presence_record(path: bytes, time: int, status: bytes, info: bytes, *, private: bool = False) -> bytes:
    """A record: *info* got *status* in the presence log *path* at *time* (microseconds)."""
    return presence_records(((path, time),), status, info, private=private)[0]


def presence_records(
    when: Iterable[tuple[bytes, int]], status: bytes, info: bytes, *, private: bool = False
) -> list[bytes]:
    """Records: *info* got *status* in each log at its time."""
    said = b"\t%b\t%b\t%b" % (PRIVATE_PRESENCE if private else PRESENCE, status, escaped(info))
    return [b"%b\t%016d%b" % (escaped(path), time, said) for path, time in when]


def lines_record(path: bytes, time: int, content: bytes, *, private: bool = False) -> bytes:
    """A record: *path* has the lines of *content* from *time* on, whatever else it has."""
    return b"%b\t%016d\t%b\t\t%b" % (escaped(path), time, PRIVATE_LINES if private else LINES, escaped(content))


def record_path(line: bytes) -> bytes:
    """The branch path a record is about."""
    return _plain(line[: line.index(b"\t")])


def record_time(line: bytes) -> float:
    """When a record was made, in seconds since 1970."""
    return int(line.split(b"\t", 2)[1]) / 1_000_000


def presence_of(line: bytes) -> tuple[tuple[bytes, bytes] | None, float, bytes]:
    """((path, info), time in seconds, status) of a presence record; no place for another one."""
    path, time, kind, status, info = line.split(b"\t")
    place = (_plain(path), _plain(info)) if kind in (PRESENCE, PRIVATE_PRESENCE) else None
    return place, int(time) / 1_000_000, status


def is_private(line: bytes) -> bool:
    """True for a record that may only go to ``annex/journal-private``."""
    return line[line.index(b"\t") + 18 : line.index(b"\t") + 19].islower()


def is_record(line: bytes) -> bool:
    """True when *line* has the form of a record."""
    fields = line.split(b"\t")
    return len(fields) == 5 and fields[2] in (b"P", b"p", b"L", b"l") and fields[1].isdigit()


def apply_records(content: bytes, records: Iterable[Queued], at_base: Callable[[bytes], bytes | None]) -> bytes:
    """The log after *records*, which are in the order of their times.

    Args:
        content: What the log says now.
        records: All about one path.
        at_base: The content of the log at a commit; None when that is not known any more.

    Returns:
        *content* itself when nothing changes.
    """
    log: PresenceLog | None = None
    ours: set[bytes] = set()
    changed = False
    for line, base in records:
        _, time, kind, status, escaped = line.split(b"\t")
        info = _plain(escaped)
        if kind in (LINES, PRIVATE_LINES):
            if changed and log is not None:
                content = format_presence(log)
            content = union_merge(content, info)
            log, changed = None, False
            continue
        now = VectorClock(int(time) // 1_000_000 * SECOND)
        if log is None:
            log = parse_presence(content)
        old = log.get(info)
        if old is None or (old[1] != status and old[0] < now):
            log[info] = (now, status)
        elif old[1] == status:
            continue
        elif info in ours or _was_there(at_base(base), info, old):
            log[info] = (tick(old[0], now), status)
        else:
            continue
        ours.add(info)
        changed = True
    return format_presence(log) if changed and log is not None else content


def _was_there(base: bytes | None, info: bytes, entry: tuple[VectorClock, bytes]) -> bool:
    return base is not None and parse_presence(base).get(info) == entry
