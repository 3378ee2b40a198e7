"""One get over HTTP.

A body that is shorter than its ``X-git-annex-data-length`` is the only way in which a sender can say that the content
changed.

Source: fact sheet p2p-protocol, section 6.
"""

from __future__ import annotations

import re
from types import TracebackType
from typing import Final, Self

from annexpy.errors import (
    ContentChanged,
    InvalidInput,
    KeyNotPresent,
    LocalProtocolError,
    RemoteProtocolError,
    VerificationFailed,
)
from annexpy.keys.key import Key
from annexpy.p2p.http import (
    DATA_LENGTH,
    GetRequest,
    Request,
    parse_data_length,
)
from annexpy.remote.http_line import Line, Said, was_stale
from annexpy.remote.http_session import Attempts, HTTPSession, is_present, sent_name
from annexpy.remote.pool import Use
from annexpy.transport.base import CHUNK
from annexpy.transport.http_client import Response
from annexpy.uuids import UUID

__all__ = ["HTTPDownload"]

_SMALL_ANSWER: Final = 64 * 1024
_RANGE = re.compile(rb"bytes ([0-9]{1,19})-([0-9]{1,19})/(?:[0-9]{1,19}|\*)\Z", re.IGNORECASE)


class HTTPDownload:
    """``Download`` over HTTP, and the ``async with`` block around it.

    With *end* only that part is asked for where the server has offered parts; elsewhere what comes after it is read
    and thrown away when it is little, and otherwise the connection is closed.
    """

    __slots__ = (
        "_body",
        "_end",
        "_key",
        "_left",
        "_line",
        "_name",
        "_offset",
        "_response",
        "_session",
        "_skip",
        "length",
        "valid",
    )

    def __init__(self, session: HTTPSession, key: Key, offset: int, end: int | None, associated_file: str) -> None:
        if offset < 0 or (end is not None and end < 0):
            raise InvalidInput("offset", min(offset, offset if end is None else end), "0 or more")
        self._session, self._key, self._offset, self._end = session, key, offset, end
        self._name = sent_name(associated_file)
        self._line: Line | None = None
        self._response: Response | None = None
        self.length = 0
        self.valid = True
        self._body = 0  # bytes that the server still sends
        self._left = 0  # bytes of them that are wanted
        self._skip = 0  # bytes of them that come before the wanted ones

    @property
    def source(self) -> UUID:
        return self._session.uuid

    async def __aenter__(self) -> Self:
        session, key = self._session, self._key
        await session.begin()
        if not session.settled:
            await session.settle(key)
        wanted = None if self._end is None else max(0, self._end - self._offset)
        if wanted == 0 or (key.size is not None and self._offset >= key.size):
            await self._nothing()
            return self
        ranged = (session.ranges or session.ours) and self._end is not None
        offset = 0 if ranged else self._offset
        request: Request = GetRequest(
            session.uuid, key, session.client, session.version, session.bypass, offset, self._name
        )
        more = [(b"Range", b"bytes=%d-%d" % (self._offset, (self._end or 0) - 1))] if ranged else []
        attempts = Attempts(session)
        while True:
            line = self._line = await session.pool.take(Use.TRANSFER)
            try:
                used = session.say(line, request, more)
                response = self._response = await line.response()
                if response.status in (200, 206):
                    session.heard(response)
                    await session.accepted()
                    await self._announced(response, ranged)
                    return self
                body = await response.body(_SMALL_ANSWER)
            except BaseException as error:
                await self._leave()
                if was_stale(line, error):
                    continue
                raise
            await self._leave()
            match response.status:
                case 404 if session.settled:
                    raise KeyNotPresent(key, session.name)
                case 416:
                    await self._nothing()
                    return self
            request = await attempts.after(Said(request, used, response.status, response.headers, body))

    async def _nothing(self) -> None:
        """Nothing of it is wanted: is it there?"""
        if not await is_present(self._session, self._key):
            raise KeyNotPresent(self._key, self._session.name)

    async def _announced(self, response: Response, ranged: bool) -> None:
        session, key, offset, size = self._session, self._key, self._offset, self._key.size
        length = _length(session.name, response)
        if response.status == 206:
            match = _RANGE.match(response.headers.get(b"content-range", b""))
            if not ranged or match is None or int(match[1]) != offset or int(match[2]) - offset + 1 != length:
                raise RemoteProtocolError(
                    f"{session.name}: another part of the content than the one that was asked for"
                )
            if size is not None and length != min(self._end or size, size) - offset:
                raise VerificationFailed(key, session.name, f"it has {offset + length} of {size} bytes")
            self.length = self._body = self._left = length
            return
        first = 0 if ranged else offset  # where what it sends begins
        if size is not None and length > size - first:
            raise RemoteProtocolError(
                f"{session.name}: {length} bytes of {key} from byte {first}, which has {size} bytes"
            )
        if not length:
            await response.body(_SMALL_ANSWER)
            # So stock servers say that they have nothing; and all do of what is empty.
            await self._leave()
            await self._nothing()
        if size is not None and length < size - first:
            raise VerificationFailed(key, session.name, f"it has {first + length} of {size} bytes")
        self._body = length
        self._skip = min(offset - first, length)
        left = length - self._skip
        self.length = self._left = left if self._end is None else min(left, self._end - offset)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while self._left:
            chunk = await self._receive()
            if self._skip:
                skipped = min(self._skip, len(chunk))
                chunk = chunk[skipped:]
                self._skip -= skipped
                if not chunk:
                    continue
            if len(chunk) > self._left:
                chunk = chunk[: self._left]
            self._left -= len(chunk)
            if not self._left:
                await self._rest()
            return chunk
        raise StopAsyncIteration

    async def _receive(self) -> bytes:
        if self._response is None:
            raise LocalProtocolError("used outside of its async with block")
        chunk = await self._response.receive()
        self._body -= len(chunk)
        if not chunk:
            raise ContentChanged(self._key, self._session.name)
        if self._body < 0:
            raise RemoteProtocolError(f"{self._session.name}: more bytes than it announced")
        return chunk

    async def _rest(self) -> None:
        """All that is wanted is here. Read to the end of the answer, if it is not far."""
        response = self._response
        if self._body > CHUNK or response is None:
            return
        while self._body:
            await self._receive()
        if not response.done and await response.receive():
            raise RemoteProtocolError(f"{self._session.name}: more bytes than it announced")

    async def _leave(self) -> None:
        if self._line is not None:
            line, self._line = self._line, None
            await self._session.pool.give_back(line, Use.TRANSFER)  # closed, unless all was read

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()


def _length(name: str, response: Response) -> int:
    said = response.headers.get(DATA_LENGTH)
    if said is None:
        if response.length is None:
            raise RemoteProtocolError(f"{name}: content of no length")
        return response.length
    try:
        return parse_data_length(said)
    except InvalidInput as error:
        raise RemoteProtocolError(f"{name}: {error}") from error
