"""What a put reads from: a file, bytes, a stream. Each knows whether it changed meanwhile.

A file of the user is opened as any program opens it, following links: locked files of a work tree
are links.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterable
from typing import Final, Protocol, TypeAlias

from anyio import to_thread

from annexpy.errors import ContentChanged, IncompleteTransfer, InvalidInput, InvalidPath
from annexpy.keys.key import Key

__all__ = ["INLINE", "Content", "File", "Source", "opened"]

Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | AsyncIterable[bytes]
"""A path, the content itself, or a stream of it."""

INLINE: Final = 256 * 1024
"""Bytes up to which reading a file on the event loop is cheaper than a thread."""
_CHUNK: Final = 1024 * 1024


class Content(Protocol):
    """A source, opened."""

    @property
    def size(self) -> int: ...

    async def read(self, offset: int) -> bytes:
        """Some bytes from *offset*; at least one unless it is the end, which is at ``size``.

        Called with ascending offsets, without gaps but for the first.

        Raises:
            ContentChanged: It ended early.
        """
        ...

    def changed(self) -> bool:
        """Whether it is known to have changed since it was opened."""
        ...


class opened:
    """A context: *source* as ``Content`` of *key*.

    Raises:
        InvalidPath: Not a file that can be read.
        InvalidInput: A stream for a key that does not tell its size.
        ContentChanged: It is not the content of the key: its size is another.
    """

    __slots__ = ("_file", "_key", "_source")

    def __init__(self, source: Source, key: Key) -> None:
        self._source, self._key = source, key
        self._file: File | None = None

    def __enter__(self) -> Content:
        source, key = self._source, self._key
        content: Content
        if isinstance(source, bytes | bytearray | memoryview):
            content = _Bytes(bytes(source))
        elif isinstance(source, AsyncIterable):
            content = _Stream(source, key)
        else:
            content = self._file = File(os.fspath(source), key)
        if key.size is not None and content.size != key.size:
            self.__exit__()
            raise ContentChanged(key, "the source", f"it has {content.size} bytes")
        return content

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


class _Bytes:
    __slots__ = ("_content", "size")

    def __init__(self, content: bytes) -> None:
        self._content, self.size = content, len(content)

    async def read(self, offset: int) -> bytes:
        content = self._content
        return content if not offset and self.size <= _CHUNK else content[offset : offset + _CHUNK]

    def changed(self) -> bool:
        return False


class _Stream:
    __slots__ = ("_done", "_key", "_source", "size")

    def __init__(self, source: AsyncIterable[bytes], key: Key) -> None:
        if key.size is None:
            raise InvalidInput("source", key, "a stream needs a key that tells its size")
        self._source, self._key, self.size, self._done = aiter(source), key, key.size, 0

    async def read(self, offset: int) -> bytes:
        async for chunk in self._source:
            start = self._done
            self._done += len(chunk)
            if self._done > self.size:
                break
            if self._done > offset:
                return chunk if start == offset else chunk[offset - start :]
        if self._done != self.size:
            raise IncompleteTransfer(self._key, self._done, self.size, "the source")
        return b""

    def changed(self) -> bool:
        return False


class File:
    """A file of the user, open. Also what a repository on this machine copies from."""

    __slots__ = ("_before", "_fd", "_key", "_path", "size")

    def __init__(self, path: str, key: Key) -> None:
        self._path, self._key = path, key
        try:
            # Not blocking: a named pipe would wait for a writer for ever before it could be refused.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise InvalidPath("file", os.fsencode(path), error.strerror or "cannot be read") from error
        try:
            status = os.fstat(self._fd)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidPath("file", os.fsencode(path), "must be a regular file")
        except BaseException:
            os.close(self._fd)
            raise
        self.size, self._before = status.st_size, _state(status)

    async def read(self, offset: int) -> bytes:
        left = self.size - offset
        if left <= 0:
            return b""
        if left <= INLINE:
            return self.pread(left, offset)
        return await to_thread.run_sync(self.pread, min(_CHUNK, left), offset)

    def pread(self, size: int, offset: int) -> bytes:
        try:
            piece = os.pread(self._fd, size, offset)
        except OSError as error:
            raise InvalidPath("file", os.fsencode(self._path), error.strerror or "cannot be read") from error
        if not piece:
            raise ContentChanged(self._key, self._path, "the file was cut while it was sent")
        return piece

    def changed(self) -> bool:
        return _state(os.fstat(self._fd)) != self._before

    def close(self) -> None:
        os.close(self._fd)


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
