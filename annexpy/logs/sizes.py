"""Sizes as people write them in git-annex's settings: ``1 megabyte``, ``1.5 GiB``, ``500k``, ``8 kbit``.

Source: fact sheet repository-format, section 6 (largerthan); git-annex has one parser for all sizes.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["parse_size"]

_SIZE: Final = re.compile(r"\s*([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*([a-z]*)\s*\Z", re.IGNORECASE)
_LETTERS: Final = "kmgtpezy"
_NAMES: Final = ("kilo", "mega", "giga", "tera", "peta", "exa", "zetta", "yotta")
_BINARY_NAMES: Final = ("kibi", "mebi", "gibi", "tebi", "pebi", "exbi", "zebi", "yobi")
_TOO_MUCH: Final = 10.0**40


def parse_size(text: str) -> int | None:
    """*text* as bytes, or None: ``1 megabyte``, ``1.5 GiB``, ``500k``, ``8 kbit``; case does not matter.

    Source: fact sheet repository-format, section 6 (largerthan); git-annex uses one parser for all sizes.
    """
    match = _SIZE.match(text)
    if match is None:
        return None
    unit = _unit(match[2].lower())
    if unit is None:
        return None
    size = unit * (float(match[1]) if "." in match[1] or "e" in match[1].lower() else int(match[1]))
    return int(size) if abs(size) < _TOO_MUCH else None


def _unit(name: str) -> float | None:
    if name in ("", "b", "byte", "bytes"):
        return 1
    for names, base in ((_NAMES, 1000), (_BINARY_NAMES, 1024)):
        for power, prefix in enumerate(names, 1):
            if name in (prefix + "byte", prefix + "bytes"):
                return float(base**power)
            if name in (prefix + "bit", prefix + "bits"):
                return float(base**power) / 8
    power = _LETTERS.find(name[0]) + 1
    if power == 0:
        return None
    match name[1:]:
        case "" | "b":
            return float(1000**power)
        case "i" | "ib":
            return float(1024**power)
        case "bit":
            return float(1000**power) / 8
        case _:
            return None
