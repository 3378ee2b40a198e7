"""What a put reads from: a file, bytes, a stream. Each knows whether it changed meanwhile.

A file of the user is opened as any program opens it, following links: locked files of a work tree
are links.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterable, AsyncIterator
from typing import Final, Protocol, TypeAlias

from anyio import to_thread

from annexpy.errors import ContentChanged, IncompleteTransfer, InvalidInput, InvalidPath
from annexpy.keys.key import Key

__all__ = ["INLINE", "Content", "Source", "opened"]

Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | AsyncIterable[bytes]
"""A path, the content itself, or a stream of it."""

INLINE: Final = 256 * 1024
"""Bytes up to which reading a file on the event loop is cheaper than a thread."""
_CHUNK: Final = 1024 * 1024


class Content(Protocol):
    """A source, opened."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int) -> AsyncIterator[bytes]:
        """Immutable chunks from *offset* to the end, which is at ``size``.

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
        self._file: _File | None = None

    def __enter__(self) -> Content:
        source, key = self._source, self._key
        content: Content
        if isinstance(source, bytes | bytearray | memoryview):
            content = _Bytes(bytes(source))
        elif isinstance(source, AsyncIterable):
            content = _Stream(source, key)
        else:
            content = self._file = _File(os.fspath(source), key)
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

    async def read(self, offset: int) -> AsyncIterator[bytes]:
        if self.size - offset <= _CHUNK:
            yield self._content[offset:]
            return
        for start in range(offset, self.size, _CHUNK):
            yield self._content[start : start + _CHUNK]

    def changed(self) -> bool:
        return False


class _Stream:
    __slots__ = ("_key", "_source", "size")

    def __init__(self, source: AsyncIterable[bytes], key: Key) -> None:
        if key.size is None:
            raise InvalidInput("source", key, "a stream needs a key that tells its size")
        self._source, self._key, self.size = source, key, key.size

    async def read(self, offset: int) -> AsyncIterator[bytes]:
        done = 0
        async for chunk in self._source:
            done += len(chunk)
            if done > self.size:
                raise IncompleteTransfer(self._key, done, self.size, "the source")
            skipped = offset - (done - len(chunk))
            if skipped < len(chunk):
                yield chunk if skipped <= 0 else chunk[skipped:]
        if done < self.size:
            raise IncompleteTransfer(self._key, done, self.size, "the source")

    def changed(self) -> bool:
        return False


class _File:
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
                raise InvalidPath("file", os.fsencode(path), "a regular file")
        except BaseException:
            os.close(self._fd)
            raise
        self.size, self._before = status.st_size, _state(status)

    async def read(self, offset: int) -> AsyncIterator[bytes]:
        if self.size - offset <= INLINE:
            if offset < self.size:
                yield self._piece(offset, self.size - offset)
            return
        while offset < self.size:
            chunk = await to_thread.run_sync(self._piece, offset, min(_CHUNK, self.size - offset))
            offset += len(chunk)
            yield chunk

    def _piece(self, offset: int, size: int) -> bytes:
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
