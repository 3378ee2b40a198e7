"""JSON as others wrote it: read strictly, with the place of every member, so that edits touch only their own bytes.

Refused by name: a field that stands twice, NaN and Infinity (no JSON), numbers without end, and nesting
that only serves to exhaust a reader.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["MAX_DIGITS", "MAX_JSON", "Member", "members", "parse_json"]

MAX_JSON: Final = 4 << 20
"""Bytes of JSON that we are willing to parse."""
MAX_DEPTH: Final = 64
MAX_DIGITS: Final = 400

_BLANK = re.compile(r"[ \t\r\n]*")
_NESTING = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"field {next(n for n in names if names.count(n) > 1)!r} stands twice")
    return made


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits, at most {MAX_DIGITS} are read")
    return int(digits)


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant)


def parse_json(raw: bytes) -> Any:  # Any: JSON
    """The value that *raw* holds.

    Raises:
        ValueError: It is too large, not UTF-8, not JSON, or holds what is refused; the message says which.
    """
    if len(raw) > MAX_JSON:
        raise ValueError(f"{len(raw)} bytes, at most {MAX_JSON} are read")
    text = raw.decode("utf-8")
    if text.startswith("\ufeff"):
        raise ValueError("starts with a byte order mark")
    value = _DECODER.decode(text)
    depth = 0  # of valid JSON: in anything else, looking for the ends of texts would take time without end
    for match in _NESTING.finditer(text):
        depth += (match[0] in "[{") - (match[0] in "]}")
        if depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} levels")
    return value


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an object: its name, and where name and value stand in the text."""

    name: str
    start: int
    value: int
    end: int


def members(text: str, start: int = 0) -> tuple[list[Member], int]:
    """The members of the object whose ``{`` is the first thing from *start* on, and where its ``}`` is.

    The text must have passed ``parse_json``.
    """
    at = _skip(text, _skip(text, start) + 1)
    found: list[Member] = []
    while text[at] != "}":
        if found:
            at = _skip(text, at + 1)  # the comma
        name, end = _DECODER.raw_decode(text, at)
        value = _skip(text, _skip(text, end) + 1)
        _, end = _DECODER.raw_decode(text, value)
        found.append(Member(name, at, value, end))
        at = _skip(text, end)
    return found, at


def _skip(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at
