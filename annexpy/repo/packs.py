"""Read single git objects: loose ones and those in packs.

dulwich reads all there is, and costs 36 ms of import and 33 µs an object; this reads what git writes today
(index version 2) in 10 µs, which is what the look-up of one key is made of. ``Objects`` asks dulwich for
whatever is refused here.

Source: gitformat-pack(5), gitrepository-layout(5).
"""

from __future__ import annotations

import mmap
import os
import zlib
from binascii import hexlify
from typing import Final, TypeAlias

from annexpy.errors import RepositoryError
from annexpy.repo.files import DiskFiles, Files, Status

__all__ = ["LARGEST", "ObjectFiles"]

LARGEST: Final = 256 << 20
"""Bytes an object may have. Logs and trees are small; a file that inflates to more is not of git-annex."""

_KINDS: Final = {b"commit": 1, b"tree": 2, b"blob": 3, b"tag": 4}
_OFFSET_DELTA: Final = 6
_REF_DELTA: Final = 7
_DEEPEST: Final = 5  # alternates of alternates
_LOOSE_HEAD: Final = 32
_WIDEST: Final = 63
"""Bits of a size: more of them are no size, and would be added up for ever."""
_BISECT: Final = 64 * 20


_Mapped: TypeAlias = mmap.mmap | bytes


class ObjectFiles:
    """The objects below one ``objects`` directory and its alternates. Not for several threads at once.

    Args:
        files: The git directory.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._packs: dict[bytes, _Pack] = {}
        self._alternates: list[ObjectFiles] | None = None
        self._depth = 0
        self._folder = b"objects/"

    def get(self, sha: bytes) -> tuple[int, bytes] | None:
        """(kind, content); None when it is not here.

        Raises:
            RepositoryError: It is corrupt, larger than ``LARGEST``, or in a form that only dulwich reads.
            OSError: A file could not be read.
        """
        found = self._packed(sha) or self._loose(sha)
        if found is None and self._look_again():
            found = self._packed(sha) or self._loose(sha)
        if found is None:
            for other in self._others():
                found = other.get(sha)
                if found is not None:
                    break
        return found

    def where(self, sha: bytes) -> tuple[bytes, ...]:
        """The files that hold the object; none when it is not here itself, but perhaps in an alternate.

        Raises as ``get``.
        """
        looked = False
        while True:
            for name, pack in self._packs.items():
                if pack.find(sha) is not None:
                    base = self._folder + b"pack/" + name
                    return base + b".pack", base + b".idx"
            loose = self._folder + hexlify(sha[:1]) + b"/" + hexlify(sha[1:])
            if self._files.status(loose) is not None:
                return (loose,)
            if looked or not self._look_again():
                return ()
            looked = True

    def close(self) -> None:
        """Give back file handles; they are opened again when needed."""
        for pack in self._packs.values():
            pack.close()
        self._packs = {}
        for other in self._alternates or ():
            other.close()
        self._alternates = None

    def _packed(self, sha: bytes) -> tuple[int, bytes] | None:
        for name, pack in self._packs.items():
            offset = pack.find(sha)
            if offset is not None:
                if name != next(iter(self._packs)):  # what is wanted next is likely in the same pack
                    self._packs = {name: pack} | self._packs
                return pack.get(offset, self)
        return None

    def _loose(self, sha: bytes) -> tuple[int, bytes] | None:
        name = hexlify(sha)
        raw = self._files.read(self._folder + name[:2] + b"/" + name[2:])
        if raw is None:
            return None
        stream = zlib.decompressobj()
        try:
            head, _, content = stream.decompress(raw, _LOOSE_HEAD).partition(b"\0")
            kind, _, digits = head.partition(b" ")
            size = int(digits) if digits.isdigit() else LARGEST + 1
            if kind in _KINDS and len(content) <= size <= LARGEST:  # no more than it says is inflated
                content += stream.decompress(stream.unconsumed_tail, size - len(content) + 1)
        except zlib.error as error:
            raise RepositoryError(f"object {name.decode()} is corrupt: {error}") from error
        if kind not in _KINDS or len(content) != size or not stream.eof:
            raise RepositoryError(f"object {name.decode()} is corrupt or too large")
        return _KINDS[kind], content

    def _look_again(self) -> bool:
        """Look whether there are other packs than before; True when there are."""
        files, folder = self._files, self._folder + b"pack"
        names = frozenset(files.names(folder))
        # an index alone can be left by a power cut, or stand there for a moment while gc removes a pack
        there = {name[:-4] for name in names if name.endswith(b".idx") and name[:-4] + b".pack" in names}
        for gone in self._packs.keys() - there:
            self._packs.pop(gone).close()
        new = {name: _Pack(files, folder + b"/" + name) for name in there - self._packs.keys()}
        self._packs = new | self._packs
        return bool(new)

    def _others(self) -> list[ObjectFiles]:
        if self._alternates is None:
            self._alternates = []
            listed = self._files.read(self._folder + b"info/alternates") or b""
            for line in listed.splitlines():
                if line and not line.startswith(b"#") and self._depth < _DEEPEST:
                    base = os.path.join(self._files.path, self._folder)
                    try:
                        other = ObjectFiles(DiskFiles(os.path.normpath(os.path.join(base, line))))
                    except FileNotFoundError:
                        continue
                    other._folder, other._depth = b"", self._depth + 1
                    self._alternates.append(other)
        return self._alternates


class _Pack:
    """One pack and its index, mapped when first needed."""

    __slots__ = ("_content", "_count", "_files", "_index", "_path")

    def __init__(self, files: Files, path: bytes) -> None:
        self._files, self._path = files, path
        self._index: _Mapped | None = None
        self._content: _Mapped | None = None
        self._count = 0

    def close(self) -> None:
        for mapped in (self._index, self._content):
            if isinstance(mapped, mmap.mmap):
                mapped.close()
        self._index = self._content = None

    def _map(self, suffix: bytes) -> _Mapped:
        files = self._files
        fd = files.open_read(self._path + suffix)
        try:
            status = files.fstatus(fd)
            if not _is_real(fd, status):
                return files.pread(fd, status.st_size, 0)
            return mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise RepositoryError(f"{os.fsdecode(self._path + suffix)} is empty") from error
        finally:
            files.close_fd(fd)

    def find(self, sha: bytes) -> int | None:
        """Where the object begins; None when it is in another pack."""
        index = self._index
        if index is None:
            index = self._map(b".idx")
            if index[:8] != b"\xfftOc\0\0\0\2" or len(index) < 1072:
                raise RepositoryError(f"{os.fsdecode(self._path)}.idx is no index of version 2")
            self._index, self._count = index, int.from_bytes(index[1028:1032], "big")
        at = 8 + 4 * sha[0]
        low = 1032 + 20 * (int.from_bytes(index[at - 4 : at], "big") if sha[0] else 0)
        high = 1032 + 20 * int.from_bytes(index[at : at + 4], "big")
        while high - low > _BISECT:
            middle = low + (high - low) // 40 * 20
            if index[middle : middle + 20] <= sha:
                low = middle
            else:
                high = middle
        found = index.find(sha, low, high)
        while found >= 0 and (found - 1032) % 20:
            found = index.find(sha, found + 1, high)
        if found < 0:
            return None
        count, number = self._count, (found - 1032) // 20
        at = 1032 + 24 * count + 4 * number
        offset = int.from_bytes(index[at : at + 4], "big")
        if offset >> 31:
            at = 1032 + 28 * count + 8 * (offset & 0x7FFFFFFF)
            offset = int.from_bytes(index[at : at + 8], "big")
        return offset

    def get(self, offset: int, whole: ObjectFiles) -> tuple[int, bytes]:
        """The object at *offset*; *whole* finds bases that are elsewhere."""
        if self._content is None:
            self._content = self._map(b".pack")
        deltas: list[bytes] = []
        together = 0
        while True:
            kind, size, at = self._head(offset)
            together += size
            if together > LARGEST:  # deltas upon deltas, or upon themselves
                raise self._corrupt(offset)
            if kind == _OFFSET_DELTA:
                byte = self._content[at]
                back = byte & 127
                while byte & 128 and back <= offset:
                    at += 1
                    byte = self._content[at]
                    back = (back + 1) << 7 | byte & 127
                deltas.append(self._inflated(at + 1, size))
                if not 0 < back <= offset:
                    raise self._corrupt(offset)
                offset -= back
            elif kind == _REF_DELTA:
                deltas.append(self._inflated(at + 20, size))
                base = self._content[at : at + 20]
                inside = self.find(base)
                if inside is None:
                    found = whole.get(base)
                    if found is None:
                        raise self._corrupt(offset)
                    kind, content = found
                    break
                offset = inside
            elif kind in (1, 2, 3, 4):
                content = self._inflated(at, size)
                break
            else:
                raise self._corrupt(offset)
            if len(deltas) > 10_000:
                raise self._corrupt(offset)
        try:
            for delta in reversed(deltas):
                content = _patched(content, delta)
        except (IndexError, ValueError) as error:
            raise self._corrupt(offset) from error
        return kind, content

    def _head(self, at: int) -> tuple[int, int, int]:
        content = self._content
        assert content is not None
        try:
            byte = content[at]
            kind, size, shift = byte >> 4 & 7, byte & 15, 4
            while byte & 128:
                at += 1
                byte = content[at]
                size |= (byte & 127) << shift
                shift += 7
                if shift > _WIDEST:
                    raise self._corrupt(at)
        except IndexError as error:
            raise self._corrupt(at) from error
        if size > LARGEST:
            raise RepositoryError(f"{os.fsdecode(self._path)}.pack: an object of {size} bytes at {at} is too large")
        return kind, size, at + 1

    def _inflated(self, at: int, size: int) -> bytes:
        content = self._content
        assert content is not None
        # No more input than the worst compression needs: zlib copies what it does not use.
        stream = zlib.decompressobj()
        try:
            data = stream.decompress(content[at : at + size + size // 1000 + 64], size + 1)
        except zlib.error as error:
            raise self._corrupt(at) from error
        if len(data) != size:
            raise self._corrupt(at)
        return data

    def _corrupt(self, at: int) -> RepositoryError:
        return RepositoryError(f"{os.fsdecode(self._path)}.pack is corrupt at {at}")


def _is_real(fd: int, status: Status) -> bool:
    """The descriptor is one of the system: files in memory have numbers of their own."""
    try:
        real = os.fstat(fd)
    except OSError:
        return False
    return (real.st_dev, real.st_ino) == (status.st_dev, status.st_ino)


def _patched(base: bytes, delta: bytes) -> bytes:
    """*base* with *delta* applied."""
    length, at = _number(delta, 0)
    wanted, at = _number(delta, at)
    if length != len(base) or wanted > LARGEST:
        raise ValueError("delta for another base")
    parts, left = [], wanted
    while at < len(delta) and left >= 0:
        code = delta[at]
        at += 1
        if code & 128:
            start = size = 0
            for bit in range(4):
                if code >> bit & 1:
                    start |= delta[at] << 8 * bit
                    at += 1
            for bit in range(3):
                if code >> bit + 4 & 1:
                    size |= delta[at] << 8 * bit
                    at += 1
            size = size or 0x10000
            if start + size > len(base):
                raise ValueError("copy from behind the base")
            parts.append(base[start : start + size])
            left -= size
        elif code:
            parts.append(delta[at : at + code])
            at += code
            left -= code
        else:
            raise ValueError("reserved instruction")
    content = b"".join(parts)
    if len(content) != wanted:
        raise ValueError("wrong length")
    return content


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            return value, at
        if shift > _WIDEST:
            raise ValueError("a number without an end")
