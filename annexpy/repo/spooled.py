"""Reading spool files: their batches, and where in them the records of a log stand.

A process may have a hundred thousand records in its spool while it asks about single logs, so what is kept of
a file is 16 bytes a record: a checksum of its path and its place. The records themselves stay in the file.

A batch is ``B LENGTH CRC BASE`` and a line feed, then that many bytes of records, one a line.
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Final, NamedTuple

from annexpy.repo.files import Files
from annexpy.repo.records import Queued, escaped, is_record, record_time

__all__ = ["Batch", "Seen", "as_batch", "batches"]

_BLOCK: Final = 1 << 16


class Batch(NamedTuple):
    """What was appended at once.

    Attributes:
        start: Where its records begin in the file.
        base: The commit of the branch when the first of them was queued; empty when there was none.
        data: The records, a line each.
    """

    start: int
    base: bytes
    data: bytes

    @property
    def lines(self) -> list[bytes]:
        """Its records."""
        return [line for line in self.data[:-1].split(b"\n") if is_record(line)]


def as_batch(data: bytes, base: bytes) -> bytes:
    """What stands in the file for *data*, the lines of some records."""
    return b"B %d %08x %b\n%b" % (len(data), zlib.crc32(data), base or b"-", data)


def batches(files: Files, fd: int, at: int = 0) -> Iterator[Batch]:
    """The whole batches from *at* on. A broken one ends the file: it was never acknowledged."""
    block, first = b"", 0  # some of the file, and where that begins
    while True:
        begin = at - first
        end = block.find(b"\n", begin)
        if end < 0:
            block, first, begin = files.pread(fd, _BLOCK, at), at, 0
            end = block.find(b"\n")
        head = block[begin:end].split(b" ") if end >= 0 else []
        if len(head) != 4 or head[0] != b"B" or not head[1].isdigit():
            return
        length, start = int(head[1]), first + end + 1
        data = block[end + 1 : end + 1 + length]
        if len(data) < length:
            data = files.pread(fd, length, start)
        if len(data) != length or b"%08x" % zlib.crc32(data) != head[2]:
            return
        yield Batch(start, b"" if head[3] == b"-" else head[3], data)
        at = start + length


class Seen:
    """What is known of one spool file so far. Threads that read at the same time each go on from it by themselves.

    Attributes:
        path: Its name, the last time it was looked for.
        identity: Of the file.
        size: Up to where it was read.
    """

    __slots__ = ("_bases", "_runs", "_starts", "identity", "path", "size")

    def __init__(self, path: bytes, identity: tuple[int, int]) -> None:
        self.path, self.identity = path, identity
        self.size = 0
        self._runs: list[array[int]] = []  # sorted: checksum of the path << 32 | place of the record
        self._starts: list[int] = []  # where the base changes
        self._bases: list[bytes] = []

    def looked(self, files: Files) -> Seen:
        """With what was appended since. Raises FileNotFoundError: it has another name by now, or is gone."""
        new = Seen(self.path, self.identity)
        new.size, new._runs, new._starts, new._bases = self.size, [*self._runs], [*self._starts], [*self._bases]
        fd = files.open_read(self.path)
        try:
            for batch in batches(files, fd, self.size):
                new._take(batch)
        finally:
            files.close_fd(fd)
        return new

    def _take(self, batch: Batch) -> None:
        at = batch.start
        if not self._bases or self._bases[-1] != batch.base:
            self._starts.append(at)
            self._bases.append(batch.base)
        found = []
        for line in batch.data[:-1].split(b"\n"):
            found.append(zlib.crc32(line[: line.find(b"\t")]) << 32 | at)
            at += len(line) + 1
        self.size = batch.start + len(batch.data)
        self._runs.append(array("Q", sorted(found)))
        while len(self._runs) > 1 and 2 * len(self._runs[-1]) > len(self._runs[-2]):
            last = self._runs.pop()
            self._runs[-1] = array("Q", sorted([*self._runs[-1], *last]))

    def places(self, path: bytes) -> list[int]:
        """Where records about *path* stand; now and then one of another log is among them."""
        checksum = zlib.crc32(escaped(path))
        found = []
        for run in self._runs:
            at = bisect_left(run, checksum << 32)
            while at < len(run) and run[at] >> 32 == checksum:
                found.append(run[at] & 0xFFFFFFFF)
                at += 1
        return found

    def last(self, files: Files) -> float:
        """Seconds since 1970 of the last record that was read. Raises as ``looked``."""
        if not self.size:
            return 0.0
        size = min(self.size, _BLOCK)
        fd = files.open_read(self.path)
        try:
            line = files.pread(fd, size, self.size - size)[:-1].rpartition(b"\n")[2]
        finally:
            files.close_fd(fd)
        return record_time(line) if is_record(line) else 0.0

    def records(self, files: Files, places: list[int] | None = None) -> Iterator[Queued]:
        """The records at *places*, all by default. Raises as ``looked``."""
        fd = files.open_read(self.path)
        try:
            if places is None:
                for batch in batches(files, fd):
                    for line in batch.lines:
                        yield Queued(line, batch.base)
                return
            for place in places:
                size = 1024
                while (end := (block := files.pread(fd, size, place)).find(b"\n")) < 0 and len(block) == size:
                    size *= 16
                if end >= 0 and is_record(line := block[:end]):
                    yield Queued(line, self._bases[bisect_right(self._starts, place) - 1])
        finally:
            files.close_fd(fd)
