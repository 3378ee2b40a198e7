"""Sizes as people write them in git-annex's settings and expressions: ``1 megabyte``, ``1.5 GiB``, ``500k``.

git-annex has one parser for all of them. It reads a number, then a unit, and passes over the rest.

Source: fact sheet repository-format, section 6 (largerthan); the details are measured.
"""

from __future__ import annotations

import re
from math import isfinite
from typing import Final

from annexpy.patterns import regex

__all__ = ["parse_size"]

_SIZE: Final = regex(
    r"\s*+(?P<minus>-?)\s*+(?:"
    r"(?P<whole>0[xX][0-9a-fA-F]+|0[oO][0-7]+)"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<odd>NaN|Infinity)"
    r")\s*(?P<unit>[^\W\d_]*)"
)
_LETTERS: Final = "kmgtpezyrq"
_NAMES: Final = ("kilo", "mega", "giga", "tera", "peta", "exa", "zetta", "yotta", "ronna", "quetta")
_BINARY_NAMES: Final = ("kibi", "mebi", "gibi", "tebi", "pebi", "exbi", "zebi", "yobi")
_INFINITY: Final = 2**1024
_DIGITS: Final = 400


def parse_size(text: str) -> int | None:
    """*text* as bytes, or None where git-annex reads no size. Case does not matter.

    A fraction is rounded to the nearest byte, half a byte to the even one.
    """
    match = _SIZE.match(text)
    if match is None or len(match[0]) > _DIGITS:
        return None
    unit = _unit(match["unit"].lower())
    if unit is None:
        return None
    size = _rounded(match, *unit)
    return -size if match["minus"] else size


def _rounded(match: re.Match[str], times: int, through: int) -> int:
    number = match["number"]
    if match["odd"]:
        # what git-annex makes of them; nobody writes that
        return _INFINITY if match["odd"] == "Infinity" else -3 * _INFINITY // 2
    if number is None:
        return int(match["whole"], 0) * times // through
    if number.isdigit() and through == 1:
        return int(number) * times
    value = float(number) * times / through
    return round(value) if isfinite(value) else _INFINITY


def _unit(name: str) -> tuple[int, int] | None:
    """Bytes of one unit, as a fraction."""
    if name in ("", "b", "byte", "bytes"):
        return 1, 1
    for power, prefix in enumerate(_NAMES, 1):
        if name in (prefix + "byte", prefix + "bytes"):
            return 1000**power, 1
        if name in (prefix + "bit", prefix + "bits") and power <= len(_BINARY_NAMES):
            return 1000**power, 8
    for power, prefix in enumerate(_BINARY_NAMES, 1):
        if name in (prefix + "byte", prefix + "bytes"):
            return 1024**power, 1
    power = _LETTERS.find(name[0]) + 1
    if power == 0:
        return None
    match name[1:]:
        case "" | "b":
            return 1000**power, 1
        case "i" | "ib" if power <= len(_BINARY_NAMES):
            return 1024**power, 1
        case "bit" if power <= len(_BINARY_NAMES):
            return 1000**power, 8
        case _:
            return None
