"""A dict as a Remote: the reference in tests and docs, and a place to put things that need no disk.

It keeps every rule that a repository on disk keeps (partials that resume, verification before
anything is stored, locks with retention, removal deadlines), so what passes here by luck is a bug
here. Faults are no business of this class.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from annexpy.clock import LOCK_RETENTION, MAX_REMOVAL_AHEAD, Clock, Deadline
from annexpy.errors import (
    AnnexError,
    ContentChanged,
    ContentLocked,
    IncompleteTransfer,
    InvalidInput,
    KeyNotPresent,
    LocalProtocolError,
    NotLocked,
    TimedOut,
    TransferInProgress,
    VerificationFailed,
)
from annexpy.keys.backend import verifier
from annexpy.keys.key import Key
from annexpy.remote.base import Removed, Stored, is_open_end
from annexpy.system import CLOCK
from annexpy.transport.base import CHUNK
from annexpy.uuids import UUID

__all__ = ["MemoryDownload", "MemoryLock", "MemoryRemote", "MemoryUpload"]


class MemoryRemote:
    """A Remote in the memory of this process.

    Attributes:
        objects: Key → content. May be looked at and changed directly.
        partials: Key → what arrived of a put that was not finished.
    """

    def __init__(
        self,
        uuid: UUID,
        *,
        name: str = "memory",
        cost: int = 100,
        clock: Clock = CLOCK,
        objects: Mapping[Key, bytes] | None = None,
    ) -> None:
        self._uuid, self._name, self._cost, self._clock = uuid, name, cost, clock
        self.objects: dict[Key, bytes] = dict(objects or {})
        self.partials: dict[Key, bytearray] = {}
        self._locks: dict[Key, list[MemoryLock]] = {}
        self._retained_until: dict[Key, float] = {}
        self._receiving: set[Key] = set()

    @property
    def uuid(self) -> UUID:
        return self._uuid

    @property
    def name(self) -> str:
        return self._name

    @property
    def cost(self) -> int:
        return self._cost

    def __repr__(self) -> str:
        return f"<MemoryRemote {self._name} {self._uuid} with {len(self.objects)} keys>"

    async def check_present(self, key: Key) -> bool:
        return key in self.objects

    @asynccontextmanager
    async def lock_content(self, key: Key) -> AsyncIterator[MemoryLock]:
        """Hold *key*. Any number may.

        Leaving releases the lock, except at an open end (``is_open_end``): then its holder vanished
        without UNLOCKCONTENT, and the content stays locked until ``expires``.
        """
        if key not in self.objects:
            raise NotLocked(key, self._name, "it is not present")
        lock = MemoryLock(self._uuid, self._clock.now() + LOCK_RETENTION)
        self._locks.setdefault(key, []).append(lock)
        try:
            yield lock
        except BaseException as error:
            if is_open_end(error):
                self._retained_until[key] = max(lock.expires, self._retained_until.get(key, lock.expires))
            raise
        finally:
            lock.released = True
            self._locks[key].remove(lock)
            if not self._locks[key]:
                del self._locks[key]

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        error = self._keeps(key, deadline) if key in self.objects else None
        if error is not None:
            return Removed(ok=False, failed={self._uuid: error})
        self.objects.pop(key, None)
        return Removed(ok=True, uuids=frozenset((self._uuid,)))

    def _keeps(self, key: Key, deadline: Deadline | None) -> AnnexError | None:
        """Why *key*, which is present, may not be removed now."""
        now = self._clock.now()
        if key in self._locks:
            return ContentLocked(key, self._name)
        if key in self._retained_until:
            left = self._retained_until[key] - now
            if left > 0:
                return ContentLocked(key, self._name, f"its lock expires in {left:.0f} s")
            del self._retained_until[key]
        if deadline is not None:
            if deadline.at > now + MAX_REMOVAL_AHEAD:
                return InvalidInput("removal deadline", deadline.at, f"at most {MAX_REMOVAL_AHEAD} s ahead")
            if now >= deadline.at:
                return TimedOut(self._name, "removal before its deadline", 0)
        return None

    @asynccontextmanager
    async def put(self, key: Key, *, associated_file: str = "") -> AsyncIterator[MemoryUpload]:
        """Start storing *key*.

        Raises:
            TransferInProgress: Somebody else is storing it here.
        """
        if key in self.objects:
            yield MemoryUpload(self, key, already=frozenset((self._uuid,)))
            return
        if key in self._receiving:
            raise TransferInProgress(key, self._name)
        self._receiving.add(key)
        try:
            yield MemoryUpload(self, key)
        finally:
            self._receiving.discard(key)

    @asynccontextmanager
    async def get(
        self, key: Key, *, offset: int = 0, end: int | None = None, associated_file: str = ""
    ) -> AsyncIterator[MemoryDownload]:
        if offset < 0 or (end is not None and end < 0):
            raise InvalidInput("offset", min(offset, offset if end is None else end), "0 or more")
        if key not in self.objects:
            raise KeyNotPresent(key, self._name)
        yield MemoryDownload(self._uuid, self.objects[key][offset:end])

    async def aclose(self) -> None:
        """Nothing to give back: the content stays."""


class MemoryLock:
    """``LockedCopy`` of a MemoryRemote."""

    __slots__ = ("expires", "released", "uuid")

    def __init__(self, uuid: UUID, expires: float) -> None:
        self.uuid, self.expires, self.released = uuid, expires, False

    async def held(self) -> bool:
        return not self.released


class MemoryUpload:
    """``Upload`` of a MemoryRemote. Each write is part of the partial at once."""

    __slots__ = ("_key", "_left", "_length", "_remote", "already", "offset")

    def __init__(self, remote: MemoryRemote, key: Key, already: frozenset[UUID] | None = None) -> None:
        self._remote, self._key, self.already = remote, key, already
        self.offset = 0 if already else len(remote.partials.get(key, b""))
        self._length: int | None = None
        self._left = 0

    async def start(self, length: int) -> None:
        size = self._key.size
        if self.already is not None or self._length is not None:
            raise LocalProtocolError("content was announced twice, or is already there")
        if length < 0 or (length and size is not None and self.offset + length > size):
            raise InvalidInput("length of content", length, f"0 to {max(0, (size or 0) - self.offset)} bytes")
        self._length = self._left = length

    async def write(self, data: bytes) -> None:
        if self._length is None or len(data) > self._left:
            raise LocalProtocolError(f"{len(data)} bytes of content where {self._left} were announced")
        self._left -= len(data)
        if data:
            self._remote.partials.setdefault(self._key, bytearray()).extend(data)

    async def finish(self, valid: bool = True) -> Stored:
        if self._length is None:
            raise LocalProtocolError("the end of content that was never announced")
        remote, key = self._remote, self._key
        if not self._length and not valid:  # the way to ask for the offset: never costs the partial
            raise ContentChanged(key, remote.name)
        content = bytes(remote.partials.pop(key, b""))
        if self._left:
            raise IncompleteTransfer(key, self._length - self._left, self._length, remote.name)
        if key.size is not None and len(content) != key.size:
            raise IncompleteTransfer(key, len(content), key.size, remote.name)
        check = verifier(key)
        if check is None:
            if not valid:
                raise ContentChanged(key, remote.name)
        else:
            check.update(content)
            if not check.matches():
                raise VerificationFailed(key, remote.name)
        remote.objects[key] = content
        return Stored(uuids=frozenset((remote.uuid,)))

    async def data_present(self) -> Stored:
        if self._key not in self._remote.objects:
            raise KeyNotPresent(self._key, self._remote.name)
        return Stored(uuids=frozenset((self._remote.uuid,)))


class MemoryDownload:
    """``Download`` of a MemoryRemote: the content as it was when the get began. Iterate it once."""

    __slots__ = ("_content", "_position", "source", "valid")

    def __init__(self, source: UUID, content: bytes) -> None:
        self.source, self._content, self.valid = source, content, True
        self._position = 0

    @property
    def length(self) -> int:
        return len(self._content)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = self._content[self._position : self._position + CHUNK]
        if not chunk:
            raise StopAsyncIteration
        self._position += len(chunk)
        return chunk
