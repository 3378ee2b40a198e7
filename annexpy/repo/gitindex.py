"""The git index, as bytes: find entries, and change what it says about the files of some.

git compares each file of the work tree with the size, time and inode that the index has of it. Whoever
replaces a pointer file by its content, or the other way round, has to write the new ones down, or ``git status``
shows the file as modified. ``GitIndex`` changes only those ten words of an entry, so that every extension, and
every version from 2 to 4, comes out as it went in. ``stage`` enters whole files beside what else is staged.

Source: gitformat-index(5).
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from annexpy.errors import UnsupportedRepository
from annexpy.repo.files import Status

__all__ = ["GitIndex", "IndexEntry", "Staged", "stage"]

_STAT: Final = struct.Struct(">10L")
_EXTENDED: Final = 0x4000
_NAME_LENGTH: Final = 0xFFF
_STAGE: Final = 0x3000
_WORD: Final = 0xFFFFFFFF
_RESOLVE_UNDO: Final = b"REUC"


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
        self._end = 12

    @property
    def version(self) -> int:
        """2, 3 or 4."""
        return self._version

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
        self._ends(offset)

    def _ends(self, offset: int) -> None:
        """The entries end there."""
        self._end = offset
        if self._data[offset : offset + 4] == b"link":
            raise UnsupportedRepository(
                "the git index is split (core.splitIndex): run git update-index --no-split-index"
            )

    def _places(self) -> tuple[list[bytes], list[int]]:
        """Path and offset of every entry of version 2, and where the last one ends: a fifth of what ``_walk`` costs."""
        data, offset = bytes(self._data), 12
        paths: list[bytes] = []
        places = [12]
        try:
            for _ in range(self._count):
                start = offset + 62
                length = (data[offset + 60] & 0xF) << 8 | data[offset + 61]
                end = start + length if length != _NAME_LENGTH else data.index(0, start)
                paths.append(data[start:end])
                offset = end + 8 - (end - offset) % 8
                places.append(offset)
        except (ValueError, IndexError) as error:
            raise UnsupportedRepository("the git index is damaged") from error
        self._ends(offset)
        return paths, places

    def _raw(self) -> tuple[list[tuple[bytes, bytes]], int]:
        """(path, entry in the form of version 2 or 3) of every entry, and where they end."""
        data, found, end = bytes(self._data), list[tuple[bytes, bytes]](), 12
        if self._version != 4:
            last: tuple[bytes, int] | None = None
            for path, offset, _ in self._walk():
                if last is not None:
                    found.append((last[0], data[last[1] : offset]))
                last = path, offset
            if last is not None:
                end = self._end
                found.append((last[0], data[last[1] : end]))
            return found, end
        for path, offset, flags in self._walk():
            found.append((path, _padded(data[offset : offset + (64 if flags & _EXTENDED else 62)], path)))
        return found, self._end

    def _extensions(self, offset: int) -> bytes:
        """Those that stay right when entries come and go."""
        data, kept = bytes(self._data), b""
        while offset < len(data) - 20:
            name, size = data[offset : offset + 4], int.from_bytes(data[offset + 4 : offset + 8], "big")
            if not name[:1].isupper():
                raise UnsupportedRepository(f"the git index has an extension {name!r} that may not be ignored")
            if name == _RESOLVE_UNDO:
                kept += data[offset : offset + 8 + size]
            offset += 8 + size
        return kept

    def set_status(self, entry: IndexEntry, status: Status) -> None:
        """Make *entry* say that the file is as *status* has it."""
        _STAT.pack_into(self._data, entry.where, *_words(entry.mode, status))
        self._changed = True

    def data(self) -> bytes:
        """The whole file, with a new checksum when something changed and it had one (``index.skipHash``)."""
        if self._changed and any(self._data[-20:]):
            body = self._data[:-20]
            return bytes(body) + hashlib.sha1(body, usedforsecurity=False).digest()
        return bytes(self._data)


@dataclass(frozen=True, slots=True)
class Staged:
    """What the index is to say of one regular file.

    Attributes:
        sha: The blob, 20 bytes.
        before: The blob that the commit had before; None: it had no such file. When the index says something
            else, somebody has staged a change of their own, and that stays.
        status: Of the file in the work tree; None when it is not there, or is something else than *sha*.
    """

    sha: bytes
    before: bytes | None
    status: Status | None


def stage(data: bytes | None, files: Mapping[bytes, Staged]) -> bytes:
    """An index that says what *files* says, and of everything else what *data* (None: no index yet) said.

    Extensions that depend on the entries are left out; git makes them again. Version 4 becomes 2 or 3.

    Raises:
        UnsupportedRepository: It is damaged, split or sparse, or a file stands where a directory would have to.
    """
    index = GitIndex(b"DIRC\0\0\0\2" + bytes(24) if data is None else data)
    checked = data is None or any(data[-20:])  # index.skipHash leaves zeros
    parents = {path[:at] for path in files for at in range(len(path)) if path[at] == 0x2F}
    whole = _spliced(index, files, parents) if index.version == 2 else _rewritten(index, files, parents)
    return whole + (hashlib.sha1(whole, usedforsecurity=False).digest() if checked else bytes(20))


def _spliced(index: GitIndex, files: Mapping[bytes, Staged], parents: set[bytes]) -> bytes:
    """An index of version 2, which keeps the bytes of all other entries: there are thousands, and a few change."""
    paths, places = index._places()
    if blocked := parents.intersection(paths):
        raise UnsupportedRepository(f"{min(blocked)!r} is a file in the git index, and should be a directory")
    data = bytes(index._data)
    pieces: list[tuple[int, int, bytes]] = []  # from, to, what stands there instead
    found: set[bytes] = set()
    for number, path in enumerate(paths):
        if path in files:
            found.add(path)
            raw, wanted = data[places[number] : places[number + 1]], files[path]
            if _is_ours(raw, wanted):
                pieces.append((places[number], places[number + 1], _entry(path, wanted, raw)))
    new = [path for path, wanted in files.items() if path not in found and wanted.before is None]
    for path in new:
        at = places[bisect_left(paths, path)]
        pieces.append((at, at, _entry(path, files[path])))
    # where several stand before the same entry, their paths decide
    pieces.sort(key=lambda piece: (piece[0], piece[1], piece[2][62:]))
    parts, done = [b"DIRC" + struct.pack(">LL", 2, len(paths) + len(new))], 12
    for start, end, entry in pieces:
        parts += [data[done:start], entry]
        done = end
    parts += [data[done : places[-1]], index._extensions(places[-1])]
    return b"".join(parts)


def _is_ours(raw: bytes, wanted: Staged) -> bool:
    """Nobody has staged a change of their own, and it is in no conflict."""
    return raw[40:60] in (wanted.before, wanted.sha) and not int.from_bytes(raw[60:62], "big") & _STAGE


def _rewritten(index: GitIndex, files: Mapping[bytes, Staged], parents: set[bytes]) -> bytes:
    entries, end = index._raw()
    kept: list[tuple[bytes, bytes]] = []
    found: set[bytes] = set()
    for path, raw in entries:
        wanted = files.get(path)
        if path in parents:
            raise UnsupportedRepository(f"{path!r} is a file in the git index, and should be a directory")
        if wanted is not None:
            found.add(path)
            kept.append((path, _entry(path, wanted, raw) if _is_ours(raw, wanted) else raw))
        else:
            kept.append((path, raw))
    new = [
        (path, _entry(path, wanted)) for path, wanted in files.items() if path not in found and wanted.before is None
    ]
    if new:
        kept = sorted(kept + new, key=lambda entry: entry[0])  # stable: the sides of a conflict keep their order
    body = b"".join([raw for _, raw in kept])
    version = 3 if any(raw[60] & 0x40 for _, raw in kept) else 2
    return b"DIRC" + struct.pack(">LL", version, len(kept)) + body + index._extensions(end)


def _entry(path: bytes, wanted: Staged, old: bytes | None = None) -> bytes:
    """An entry of version 2."""
    words = [0] * 10
    words[6] = 0o100644 if old is None else int.from_bytes(old[24:28], "big")
    if wanted.status is not None:
        words = _words(words[6], wanted.status)
    return _padded(_STAT.pack(*words) + wanted.sha + min(len(path), _NAME_LENGTH).to_bytes(2, "big"), path)


def _padded(head: bytes, path: bytes) -> bytes:
    raw = head + path
    return raw + bytes(8 - len(raw) % 8)


def _words(mode: int, status: Status) -> list[int]:
    mtime, mtime_ns = divmod(status.st_mtime_ns, 1_000_000_000)
    ctime, ctime_ns = divmod(status.st_ctime_ns, 1_000_000_000)
    owner = (status.st_uid, status.st_gid, status.st_size)
    words = (ctime, ctime_ns, mtime, mtime_ns, status.st_dev, status.st_ino, mode, *owner)
    return [word & _WORD for word in words]


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
