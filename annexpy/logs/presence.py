"""Presence logs: who has a thing. Location logs, logs of URLs, logs of equivalent keys.

A line is ``CLOCK STATUS INFO``; *info* is the rest of the line, byte for byte, and names who or what the
line is about. For each info the line with the highest clock counts, among equal clocks the earlier one.
Lines that do not parse are skipped, and dropped when the log is written anew; a new log is sorted by info.

These functions run once per key, so they work on plain tuples and know no classes.

Source: fact sheet repository-format, section 3; vectors location_log.json.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeAlias

from annexpy.errors import InvalidInput
from annexpy.logs.line import CLOCK, PICOSECOND, VectorClock, check_one_line, clock_from_parts, format_clock, tick
from annexpy.patterns import regex

__all__ = [
    "DEAD",
    "MISSING",
    "PRESENT",
    "PresenceLog",
    "compact_presence",
    "dead",
    "format_presence",
    "parse_presence",
    "present",
    "set_dead",
    "set_presence",
]

PRESENT: Final = b"1"
MISSING: Final = b"0"
DEAD: Final = b"X"
"""As missing, and not expected to come back."""

PresenceLog: TypeAlias = dict[bytes, tuple[VectorClock, bytes]]
"""Info → (clock, status) of the line that counts."""

_LINES: Final = regex(rb"^%b ([01X]) (.*)$" % CLOCK, re.MULTILINE)
_STATUSES: Final = frozenset((PRESENT, MISSING, DEAD))


def parse_presence(content: bytes) -> PresenceLog:
    """The lines that count. Never raises: what is no line of a presence log is not there.

    The content of a journal file goes through ``line.complete_lines`` first.
    """
    if b"\r" in content:
        content = content.replace(b"\r", b"\n")
    log: PresenceLog = {}
    for seconds, digits, status, info in _LINES.findall(content):
        clock = clock_from_parts(seconds, digits) if digits else VectorClock(int(seconds) * 1_000_000_000_000)
        old = log.get(info)
        if old is None or old[0] < clock:
            log[info] = (clock, status)
    return log


def format_presence(log: Mapping[bytes, tuple[VectorClock, bytes]]) -> bytes:
    """*log* as git-annex writes it: one line per info, sorted by info."""
    lines = []
    for info in sorted(log):
        clock, status = log[info]
        seconds, part = divmod(clock, 1_000_000_000_000)
        if part:
            lines.append(b"%b %b %b\n" % (format_clock(clock), status, info))
        else:
            lines.append(b"%ds %b %b\n" % (seconds, status, info))
    return b"".join(lines)


def compact_presence(content: bytes) -> bytes:
    """*content* with only the lines that count."""
    return format_presence(parse_presence(content))


def present(content: bytes) -> list[bytes]:
    """The infos that are present, sorted."""
    return sorted([info for info, (_, status) in parse_presence(content).items() if status == PRESENT])


def dead(content: bytes) -> list[bytes]:
    """The infos that are dead, sorted."""
    return sorted([info for info, (_, status) in parse_presence(content).items() if status == DEAD])


def set_presence(content: bytes, info: bytes, status: bytes, now: VectorClock) -> bytes:
    """The log after *info* got *status* at *now*.

    Returns:
        *content* itself, the same object, when that is what it already says: git-annex never refreshes a
        clock. Otherwise the whole log, compacted and sorted.

    Raises:
        InvalidInput: *status* is none of ``PRESENT``, ``MISSING``, ``DEAD``, or *info* holds CR or LF.
    """
    if status not in _STATUSES:
        raise InvalidInput("presence status", status, "one of 1, 0, X")
    if b"\n" in info or b"\r" in info:
        check_one_line(info, "presence info")
    log = parse_presence(content)
    old = log.get(info)
    if old is None:
        log[info] = (now, status)
    elif old[1] == status:
        return content
    else:
        log[info] = (tick(old[0], now), status)
    return format_presence(log)


def set_dead(content: bytes) -> bytes:
    """The log of a key that is given up: every missing info becomes dead, one picosecond later.

    So a line written anywhere after the last one brings the key back. What is present stays present; it is
    for the caller to refuse to give up such a key.
    """
    log = parse_presence(content)
    lost = {info: (VectorClock(clock + PICOSECOND), DEAD) for info, (clock, s) in log.items() if s == MISSING}
    return format_presence(log | lost) if lost else content
