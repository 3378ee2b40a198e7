"""Records in order, more of them than memory should hold: sorted runs in one temporary file, merged."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from heapq import merge
from typing import Final

from annexpy.errors import RepositoryError
from annexpy.repo.files import Files
from annexpy.repo.format import STATE, make_folders
from annexpy.repo.records import Queued
from annexpy.repo.settings import Lockdown

__all__ = ["Runs"]

_LARGEST: Final = 1 << 20
_BLOCK: Final = 1 << 14
_TEMPORARY: Final = STATE + b"/tmp"


class Runs:
    """Sorts records: ``add`` them, iterate as often as need be, ``close``. Under the journal lock.

    Args:
        files: The git directory.
        lockdown: Permissions.
    """

    __slots__ = ("_bases", "_count", "_end", "_fd", "_files", "_lockdown", "_marks", "_places", "_size", "_some")

    def __init__(self, files: Files, lockdown: Lockdown) -> None:
        self._files, self._lockdown = files, lockdown
        self._some: list[
            bytes
        ] = []  # each with the number of its base behind it, which changes nothing about the order
        self._size = self._count = self._end = 0
        self._marks: dict[bytes, bytes] = {}
        self._bases: dict[bytes, bytes] = {}
        self._places: list[tuple[int, int]] = []  # of the runs in the file: from, to
        self._fd: int | None = None

    def __len__(self) -> int:
        return self._count

    def __enter__(self) -> Runs:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        fd, self._fd = self._fd, None
        if fd is not None:
            self._files.close_fd(fd)

    def add(self, lines: Iterable[bytes], base: bytes) -> None:
        """More records, whose writer knew the commit *base*."""
        mark = self._marks.get(base)
        if mark is None:
            mark = self._marks[base] = b"\t%d" % len(self._marks)
            self._bases[mark] = base
        some = [line + mark for line in lines]
        self._some += some
        self._count += len(some)
        self._size += sum(map(len, some))
        if self._size >= _LARGEST:
            self._put_aside()

    def _put_aside(self) -> None:
        files = self._files
        if self._fd is None:
            path = _TEMPORARY + b"/records-%d" % os.getpid()
            if not files.unlink(path):
                make_folders(files, _TEMPORARY, self._lockdown)
            self._fd = files.open_write(path, exclusive=True)
            files.unlink(path)  # it has no use for anybody else, nor after a crash
        self._some.sort()
        data = b"\n".join(self._some) + b"\n"
        files.write(self._fd, data)
        self._places.append((self._end, self._end + len(data)))
        self._end += len(data)
        self._some.clear()
        self._size = 0

    def __iter__(self) -> Iterator[Queued]:
        self._some.sort()
        bases = self._bases
        for entry in merge(self._some, *[self._run(*place) for place in self._places]) if self._places else self._some:
            end = entry.rindex(b"\t")
            yield Queued(entry[:end], bases[entry[end:]])

    def _run(self, at: int, end: int) -> Iterator[bytes]:
        assert self._fd is not None
        rest = b""
        while at < end:
            block = self._files.pread(self._fd, min(_BLOCK, end - at), at)
            if not block:
                raise RepositoryError("the file of sorted records became shorter while it was read")
            at += len(block)
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
