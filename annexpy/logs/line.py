"""What all logs of the git-annex branch share: lines, vector clocks, union merge.

A vector clock is a time in picoseconds, written ``SECONDS[.DIGITS]s``. git-annex keeps twelve
digits after the point and drops the rest (measured: ``.1234567890123s`` is rewritten
``.123456789012s``), writes no leading zeros and no sign ``+``, and loses the sign of ``-0.5s``;
we do the same, so a line rewritten here is the line git-annex would have written.

Source: fact sheet repository-format, section 3.
"""

from __future__ import annotations

from typing import Final, NewType

from annexpy.errors import InvalidInput
from annexpy.patterns import regex

__all__ = [
    "CLOCK",
    "PICOSECOND",
    "SECOND",
    "VectorClock",
    "check_one_line",
    "clock_from_parts",
    "complete_lines",
    "format_clock",
    "log_lines",
    "merge_lines",
    "parse_clock",
    "tick",
    "union_merge",
    "whole_seconds",
]

VectorClock = NewType("VectorClock", int)
"""A time of a log line, in picoseconds since 1970. Ordered as numbers are; may be negative."""

PICOSECOND: Final = VectorClock(1)
SECOND: Final = VectorClock(10**12)

CLOCK: Final = rb"([+-]?[0-9]{1,4000})(?:\.([0-9]+))?s?"
"""Regular expression of a clock: two groups, for ``clock_from_parts``. Four thousand digits are where
Python stops turning text into numbers; a longer clock makes its line unparsable."""

_CLOCK: Final = regex(CLOCK)


def clock_from_parts(seconds: bytes, digits: bytes = b"") -> VectorClock:
    """The clock of the two groups of ``CLOCK``."""
    whole = int(seconds) * 1_000_000_000_000
    if digits:
        part = int(digits[:12].ljust(12, b"0"))
        return VectorClock(whole - part if whole < 0 else whole + part)
    return VectorClock(whole)


def parse_clock(raw: bytes) -> VectorClock | None:
    """*raw* as a clock, or None: ``100``, ``+100.5s`` and ``-7s`` are clocks, ``100.``, ``.5`` and ``1e2`` not."""
    match = _CLOCK.fullmatch(raw)
    return None if match is None else clock_from_parts(match[1], match[2] or b"")


def format_clock(clock: VectorClock) -> bytes:
    """*clock* as git-annex writes it, with its ``s``."""
    whole, part = divmod(abs(clock), 1_000_000_000_000)
    sign = b"-" if clock < 0 else b""
    return b"%s%d.%ss" % (sign, whole, (b"%012d" % part).rstrip(b"0")) if part else b"%s%ds" % (sign, whole)


def whole_seconds(time: float) -> VectorClock:
    """The clock git-annex would take at *time* (seconds since 1970): the second, without its fraction."""
    return VectorClock(int(time // 1) * 1_000_000_000_000)


def tick(old: VectorClock | None, now: VectorClock) -> VectorClock:
    """The clock of a line that replaces one of clock *old*: *now*, or a second after *old* when that is not later."""
    return now if old is None or old < now else VectorClock(old + 1_000_000_000_000)


def complete_lines(content: bytes) -> bytes:
    """*content* of a journal file without a last line that lacks its newline: git-annex discards it."""
    return content if content.endswith(b"\n") else content[: content.rfind(b"\n") + 1]


def log_lines(content: bytes) -> list[bytes]:
    """The lines of a log for a parser. Any run of CR and LF ends a line, so blank ones do not show."""
    if b"\r" in content:
        content = content.replace(b"\r", b"\n")
    return [line for line in content.split(b"\n") if line]


def merge_lines(content: bytes) -> list[bytes]:
    """The lines of a log for a merge: ended by LF alone, everything else kept, duplicates and blanks too."""
    lines = content.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


def union_merge(a: bytes, b: bytes) -> bytes:
    """The lines of both, sorted as bytes, each once.

    A side that already has every line is returned as it stands, *a* first, however it is sorted: that is
    what git-annex does, and it saves writing a blob. So on logs in sorted form the result does not depend on
    the order of the arguments; on others only its set of lines does not.
    """
    if a == b:
        return a
    lines_a, lines_b = set(merge_lines(a)), set(merge_lines(b))
    if lines_b <= lines_a:
        return a
    if lines_a <= lines_b:
        return b
    return b"\n".join(sorted(lines_a | lines_b)) + b"\n"


def check_one_line(value: bytes, field: str) -> bytes:
    """*value*, which is to become part of a log line.

    Raises:
        InvalidInput: It holds CR or LF, so it would forge further lines.
    """
    if b"\n" in value or b"\r" in value:
        raise InvalidInput(field, value, "no carriage return and no line feed")
    return value
