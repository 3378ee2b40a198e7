"""Metadata of keys: ``KEY.log.met``, and ``KEY.log.rmet`` for what one special remote says of a key.

A line is ``CLOCK FIELD +VALUE -VALUE … FIELD …``: at that time values were set and unset. Lines add up: for
each value of each field the newest mention counts. Names of fields are the same in upper and lower case. In
``.rmet`` a field is written ``UUID:FIELD``.

Among equal clocks lines are taken in the order of what they mention, not of where they stand; and a log is
only shortened when that saves a whole line, also one that mentions nothing, then also of other mentions that no
longer count. Measured on 2,800 logs.

A line whose fields begin with ``+`` or ``-``, which no program makes, is another one when it is read again: fields
are sorted, and what was the first word, and a field for that, may then stand for a value of the field before it.
git-annex does the same; here, too, such lines are not kept from changing.

Source: fact sheet repository-format, section 3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from annexpy.errors import InvalidInput
from annexpy.logs.line import CLOCK, VectorClock, clock_from_parts, format_clock, log_lines, tick
from annexpy.logs.remotes import decode_value, encode_value
from annexpy.logs.uuidbased import raw, text
from annexpy.patterns import regex

__all__ = [
    "MetadataLine",
    "compact_metadata",
    "current_metadata",
    "format_metadata",
    "last_changed",
    "parse_metadata",
    "remote_metadata",
    "set_metadata",
]

_LINE: Final = regex(rb"%b (.*)" % CLOCK, re.DOTALL)
_FIELD: Final = regex(r"[^\W_][\w.-]*")


@dataclass(frozen=True, slots=True)
class MetadataLine:
    """What was set and unset at one time.

    Attributes:
        clock: When.
        changes: Field → value → whether it was set. Fields in lower case.
        names: Field → how it was written.
    """

    clock: VectorClock
    changes: Mapping[str, Mapping[str, bool]]
    names: Mapping[str, str]


def parse_metadata(content: bytes) -> list[MetadataLine]:
    """The lines of a log that mention something, oldest first. Never raises."""
    return [line for line in _read_lines(content) if line.changes]


def format_metadata(lines: Iterable[MetadataLine]) -> bytes:
    """*lines* as git-annex writes them."""
    return b"".join([format_clock(line.clock) + _write_changes(line) + b"\n" for line in lines])


def compact_metadata(content: bytes) -> bytes:
    """*content* as git-annex would write it anew."""
    return format_metadata(_simplified(_read_lines(content)))


def current_metadata(content: bytes) -> dict[str, frozenset[str]]:
    """Field → the values it has now; a field without values is left out. Names as they were last written."""
    values: dict[str, dict[str, bool]] = {}
    names: dict[str, str] = {}
    for line in parse_metadata(content):
        names.update(line.names)
        for field, changes in line.changes.items():
            values.setdefault(field, {}).update(changes)
    return {
        names[field]: frozenset([v for v, is_set in vs.items() if is_set])
        for field, vs in values.items()
        if any(vs.values())
    }


def last_changed(content: bytes) -> dict[str, VectorClock]:
    """Field, in lower case → the last time that anything of it was set or unset (``FIELD-lastchanged``)."""
    return {field: line.clock for line in parse_metadata(content) for field in line.changes}


def remote_metadata(content: bytes, uuid: str) -> dict[str, frozenset[str]]:
    """What the special remote *uuid* says, of a ``.log.rmet``."""
    prefix = f"{uuid}:".lower()
    return {
        field[len(prefix) :]: values
        for field, values in current_metadata(content).items()
        if field.lower().startswith(prefix)
    }


def set_metadata(
    content: bytes, changes: Mapping[str, Mapping[str, bool]], now: VectorClock, *, remote: str = ""
) -> bytes:
    """The log after *changes* at *now*.

    Args:
        content: The log.
        changes: Field → value → whether it is set or unset. To replace a value, unset the old one as well.
        now: When. The line is later than every other of the log.
        remote: UUID of the special remote that says so, in a ``.log.rmet``.

    Raises:
        InvalidInput: A field that is not letters, digits and ``_-.``, starting with a letter or digit.
    """
    line_changes: dict[str, dict[str, bool]] = {}
    names: dict[str, str] = {}
    for field, values in changes.items():
        if not _FIELD.fullmatch(field):
            raise InvalidInput("metadata field", field, "letters, digits and _-. after a letter or digit")
        name = f"{remote}:{field}" if remote else field
        names[name.lower()] = name
        line_changes.setdefault(name.lower(), {}).update(values)
    line_changes = {field: values for field, values in line_changes.items() if values}
    if not line_changes:
        return content
    lines = _read_lines(content)
    newest = max([line.clock for line in lines], default=None)
    added = MetadataLine(tick(newest, now), line_changes, names)
    return format_metadata(_simplified(_in_order([*lines, added])))


def _read_lines(content: bytes) -> list[MetadataLine]:
    lines = []
    for line in log_lines(content):
        match = _LINE.fullmatch(line)
        if match is not None:
            lines.append(MetadataLine(clock_from_parts(match[1], match[2] or b""), *_read_changes(match[3])))
    return _in_order(lines)


def _read_changes(words: bytes) -> tuple[dict[str, dict[str, bool]], dict[str, str]]:
    changes: dict[str, dict[str, bool]] = {}
    names: dict[str, str] = {}
    field: str | None = None
    for word in words.split(b" "):
        # what is no value is the next field, even if it starts with a sign
        value = decode_value(word[1:]) if field is not None and word[:1] in (b"+", b"-") else None
        if field is None or value is None:
            field = text(word)
        else:
            names[field.lower()] = field
            changes.setdefault(field.lower(), {})[text(value)] = word[:1] == b"+"
    return changes, names


def _write_changes(line: MetadataLine) -> bytes:
    words = []
    for field in sorted(line.changes):
        words.append(raw(line.names[field]))
        values = {raw(value): is_set for value, is_set in line.changes[field].items()}
        words += [(b"+" if values[value] else b"-") + encode_value(value, b" \r\n") for value in sorted(values)]
    return b"".join([b" " + word for word in words])


def _order(line: MetadataLine) -> tuple[VectorClock, tuple[tuple[bytes, tuple[bytes, ...]], ...]]:
    mentions = [(raw(field), tuple(sorted(map(raw, values)))) for field, values in line.changes.items()]
    return line.clock, tuple(sorted(mentions))


def _in_order(lines: Iterable[MetadataLine]) -> list[MetadataLine]:
    """Oldest first; of lines that mention the same at the same time the last stays."""
    by_order = {_order(line): line for line in lines}
    return [by_order[order] for order in sorted(by_order)]


def _simplified(lines: list[MetadataLine]) -> list[MetadataLine]:
    seen: set[tuple[str, str]] = set()
    kept = []
    for line in reversed(lines):
        changes = {
            field: left
            for field, values in line.changes.items()
            if (left := {value: is_set for value, is_set in values.items() if (field, value) not in seen})
        }
        seen.update([(field, value) for field, values in line.changes.items() for value in values])
        if changes:
            kept.append(MetadataLine(line.clock, changes, line.names))
    return _in_order(reversed(kept)) if len(kept) < len(lines) else lines
