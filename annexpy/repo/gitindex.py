"""The git index, as bytes: find entries, and change what it says about the files of some.

git compares each file of the work tree with the size, time and inode that the index has of it. Whoever
replaces a pointer file by its content, or the other way round, has to write the new ones down, or ``git status``
shows the file as modified. Only those ten words of an entry change here, so that every extension, and every
version from 2 to 4, comes out as it went in.

Source: gitformat-index(5).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from annexpy.errors import UnsupportedRepository
from annexpy.repo.files import Status

__all__ = ["GitIndex", "IndexEntry"]

_STAT: Final = struct.Struct(">10L")
_EXTENDED: Final = 0x4000
_NAME_LENGTH: Final = 0xFFF
_STAGE: Final = 0x3000
_WORD: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One entry.

    Attributes:
        path: From the top of the work tree.
        mode: As git has it: 0o100644, 0o100755, 0o120000 …
        sha: The blob, 20 bytes.
        size, mtime, mtime_ns, inode: Of the file, when git last looked, modulo 2^32.
        where: Offset in the file.
    """

    path: bytes
    mode: int
    sha: bytes
    size: int
    mtime: int
    mtime_ns: int
    inode: int
    where: int

    def describes(self, status: Status) -> bool:
        """The file is as it was when git last looked."""
        return (self.size, self.mtime, self.mtime_ns, self.inode) == (
            status.st_size & _WORD,
            status.st_mtime_ns // 1_000_000_000 & _WORD,
            status.st_mtime_ns % 1_000_000_000,
            status.st_ino & _WORD,
        )


class GitIndex:
    """The content of one index file."""

    def __init__(self, data: bytes) -> None:
        """Look at the head.

        Raises:
            UnsupportedRepository: No index of version 2 to 4, or one that is split in two files.
        """
        self._data = bytearray(data)
        self._version, self._count = 0, 0
        if len(data) >= 32 and data[:4] == b"DIRC":
            self._version, self._count = struct.unpack_from(">LL", data, 4)
        if self._version not in (2, 3, 4):
            raise UnsupportedRepository("the git index is none of version 2 to 4")
        self._changed = False

    def entries(self) -> Iterator[IndexEntry]:
        """Every entry that is not in conflict, in the order of their paths.

        Raises:
            UnsupportedRepository: The index is damaged, or split in two files.
        """
        data = self._data
        for path, offset, flags in self._walk():
            if not flags & _STAGE:
                (_, _, mtime, mtime_ns, _, inode, mode, _, _, size) = _STAT.unpack_from(data, offset)
                sha = bytes(data[offset + 40 : offset + 60])
                yield IndexEntry(path, mode, sha, size, mtime, mtime_ns, inode, offset)

    def blobs(self) -> Iterator[tuple[bytes, int, bytes]]:
        """(path, mode, blob) of every entry; what is in conflict comes once for each side. Raises as ``entries``."""
        data = self._data
        for path, offset, _ in self._walk():
            yield path, int.from_bytes(data[offset + 24 : offset + 28], "big"), bytes(data[offset + 40 : offset + 60])

    def _walk(self) -> Iterator[tuple[bytes, int, int]]:
        """(path, offset, flags) of every entry."""
        data, offset, previous = self._data, 12, b""
        try:
            for _ in range(self._count):
                flags = data[offset + 60] << 8 | data[offset + 61]
                start = offset + (64 if flags & _EXTENDED and self._version > 2 else 62)
                if self._version == 4:
                    strip, start = _varint(data, start)
                    end = data.index(0, start)
                    previous = previous[: len(previous) - strip] + bytes(data[start:end])
                    path, after = previous, end + 1
                else:
                    end = start + (flags & _NAME_LENGTH)
                    if flags & _NAME_LENGTH == _NAME_LENGTH:
                        end = data.index(0, start)
                    path, after = bytes(data[start:end]), end + 8 - (end - offset) % 8
                yield path, offset, flags
                offset = after
        except (struct.error, ValueError, IndexError) as error:
            raise UnsupportedRepository("the git index is damaged") from error
        if data[offset : offset + 4] == b"link":
            raise UnsupportedRepository(
                "the git index is split (core.splitIndex): run git update-index --no-split-index"
            )

    def set_status(self, entry: IndexEntry, status: Status) -> None:
        """Make *entry* say that the file is as *status* has it."""
        mtime, mtime_ns = divmod(status.st_mtime_ns, 1_000_000_000)
        ctime, ctime_ns = divmod(status.st_ctime_ns, 1_000_000_000)
        words = (
            ctime,
            ctime_ns,
            mtime,
            mtime_ns,
            status.st_dev,
            status.st_ino,
            entry.mode,
            status.st_uid,
            status.st_gid,
            status.st_size,
        )
        _STAT.pack_into(self._data, entry.where, *(word & _WORD for word in words))
        self._changed = True

    def data(self) -> bytes:
        """The whole file, with a new checksum when something changed and it had one (``index.skipHash``)."""
        if self._changed and any(self._data[-20:]):
            body = self._data[:-20]
            return bytes(body) + hashlib.sha1(body, usedforsecurity=False).digest()
        return bytes(self._data)


def _varint(data: bytearray, offset: int) -> tuple[int, int]:
    """A number as git's packs and its index of version 4 have it; and where the next byte is."""
    byte = data[offset]
    offset += 1
    value = byte & 0x7F
    while byte & 0x80:
        byte = data[offset]
        offset += 1
        value = (value + 1) << 7 | byte & 0x7F
    return value, offset
