"""Contents on their way into, and out of, a repository on this machine."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Protocol

from anyio import to_thread
from anyio.lowlevel import checkpoint

from annexpy.errors import KeyNotPresent, LocalProtocolError, VerificationFailed
from annexpy.keys.backend import Verifier
from annexpy.keys.key import Key
from annexpy.remote.base import Stored
from annexpy.repo.content import ContentStore, StoredObject
from annexpy.repo.folders import content_error
from annexpy.repo.locks import ContentLock
from annexpy.repo.memory_reader import MemoryReader
from annexpy.repo.receiving import Readable, Receiving
from annexpy.repo.settings import INLINE
from annexpy.uuids import UUID

__all__ = ["LocalDownload", "LocalLock", "LocalPut", "LocalUpload", "StoringPlace"]

_PIECE: Final = 256 * 1024
_HOP: Final = 2 * _PIECE
"""Bytes that are read in one hop to a thread. Every get that is under way holds about so many."""
_RUN: Final = 8 * _PIECE
"""Bytes that are read without giving other tasks a turn."""


class StoringPlace(Protocol):
    """What is asked of the Remote that they belong to."""

    @property
    def name(self) -> str: ...

    @property
    def uuid(self) -> UUID: ...

    @property
    def store(self) -> ContentStore: ...

    def check_accepts(self, key: Key) -> None:
        """Raises when no content of *key* may come in."""
        ...

    async def check_present(self, key: Key) -> bool: ...

    async def record_present(self, key: Key) -> None:
        """Record, as durably as contents are stored, that the content of *key* was found to be there."""
        ...


class LocalLock:
    """``LockedCopy`` of a repository on this machine."""

    __slots__ = ("_lock", "uuid")

    def __init__(self, uuid: UUID, lock: ContentLock) -> None:
        self.uuid, self._lock = uuid, lock

    @property
    def expires(self) -> float:
        return self._lock.expires

    async def held(self) -> bool:
        return self._lock.held()


class LocalPut:
    """The context of one put. A class, because generators cost as much as the put of a small content."""

    __slots__ = ("_associated_file", "_client", "_exclusion", "_key", "_local", "_receiving")

    def __init__(self, local: StoringPlace, key: Key, associated_file: str, client: UUID | None) -> None:
        self._local, self._key, self._associated_file, self._client = local, key, associated_file, client
        self._receiving: Receiving | None = None
        self._exclusion: AbstractAsyncContextManager[None] | None = None

    async def __aenter__(self) -> LocalUpload:
        local, key = self._local, self._key
        local.check_accepts(key)
        if await local.check_present(key):
            try:
                await local.record_present(key)
            except KeyNotPresent:
                pass  # removed just now: it is wanted again
            else:
                return LocalUpload(local, key, None)
        if local.store.settings.pidlock:
            self._exclusion = local.store.exclusion()
            await self._exclusion.__aenter__()
        try:
            # Without the name of the sender there is no file that tells others who sends: it is over before they look.
            source = None if local.store.settings.soon(key.size) else self._client
            receiving = local.store.receive(key, source=source, associated_file=self._associated_file)
            self._receiving = await receiving.__aenter__()
            if self._receiving.there:  # somebody else brought it before it was our turn: it is not we who do
                await local.record_present(key)
                return LocalUpload(local, key, None)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return LocalUpload(local, key, receiving)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._receiving is not None:
                await self._receiving.__aexit__(kind, error, trace)
        finally:
            await self._leave(kind, error, trace)

    async def _leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._exclusion is not None:
            await self._exclusion.__aexit__(kind, error, trace)


class LocalUpload:
    """``Upload`` into a repository on this machine."""

    __slots__ = ("_key", "_local", "_receiving", "_started", "already", "offset")

    def __init__(self, local: StoringPlace, key: Key, receiving: Receiving | None) -> None:
        self._local, self._key, self._receiving = local, key, receiving
        self._started = False
        self.already: frozenset[UUID] | None = frozenset((local.uuid,)) if receiving is None else None
        self.offset = 0 if receiving is None else receiving.offset

    async def start(self, length: int) -> None:
        if self._receiving is None or self._started:
            raise LocalProtocolError("content was announced twice, or is already there")
        self._receiving.expect(length)
        self._started = True

    def verify_with(self, check: Verifier) -> None:
        """As ``Receiving.verify_with``, before ``start``."""
        if self._receiving is not None:
            self._receiving.verify_with(check)

    def _open(self) -> Receiving:
        if self._receiving is None or not self._started:
            raise LocalProtocolError("content that was never announced")
        return self._receiving

    async def write(self, data: bytes) -> None:
        await self._open().write(data)

    async def copy(self, download: LocalDownload, progress: Callable[[int], None] | None = None) -> None:
        """Take the whole of *download*, which must start at ``offset``: no byte passes the event loop.

        In place of ``write``, after ``start``. *progress* hears how many more bytes were read.
        """
        if download.offset != self.offset or download.offset + download.length < download.stored.size:
            raise LocalProtocolError(f"a part of the content, from {download.offset}, for an upload from {self.offset}")
        await self.take(download.stored, progress)
        download.finish()

    async def take(self, source: Readable, progress: Callable[[int], None] | None = None) -> None:
        """As ``copy``, all of *source* from ``offset`` on."""
        await self._open().copy(source, progress)

    async def finish(self, valid: bool = True) -> Stored:
        new = await self._open().finish(valid)
        here = frozenset((self._local.uuid,))
        return Stored(uuids=here) if new else Stored(already=here)

    async def data_present(self) -> Stored:
        local, key = self._local, self._key
        # Whoever brought it there may not have looked what it is.
        if not await to_thread.run_sync(local.store.verified, key):
            if await local.check_present(key):
                raise VerificationFailed(key, local.name)
            raise KeyNotPresent(key, local.name)
        await local.record_present(key)
        return Stored(uuids=frozenset((local.uuid,)))


class LocalDownload:
    """``Download`` from a repository on this machine.

    Attributes:
        stored: The object, open while the get is.
        offset: Where it starts.
    """

    __slots__ = ("_end", "_name", "_valid", "offset", "source", "stored")

    def __init__(self, name: str, source: UUID, stored: StoredObject, offset: int = 0, end: int | None = None) -> None:
        self._name, self.source, self.stored, self.offset = name, source, stored, offset
        self._end = stored.size if end is None else min(end, stored.size)
        self._valid = True

    @property
    def length(self) -> int:
        return max(0, self._end - self.offset)

    @property
    def valid(self) -> bool:
        return self._valid

    def finish(self) -> None:
        """All has been read: look whether somebody wrote to it meanwhile."""
        self._valid = self.stored.unchanged()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        offset, end = self.offset, self._end
        if end - offset <= INLINE:
            if offset < end:
                yield self._read(offset, end - offset)
        else:
            fd = self.stored.system_fd
            reader = None if fd is None else MemoryReader(fd)
            while offset < end:
                if reader is not None and (piece := self._read_now(reader, offset)) is not None:
                    offset += len(piece)
                    yield piece
                    if not (offset - self.offset) % _RUN:
                        await checkpoint()
                    continue
                # Some at once, since a hop to a thread costs more than reading one of them.
                pieces = await to_thread.run_sync(self._read_some, offset, min(offset + _HOP, end))
                offset = min(offset + _HOP, end)
                while pieces:
                    yield pieces.popleft()
        self.finish()

    def _read_now(self, reader: MemoryReader, offset: int) -> bytes | None:
        try:
            return reader.read(min(_PIECE, self._end - offset), offset)
        except OSError as error:
            raise content_error(self.stored.key, self._name, error) from error

    def _read_some(self, start: int, end: int) -> deque[bytes]:
        return deque(self._read(at, min(_PIECE, end - at)) for at in range(start, end, _PIECE))

    def _read(self, offset: int, size: int) -> bytes:
        try:
            piece = self.stored.pread(size, offset)
        except OSError as error:
            raise content_error(self.stored.key, self._name, error) from error
        # Shorter: somebody cut the object while it is sent. The length was promised; INVALID comes after it.
        return piece if len(piece) == size else piece.ljust(size, b"\0")
