"""Logs that give each field one value: by UUID ("old" form), or by any field ("map" form).

::

    UUID VALUE timestamp=CLOCK        UUIDBasedLog: uuid.log, trust.log, group.log, remote.log …
    CLOCK FIELD VALUE                 MapLog: config.log, cluster.log, KEY.log.cnk …

For each field the line with the highest clock counts; a line without clock is the oldest, and **among equal
clocks the later line counts**, the opposite of presence logs. A line whose value does not parse is no line:
it neither counts nor survives a rewrite. A log is written sorted by field.

Source: fact sheet repository-format, section 3; vectors map_logs.json.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from annexpy.errors import InvalidInput
from annexpy.logs.line import CLOCK, VectorClock, check_one_line, clock_from_parts, format_clock, log_lines, tick
from annexpy.patterns import regex
from annexpy.uuids import UUID

__all__ = ["Entry", "MapLog", "UUIDBasedLog", "raw", "text", "to_uuid"]

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Entry(Generic[V]):
    """A value and when it was logged; the clock is None where the line tells none."""

    clock: VectorClock | None
    value: V


def text(value: bytes) -> str:
    """Bytes of a log as text that ``raw`` turns back into the same bytes."""
    return value.decode("utf-8", "surrogateescape")


def raw(value: str) -> bytes:
    """The bytes of ``text``."""
    return value.encode("utf-8", "surrogateescape")


def to_uuid(value: bytes) -> UUID:
    """A UUID as it stands in a log. Opaque: nothing is checked (``uuids.parse_uuid`` does for the wire)."""
    return UUID(text(value))


class _FieldLog(ABC, Generic[K, V]):
    """What both forms have in common."""

    keep_clock = False

    def entries(self, content: bytes) -> dict[K, Entry[V]]:
        """The lines that count, each with its clock. Never raises."""
        found: dict[K, Entry[V]] = {}
        for line in log_lines(content):
            parsed = self._parse_line(line)
            if parsed is None:
                continue
            field, entry = parsed
            old = found.get(field)
            if old is None or old.clock is None or (entry.clock is not None and entry.clock >= old.clock):
                found[field] = entry
        return found

    def parse(self, content: bytes) -> dict[K, V]:
        """The values that count. Never raises."""
        return {field: entry.value for field, entry in self.entries(content).items()}

    def format(self, entries: Mapping[K, Entry[V]]) -> bytes:
        """*entries* as git-annex writes them: one line each, sorted by field."""
        return b"".join(
            [self._format_line(field, entries[field]) + b"\n" for field in sorted(entries, key=self._order)]
        )

    def compact(self, content: bytes) -> bytes:
        """*content* with only the lines that count."""
        return self.format(self.entries(content))

    def set(self, content: bytes, field: K, value: V, now: VectorClock) -> bytes:
        """The log after *field* got *value* at *now*.

        As git-annex does, the clock moves on even when the value is the same; except in config.log,
        numcopies.log and mincopies.log, where *content* itself is then returned.

        Raises:
            InvalidInput: The field or the value would not be read back as it is.
        """
        entries = self.entries(content)
        old = entries.get(field)
        if self.keep_clock and old is not None and old.value == value:
            return content
        entry = Entry(tick(None if old is None else old.clock, now), value)
        line = check_one_line(self._format_line(field, entry), "log value")
        if self._parse_line(line) != (field, entry):
            raise InvalidInput("log value", line, "must be read back as it was written")
        return self.format(entries | {field: entry})

    @abstractmethod
    def _parse_line(self, line: bytes) -> tuple[K, Entry[V]] | None: ...

    @abstractmethod
    def _format_line(self, field: K, entry: Entry[V]) -> bytes: ...

    @abstractmethod
    def _order(self, field: K) -> bytes | tuple[object, ...]: ...


# only the last " timestamp=" of a line counts, and only when a clock follows and then nothing
_OLD_LINE: Final = regex(rb"([^ ]+)(?: (.*?))??(?: timestamp=%b)?" % CLOCK, re.DOTALL)


class UUIDBasedLog(_FieldLog[UUID, V]):
    """Lines of ``UUID VALUE timestamp=CLOCK``.

    Args:
        read: The value of the bytes between, or None when they are not one. A line with nothing but a UUID
            has the empty value.
        write: The bytes of a value.
    """

    def __init__(self, read: Callable[[bytes], V | None], write: Callable[[V], bytes]) -> None:
        self._read, self._write = read, write

    def _parse_line(self, line: bytes) -> tuple[UUID, Entry[V]] | None:
        match = _OLD_LINE.fullmatch(line)
        if match is None:
            return None
        value = self._read(match[2] or b"")
        if value is None:
            return None
        clock = None if match[3] is None else clock_from_parts(match[3], match[4] or b"")
        return to_uuid(match[1]), Entry(clock, value)

    def _format_line(self, field: UUID, entry: Entry[V]) -> bytes:
        line = raw(field) + b" " + self._write(entry.value)
        if entry.clock is not None:
            return line + b" timestamp=" + format_clock(entry.clock)
        match = _OLD_LINE.fullmatch(line)
        # a value that ends like a clock must not become one: a blank keeps them apart
        return line if match is None or match[3] is None else line + b" "

    def _order(self, field: UUID) -> bytes:
        return raw(field)


_MAP_LINE: Final = regex(rb"%b ([^ ]*) (.*)" % CLOCK, re.DOTALL)


class MapLog(_FieldLog[K, V]):
    """Lines of ``CLOCK FIELD VALUE``. The blank before the value is needed even when that is empty.

    Args:
        read_field: The field of its bytes, which hold no blank, or None when they are not one.
        write_field: The bytes of a field.
        read: The value of the rest of the line, or None when it is not one.
        write: The bytes of a value.
        order: What the log is sorted by; the bytes of the field if not given.
        keep_clock: True where a value that is set again keeps its clock.
    """

    def __init__(
        self,
        read_field: Callable[[bytes], K | None],
        write_field: Callable[[K], bytes],
        read: Callable[[bytes], V | None],
        write: Callable[[V], bytes],
        *,
        order: Callable[[K], tuple[object, ...]] | None = None,
        keep_clock: bool = False,
    ) -> None:
        self._read_field, self._write_field, self._read, self._write = read_field, write_field, read, write
        self._sorted_by, self.keep_clock = order, keep_clock

    def _parse_line(self, line: bytes) -> tuple[K, Entry[V]] | None:
        match = _MAP_LINE.fullmatch(line)
        if match is None:
            return None
        field, value = self._read_field(match[3]), self._read(match[4])
        if field is None or value is None:
            return None
        return field, Entry(clock_from_parts(match[1], match[2] or b""), value)

    def _format_line(self, field: K, entry: Entry[V]) -> bytes:
        line = self._write_field(field) + b" " + self._write(entry.value)
        return line if entry.clock is None else format_clock(entry.clock) + b" " + line

    def _order(self, field: K) -> bytes | tuple[object, ...]:
        return self._write_field(field) if self._sorted_by is None else self._sorted_by(field)
