"""Numbers in logs, as git-annex reads them.

Measured; fact sheet repository-format, section 3, has the main cases.
"""

from __future__ import annotations

from typing import Final

from annexpy.patterns import regex

__all__ = ["leading_integer"]

_INTEGER: Final = regex(
    rb"(?:[ \t\n\v\f\r]|\xc2\xa0)*+((?:\(\s*+)*+)(-?)\s*+"
    rb"(0[xX][0-9a-fA-F]++|0[oO][0-7]++|[0-9]++(?!\.[0-9]|[eE][+-]?[0-9]))"
)
_CLOSED: Final = regex(rb"\s*+\)")


def leading_integer(value: bytes) -> int | None:
    """The integer at the start of *value*, as git-annex reads numbers, or None.

    Blanks before it, parentheses around it and anything after it are passed over; ``10gb`` is 10, ``0x10``
    is 16; ``+4``, ``1.5`` and ``3e2`` are none.
    """
    match = _INTEGER.match(value)
    if match is None or len(match[3]) > 4000:
        return None
    at = match.end()
    for _ in range(match[1].count(b"(")):
        closed = _CLOSED.match(value, at)
        if closed is None:
            return None
        at = closed.end()
    number = int(match[3], 0) if match[3][1:2].isalpha() else int(match[3])
    return -number if match[2] else number
