"""Lines of the git-annex branch that nobody reads, or reads in another way than they were meant.

Parsers skip such lines, which is right for a parser; somebody should say so all the same. A line without a clock is
read, and then loses against every other line: that is how a writer that puts the timestamp in the wrong place
loses its records.
"""

from __future__ import annotations

import re
from typing import Final

from annexpy.logs.line import CLOCK, log_lines
from annexpy.logs.number import leading_integer
from annexpy.logs.paths import FORMATS, Format, Log, identify
from annexpy.patterns import regex

__all__ = ["malformed"]

_PRESENCE: Final = regex(rb"%b [01X] .+" % CLOCK, re.DOTALL)
_MAP: Final = regex(rb"%b [^ ]* .*" % CLOCK, re.DOTALL)
_CLOCKED: Final = regex(rb"%b (.*)" % CLOCK, re.DOTALL)
_DATED: Final = regex(rb"[^ ]+(?: .*)? timestamp=%b" % CLOCK, re.DOTALL)
_TRANSITION: Final = regex(rb"[A-Za-z]+ %b" % CLOCK)
_CONFLICT: Final = (b"<<<<<<<", b"=======", b">>>>>>>")


def malformed(path: bytes, content: bytes, *, levels: int = 2) -> list[tuple[bytes, str]]:
    """(line, what is wrong with it) of the log at *path*. Nothing for paths that are no logs.

    Args:
        path: Branch path.
        content: What stands there.
        levels: Directories of per-key logs: 1 where ``annex.tune.branchhash1`` is set.
    """
    found = identify(path, levels=levels)
    if found is None:
        return []
    log = found[0]
    # Most logs are in order, and this runs for every one: look closer only where something is odd.
    if log is Log.LOCATION and all(map(_PRESENCE.fullmatch, lines := log_lines(content))):
        return []
    lines = log_lines(content)
    return [(line, why) for line in lines if (why := _wrong(FORMATS[log], line))]


def _wrong(kind: Format, line: bytes) -> str:
    if line.startswith(_CONFLICT):
        return "a conflict marker of a text merge"
    match kind:
        case Format.PRESENCE:
            return "" if _PRESENCE.fullmatch(line) else "not TIME STATUS REPOSITORY"
        case Format.UUID_BASED:
            return "" if _DATED.fullmatch(line) else "no timestamp at its end, so it loses against any other line"
        case Format.MAP:
            return "" if _MAP.fullmatch(line) else "not TIME FIELD VALUE"
        case Format.SINGLE:
            match = _CLOCKED.fullmatch(line)
            return "" if match is not None and leading_integer(match[3]) is not None else "not TIME NUMBER"
        case Format.METADATA:
            return "" if _CLOCKED.fullmatch(line) else "not TIME FIELD VALUES"
        case Format.TRANSITIONS:
            return "" if _TRANSITION.fullmatch(line) else "not TRANSITION TIME"
