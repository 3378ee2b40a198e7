"""``open_key``: the content of a key as an async file, read from a remote without fetching all of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from annexpy.actions.get import chunks_of
from annexpy.errors import AnnexError, ContentChanged, IncompleteTransfer, InvalidInput, LocalProtocolError
from annexpy.keys.key import Key
from annexpy.remote.base import Ranged, Remote

__all__ = ["KeyReader", "open_key"]

_SKIP: Final = 256 * 1024
"""Bytes that are cheaper to read over than to ask for a new offset."""
_WINDOW: Final = 64 * 1024
_WIDEST: Final = 16 * 1024 * 1024
"""Bytes that are asked for at least, after a jump and after much was read on, where a part alone can be asked for."""


@asynccontextmanager
async def open_key(remote: Remote, key: Key) -> AsyncIterator[KeyReader]:
    """The content of *key* at *remote*, for reading from any position.

    Where the remote can send parts (``Ranged``), a jump costs little more than the bytes that are read, and reading
    on asks for larger and larger parts. Elsewhere reading on streams one get; a jump ends it and begins another,
    which may cost a connection. Nothing is verified: that takes the whole content (``get``).

    Raises:
        KeyNotPresent: With the first read.
    """
    async with anyio.create_task_group() as tasks:
        reader = KeyReader(remote, key, tasks)
        problem: Exception | None = None
        try:
            yield reader
        except Exception as error:  # a task group would wrap it
            problem = error
        reader.stop()
    if problem is not None:
        raise problem


class KeyReader:
    """A content, open for reading by one task at a time. Positions count from the first byte.

    Attributes:
        key: Whose content.
    """

    def __init__(self, remote: Remote, key: Key, tasks: TaskGroup) -> None:
        self._remote, self.key, self._tasks = remote, key, tasks
        self._position = 0
        self._size = key.size
        self._stream: _Stream | None = None
        self._window = _WINDOW
        self._busy = False

    @property
    def size(self) -> int | None:
        """Bytes in all; None while the key does not tell and nothing was read."""
        return self._size

    def tell(self) -> int:
        """The position of the next byte to be read."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to another position; nothing is asked of the remote before the next read.

        Raises:
            InvalidInput: Before the first byte, or from the end of a content whose size is not known.
        """
        match whence:
            case os.SEEK_SET:
                position = offset
            case os.SEEK_CUR:
                position = self._position + offset
            case os.SEEK_END if self._size is not None:
                position = self._size + offset
            case _:
                raise InvalidInput("whence", whence, "SEEK_SET, SEEK_CUR, or SEEK_END where the size is known")
        if position < 0:
            raise InvalidInput("position", position, "not before the first byte")
        self._position = position
        return position

    async def read(self, size: int = -1) -> bytes:
        """The next *size* bytes, fewer only at the end; all that are left when *size* is negative.

        Raises:
            KeyNotPresent: The remote does not have it.
            ContentChanged: It changed while it was read: what was read so far may be of both.
            ConnectionLost, TimedOut: The next read tries again from the same position.
        """
        if self._busy:
            raise LocalProtocolError("two tasks read one content at the same time")
        self._busy = True
        try:
            return await self._read(size)
        finally:
            self._busy = False

    async def _read(self, size: int) -> bytes:
        parts: list[bytes] = []
        missing = size
        while missing:
            if self._size is not None and self._position >= self._size:
                break
            piece = await self._some(missing if missing > 0 else None)
            if not piece:
                break
            parts.append(piece)
            self._position += len(piece)
            missing -= len(piece) if missing > 0 else 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _some(self, most: int | None) -> bytes:
        stream = self._stream
        if stream is None or not stream.leads_to(self._position):
            read_on = stream is not None and stream.end == self._position
            self._window = min(4 * self._window, _WIDEST) if read_on else _WINDOW
            self.stop()
            end = None
            if most is not None and isinstance(self._remote, Ranged) and self._remote.ranges:
                end = self._position + max(most, self._window)
            stream = self._stream = _Stream(self._remote, self.key, self._position, end)
            self._tasks.start_soon(stream.run)
        try:
            while stream.position < self._position:
                if not await stream.take(self._position - stream.position):
                    return b""
            piece = await stream.take(most)
        except AnnexError:
            self.stop()
            raise
        if stream.total is not None:
            self._size = stream.total
        return piece

    def stop(self) -> None:
        """End the get that runs, if any."""
        if self._stream is not None:
            self._stream.stop()
            self._stream = None


class _Stream:
    """One get, in a task of its own: contexts are left by the task that entered them."""

    def __init__(self, remote: Remote, key: Key, position: int, end: int | None) -> None:
        self._remote, self._key, self.position, self.end = remote, key, position, end
        self.total: int | None = None
        self.scope = anyio.CancelScope()
        self._rest = b""
        self._error: AnnexError | None = None
        self._send: MemoryObjectSendStream[bytes]
        self._receive: MemoryObjectReceiveStream[bytes]
        self._send, self._receive = anyio.create_memory_object_stream[bytes](0)

    async def run(self) -> None:
        key, start, end = self._key, self.position, self.end
        with self.scope, self._send:
            try:
                async with self._remote.get(key, offset=start, end=end) as download:
                    last = start + download.length
                    if end is None or last < end:
                        self.total = last
                        if key.size is not None and start <= key.size != last:
                            raise IncompleteTransfer(key, last, key.size, self._remote.name)
                    async with chunks_of(download) as chunks:
                        async for chunk in chunks:
                            await self._send.send(chunk)
                    if not download.valid:
                        raise ContentChanged(key, self._remote.name)
            except AnnexError as error:
                self._error = error
            except anyio.BrokenResourceError:
                return  # the reader went elsewhere

    def leads_to(self, position: int) -> bool:
        """Reading on gets to *position* in no time."""
        return self.position <= position <= self.position + _SKIP and (self.end is None or position < self.end)

    def stop(self) -> None:
        self.scope.cancel()
        self._receive.close()

    async def take(self, most: int | None) -> bytes:
        """At most *most* bytes; none at the end."""
        if not self._rest:
            try:
                self._rest = await self._receive.receive()
            except anyio.EndOfStream:
                if self._error is not None:
                    raise self._error from None
                return b""
        piece = self._rest if most is None else self._rest[:most]
        self._rest = self._rest[len(piece) :]
        self.position += len(piece)
        return piece
