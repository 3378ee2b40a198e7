"""Parsers with planted faults: the campaign has to find each of them."""

from __future__ import annotations

import re
from random import Random

from annexpy.errors import InvalidInput
from tests.fuzz.campaign import Target

__all__ = ["PLANTED"]

KEPT: list[bytes] = []


def breaks(data: bytes, _random: Random) -> None:
    int(data)  # a ValueError is no InvalidInput


def hangs(data: bytes, _random: Random) -> None:
    if b"\0" in data:
        re.match(r"(a|aa)+$", "a" * 40 + "b")


def keeps(data: bytes, _random: Random) -> None:
    KEPT.append(data[:20] * 6000)


def takes_much(data: bytes, _random: Random) -> None:
    if len(data) == 13:
        b"x" * (80 << 20)


PLANTED = [
    Target(feed.__name__, feed, [b"12 34 56"], [b"9"], (InvalidInput,)) for feed in (breaks, hangs, keeps, takes_much)
]
