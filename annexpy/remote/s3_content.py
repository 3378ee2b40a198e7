"""One put and one get of an object in a bucket."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from annexpy.errors import (
    ConnectFailed,
    ContentChanged,
    IncompleteTransfer,
    InvalidInput,
    KeyNotPresent,
    LocalProtocolError,
    VerificationFailed,
)
from annexpy.keys.backend import Verifier, verifier
from annexpy.keys.key import Key
from annexpy.remote.base import Stored
from annexpy.remote.s3_sender import BLOCK, PART, Sender, SendsObjects
from annexpy.remote.s3_settings import S3Settings
from annexpy.uuids import UUID

__all__ = ["Bucket", "S3Download", "S3Upload"]

_T = TypeVar("_T")


class Bucket(SendsObjects, Protocol):
    """What is asked of the remote."""

    settings: S3Settings

    @property
    def uuid(self) -> UUID: ...

    async def ask(self, what: str, work: Callable[..., _T], *arguments: object) -> _T: ...

    async def size(self, key: Key) -> int | None: ...

    async def check_present(self, key: Key) -> bool: ...

    def reading(self, key: Key, start: int, end: int) -> Iterator[bytes]: ...

    def get(self, key: Key) -> AbstractAsyncContextManager[S3Download]: ...


class S3Download:
    """``Download`` of an object. Iterate it once."""

    def __init__(self, remote: Bucket, key: Key, size: int, start: int, end: int) -> None:
        self._remote, self._key, self._start, self._end = remote, key, start, max(start, end)
        self._end = min(self._end, max(size, start))

    @property
    def length(self) -> int:
        return self._end - self._start

    @property
    def source(self) -> UUID:
        return self._remote.uuid

    @property
    def valid(self) -> bool:
        return True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left, remote = self.length, self._remote
        if not left:
            return
        try:
            chunks = await remote.ask("content", remote.reading, self._key, self._start, self._end)
            while left and (chunk := await remote.ask("content", next, chunks, b"")):
                if len(chunk) > left:
                    break
                left -= len(chunk)
                yield chunk
        except FileNotFoundError as error:
            raise KeyNotPresent(self._key, remote.name) from error
        if left:
            raise IncompleteTransfer(self._key, self.length - left, self.length, remote.name)


class S3Upload:
    """``Upload`` of an object."""

    def __init__(self, remote: Bucket, key: Key, already: frozenset[UUID] | None) -> None:
        self._remote, self._key, self.already = remote, key, already
        self.offset = 0
        self._check: Verifier | None = None
        self._length: int | None = None
        self._received = self._pending_size = 0
        self._pending: list[bytes] = []
        self._sender: Sender | None = None

    async def start(self, length: int) -> None:
        size = self._key.size
        if self.already is not None or self._length is not None:
            raise LocalProtocolError("content was announced twice, or is already there")
        if length < 0 or (length and size is not None and length > size):
            raise InvalidInput("length of content", length, f"0 to {size} bytes")
        self._check = verifier(self._key)
        self._length = length

    async def write(self, data: bytes) -> None:
        if self._length is None or self._received + len(data) > self._length:
            raise LocalProtocolError(f"{len(data)} bytes of content that were not announced")
        self._received += len(data)
        self._pending.append(data)
        self._pending_size += len(data)
        if self._length > PART and self._pending_size >= BLOCK:
            await self._hand_over()

    async def _hand_over(self) -> None:
        if self._sender is None:
            self._sender = Sender(self._remote, self._key, self._check)
        block, self._pending, self._pending_size = b"".join(self._pending), [], 0
        sender = self._sender
        while not sender.offer(block):
            await self._remote.ask("progress of a put", sender.wait_for_room)

    async def finish(self, valid: bool = True) -> Stored:
        key, remote = self._key, self._remote
        if self._length is None:
            raise LocalProtocolError("the end of content that was never announced")
        if not self._length and not valid:
            raise ContentChanged(key, remote.name)
        expected = self._length if key.size is None else key.size
        if self._received != expected or self._received != self._length:
            self.leave()
            raise IncompleteTransfer(key, self._received, expected, remote.name)
        if self._check is None and not valid:
            self.leave()
            raise ContentChanged(key, remote.name)
        try:
            if self._sender is None:
                await self._send_at_once(b"".join(self._pending))
            else:
                await self._hand_over()
                await remote.ask("end of a put", self._sender.finish)
        except FileNotFoundError as error:
            raise ConnectFailed(remote.name, f"there is no bucket {remote.settings.bucket}") from error
        found = await remote.size(key)
        if found != expected:
            raise IncompleteTransfer(key, found or 0, expected, remote.name)
        return Stored(uuids=frozenset((remote.uuid,)))

    async def _send_at_once(self, content: bytes) -> None:
        remote = self._remote

        def send() -> object:
            if self._check is not None:
                self._check.update(content)
                if not self._check.matches():
                    raise VerificationFailed(self._key, remote.name)
            return remote.sending(self._key, content)

        said: Any = await remote.ask("end of a put", send)  # a dictionary of the library
        tag = (said.get("e_tag") or "").strip('"')
        is_md5 = len(tag) == 32 and not set(tag) - set("0123456789abcdef")
        if is_md5 and tag != hashlib.md5(content, usedforsecurity=False).hexdigest():
            await self._reread()  # encrypted there, or not what was sent

    async def _reread(self) -> None:
        key, remote = self._key, self._remote
        check = verifier(key)
        async with remote.get(key) as download:
            async for chunk in download:
                if check is not None:
                    check.update(chunk)
        if check is not None and not check.matches():
            raise VerificationFailed(key, remote.name)

    async def data_present(self) -> Stored:
        if not await self._remote.check_present(self._key):
            raise KeyNotPresent(self._key, self._remote.name)
        await self._reread()
        return Stored(uuids=frozenset((self._remote.uuid,)))

    def leave(self) -> None:
        """Nothing more will come. What was not finished never becomes an object."""
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.abort()
