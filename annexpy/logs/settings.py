"""Settings of all repositories together: config.log, numcopies.log, mincopies.log.

Source: fact sheet repository-format, section 3; vectors map_logs.json.
"""

from __future__ import annotations

import re
from typing import Final

from annexpy.errors import InvalidInput
from annexpy.logs.line import CLOCK, VectorClock, clock_from_parts, format_clock, log_lines, tick
from annexpy.logs.number import leading_integer
from annexpy.logs.uuidbased import MapLog, raw, text
from annexpy.patterns import regex

__all__ = ["CONFIG", "MINCOPIES", "NUMCOPIES", "CopiesLog"]

CONFIG: Final = MapLog[str, str](text, raw, text, raw, keep_clock=True)
"""config.log: git configuration for everybody (``annex.largefiles`` …). Unset is the empty value."""

_LINE: Final = regex(rb"%b (.*)" % CLOCK, re.DOTALL)


class CopiesLog:
    """A log of one number: the newest counts, among equal clocks the larger, and less than one is one."""

    def parse(self, content: bytes) -> int | None:
        """The number, or None when none is set. Never raises."""
        return self._newest(content)[1]

    def set(self, content: bytes, number: int, now: VectorClock) -> bytes:
        """The log after the number became *number* at *now*; *content* itself when it is that already.

        Raises:
            InvalidInput: *number* is below 1 or above 2^63-1.
        """
        if not 1 <= number < 2**63:
            raise InvalidInput("number of copies", number, "from 1 to 2^63-1")
        clock, old = self._newest(content)
        return content if old == number else b"%b %d\n" % (format_clock(tick(clock, now)), number)

    def compact(self, content: bytes) -> bytes:
        """*content* with only the line that counts."""
        clock, number = self._newest(content)
        return b"" if clock is None or number is None else b"%b %d\n" % (format_clock(clock), number)

    def _newest(self, content: bytes) -> tuple[VectorClock, int] | tuple[None, None]:
        newest: tuple[VectorClock, int] | None = None
        for line in log_lines(content):
            match = _LINE.fullmatch(line)
            number = None if match is None else leading_integer(match[3])
            if match is None or number is None:
                continue
            # git-annex keeps it in 64 bits, and a large one wraps
            number = max(1, (number + 2**63) % 2**64 - 2**63)
            entry = (clock_from_parts(match[1], match[2] or b""), number)
            newest = entry if newest is None else max(newest, entry)
        return (None, None) if newest is None else newest


NUMCOPIES: Final = CopiesLog()
"""numcopies.log."""
MINCOPIES: Final = CopiesLog()
"""mincopies.log."""
